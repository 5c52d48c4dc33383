"""Tests videos, folders of frames and y4m streams: matching of frames, pixels, and errors."""

from __future__ import annotations

import csv
import gc
import io
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scoring_files import moving_picture, run, save, write_frames, write_video

import ssim_fused
from ssim_fused.scoring import UsageError, compare
from ssim_fused.scoring.planes import matched_planes

COUNT = 30


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = moving_picture(COUNT)
    return (
        str(write_video(folder / "r.mp4", frames, crf=4, g=10)),
        str(write_video(folder / "d.mkv", frames, crf=36, g=12, bf=3)),
    )


def decoded(path, pixels):
    with av.open(path) as container:
        return [frame.reformat(format=pixels, threads=1).to_ndarray() for frame in container.decode(video=0)]


def luma(path):
    with av.open(path) as container:
        return [plane(frame) for frame in container.decode(video=0)]


def plane(frame):
    """Copies the first plane row by row."""
    size = 1 if frame.format.components[0].bits == 8 else 2
    data, row = bytes(frame.planes[0]), frame.planes[0].line_size
    rows = [data[row * y : row * y + size * frame.width] for y in range(frame.height)]
    return np.frombuffer(b"".join(rows), f"<u{size}").reshape(frame.height, frame.width)


def ssim(x, y, peak=255.0):
    x, y = (torch.from_numpy(np.ascontiguousarray(p).astype(np.float64)) for p in (x, y))
    x, y = (p[None, None] if p.ndim == 2 else p.movedim(-1, 0)[None] for p in (x, y))
    return ssim_fused.structural_similarity_index_measure(y, x, data_range=peak).item()


def frames_of(*paths, **settings):
    return compare(*paths, per_frame=True, **settings)["pairs"][0]["frames"]


def test_luma_of_a_video_is_its_y_plane(videos):
    frames = frames_of(*videos, luma="bt709")
    theirs = [ssim(x, y) for x, y in zip(luma(videos[0]), luma(videos[1]), strict=True)]
    assert [frame["frame"] for frame in frames] == list(range(COUNT))
    assert [frame["ssim"] for frame in frames] == pytest.approx(theirs, abs=1e-6)
    assert frames == frames_of(*videos, luma="bt601")  # the formula is not applied


def planes(path):
    """Returns the planes of each frame as float arrays."""
    with av.open(path) as container:
        return [all_planes(frame) for frame in container.decode(video=0)]


