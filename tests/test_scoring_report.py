"""Tests heat maps and the report: its content, and its display and sorting in a browser."""

from __future__ import annotations

import html
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import moving_picture, run, save, write_folders, write_video
from skimage import data

import ssim_fused
from ssim_fused.scoring import compare
from ssim_fused.scoring.gallery import COLORS, GREY
from ssim_fused.scoring.provenance import command
from ssim_fused.scoring.rates import bit_rate


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    a, b = write_folders(tmp_path_factory.mktemp("report"))
    save(a / "alone.png", data.camera())
    return a, b


@pytest.fixture(scope="module")
def page(folders):
    path = folders[0].parent / "report.html"
    write_page(folders, path)
    return path


def write_page(folders, path):
    with pytest.MonkeyPatch.context() as at:
        at.setenv("SOURCE_DATE_EPOCH", "1700000000")
        code, _, _ = run("compare", *folders, "--metric", "ssim,psnr", "--report", path, "--db", "--fail-under", 0.9)
    assert code == 2  # one picture has no counterpart


class Reader(HTMLParser):
    """Collects the tags of a page with their attributes, and the rows of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        if tag == "table":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1].append(data.strip())


def test_a_map_shows_both_pictures_and_their_difference(tmp_path):
    clean = data.chelsea()[:120, :160]
    spoiled = clean.copy()
    spoiled[30:60, 40:80] = 255 - spoiled[30:60, 40:80]
    files = save(tmp_path / "x.png", clean), save(tmp_path / "y.png", spoiled)
    run("compare", *files, "--map", tmp_path / "maps")
    (written,) = (tmp_path / "maps").iterdir()
    assert written.name == "0_y.png"
    sheet = np.array(Image.open(written))
    assert np.array_equal(sheet[:120, :160], clean)
    assert np.array_equal(sheet[:120, 168 : 168 + 160], spoiled)
    heat = sheet[:120, 2 * 168 : 2 * 168 + 160].astype(int)
    x, y = (torch.from_numpy(p).movedim(-1, 0)[None].float() for p in (clean, spoiled))
    _, similarity = ssim_fused.structural_similarity_index_measure(y, x, data_range=255.0, return_full_image=True)
    from matplotlib import colormaps

    levels = ((1 - similarity[0].mean(0).clamp(0, 1)) * 255).round().int().numpy()
    assert np.abs(heat - (colormaps[COLORS](levels)[..., :3] * 255).round()).max() <= 12  # at most one level off
    assert heat[35:55, 45:75].mean() > 3 * heat[80:, 100:].mean() + 20


def test_maps_with_valid_padding_16_bits_and_luma(tmp_path):
    deep = data.camera()[:64, :64].astype(np.uint16) * 257
    files = save(tmp_path / "x.png", deep), save(tmp_path / "y.png", deep[::-1].copy())
    for options in ("--padding", "valid"), ("--luma", "matlab"), ("--crop", "4"):
        code, _, err = run("compare", *files, *options, "--map", tmp_path / options[1])
        assert code == 0, err
        sheet = np.array(Image.open(tmp_path / options[1] / "0_y.png"))
        if options[1] == "valid":
            assert (sheet[:5, -64:] == 128).all()  # no window is centred on these pixels
            assert not (sheet[5:-30, -59:-5] == 128).all()


def test_the_map_of_a_sequence_is_that_of_its_worst_frame(tmp_path):
    frames = moving_picture(6)
    spoiled = [255 - frame if number == 4 else frame for number, frame in enumerate(frames)]
    files = [str(write_video(tmp_path / f"{n}.mkv", f, "ffv1", "yuv444p")) for n, f in (("x", frames), ("y", spoiled))]
    compare(*files, map=str(tmp_path / "maps"))
    sheet = np.array(Image.open(tmp_path / "maps/0_y.png")).astype(int)
    height, width = frames[0].shape[:2]
    assert np.abs(sheet[:height, :width] - frames[4]).mean() < 4
    assert np.abs(sheet[:height, width + 8 : 2 * width + 8] - spoiled[4]).mean() < 4


def test_a_report_does_not_shrink_the_maps(tmp_path):
    clean = np.tile(data.camera(), (1, 2))[:64, :1000]
    spoiled = clean.copy()
    spoiled[:, 500:] = 255 - spoiled[:, 500:]
    files = save(tmp_path / "x.png", clean), save(tmp_path / "y.png", spoiled)
    drawn = []
    for options in ((), ("--report", tmp_path / "r.html")):
        assert run("compare", *files, "--map", tmp_path / f"m{len(options)}", *options)[0] == 0
        drawn.append(np.array(Image.open(tmp_path / f"m{len(options)}/0_y.png")))
    assert np.array_equal(*drawn)
    assert drawn[0][:64, -40:].mean() > 60  # different up to the border


def test_maps_have_a_color_scale_and_grey_masked_pixels(tmp_path):
    clean, mask = data.chelsea()[:120, :160], np.full((120, 160), 255, np.uint8)
    spoiled = clean.copy()
    spoiled[30:60, 40:80] = 255 - spoiled[30:60, 40:80]
    mask[:, :20] = 0
    files = [save(tmp_path / f"{n}.png", p) for n, p in (("x", clean), ("y", spoiled), ("m", mask))]
    assert run("compare", *files[:2], "--mask", files[2], "--map", tmp_path / "maps")[0] == 0
    sheet = np.array(Image.open(tmp_path / "maps/0_y.png"))
    heat, left = sheet[:120, 2 * 168 :], 2 * 168
    from matplotlib import colormaps

    palette = (colormaps[COLORS](np.arange(256))[:, :3] * 255).round()
    assert (heat[:, :20] == GREY).all()
    assert np.abs(palette - GREY).max(1).min() > 20
    assert np.abs(heat[100:, 100:].astype(int) - palette[0]).max() < 30  # equal pixels are dark, not grey
    size = 12
    bar = sheet[120 + 2 * size + 4, left : left + 160].astype(int)
    assert np.abs(bar[0] - palette[0]).max() <= 2
    assert np.abs(bar[-1] - palette[-1]).max() <= 2
    below = sheet[120 + 3 * size + 2 :, left:]
    assert (below[:, :12] < 100).any()  # "0"
    assert (below[:, -12:] < 100).any()  # "1"


def test_a_map_folder_that_cannot_be_created(folders, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("compare", *folders, "--map", tmp_path / "file/maps")
    assert code == 2
    assert "--map" in err


def test_report_is_complete_and_self_contained(page, folders):
    text = page.read_text()
    reader = Reader(text)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "http" not in re.sub(
        r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>|<!DOCTYPE svg[^>]*>', "", text, flags=re.S
    )
    assert "3 pairs scored" in text
    assert "Summary, over all pictures" in text
    assert "1 not scored" in text
    assert f"{folders[1]} has no file with this name" in text
    assert ["mean", "min", "p1", "p5", "median", "max"] in reader.rows
    scores = [pair["ssim"] for pair in compare(*map(str, folders))["pairs"]]
    table = [row for row in reader.rows if row and row[0].startswith(str(folders[0])) and len(row) >= 5]
    assert [float(row[-3]) for row in table] == pytest.approx(sorted(scores), abs=1e-4)  # lowest score first
    assert sum(tag == "article" for tag, _ in reader.tags) == 3
    assert sum(tag == "svg" for tag, _ in reader.tags) == 2  # one for a screen, one for a phone
    order = [text.index(f"<h2>{title}") for title in ("Summary", "Distribution", "Pairs", "The worst")]
    assert order == sorted(order)


def test_report_states_inputs_date_command_and_settings(page, folders):
    text = page.read_text()
    assert f"<h1>{folders[1]} against {folders[0]}</h1>" in text
    assert f"<title>ssim: {folders[1]} against {folders[0]}</title>" in text
    assert "2023-11-14 22:13 UTC" in text
    assert html.escape(command(), quote=True).replace("&#x27;", "&#39;") in text
    assert f"ssim_fused {ssim_fused.__version__}" in text
    low = sum(pair["ssim"] < 0.9 for pair in compare(*map(str, folders))["pairs"])
    assert f"{low} below ssim 0.9" in text
    assert text.count("(below ssim 0.9)") == low > 0


def test_report_escapes_names(tmp_path):
    path = save(tmp_path / "<b>&x.png", data.camera()[:50, :50])
    run("compare", path, path, "--report", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "<b>&x" not in text
    assert "&lt;b&gt;&amp;x.png" in text


def test_report_of_a_video_plots_its_frames(tmp_path):
    frames = moving_picture(8)
    x, y = (write_video(tmp_path / f"{c}.mp4", frames, crf=c) for c in (10, 40))
    assert run("compare", x, y, "--luma", "bt601", "--report", tmp_path / "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert "ssim over frames" in text
    lowest = min(frame["ssim"] for frame in compare(str(x), str(y), luma=True, per_frame=True)["pairs"][0]["frames"])
    assert re.search(rf"the images show the worst frame, \d, with ssim {lowest:.4f}", text)
    assert "Summary, over all frames" in text


@pytest.mark.parametrize("name", ["$\\frac{$", "_underscore", "two\nlines", "$x$ ^_{", "</svg><b>"])
def test_report_does_not_typeset_names_as_mathematics(tmp_path, name):
    frames = moving_picture(3)
    source, *encodes = (write_video(tmp_path / f"{c}.mp4", frames, crf=c) for c in (5, 20, 40))
    folder = tmp_path / "named"
    folder.mkdir()
    encodes = [path.rename(folder / f"{name.replace('/', '')}{path.name}") for path in encodes]
    code, _, err = run("compare", source, *encodes, "--luma", "bt601", "--report", tmp_path / "r.html")
    assert (code, err) == (0, "")
    text = (tmp_path / "r.html").read_text()
    reader = Reader(text)
    assert sum(tag == "svg" for tag, _ in reader.tags) == 6
    assert not any(tag == "b" for tag, _ in reader.tags if name.startswith("<")) or text.count("<svg><b>") == 0
    assert text.count("<li>") == 2  # both are in the legend of the curves


def test_bit_rates_are_those_of_the_video_stream(tmp_path):
    path = write_video(tmp_path / "x.mp4", moving_picture(25), crf=30)
    with av.open(str(path)) as container:
        size = sum(packet.size for packet in container.demux(video=0))
    assert bit_rate(str(path)) == pytest.approx(8 * size / 1000, rel=0.01)  # the video lasts one second
    assert bit_rate(str(tmp_path / "gone.mp4")) is None


def test_report_without_any_scored_pair(tmp_path):
    path = save(tmp_path / "x.png", data.camera()[:50, :50])
    assert run("compare", path, path, "--metric", "ms-ssim", "--report", tmp_path / "r.html")[0] == 2
    assert "0 pairs scored" in (tmp_path / "r.html").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_and_sorts_it(page, scheme):
    api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs a Chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        messages = []
        view.on("console", lambda message: messages.append(message.text))
        view.on("pageerror", lambda error: messages.append(str(error)))
        view.on("request", lambda request: messages.append(request.url) if request.url.startswith("http") else None)
        view.goto(page.as_uri())

        def column(number):
            return view.locator(f"#pairs tbody td:nth-child({number})").all_text_contents()

        worst_first = column(3)
        assert worst_first == sorted(worst_first)
        # On a phone, the reference is shown below the distorted path, so that the score stays visible.
        assert not view.locator("#pairs th:nth-child(1)").is_visible()
        score = view.locator("#pairs tbody td:nth-child(3)").first.bounding_box()
        assert score["x"] + score["width"] <= 390
        view.click("#pairs th:nth-child(3) button")
        assert column(3) == worst_first[::-1]
        view.click("#pairs th:nth-child(2) button")
        assert column(2) == sorted(column(2))
        view.locator("input[type=range]").first.fill("20")
        assert view.locator(".slider").first.evaluate("e => e.style.getPropertyValue('--at')") == "20%"
        broken = view.evaluate("[...document.images].filter(i => !i.naturalWidth).length")
        assert broken == 0
        assert view.evaluate("document.documentElement.scrollWidth") <= 390  # no horizontal scrolling on a phone
        cells = view.locator(".summary td").all()
        boxes = [cell.bounding_box() for cell in cells]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        below = "figure => figure.querySelector('figcaption').offsetTop - figure.offsetTop"
        captions = f"[...document.querySelectorAll('.pictures')].map(row => [...row.children].map({below}))"
        assert all(len(set(row)) == 1 for row in view.evaluate(captions))
        ink, paper = (view.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
        brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ink, paper)]
        assert (brightness[0] > brightness[1]) == (scheme == "dark")
        assert messages == []
        chromium.close()


def test_reports_are_reproducible(page, folders, tmp_path):
    again = tmp_path / "again.html"
    write_page(folders, again)
    assert again.read_bytes() == Path(page).read_bytes()
