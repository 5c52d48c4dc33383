"""Tests the destinations of results (files, devices, pipes), their provenance, and pooling per input."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from scoring_files import moving_picture, run, save, write_folders, write_video
from skimage import data

import ssim_fused
from ssim_fused.scoring import compare
from ssim_fused.scoring.destination import Destination
from ssim_fused.scoring.pool import pool

COMMAND = f"{sys.executable} -m ssim_fused compare"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("outputs"), 64)


def shell(script: str, folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "S": COMMAND}
    return subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, timeout=120)


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_a_link_is_followed_and_permissions_are_kept(folders, tmp_path, option):
    target = tmp_path / "real/result"
    target.parent.mkdir()
    target.write_text("before")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to("real/result")
    assert run("compare", *folders, option, tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert target.stat().st_size > 100
    assert target.stat().st_mode & 0o7777 == 0o640
    assert [path.name for path in target.parent.iterdir()] == ["result"]


def test_a_link_to_a_file_that_does_not_exist_yet(folders, tmp_path):
    (tmp_path / "link").symlink_to("new.txt")
    assert run("compare", *folders, "--output", tmp_path / "link")[0] == 0
    assert (tmp_path / "new.txt").read_text().startswith("reference")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("option", ["--output", "--report"])
def test_a_fifo_is_written_to_directly(folders, tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "fifo").read_text()))
    reader.start()
    assert run("compare", *folders, option, tmp_path / "fifo")[0] == 0
    reader.join()
    assert "coffee" in read[0]
    assert (tmp_path / "fifo").is_fifo()


def test_devices_are_written_to_directly(folders):
    assert run("compare", *folders, "--output", "/dev/null", "--report", "/dev/null") == (0, "", "")
    assert Path("/dev/null").is_char_device()
    code, _, err = run("compare", *folders, "--output", "/dev/full")
    assert (code, err.count("\n"), "No space left" in err) == (2, 1, True)


def test_an_output_in_a_folder_without_write_permission(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("a longer text than before")
    access = os.access

    def refusing(path, mode):  # simulated, because root may write everywhere
        return str(path) != str(tmp_path) and access(path, mode)

    monkeypatch.setattr("ssim_fused.scoring.destination.os.access", refusing)
    target = Destination(str(tmp_path / "x"))
    target.write("é\n")
    assert (tmp_path / "x").read_text() == "a longer text than before"
    target.close()
    assert (tmp_path / "x").read_text(encoding="utf-8") == "é\n"


@pytest.mark.parametrize("option", ["--output", "--report", "--map"])
@pytest.mark.parametrize("path", ["missing/file", ".", "file/below", "x" * 300, "null\0byte"])
def test_unwritable_outputs_are_detected_before_scoring(folders, tmp_path, monkeypatch, option, path):
    if option == "--map" and path in ("missing/file", "."):
        pytest.skip("the map folder is created")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssim_fused.scoring.decoding.read_picture", lambda *_: pytest.fail("scoring has started"))
    code, out, err = run("compare", *folders, option, path)
    assert (code, err.count("\n")) == (2, 1)
    assert out == "" or option == "--map"
    assert [name.name for name in tmp_path.iterdir()] == ["file"]


def test_inputs_and_other_results_are_not_overwritten(folders, tmp_path):
    picture = save(tmp_path / "x.png", data.camera()[:32, :32])
    before = picture.read_bytes()
    (tmp_path / "link.png").symlink_to("x.png")
    for arguments in (
        (picture, picture, "--output", picture),
        (picture, picture, "--report", tmp_path / "link.png"),
        (tmp_path, tmp_path, "--output", picture),
    ):
        code, _, err = run("compare", *arguments)
        assert (code, "which the results would overwrite" in err) == (2, True)
    code, _, err = run("compare", *folders, "--output", tmp_path / "y", "--report", tmp_path / "y")
    assert (code, "give two different files" in err) == (2, True)
    assert picture.read_bytes() == before
    assert not (tmp_path / "y").exists()


def test_a_report_that_fails_does_not_lose_the_results(folders, tmp_path):
    code, _, err = run("compare", *folders, "--report", "/dev/full", "--output", tmp_path / "scores")
    assert (code, err.count("\n")) == (2, 1)
    assert (tmp_path / "scores").read_text().endswith("3 pairs scored\n")


def test_standard_output_that_is_full_closed_or_without_reader(folders):
    done = shell(
        """
        $S a b > /dev/full; echo "full $?" >&2
        $S a b >&-; echo "closed $?" >&2
        $S --help > /dev/full; echo "help $?" >&2
        $S a b --report r.html --fail-under .99 | head -1; echo "head ${PIPESTATUS[0]}" >&2
        """,
        folders[0].parent,
    )
    assert done.stderr.decode().splitlines()[:6] == [
        "ssim-fused: standard output cannot be written: No space left on device.",
        "full 2",
        "ssim-fused: standard output is closed; give --output FILE.",
        "closed 2",
        "ssim-fused: [Errno 28] No space left on device",
        "help 2",
    ]
    assert done.stderr.decode().splitlines()[-1] == "head 1"
    assert "3 pairs scored" in (folders[0].parent / "r.html").read_text()


def test_a_reader_that_exits_early_does_not_end_a_run_with_a_report(folders, tmp_path):
    """The table is longer than the buffer of a pipe, so that writing fails long before the last pair."""
    picture = save(tmp_path / "x.png", data.camera()[:16, :16])
    (tmp_path / "list.csv").write_text("x.png,x.png\n" * 2000)
    save(tmp_path / "y.png", 255 - data.camera()[:16, :16])
    with open(tmp_path / "list.csv", "a") as file:
        file.write("x.png,y.png\n")
    script = "$S --pairs list.csv --format jsonl --report r.html --fail-under .9 | head -1; echo ${PIPESTATUS[0]} >&2"
    done = shell(script, tmp_path)
    assert done.stderr.decode().splitlines()[-1] == "1"
    assert "2001 pairs scored" in (tmp_path / "r.html").read_text()
    assert picture.exists()


def test_a_reader_of_both_streams_that_exits_does_not_change_the_status(tmp_path):
    save(tmp_path / "x.png", data.camera()[:16, :16])
    (tmp_path / "list.csv").write_text("x.png,gone.png\n" * 3000 + "x.png,x.png\n")
    script = "$S --pairs list.csv --output scores 2>&1 | head -1; echo ${PIPESTATUS[0]} >&2"
    done = shell(script, tmp_path)
    assert done.stderr.decode().splitlines()[-1] == "2"
    assert (tmp_path / "scores").read_text().endswith("1 pair scored, 3000 not scored\n")


def test_each_distorted_input_is_pooled_by_itself(folders, tmp_path):
    frames = moving_picture(6)
    source, *encodes = (str(write_video(tmp_path / f"{c}.mp4", frames, crf=c)) for c in (5, 20, 40))
    options = {"luma": "bt601", "pool": ("min", "mean", "p5"), "per_frame": True}
    result = compare(source, encodes, **options)
    assert "pooled" not in result  # one number for two encodes would be meaningless
    assert [one["distorted"] for one in result["inputs"]] == encodes
    for one, pair, path in zip(result["inputs"], result["pairs"], encodes, strict=True):
        scores = [frame["ssim"] for frame in pair["frames"]]
        assert one["pooled"]["ssim"] == {name: pytest.approx(pool(name, scores), abs=1e-6) for name in options["pool"]}
        alone = compare(source, path, **options)
        assert alone["pooled"] == one["pooled"]
        assert alone["inputs"] == [one]
    means = [one["pooled"]["ssim"]["mean"] for one in result["inputs"]]
    assert means[0] > means[1] + 0.01
    arguments = source, *encodes, "--luma", "bt601", "--pool", "mean,min"
    _, out, _ = run("compare", *arguments)
    pooled = [line.split() for line in out.splitlines() if line.startswith(("mean", "min"))]
    assert [row[0] for row in pooled] == ["mean", "min"] * 2
    assert [float(row[2]) for row in pooled[::2]] == pytest.approx(means, abs=1e-6)
    _, out, _ = run("compare", *arguments, "--format", "markdown", "--report", tmp_path / "r.html")
    assert all(f"{mean:.6f}" in out for mean in means)
    page = (tmp_path / "r.html").read_text()
    assert "Rate and distortion: ssim against bit rate" in page
    assert all(f"<small>{path}</small>" in page for path in encodes)


def test_folders_are_inputs_and_so_is_a_list(folders, tmp_path):
    a, b = folders
    result = compare(str(a), [str(b), str(a)])
    assert [(one["distorted"], one["pairs"]) for one in result["inputs"]] == [(str(b), 3), (str(a), 3)]
    assert result["inputs"][1]["pooled"]["ssim"]["mean"] == 1
    listing = tmp_path / "list.csv"
    listing.write_text(f"{a}/sub1/cat.png,{b}/sub1/cat.jpg\n{a}/sub1/cat.png,gone.png\n")
    (one,) = compare(pairs=str(listing))["inputs"]
    assert (one["distorted"], one["pairs"], one["failed"]) == (str(listing), 1, 1)


MADE = {"version": ssim_fused.__version__, "convention": "skimage", "luma": "bt709", "crop": 3, "device": "cpu",
        "kernel_size": 7, "window": "uniform", "padding": "valid", "sample_covariance": True, "resize": False,
        "metric": ["ssim", "psnr"], "pool": ["mean", "p5"], "frames": None}  # fmt: skip


def test_every_format_records_the_settings(folders, tmp_path):
    a, b = folders
    mask = save(tmp_path / "mask.png", np.full((64, 64), 255, np.uint8))
    deep = save(tmp_path / "deep.png", data.camera()[:64, :64].astype(np.uint16) * 257)
    options = ("--convention", "skimage", "--luma", "bt709", "--crop", "3", "--mask", mask, "--device", "cpu",
               "--metric", "ssim,psnr", "--pool", "mean,p5")  # fmt: skip
    made = MADE | {"mask": str(mask), "data_range": [255]}

    def written(form, *files):
        run("compare", *files, *options, "--format", form, "--output", tmp_path / f"x.{form}")
        return (tmp_path / f"x.{form}").read_text()

    assert made.items() <= json.loads(written("json", a, b))["settings"].items()
    assert all(made.items() <= json.loads(line)["settings"].items() for line in written("jsonl", a, b).splitlines())
    rows = list(csv.DictReader(written("csv", a, b).splitlines()))
    assert [list(row) for row in rows] == [["reference", "distorted", "ssim", "psnr", "error"]] * 3
    sidecar = json.loads((tmp_path / "x.csv-metadata.json").read_text())
    assert made.items() <= sidecar["settings"].items()
    assert set(sidecar["pooled"]) == {"ssim", "psnr"}
    assert json.loads(written("json", deep, deep))["settings"]["data_range"] == [65535]
    for form in ("markdown", "html"):
        if form == "html":
            run("compare", a, b, *options, "--report", tmp_path / "x.html")
        text = (tmp_path / "x.html").read_text() if form == "html" else written(form, a, b).replace("\\", "")
        for part in (f"ssim_fused {ssim_fused.__version__}", "skimage", "luma bt709", "range 255", str(mask),
                     "3 pixels cropped from each side", "on cpu", "uniform window of 7x7"):  # fmt: skip
            assert part in text


def test_fail_under_marks_and_counts_rows(folders):
    a, b = folders
    scores = sorted(pair["ssim"] for pair in compare(str(a), str(b))["pairs"])
    bound = (scores[0] + scores[1]) / 2
    arguments = a, b, "--fail-under", bound
    code, out, err = run("compare", *arguments)
    assert code == 1
    assert sum(line.endswith(f"< {bound:g}") for line in out.splitlines()) == 1
    assert err == (
        f"ssim-fused: 1 of 3 scored pairs have ssim below --fail-under {bound:g}; lowest {scores[0]:.6f}: "
        f"{next(p['distorted'] for p in compare(str(a), str(b))['pairs'] if p['ssim'] == scores[0])}\n"
    )
    pairs = json.loads(run("compare", *arguments, "--format", "json")[1])["pairs"]
    assert [pair["below"] for pair in pairs] == [pair["ssim"] < bound for pair in pairs]
    rows = csv.DictReader(run("compare", *arguments, "--format", "csv")[1].splitlines())
    assert [row["below"] for row in rows] == [str(pair["below"]) for pair in pairs]
    text = run("compare", *arguments, "--format", "markdown")[1]
    assert text.startswith(f"### 3 pairs scored, 1 below ssim {bound:g} ❌\n")
    assert text.count("** ❌") == 1
    assert "none below ssim 0.1 ✅" in run("compare", a, b, "--fail-under", 0.1, "--format", "markdown")[1]


@pytest.mark.parametrize(("metric", "bound"), [("ssim", "90"), ("ms-ssim", "1.01"), ("ssim", "nan"), ("psnr", "inf")])
def test_fail_under_outside_of_the_metric_s_range_is_refused(folders, metric, bound):
    code, out, err = run("compare", *folders, "--metric", metric, "--fail-under", bound)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_nan_score_is_an_error(folders, monkeypatch):
    scored = "ssim_fused.scoring.measure.Measure.__call__"
    monkeypatch.setattr(scored, lambda self, x, *others: [{"ssim": float("nan")} for _ in x])
    code, out, err = run("compare", *folders, "--fail-under", 0.5)
    assert code == 2
    assert out.endswith("0 pairs scored, 3 not scored\n")
    assert "is NaN; expected a number" in err


def test_markdown_escapes_names(tmp_path):
    name = "a|b`c*d_<e>&[f](g)#@h"
    path = save(tmp_path / f"{name}.png", data.camera()[:32, :32])
    _, out, _ = run("compare", path, path, "--format", "markdown")
    row = next(line for line in out.splitlines() if "1.000000" in line and "png" in line)
    assert "<" not in row
    assert row.replace("\\|", "").count("|") == 4
    assert r"\`c\*d\_&lt;e&gt;&amp;\[f\]\(g\)\#\@h" in row


def test_markdown_of_a_long_run_fits_into_a_job_summary(tmp_path):
    picture = save(tmp_path / "x.png", data.camera()[:16, :16])
    listing = tmp_path / "list.csv"
    listing.write_text(f"{picture},{picture}\n" * 300 + f"{picture},gone.png\n" * 300)
    _, out, _ = run("compare", "--pairs", listing, "--format", "markdown")
    assert out.startswith("### 300 pairs scored, 300 not scored\n")
    assert "200 of 300 pairs, lowest first" in out
    assert out.count("gone.png: No such file") == 200