def all_planes(frame):
    whole = frame.to_ndarray().astype(float)
    height, width = frame.height, frame.width
    chroma = whole[height:].reshape(2, height // 2, width // 2)
    return [whole[:height], *chroma]


def test_planes_of_two_videos_are_compared_without_conversion(videos):
    weights = np.array([4, 1, 1]) / 6
    for frame, x, y in zip(frames_of(*videos, metric=("ssim", "psnr")), *map(planes, videos), strict=True):
        each = [ssim(a, b) for a, b in zip(x, y, strict=True)]
        assert [frame[f"ssim-{plane}"] for plane in "yuv"] == pytest.approx(each, abs=1e-6)
        assert frame["ssim"] == pytest.approx(weights @ each, abs=1e-6)
        errors = [np.mean((a - b) ** 2) for a, b in zip(x, y, strict=True)]
        assert [frame[f"psnr-{plane}"] for plane in "yuv"] == pytest.approx(10 * np.log10(255**2 / np.array(errors)))
        assert frame["psnr"] == pytest.approx(10 * np.log10(255**2 / (weights @ errors)))


def test_ms_ssim_of_yuv_videos_is_that_of_luma(videos):
    luma = frames_of(*videos, metric=("ms-ssim",), luma=True, frames=(0, 2, 1))
    assert frames_of(*videos, metric=("ms-ssim",), frames=(0, 2, 1)) == luma


def test_a_mask_is_averaged_down_for_chroma(videos, tmp_path):
    weights = np.zeros((192, 208), np.uint8)
    weights[64:128, 32:97] = 255
    mask = str(save(tmp_path / "mask.png", weights))
    (frame,) = frames_of(*videos, mask=mask, frames=(3, 4, 1))
    x, y = (planes(path)[3] for path in videos)
    small = weights.reshape(96, 2, 104, 2).mean((1, 3))
    for plane, m, a, b in zip("yuv", (weights, small, small), x, y, strict=True):
        batches = [torch.from_numpy(p)[None, None] for p in (b, a, m / 255.0)]
        theirs = ssim_fused.structural_similarity_index_measure(*batches[:2], data_range=255.0, mask=batches[2])
        assert frame[f"ssim-{plane}"] == pytest.approx(theirs.item(), abs=1e-6)


def test_crop_applies_to_chroma(videos):
    (frame,) = frames_of(*videos, crop=6, frames=(3, 4, 1))
    x, y = (planes(path)[3] for path in videos)
    each = [ssim(a[n:-n, n:-n], b[n:-n, n:-n]) for n, a, b in zip((6, 3, 3), x, y, strict=True)]
    assert [frame[f"ssim-{plane}"] for plane in "yuv"] == pytest.approx(each, abs=1e-6)
    failed = compare(*videos, crop=3)["failed"][0]["error"]
    assert "--crop 3 cuts through chroma pixels, which cover 2x2 luma pixels" in failed


def deep_rgb(path, deep="yuv420p16le"):
    """Returns 16-bit RGB, as two videos of any depth are compared."""
    with av.open(path) as container:
        frames = (
            frame.reformat(format=deep, interpolation="BICUBIC", threads=1) for frame in container.decode(video=0)
        )
        return [frame.reformat(format="rgb48le", interpolation="BICUBIC", threads=1).to_ndarray() for frame in frames]


def test_rgb_of_two_videos_has_16_bits(videos):
    frames = frames_of(*videos, rgb=True)
    theirs = [ssim(x, y, 65535.0) for x, y in zip(*map(deep_rgb, videos), strict=True)]
    assert [frame["ssim"] for frame in frames] == pytest.approx(theirs, abs=1e-6)
    with pytest.raises(UsageError, match="rgb is True and luma is 'bt601'"):
        compare(*videos, rgb=True, luma=True)


def test_the_score_of_a_video_is_that_of_its_pooled_frames(videos):
    result = compare(*videos, luma="bt601", per_frame=True, pool=("p5", "mean", "min"))
    scores = [frame["ssim"] for frame in result["pairs"][0]["frames"]]
    assert result["pairs"][0]["ssim"] == pytest.approx(np.percentile(scores, 5), abs=1e-6)
    pooled = {"p5": np.percentile(scores, 5), "mean": np.mean(scores), "min": min(scores)}
    assert result["pooled"]["ssim"] == pytest.approx(pooled, abs=1e-6)
    assert run("compare", *videos, "--luma", "bt601", "--pool", "min", "--fail-under", np.mean(scores))[0] == 1
    assert run("compare", *videos, "--luma", "bt601", "--pool", "mean", "--fail-under", min(scores))[0] == 0


def test_csv_has_one_row_per_frame(videos):
    _, out, _ = run("compare", *videos, "--format", "csv", "--per-frame", "--luma", "bt601")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["frame"] for row in rows] == [str(n) for n in range(COUNT)]
    _, out, _ = run("compare", *videos, "--format", "ffmpeg", "--luma", "bt601")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [f"n:{n + 1}" for n in range(COUNT)]
    assert all(f"Y:{float(row['ssim']):.5f}"[:-1] in line for row, line in zip(rows, lines, strict=True))


@pytest.mark.parametrize("text", ["0:", "7:", "7:19", "3:29:5", "0:1", "29:30", "11:22:3"])
def test_frames_selects_a_slice(videos, text):
    start, stop, step = ([int(t) if t else None for t in text.split(":")] + [None])[:3]
    every = frames_of(*videos, luma="bt601")
    assert frames_of(*videos, luma="bt601", frames=(start or 0, stop, step or 1)) == every[start:stop:step]
    _, out, _ = run("compare", *videos, "--luma", "bt601", "--frames", text, "--per-frame", "--format", "json")
    assert json.loads(out)["pairs"][0]["frames"] == every[start:stop:step]


def test_a_range_without_frames_is_an_error(videos):
    failed = compare(*videos, frames=(90, None, 1))["failed"]
    assert failed[0]["error"] == "--frames 90::1 selects no frame; expected at least one"


def test_a_video_is_compared_with_a_folder_of_its_frames(videos, tmp_path):
    for number, frame in enumerate(decoded(videos[1], "rgb24")):
        save(tmp_path / f"frame{number}.png", frame)  # frame10 comes after frame9
    theirs = [ssim(x, y) for x, y in zip(*(decoded(path, "rgb24") for path in videos), strict=True)]
    assert [frame["ssim"] for frame in frames_of(videos[0], str(tmp_path))] == pytest.approx(theirs, abs=1e-6)
    assert frames_of(str(tmp_path), videos[1])[0]["ssim"] == 1.0
    # Luma of both is computed from RGB, because the planes of a video have another range.
    x, y = (decoded(path, "rgb24")[5].astype(float) @ [0.2126, 0.7152, 0.0722] for path in videos)
    frames = frames_of(videos[0], str(tmp_path), luma="bt709", frames=(5, 6, 1))
    assert frames == [{"frame": 5, "ssim": pytest.approx(ssim(x, y), abs=1e-6)}]


