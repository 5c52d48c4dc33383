"""Tests that planes (Y, U, V or R, G, B) have columns exactly if the videos have them."""

from __future__ import annotations

import csv
import io
import os

import av
import numpy as np
import pytest
import torch
from scoring_files import moving_picture, run, write_frames

from ssim_fused.compat import ffmpeg
from ssim_fused.scoring import compare

KINDS = {"yuv": ("ffv1", "yuv420p"), "rgb": ("ffv1", "bgr0"), "grey": ("ffv1", "gray")}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Writes a reference and a distorted video of each kind."""
    folder, frames = tmp_path_factory.mktemp("columns"), moving_picture(3)
    noise = np.random.default_rng(0)
    worse = [np.clip(frame + noise.integers(-20, 20, frame.shape), 0, 255).astype(np.uint8) for frame in frames]
    made = {}
    for name, (codec, pixels) in KINDS.items():
        made[name] = []
        for k, side in enumerate((frames, worse)):
            shots = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in side]
            shots = [shot.reformat(format=pixels, dst_color_range=1, threads=1) for shot in shots]
            path = write_frames(folder / f"{name}{k}.mkv", shots, codec, pixels, prepare=of_limited_range)
            made[name].append(str(path))
    return made


def of_limited_range(stream):
    """Tags grey as limited range: untagged grey has full range, which is not compared with limited-range luma."""
    if stream.codec_context.pix_fmt != "bgr0":
        stream.codec_context.color_range = 1


def columns_of(text, format):
    if format == "csv":
        return next(csv.reader(io.StringIO(text)))
    line = next(line for line in text.splitlines() if line.lstrip("| ").startswith("reference"))
    return [word for word in line.replace("|", " ").split() if word]


@pytest.mark.parametrize("format", ["table", "csv", "markdown"])
@pytest.mark.parametrize(
    ("reference", "distorted", "planes"),
    [("yuv", "yuv", "yuv"), ("rgb", "rgb", "rgb"), ("grey", "grey", ""), ("yuv", "grey", ""), ("yuv", "rgb", "")],
)
def test_columns_are_those_of_the_planes_of_both_videos(videos, format, reference, distorted, planes):
    paths = videos[reference][0], videos[distorted][1]
    code, out, _ = run("compare", *paths, "--metric", "ssim,psnr", "--format", format)
    assert code == 0
    named = [name for name in columns_of(out, format) if name.startswith(("ssim", "psnr"))]
    assert named == ["ssim", "psnr", *(f"{metric}-{plane}" for metric in ("ssim", "psnr") for plane in planes)]
    if format == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert all(row[name] for name in named)


def test_red_green_and_blue_are_scored_separately(videos):
    with av.open(videos["rgb"][0]) as x, av.open(videos["rgb"][1]) as y:
        frames = [[f.to_ndarray(format="rgb24", threads=1) for f in container.decode(video=0)] for container in (x, y)]
    scored = compare(*videos["rgb"], per_frame=True, metric=("psnr", "ssim", "ms-ssim"), convention="torchmetrics")
    for row, a, b in zip(scored["pairs"][0]["frames"], *frames, strict=True):
        squares = ((a.astype(float) - b) ** 2).mean((0, 1))
        assert [row[f"psnr-{c}"] for c in "rgb"] == pytest.approx(10 * np.log10(255**2 / squares))
        assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / squares.mean()))
        assert row["ssim"] == pytest.approx(np.mean([row[f"ssim-{c}"] for c in "rgb"]), abs=1e-6)
    blocks = compare(*videos["rgb"], per_frame=True, convention="ffmpeg")["pairs"][0]["frames"][0]
    batch = [torch.from_numpy(side[0]).permute(2, 0, 1)[None] for side in frames]
    assert [blocks[f"ssim-{c}"] for c in "rgb"] == pytest.approx(ffmpeg.ssim(*batch[::-1], 255)[0].tolist(), abs=1e-6)


def test_a_table_repeats_its_header_when_columns_change(videos, tmp_path):
    for side in (0, 1):
        (tmp_path / "ab"[side]).mkdir()
        for name in ("grey", "rgb", "yuv"):
            os.symlink(videos[name][side], tmp_path / "ab"[side] / f"{name}.mkv")
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b")
    heads = [line.split()[2:] for line in out.splitlines() if line.startswith("reference")]
    assert code == 0
    assert heads[:3] == [["ssim"], ["ssim", "ssim-r", "ssim-g", "ssim-b"], ["ssim", "ssim-y", "ssim-u", "ssim-v"]]
    _, out, _ = run("compare", tmp_path / "a", tmp_path / "b", "--format", "csv")
    rows = {row["reference"].split("/")[-1]: row for row in csv.DictReader(io.StringIO(out))}
    assert (rows["grey.mkv"]["ssim-y"], rows["rgb.mkv"]["ssim-y"], rows["yuv.mkv"]["ssim-r"]) == ("", "", "")
    assert all(rows["rgb.mkv"][f"ssim-{c}"] for c in "rgb")
    assert all(rows["yuv.mkv"][f"ssim-{c}"] for c in "yuv")


def test_a_report_has_no_empty_columns(videos, tmp_path):
    for kind, planes in (("rgb", "rgb"), ("grey", ""), ("yuv", "yuv")):
        assert run("compare", *videos[kind], "--report", tmp_path / "r.html")[0] == 0
        page = (tmp_path / "r.html").read_text()
        assert [c for c in "yuvrgb" if f"<button>ssim-{c}</button>" in page] == list(planes)
