"""Tests combinations of pictures, animations, videos, options and outputs in one run."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from scoring_files import moving_picture, run, save, write_video

from ssim_fused.scoring import compare
from ssim_fused.scoring.pairs import is_video
from ssim_fused.scoring.rates import bit_rate

PLANES = {"ssim-y", "ssim-u", "ssim-v"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Writes the same frames as videos, an animation and a folder."""
    folder = tmp_path_factory.mktemp("together")
    frames = moving_picture(4)
    for name, crf in (("r.mkv", 5), ("d.mp4", 35)):
        write_video(folder / name, frames, crf=crf)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(folder / "an.gif", save_all=True, append_images=images[1:])
    for number, frame in enumerate(frames):
        save(folder / f"frames/{number}.png", frame)
    return folder


def columns(*arguments):
    code, out, _ = run("compare", *arguments, "--format", "csv")
    assert code == 0
    return set(next(csv.reader(io.StringIO(out))))


def test_only_two_videos_have_columns_of_planes(files):
    assert columns(files / "r.mkv", files / "d.mp4") > PLANES
    for reference, distorted in (("r.mkv", "an.gif"), ("an.gif", "d.mp4"), ("r.mkv", "frames"), ("an.gif", "an.gif")):
        assert not PLANES & columns(files / reference, files / distorted)
    for option in ("--luma", "--rgb"):
        assert not PLANES & columns(files / "r.mkv", files / "d.mp4", option)


def test_files_with_unknown_extensions_are_recognized_by_content(files, tmp_path):
    for name, video in (("an.gif", False), ("frames/0.png", False), ("d.mp4", True)):
        for ending in ("", ".weird"):
            path = str(tmp_path / f"file{ending}")
            shutil.copy(files / name, path)
            assert is_video(path) is video
    shutil.copy(files / "an.gif", tmp_path / "file")
    assert compare(str(files / "an.gif"), str(tmp_path / "file"), per_frame=True)["pairs"][0]["frames"][3]["ssim"] == 1


def test_pictures_and_videos_of_a_folder_in_every_format(files, tmp_path):
    for side, video in (("a", "r.mkv"), ("b", "d.mp4")):
        (tmp_path / side).mkdir()
        shutil.copy(files / video, tmp_path / side / f"v{video[-4:]}")
        shutil.copy(files / "frames/0.png", tmp_path / side / "p.png")
    sides = tmp_path / "a", tmp_path / "b"
    code, out, _ = run("compare", *sides, "--format", "json")
    result = json.loads(out)
    assert code == 0
    picture, video = result["pairs"]
    assert picture["ssim"] == 1
    assert not PLANES & picture.keys()
    assert video.keys() > PLANES
    assert result["pooled"]["ssim-y"]["mean"] == pytest.approx(video["ssim-y"], rel=1e-6)
    for form in ("table", "markdown", "csv", "jsonl"):
        code, out, _ = run("compare", *sides, "--format", form)
        assert code == 0
        assert out.count(f"{video['ssim-y']:.5f}") >= 1
    code, _, _ = run("compare", *sides, "--report", tmp_path / "r.html", "--map", tmp_path / "maps")
    assert code == 0
    page = (tmp_path / "r.html").read_text()
    assert "ssim-y" in page
    assert f"{video['ssim-v']:.4f}" in page
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_notes_reach_standard_error_the_rows_and_the_report(files, tmp_path):
    deep = write_video(tmp_path / "deep.mkv", moving_picture(4), "ffv1", "yuv420p10le")
    code, out, err = run("compare", files / "r.mkv", deep, "--format", "jsonl", "--report", tmp_path / "r.html")
    assert code == 0
    [note] = json.loads(out)["notes"]
    assert f"note: {note}" in err
    assert note in (tmp_path / "r.html").read_text()


def test_a_rectangle_of_videos_equals_a_mask_and_is_recorded(files, tmp_path):
    pair = str(files / "r.mkv"), str(files / "d.mp4")
    mask = np.full(moving_picture(1)[0].shape[:2], 255, np.uint8)
    mask[11:60, 21:80] = 0
    save(tmp_path / "m.png", mask)
    ignored = compare(*pair, ignore=[(21, 11, 59, 49)], metric=("ssim", "psnr"))
    assert ignored["pairs"] == compare(*pair, mask=str(tmp_path / "m.png"), metric=("ssim", "psnr"))["pairs"]
    assert json.loads(json.dumps(ignored["settings"]))["ignore"] == [[21, 11, 59, 49]]
    code, _, err = run("compare", *pair, "--ignore", "0,0,4,4", "--convention", "ffmpeg")
    assert code == 2
    assert "ignore" in err


def test_results_record_how_videos_were_compared(files, tmp_path):
    pair = files / "r.mkv", files / "d.mp4"
    for options, words in (
        ((), "RGB (Y, U and V for two videos)"),
        (("--rgb",), ", RGB, range"),
        (("--luma",), "luma bt601"),
        (("--align", "pts"), "matched by time"),
    ):
        code, out, _ = run("compare", *pair, *options, "--format", "markdown")
        assert code == 0
        assert words in re.sub(r"\\", "", out.splitlines()[-1])


def test_ranges_of_float_pictures_are_recorded(tmp_path):
    pixels = np.random.default_rng(0).random((40, 50)).astype(np.float32) * 4
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    tifffile.imwrite(tmp_path / "b.tif", pixels * np.float32(0.9))
    code, out, _ = run("compare", tmp_path / "a.tif", tmp_path / "b.tif", "--data-range", "4", "--format", "jsonl")
    assert code == 0
    assert json.loads(out)["settings"]["data_range"] == [4]
    assert "max_pixels" not in json.loads(out)["settings"]


def test_bit_rates_are_those_of_videos(files):
    assert bit_rate(str(files / "d.mp4")) > 0
    for name in ("an.gif", "frames", "frames/0.png"):
        assert bit_rate(str(files / name)) is None