def test_folders_of_videos_are_paired(videos, tmp_path):
    for number, path in enumerate(videos):
        target = tmp_path / "ab"[number] / ("clip" + Path(path).suffix)
        target.parent.mkdir()
        target.write_bytes(Path(path).read_bytes())
        save(tmp_path / "ab"[number] / "picture.png", moving_picture(1)[0])
    result = compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert [Path(pair["distorted"]).name for pair in result["pairs"]] == ["clip.mkv", "picture.png"]
    # Each picture counts as one frame in the mean.
    clip = compare(*videos)["pairs"][0]["ssim"]
    assert result["pooled"]["ssim"]["mean"] == pytest.approx((COUNT * clip + 1) / (COUNT + 1), abs=1e-6)


@pytest.mark.parametrize(("pixels", "bits"), [("yuv420p10le", 10), ("yuv422p12le", 12)])
def test_deep_videos_keep_their_bits(tmp_path, pixels, bits):
    frames = moving_picture(6)
    x = str(write_video(tmp_path / "x.mkv", frames, "ffv1", pixels))
    y = str(write_video(tmp_path / "y.mkv", frames, "libx265", pixels, crf=30, x265_params="log-level=none"))
    theirs = [ssim(a, b, 2.0**bits - 1) for a, b in zip(luma(x), luma(y), strict=True)]
    assert [frame["ssim"] for frame in frames_of(x, y, luma="bt601")] == pytest.approx(theirs, abs=1e-6)
    sixteen = pixels.replace(f"p{bits}", "p16")
    theirs = [ssim(a, b, 65535.0) for a, b in zip(deep_rgb(x, sixteen), deep_rgb(y, sixteen), strict=True)]
    assert [frame["ssim"] for frame in frames_of(x, y, rgb=True)] == pytest.approx(theirs, abs=2e-6)


def deepened(frame, pixels):
    return frame.reformat(format=pixels, threads=1)


