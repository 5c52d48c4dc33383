"""Tests ``--mask``, a picture or a folder of pictures that weights the pixels, and ``--ignore``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import moving_picture, run, save, write_folders, write_video

import ssim_fused
from ssim_fused.scoring import compare

SIDE = 200


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    a, b = write_folders(folder, SIDE)
    disc = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2)) < 80
    return a, b, save(folder / "disc.png", (disc * 255).astype(np.uint8))


def expected(pair, mask, function, **arguments):
    x, y = (
        torch.from_numpy(np.array(Image.open(pair[k]))).movedim(-1, 0)[None].double()
        for k in ("reference", "distorted")
    )
    return function(y, x, data_range=255.0, mask=mask, **arguments).item()


def test_a_mask_for_all_pairs(files):
    a, b, path = files
    mask = torch.from_numpy(np.array(Image.open(path)))[None, None].double() / 255
    result = compare(str(a), str(b), mask=str(path), metric=("ssim", "ms-ssim", "psnr"))
    assert len(result["pairs"]) == 3
    for pair in result["pairs"]:
        assert pair["ssim"] == pytest.approx(
            expected(pair, mask, ssim_fused.structural_similarity_index_measure), abs=1e-6
        )
        multiscale = expected(pair, mask, ssim_fused.multiscale_structural_similarity_index_measure)
        assert pair["ms-ssim"] == pytest.approx(multiscale, abs=1e-6)
        x, y = (
            np.array(Image.open(pair[k])).astype(float)[mask[0, 0].bool().numpy()] for k in ("reference", "distorted")
        )
        assert pair["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((x - y) ** 2)), rel=1e-6)


def test_masked_pixels_do_not_affect_the_score(files, tmp_path):
    a, _, path = files
    mask = np.array(Image.open(path))
    spoiled = np.array(Image.open(a / "sub1/cat.png"))
    spoiled[mask == 0] = 255 - spoiled[mask == 0]
    other = save(tmp_path / "spoiled.png", spoiled)
    score = compare(str(a / "sub1/cat.png"), str(other), mask=str(path), metric=("ssim", "psnr"))["pairs"][0]
    assert (score["ssim"], score["psnr"]) == (1.0, None)
    assert compare(str(a / "sub1/cat.png"), str(other))["pairs"][0]["ssim"] < 0.8


def test_a_folder_of_masks(files, tmp_path):
    a, b, path = files
    white = np.full((SIDE, SIDE), 255, np.uint8)
    save(tmp_path / "m/sub1/cat.png", np.array(Image.open(path)))
    save(tmp_path / "m/sub0/coffee.png", white)
    code, out, _ = run("compare", a, b, "--mask", tmp_path / "m", "--format", "json")
    result = json.loads(out)
    assert code == 2
    assert [failure["error"] for failure in result["failed"]] == [
        f"--mask {tmp_path}/m has no picture with the name 'astronaut'"
    ]
    coffee, cat = result["pairs"]
    unmasked = {pair["reference"]: pair["ssim"] for pair in compare(str(a), str(b))["pairs"]}
    assert coffee["ssim"] == pytest.approx(unmasked[coffee["reference"]], abs=1e-6)
    same = compare(cat["reference"], cat["distorted"], mask=str(path))["pairs"][0]["ssim"]
    assert cat["ssim"] == same != unmasked[cat["reference"]]


def test_a_listed_mask_and_a_crop(files, tmp_path):
    a, b, path = files
    listing = tmp_path / "list.csv"
    listing.write_text(f"{a}/sub1/cat.png,{b}/sub1/cat.jpg,{path}\n{a}/sub1/cat.png,{b}/sub1/cat.jpg,\n")
    masked, unmasked = (pair["ssim"] for pair in compare(pairs=str(listing))["pairs"])
    assert masked == compare(f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg", mask=str(path))["pairs"][0]["ssim"]
    assert unmasked == compare(f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg")["pairs"][0]["ssim"]
    assert compare(pairs=str(listing), crop=10)["failed"] == []


def test_masks_of_a_wrong_size_and_black_masks_are_errors(files, tmp_path):
    a, b, _ = files
    small, black = (save(tmp_path / f"{s}.png", np.zeros((s, s), np.uint8)) for s in (50, SIDE))
    pair = f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg"
    for mask, reason in ((small, "the mask has 50x50 pixels"), (black, "black everywhere")):
        assert reason in compare(*pair, mask=str(mask))["failed"][0]["error"]


def test_a_video_and_a_map_with_a_mask(tmp_path):
    frames = moving_picture(4)
    x, y = (str(write_video(tmp_path / f"{crf}.mp4", frames, crf=crf)) for crf in (8, 38))
    half = np.zeros(frames[0].shape[:2], np.uint8)
    half[:, 100:] = 255
    mask = str(save(tmp_path / "half.png", half))
    masked = compare(x, y, luma="bt601", mask=mask, map=str(tmp_path / "maps"))
    assert masked["failed"] == []
    assert masked["pairs"][0]["ssim"] != compare(x, y, luma="bt601")["pairs"][0]["ssim"]
    (drawn,) = (tmp_path / "maps").iterdir()
    heat = np.array(Image.open(drawn))[: half.shape[0], 2 * (half.shape[1] + 8) :]
    assert (heat[:, :90] == heat[0, 0]).all()  # windows without visible pixels have an SSIM of 1
    assert not (heat[:, 120:] == heat[0, 0]).all()


CLOCK = (10, 20, 60, 30)


@pytest.fixture
def spoiled(files, tmp_path):
    """Writes a picture, and the same picture with two rectangles inverted."""
    a, _, _ = files
    pixels = np.array(Image.open(a / "sub1/cat.png"))
    for x, y, w, h in (CLOCK, (150, 150, 50, 50)):
        pixels[y : y + h, x : x + w] = 255 - pixels[y : y + h, x : x + w]
    return str(a / "sub1/cat.png"), str(save(tmp_path / "spoiled.png", pixels))


def test_ignored_rectangles_do_not_affect_scores(spoiled, tmp_path):
    metrics = "--metric", "ssim,ms-ssim,psnr", "--format", "json"
    code, out, _ = run("compare", *spoiled, "--ignore", "10,20,60,30", "--ignore", "150,150,50,50", *metrics)
    (pair,) = json.loads(out)["pairs"]
    assert code == 0
    assert (pair["ssim"], pair["ms-ssim"], pair["psnr"]) == (1.0, 1.0, None)
    code, out, _ = run("compare", *spoiled, "--ignore", "10,20,60,30", *metrics)
    assert json.loads(out)["pairs"][0]["ssim"] < 0.98
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[150:, 150:] = 0
    path = str(save(tmp_path / "mask.png", mask))
    assert compare(*spoiled, mask=path, ignore=[CLOCK])["pairs"][0]["ssim"] == 1.0
    assert compare(*spoiled, ignore=[CLOCK], crop=50)["pairs"][0]["ssim"] == 1.0


def test_ignored_rectangles_equal_a_mask(files, tmp_path):
    a, b, _ = files
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[20:50, 10:70] = 0
    masked = compare(str(a), str(b), mask=str(save(tmp_path / "mask.png", mask)), crop=5)
    assert compare(str(a), str(b), ignore=[CLOCK], crop=5)["pairs"] == masked["pairs"]


def test_ignored_rectangles_apply_to_videos(tmp_path):
    frames = moving_picture(4)
    spoiled = [frame.copy() for frame in frames]
    for frame in spoiled:
        frame[40:80, 60:100] = 0
    x, y = (str(write_video(tmp_path / f"{k}.mkv", f, codec="ffv1")) for k, f in enumerate((frames, spoiled)))
    assert compare(x, y, ignore=[(58, 38, 44, 44)])["pairs"][0]["ssim"] == 1.0
    assert compare(x, y)["pairs"][0]["ssim"] < 0.99


@pytest.mark.parametrize(("rectangle", "error"), [("190,0,11,5", "190,0,11,5 does not fit into the picture of 200x200"),
                                                  ("0,0,200,200", "exclude all pixels")])  # fmt: skip
def test_rectangles_outside_of_the_picture_are_errors(spoiled, rectangle, error):
    code, _, err = run("compare", *spoiled, "--ignore", rectangle)
    assert code == 2
    assert error in err


@pytest.mark.parametrize("rectangle", ["1,2,3", "1,2,3,x", "1,2,3,4,5", "1.5,2,3,4", "1,2,0,4", "-1,2,3,4"])
def test_invalid_rectangles_are_usage_errors(spoiled, rectangle):
    code, _, err = run("compare", *spoiled, f"--ignore={rectangle}")
    assert code == 2
    assert rectangle in err


def test_the_report_lists_the_ignored_rectangles(spoiled, tmp_path):
    code, _, _ = run("compare", *spoiled, "--ignore", "10,20,60,30", "--report", tmp_path / "report.html")
    assert code == 0
    assert "x=10 y=20 w=60 h=30" in (tmp_path / "report.html").read_text()
