"""Videos, folders of frames and y4m streams: which frames meet, what is read, what is said when they differ."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scoring_files import moving_picture, run, save, write_video

import ssim_fused
from ssim_fused.scoring import compare
from ssim_fused.scoring.sequence import Video

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
        return [frame.to_ndarray(format=pixels) for frame in container.decode(video=0)]


def luma(path):
    with av.open(path) as container:
        return [plane(frame) for frame in container.decode(video=0)]


def plane(frame):
    """A copy of the first plane, row by row."""
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


def test_luma_is_the_plane_as_it_is(videos):
    frames = frames_of(*videos, luma="bt709")
    theirs = [ssim(x, y) for x, y in zip(luma(videos[0]), luma(videos[1]), strict=True)]
    assert [frame["frame"] for frame in frames] == list(range(COUNT))
    assert [frame["ssim"] for frame in frames] == pytest.approx(theirs, abs=1e-6)
    assert frames == frames_of(*videos, luma="bt601")  # no formula touches it


def test_without_luma_frames_are_rgb(videos):
    frames = frames_of(*videos)
    theirs = [ssim(x, y) for x, y in zip(*(decoded(path, "rgb24") for path in videos), strict=True)]
    assert [frame["ssim"] for frame in frames] == pytest.approx(theirs, abs=1e-6)


def test_a_video_scores_as_its_frames_pooled(videos):
    result = compare(*videos, luma="bt601", per_frame=True, pool=("p5", "mean", "min"))
    scores = [frame["ssim"] for frame in result["pairs"][0]["frames"]]
    assert result["pairs"][0]["ssim"] == pytest.approx(np.percentile(scores, 5), abs=1e-6)
    pooled = {"p5": np.percentile(scores, 5), "mean": np.mean(scores), "min": min(scores)}
    assert result["pooled"]["ssim"] == pytest.approx(pooled, abs=1e-6)
    assert run("compare", *videos, "--luma", "bt601", "--pool", "min", "--fail-under", np.mean(scores))[0] == 1
    assert run("compare", *videos, "--luma", "bt601", "--pool", "mean", "--fail-under", min(scores))[0] == 0


def test_csv_has_a_row_a_frame(videos):
    _, out, _ = run("compare", *videos, "--format", "csv", "--per-frame", "--luma", "bt601")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["frame"] for row in rows] == [str(n) for n in range(COUNT)]
    _, out, _ = run("compare", *videos, "--format", "ffmpeg", "--luma", "bt601")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == [f"n:{n + 1}" for n in range(COUNT)]
    assert all(f"Y:{float(row['ssim']):.5f}"[:-1] in line for row, line in zip(rows, lines, strict=True))


@pytest.mark.parametrize("text", ["0:", "7:", "7:19", "3:29:5", "0:1", "29:30", "11:22:3"])
def test_frames_are_a_slice(videos, text):
    start, stop, step = ([int(t) if t else None for t in text.split(":")] + [None])[:3]
    every = frames_of(*videos, luma="bt601")
    assert frames_of(*videos, luma="bt601", frames=(start or 0, stop, step or 1)) == every[start:stop:step]
    _, out, _ = run("compare", *videos, "--luma", "bt601", "--frames", text, "--per-frame", "--format", "json")
    assert json.loads(out)["pairs"][0]["frames"] == every[start:stop:step]


def test_a_range_without_frames_is_an_error(videos):
    failed = compare(*videos, frames=(90, None, 1))["failed"]
    assert failed[0]["error"] == "no frames in the range that was asked for"


def test_every_start_finds_its_frame(videos):
    """Seeking lands on the frame itself, with key frames apart and frames out of order."""
    for path in videos:
        whole = [picture.pixels.clone() for _, picture in Video(path, "Y", 1).frames()]
        assert Video(path, "Y", 1).count() == len(whole) == COUNT
        for start in range(COUNT):
            number, picture = next(Video(path, "Y", 1).frames(start))
            assert number == start
            assert torch.equal(picture.pixels, whole[start])


def test_a_video_meets_a_folder_of_its_frames(videos, tmp_path):
    for number, frame in enumerate(decoded(videos[1], "rgb24")):
        save(tmp_path / f"frame{number}.png", frame)  # frame10 lies behind frame9
    assert frames_of(videos[0], str(tmp_path)) == frames_of(*videos)
    assert frames_of(str(tmp_path), videos[1])[0]["ssim"] == 1.0
    # Luma of the pictures' formula, of both: planes of a video have another range.
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
    # Each picture is one frame of the mean.
    clip = compare(*videos)["pairs"][0]["ssim"]
    assert result["pooled"]["ssim"]["mean"] == pytest.approx((COUNT * clip + 1) / (COUNT + 1), abs=1e-6)


@pytest.mark.parametrize(("pixels", "bits"), [("yuv420p10le", 10), ("yuv422p12le", 12)])
def test_deep_videos_keep_their_bits(tmp_path, pixels, bits):
    frames = moving_picture(6)
    x = str(write_video(tmp_path / "x.mkv", frames, "ffv1", pixels))
    y = str(write_video(tmp_path / "y.mkv", frames, "libx265", pixels, crf=30, x265_params="log-level=none"))
    theirs = [ssim(a, b, 2.0**bits - 1) for a, b in zip(luma(x), luma(y), strict=True)]
    assert [frame["ssim"] for frame in frames_of(x, y, luma="bt601")] == pytest.approx(theirs, abs=1e-6)
    theirs = [ssim(a, b, 65535.0) for a, b in zip(decoded(x, "rgb48le"), decoded(y, "rgb48le"), strict=True)]
    assert [frame["ssim"] for frame in frames_of(x, y)] == pytest.approx(theirs, abs=2e-6)


def test_8_beside_10_bits(tmp_path):
    frames = moving_picture(3)
    eight = str(write_video(tmp_path / "8.mkv", frames, "ffv1", "yuv420p"))
    ten = str(write_video(tmp_path / "10.mkv", frames, "ffv1", "yuv420p10le"))
    assert compare(eight, ten, luma="bt601")["pairs"][0]["ssim"] > 0.995


def test_semiplanar_luma(tmp_path, videos):
    """NV12's first plane is luma, too; PyAV's own frames stand for a decoder that gives it."""
    from ssim_fused.scoring.sequence import luma_plane

    with av.open(videos[0]) as container:
        frame = next(container.decode(video=0))
    plane = torch.from_numpy(frame.to_ndarray()[: frame.height])
    for pixels in ("nv12", "yuyv422", "uyvy422"):
        assert torch.equal(luma_plane(frame.reformat(format=pixels)).pixels[0], plane)
    deep = luma_plane(frame.reformat(format="p010le"))
    assert (deep.peak, deep.pixels.dtype) == (1023, torch.uint16)
    assert torch.equal(deep.pixels[0].int(), plane.int() * 4)


def test_full_beside_limited_range_is_refused_by_luma(tmp_path):
    frames = moving_picture(2)
    limited = str(write_video(tmp_path / "l.mkv", frames, "ffv1", "yuv420p"))
    full = str(write_video(tmp_path / "f.mkv", frames, "mjpeg", "yuvj420p"))
    assert "full range" in compare(limited, full, luma="bt601")["failed"][0]["error"]
    assert compare(limited, full)["pairs"][0]["ssim"] > 0.8


def test_another_number_of_frames_is_named(tmp_path, videos):
    short = str(write_video(tmp_path / "s.mp4", moving_picture(COUNT - 2)))
    code, out, err = run("compare", videos[0], short, videos[1], "--format", "json")
    assert code == 2
    result = json.loads(out)
    assert [pair["distorted"] for pair in result["pairs"]] == [videos[1]]
    assert "has 30 frames" in result["failed"][0]["error"]
    assert "--frames 0:28" in err
    assert compare(videos[0], short, frames=(0, 28, 1))["failed"] == []


def test_another_size_a_broken_file_and_no_video_are_named(tmp_path, videos):
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
        assert done.stderr == b""  # no progress where there is no terminal


def test_pictures_of_odd_strides(tmp_path):
    """Planes whose rows are padded by the decoder."""
    frames = [frame[:, :150] for frame in moving_picture(3, 152)]
    x = str(write_video(tmp_path / "x.mkv", [np.ascontiguousarray(f) for f in frames], "ffv1", "yuv444p"))
    assert frames_of(x, x, luma="bt601", metric=("ssim", "psnr"))[2] == {"frame": 2, "ssim": 1.0, "psnr": None}
