"""Tests that frame numbers are exact: wherever decoding starts, frame k is the k-th frame of the file.

Each frame shows its number in its pixels. The files cover every container and codec that PyAV's FFmpeg can write and
read.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from scoring_files import write_frames

from ssim_fused.scoring import compare
from ssim_fused.scoring.video import Video

WIDTH, HEIGHT, COUNT, BITS = 64, 48, 50, 8
X264 = {"g": 10, "bf": 2}
OPEN_X264 = {"x264_params": "keyint=10:open-gop=1:bframes=3"}
X265 = {"x265_params": "keyint=10:min-keyint=10:bframes=3:log-level=none"}  # open groups of pictures
VPX = {"g": 10, "auto_alt_ref": 1, "lag_in_frames": 8, "b": 200000}
MPEG2 = {"g": 10, "bf": 2}

# Extension, codec, pixel format, options.
QUICK = [
    ("mp4", "libx264", "yuv420p", X264),
    ("mp4", "libx265", "yuv420p", X265),
    ("mkv", "libx264", "yuv420p", OPEN_X264),
    ("ts", "libx264", "yuv420p", X264),
    ("ts", "libx265", "yuv420p", X265),
    ("ts", "libx264", "yuv420p", {"x264_params": "keyint=10:intra-refresh=1:bframes=0"}),
    ("m2ts", "mpeg2video", "yuv420p", MPEG2),
    ("mpg", "mpeg2video", "yuv420p", MPEG2),
    ("vob", "mpeg2video", "yuv420p", {"g": 10}),
    ("m2v", "mpeg2video", "yuv420p", MPEG2),
    ("avi", "libx264", "yuv420p", X264),
    ("avi", "mpeg4", "yuv420p", MPEG2),
    ("flv", "libx264", "yuv420p", X264),
    ("webm", "libvpx", "yuv420p", VPX),
    ("webm", "libvpx-vp9", "yuv420p", VPX),
    ("h264", "libx264", "yuv420p", X264),
    ("3gp", "mpeg4", "yuv420p", MPEG2),
    ("nut", "ffv1", "yuv420p", {"g": 10}),
    ("ogv", "libvpx", "yuv420p", VPX),
    ("mov", "mjpeg", "yuvj420p", {}),
]
MORE = [
    *((ending, "libx264", "yuv420p", X264) for ending in ("mkv", "mov", "m2ts", "nut", "3gp", "asf", "wtv", "f4v")),
    *((ending, "libx264", "yuv420p", OPEN_X264) for ending in ("mp4", "ts", "flv")),
    *((ending, "libx265", "yuv420p", X265) for ending in ("mkv", "hevc", "mov", "nut", "flv")),
    ("ts", "libx264", "yuv420p", {"x264_params": "keyint=12:interlaced=1:bframes=2"}),
    *((ending, "mpeg2video", "yuv420p", MPEG2) for ending in ("ts", "vob", "mkv", "mxf", "avi")),
    *((ending, "mpeg1video", "yuv420p", MPEG2) for ending in ("mpg", "m1v")),
    *((ending, "mpeg4", "yuv420p", MPEG2) for ending in ("mp4", "mkv", "m4v", "nut")),
    *((ending, codec, "yuv420p", VPX) for ending in ("ivf", "mkv") for codec in ("libvpx", "libvpx-vp9")),
    *((ending, "libsvtav1", "yuv420p", {"g": 10, "preset": 12}) for ending in ("webm", "mp4", "ivf", "obu")),
    *((ending, "ffv1", "yuv420p", {"g": 10}) for ending in ("mkv", "avi")),
    *((ending, "mjpeg", "yuvj420p", {}) for ending in ("avi", "mkv", "mjpeg")),
    ("mov", "prores_ks", "yuv422p10le", {}),
    ("mov", "qtrle", "rgb24", {}),
    ("flv", "flv", "yuv420p", {"g": 10}),
    ("swf", "flv", "yuv420p", {"g": 10}),
    ("rm", "rv20", "yuv420p", {"g": 10}),
    ("wmv", "wmv2", "yuv420p", {"g": 10}),
    ("avi", "huffyuv", "yuv422p", {}),
    ("avi", "rawvideo", "yuv420p", {}),
    ("nut", "rawvideo", "yuv420p", {}),
    ("y4m", "rawvideo", "yuv420p", {}),
]


def named(cases):
    return [pytest.param(*case, id=f"{case[0]}-{case[1]}-{number}") for number, case in enumerate(cases)]


def numbered(number):
    """Returns a frame with blocks that show its number in binary, above moving noise."""
    picture = np.full((HEIGHT, WIDTH), 40, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:24, 8 * bit : 8 * bit + 8] = 200
    noise = np.random.default_rng(1).integers(60, 180, (HEIGHT - 24, WIDTH))
    picture[24:] = np.roll(noise, number, 1)
    return picture


def number_in(frame):
    grey = frame.reformat(format="gray", threads=1).to_ndarray()
    return sum(1 << bit for bit in range(BITS) if grey[8:16, 8 * bit + 2 : 8 * bit + 6].mean() > 120)


def write(path, codec, pixels, options, count=COUNT, **more):
    frames = [
        av.VideoFrame.from_ndarray(numbered(k), format="gray").reformat(format=pixels, threads=1) for k in range(count)
    ]
    return str(write_frames(path, frames, codec, pixels, **more, **options))


def check_every_start(path):
    whole = [(number, frame.to_ndarray()) for number, frame in Video(path).frames()]
    assert [number for number, _ in whole] == list(range(COUNT))
    video = Video(path)
    assert video.count() in (None, COUNT)
    for start in range(COUNT):
        number, frame = next(video.frames(start))
        assert number == number_in(frame) == start
        assert np.array_equal(frame.to_ndarray(), whole[start][1])
    assert [number for number, _ in video.frames(COUNT - 7, COUNT - 1, 2)] == [COUNT - 7, COUNT - 5, COUNT - 3]
    assert list(video.frames(COUNT)) == []


@pytest.mark.parametrize(("ending", "codec", "pixels", "options"), named(QUICK))
def test_decoding_from_every_start_gives_the_numbered_frame(tmp_path, ending, codec, pixels, options):
    check_every_start(write(tmp_path / f"x.{ending}", codec, pixels, options))


@pytest.mark.nightly
@pytest.mark.parametrize(("ending", "codec", "pixels", "options"), named(MORE))
def test_decoding_from_every_start_in_rarer_files(tmp_path, ending, codec, pixels, options):
    check_every_start(write(tmp_path / f"x.{ending}", codec, pixels, options))


@pytest.mark.parametrize(("ending", "codec", "options"), [("ts", "libx264", X264), ("mp4", "libx265", X265),
                                                          ("mpg", "mpeg2video", MPEG2)])  # fmt: skip
def test_a_late_start_does_not_decode_the_whole_file(tmp_path, monkeypatch, ending, codec, options):
    path = write(tmp_path / f"x.{ending}", codec, "yuv420p", options)
    video, decoded = Video(path), []
    assert video.count() == COUNT  # reads all packets once
    original = Video._decoded

    def counted(self, packets):
        for frame in original(self, packets):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(Video, "_decoded", counted)
    assert number_in(next(video.frames(45))[1]) == 45
    assert len(decoded) <= 26  # two groups of pictures, and reordered frames


def test_frames_of_a_variable_frame_rate_are_counted(tmp_path):
    """Packets of such a file do not determine frame numbers: a packet that is not a frame would not be noticed."""
    times = np.cumsum(np.random.default_rng(3).integers(1, 5, COUNT)).tolist()
    path = write(tmp_path / "x.mp4", "libx264", "yuv420p", X264, times=times)
    assert Video(path).count() is None
    check_every_start(path)


def test_frames_without_time_stamps_are_counted(tmp_path):
    path = write(tmp_path / "x.h264", "libx264", "yuv420p", X264)
    assert all(frame.pts is None for _, frame in Video(path).frames())
    check_every_start(path)


def test_undecodable_frames_at_the_start_do_not_count(tmp_path):
    """A file cut at an open group of pictures starts with frames that refer to missing ones."""
    whole = write(tmp_path / "whole.mkv", "libx265", "yuv420p", X265)
    cut = str(tmp_path / "cut.ts")
    with av.open(whole) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        keys = 0
        for packet in source.demux(video=0):
            keys += packet.is_keyframe
            if packet.size and keys > 1:
                packet.stream = stream
                target.mux(packet)
    numbers = [number_in(frame) for _, frame in Video(cut).frames()]
    assert numbers == list(range(numbers[0], COUNT))
    assert 0 < numbers[0] <= 20
    for start in range(len(numbers)):
        assert number_in(next(Video(cut).frames(start))[1]) == numbers[start]


def test_frames_trimmed_by_an_edit_list_do_not_count(tmp_path):
    """The edit list of an MP4 starts within a group of pictures: the first packets are decoded but not shown."""
    whole = write(tmp_path / "whole.mp4", "libx264", "yuv420p", {"g": 50, "bf": 0})
    cut = str(tmp_path / "cut.mp4")
    with av.open(whole) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= round(7 * Fraction(1, 25) / packet.time_base)
                packet.dts -= round(7 * Fraction(1, 25) / packet.time_base)
                packet.stream = stream
                target.mux(packet)
    numbers = [number_in(frame) for _, frame in Video(cut).frames()]
    assert numbers == list(range(numbers[0], COUNT))
    for start in range(0, len(numbers), 5):
        assert number_in(next(Video(cut).frames(start))[1]) == numbers[start]


@pytest.mark.parametrize("ending", ["ts", "mp4"])
def test_a_range_has_the_scores_of_its_frames_in_the_whole(tmp_path, ending):
    codec, options = ("libx264", X264) if ending == "ts" else ("libx265", X265)
    distorted = write(tmp_path / f"d.{ending}", codec, "yuv420p", options)
    reference = write(tmp_path / "r.mkv", "ffv1", "yuv420p", {"g": 1})
    every = compare(reference, distorted, per_frame=True)["pairs"][0]["frames"]
    for start in range(1, COUNT, 6):
        part = compare(reference, distorted, per_frame=True, frames=(start, start + 3, 1))["pairs"][0]["frames"]
        assert part == every[start : start + 3]