def deepened_rgb(frame, pixels):
    """Deepens RGB by repeating the high bits below. FFmpeg would convert through YUV."""
    deep = av.VideoFrame(frame.width, frame.height, pixels)
    bits = deep.format.components[0].bits
    rgb = frame.to_ndarray(format="rgb24", threads=1).astype(np.uint16)
    for plane, channel in zip(deep.planes, (1, 2, 0), strict=True):
        rows = np.zeros((frame.height, plane.line_size // 2), "<u2")
        rows[:, : frame.width] = rgb[..., channel] << (bits - 8) | rgb[..., channel] >> (16 - bits)
        plane.update(rows.tobytes())
    return deep


@pytest.mark.parametrize(("few", "many"), [("yuv420p", "yuv420p10le"), ("yuv444p", "yuv444p12le"),
                                           ("yuv422p10le", "yuv422p12le"), ("bgr0", "gbrp10le"),
                                           ("bgr0", "gbrp14le")])  # fmt: skip
@pytest.mark.parametrize("rgb", [False, True], ids=["planes", "rgb"])
def test_equal_planes_of_different_depths_score_1(tmp_path, few, many, rgb):
    frames = moving_picture(2)
    first = str(write_video(tmp_path / "few.mkv", frames, "ffv1", few))
    with av.open(first) as container:
        deepen = deepened_rgb if few == "bgr0" else deepened
        deep = [deepen(frame, many) for frame in container.decode(video=0)]
    second = str(write_frames(tmp_path / "many.mkv", deep, "ffv1", many))
    for paths in ((first, second), (second, first)):
        result = compare(*paths, rgb=rgb, metric=("ssim", "psnr"))["pairs"][0]
        assert (result["ssim"], result["psnr"]) == (1.0, None)


def test_full_range_white_stays_white_at_larger_depths(tmp_path):
    frames = [np.full((32, 32), value, np.uint8) for value in (0, 128, 255)]
    first = str(write_video(tmp_path / "8.mkv", frames, "ffv1", "gray"))
    with av.open(first) as container:
        deep = [frame.reformat(format="gray10le", threads=1) for frame in container.decode(video=0)]
    assert [int(np.frombuffer(frame.planes[0], np.uint16)[0]) for frame in deep] == [0, 514, 1023]
    second = str(write_frames(tmp_path / "10.mkv", deep, "ffv1", "gray10le"))
    assert compare(first, second)["pairs"][0]["ssim"] == 1.0


@pytest.mark.parametrize("pixels", ["nv12", "yuyv422", "uyvy422", "nv16", "p010le"])
def test_packed_formats_are_converted_to_planes(videos, pixels):
    """Uses frames made by PyAV in place of a decoder that returns packed formats."""
    with av.open(videos[0]) as container:
        frame = next(container.decode(video=0))
    packed = frame.reformat(format=pixels, threads=1)
    met = matched_planes(frame, packed, "planes")
    assert torch.equal(met.reference.pixels.int(), met.distorted.pixels.int())
    assert (met.reference.peak, met.reference.full_range) == (1023 if pixels == "p010le" else 255, False)
    assert len(met.chroma) == 2
    if pixels in ("nv12", "p010le"):
        assert all(torch.equal(x.pixels.int(), y.pixels.int()) for x, y in met.chroma)


@pytest.mark.parametrize("packed", ["nv12", "p010le"])
def test_rows_at_borders_of_conversion_slices_are_exact(packed):
    """FFmpeg converts slices of a frame in several threads, which may overwrite each other's first pixels."""
    pixels = torch.Generator().manual_seed(0)
    for width in (*range(32, 130, 2), 320):
        frame = av.VideoFrame(width, 50, "yuv420p")
        for plane in frame.planes:
            size = plane.height, plane.line_size
            plane.update(torch.randint(256, size, dtype=torch.uint8, generator=pixels).numpy().tobytes())
        met = matched_planes(frame, frame.reformat(format=packed, threads=1), "planes")
        for x, y in ((met.reference, met.distorted), *met.chroma):
            assert torch.equal(x.pixels.int(), y.pixels.int()), width


def test_full_range_with_limited_range_planes_are_refused(tmp_path):
    frames = moving_picture(2)
    limited = str(write_video(tmp_path / "l.mkv", frames, "ffv1", "yuv420p"))
    full = str(write_video(tmp_path / "f.mkv", frames, "mjpeg", "yuvj420p"))
    for settings in ({}, {"luma": True}):
        error = compare(limited, full, **settings)["failed"][0]["error"]
        assert "the reference has limited range (16..235), the distorted video has full range (0..255)" in error
        assert "--rgb" in error
    assert compare(limited, full, rgb=True)["pairs"][0]["ssim"] > 0.8


def test_an_error_states_both_numbers_of_frames(tmp_path, videos):
    short = str(write_video(tmp_path / "s.mp4", moving_picture(COUNT - 2)))
    code, out, err = run("compare", videos[0], short, videos[1], "--format", "json")
    assert code == 2
    result = json.loads(out)
    assert [pair["distorted"] for pair in result["pairs"]] == [videos[1]]
    assert result["failed"][0]["error"] == (
        f"{videos[0]} has 30 frames, {short} has 28; expected equal numbers of frames, or use --align pts to match "
        "frames by time"
    )
    assert "--frames" not in err
    assert compare(videos[0], short, frames=(0, 28, 1))["failed"] == []


def test_errors_of_sizes_broken_files_and_other_files(tmp_path, videos):
    other = str(write_video(tmp_path / "o.mp4", moving_picture(COUNT, 128, 128)))
    broken = tmp_path / "b.mp4"
    broken.write_bytes(Path(videos[0]).read_bytes()[:3000])
    text = tmp_path / "t.mkv"
    text.write_text("no video")
    for path, reason in ((other, "sizes differ: 208x192 and 128x128"), (str(broken), "b.mp4"), (str(text), "t.mkv")):
        failed = compare(videos[0], path)["failed"]
        assert reason in failed[0]["error"]
    assert compare(videos[0], other, resize=True)["failed"] == []


def test_a_stream_is_read_from_standard_input(videos, tmp_path):
    stream = write_video(tmp_path / "s.y4m", decoded(videos[1], "rgb24"), "rawvideo", "yuv420p")
    for arguments in ((videos[0], "-"), ("-", videos[0])):
        with stream.open("rb") as file:
            command = [sys.executable, "-m", "ssim_fused", "compare", *arguments, "--luma", "bt601", "--format", "json"]
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
        files = [str(stream) if a == "-" else a for a in arguments]
        assert json.loads(done.stdout)["pairs"][0]["ssim"] == compare(*files, luma="bt601")["pairs"][0]["ssim"]
        assert done.stderr == b""  # no progress bar without a terminal


def test_planes_with_padded_rows(tmp_path):
    """The decoder pads the rows of planes."""
    frames = [frame[:, :150] for frame in moving_picture(3, 152)]
    x = str(write_video(tmp_path / "x.mkv", [np.ascontiguousarray(f) for f in frames], "ffv1", "yuv444p"))
    assert frames_of(x, x, luma="bt601", metric=("ssim", "psnr"))[2] == {"frame": 2, "ssim": 1.0, "psnr": None}


def test_scored_frames_are_freed_without_the_garbage_collector(videos):
    """Otherwise FFmpeg's pool of frames, of some megabytes each, would grow with the length of the video."""

    def alive():
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    before = alive()
    gc.disable()
    try:
        frames_of(*videos)
        frames_of(*videos, rgb=True)
        assert alive() <= before
    finally:
        gc.enable()
