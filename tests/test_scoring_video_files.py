"""Tests which files are videos, which stream is read, and errors of broken, truncated and other files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from scoring_files import moving_picture, run, save, write_frames, write_video

from ssim_fused.scoring import UsageError, compare
from ssim_fused.scoring.complete import missing_bytes
from ssim_fused.scoring.pairs import is_video
from ssim_fused.scoring.video import Video

COUNT, WIDTH, HEIGHT = 12, 64, 48
BLOCKS = ("ssim", "psnr")


@pytest.fixture(scope="module")
def frames():
    return moving_picture(COUNT, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory, frames):
    return str(write_video(tmp_path_factory.mktemp("r") / "r.mkv", frames, "ffv1"))


@pytest.fixture(scope="module")
def distorted(tmp_path_factory, frames):
    return str(write_video(tmp_path_factory.mktemp("d") / "d.mp4", frames, crf=30))


def score_of(*paths, **settings):
    document = compare(*map(str, paths), metric=BLOCKS, **settings)
    assert document["failed"] == []
    return {name: value for name, value in document["pairs"][0].items() if name not in ("reference", "distorted")}


def error_of(*paths, **settings):
    return compare(*map(str, paths), **settings)["failed"][0]["error"]


def copied(source, target):
    target.write_bytes(Path(source).read_bytes())
    return target


@pytest.mark.parametrize("name", ["12:30.mp4", "clip", "clip.bin", "file:x.mp4", "pipe:0.mp4", "a b%20.unknown"])
def test_a_video_is_recognized_under_any_name(tmp_path, monkeypatch, reference, distorted, name):
    copied(distorted, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert score_of(reference, name) == score_of(reference, distorted)


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are Unicode on macOS")
def test_a_video_is_recognized_under_an_undecodable_name(tmp_path, reference, distorted):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")
    copied(distorted, Path(name))
    assert score_of(reference, name) == score_of(reference, distorted)


@pytest.mark.parametrize(("ending", "codec"), [("3gp", "mpeg4"), ("nut", "ffv1"), ("m2v", "mpeg2video"),
                                               ("h264", "libx264"), ("wmv", "wmv2")])  # fmt: skip
def test_extensions_of_rarer_containers_are_videos(tmp_path, reference, frames, ending, codec):
    path = write_video(tmp_path / f"x.{ending}", frames, codec)
    assert is_video(str(path))
    assert score_of(reference, path)["ssim"] > 0.7


def test_text_and_pictures_are_not_videos(tmp_path, frames):
    (tmp_path / "notes").write_text("no video\n" * 100)
    picture = save(tmp_path / "picture.png", frames[0])
    copied(picture, tmp_path / "picture")
    assert [is_video(str(tmp_path / name)) for name in ("notes", "picture", "picture.png", "no")] == [False] * 4


@pytest.mark.parametrize("name", ["concat:d.mp4|d.mp4", "http://127.0.0.1:9/x.mp4", "subfile,,start,0,end,9,,:d.mp4"])
def test_names_of_ffmpeg_protocols_are_file_names(tmp_path, monkeypatch, reference, distorted, name):
    copied(distorted, tmp_path / "d.mp4")
    listing = tmp_path / "list.csv"
    listing.write_text(f'"{reference}","{name}"\n')
    monkeypatch.chdir(tmp_path)
    failed = compare(pairs=str(listing))["failed"]
    assert failed[0]["error"] == f"{name}: No such file or directory"
    with pytest.raises(UsageError, match="does not exist"):
        compare(reference, name)


@pytest.mark.parametrize("content", [
    "ffconcat version 1.0\nfile d.mp4\n",
    "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\nd.mp4\n#EXT-X-ENDLIST\n",
])  # fmt: skip
def test_playlists_are_not_followed(tmp_path, reference, distorted, content):
    copied(distorted, tmp_path / "d.mp4")
    (tmp_path / "list.mp4").write_text(content)
    assert "list.mp4: " in error_of(reference, tmp_path / "list.mp4")


def test_cover_art_and_audio_are_skipped(tmp_path, reference, distorted, frames):
    path = tmp_path / "cover.mp4"
    with av.open(distorted) as source, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 400, 400, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        sound = target.add_stream("aac", rate=48000)
        stream = target.add_stream_from_template(source.streams.video[0])
        target.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((400, 400, 3), np.uint8), format="rgb24")))
        target.mux(cover.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        target.mux(sound.encode(silence))
        target.mux(sound.encode(None))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    assert score_of(reference, path) == score_of(reference, distorted)


def test_the_largest_of_several_video_streams_is_compared(tmp_path, reference, frames):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for scale, stream in zip((2, 1), streams, strict=True):
            stream.width, stream.height, stream.pix_fmt = WIDTH // scale, HEIGHT // scale, "yuv420p"
        for number, array in enumerate(frames):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame = frame.reformat(stream.width, stream.height, "yuv420p", threads=1)
                frame.pts = number
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    note = f"{path} has 2 video streams; stream 1, of 64x48 pixels, is compared"
    result = score_of(reference, path)
    assert (result["ssim"], result["notes"]) == (1.0, [note])
    code, _, err = run("compare", reference, path)
    assert (code, err) == (0, f"ssim-fused: {reference}, {path}: note: {note}\n")


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p10le", "nv12", "rgb24"])
def test_raw_video_needs_a_size_and_a_format(tmp_path, frames, pixels):
    made = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels, threads=1) for frame in frames]
    container = tmp_path / "x.nut"
    write_frames(container, made, "rawvideo", pixels)
    raw = tmp_path / "x.yuv"
    with av.open(str(container)) as source:
        raw.write_bytes(b"".join(bytes(packet) for packet in source.demux(video=0) if packet.size))
    size = {"size": f"{WIDTH}x{HEIGHT}", "pix_fmt": pixels}
    result = score_of(container, raw, frames=(2, None, 1), per_frame=True, **size)
    assert result["ssim"] == 1.0
    assert [frame["frame"] for frame in result["frames"]] == list(range(2, COUNT))
    assert "give --size WxH and --pix-fmt FORMAT" in error_of(container, raw)
    wrong = error_of(container, raw, **size | {"size": "62x50"})
    assert f"the file has {raw.stat().st_size} bytes; expected a multiple of" in wrong
    assert run("compare", container, raw, "--size", size["size"], "--pix-fmt", pixels)[0] == 0


@pytest.mark.parametrize(("settings", "words"), [
    ({"size": "64x48"}, "raw video files need both"),
    ({"pix_fmt": "yuv420p"}, "raw video files need both"),
    ({"size": "64", "pix_fmt": "yuv420p"}, "size is '64'; expected WIDTHxHEIGHT"),
    ({"size": "64x48", "pix_fmt": "yuv"}, "pix_fmt is 'yuv'; expected a pixel format of FFmpeg"),
])  # fmt: skip
def test_an_invalid_size_or_format_is_a_usage_error(reference, settings, words):
    with pytest.raises(UsageError, match=words):
        compare(reference, reference, **settings)


def piped(data, *arguments):
    command = [sys.executable, "-m", "ssim_fused", "compare", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(("data", "words"), [
    (b"", "it is empty"),
    (b"\x1a\x45\xdf\xa3" + bytes(500), "it starts with b'\\x1aE\\xdf\\xa3"),
])  # fmt: skip
def test_standard_input_that_is_not_y4m_is_an_error(reference, data, words):
    code, _, err = piped(data, reference, "-")
    assert code == 2
    assert f"standard input is not a y4m stream: {words}" in err
    assert "needs -strict -1 for more than 8 bits" in err


def test_a_y4m_stream_of_10_bits_is_read(tmp_path, frames):
    deep = [
        av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p10le", threads=1) for frame in frames
    ]
    path = write_frames(tmp_path / "x.mkv", deep, "ffv1", "yuv420p10le")
    code, out, err = piped(y4m(deep), path, "-", "--metric", "ssim,psnr", "--format", "json")
    assert (code, err) == (0, "")
    assert '"psnr": null' in out


def y4m(frames):
    """Returns the frames as ``ffmpeg -strict -1 -f yuv4mpegpipe`` writes them."""
    file = io.BytesIO(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420p10 XYSCSS=420P10\n".encode())
    file.seek(0, io.SEEK_END)
    for frame in frames:
        file.write(b"FRAME\n" + frame.to_ndarray().tobytes())
    return file.getvalue()


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "libx264"), ("ts", "libx264"), ("ts", "mpeg2video"),
                                               ("avi", "mpeg4"), ("webm", "libvpx-vp9"), ("flv", "libx265"),
                                               ("mp4", "libx264")])  # fmt: skip
def test_a_truncated_file_is_an_error(tmp_path, frames, ending, codec):
    """Also if the number of frames is the same, because the decoder conceals the damage of the last one."""
    options = {"x265_params": "log-level=none"} if codec == "libx265" else {}
    if ending == "mp4":
        options["movflags"] = "faststart"
    whole = write_video(tmp_path / f"whole.{ending}", frames, codec, **options)
    assert missing_bytes(str(whole)) == 0
    data = whole.read_bytes()
    for share in (0.497, 0.9, 0.99):
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(data[: int(share * len(data))])
        failed = compare(str(cut), str(cut))["failed"]
        assert failed, share
        assert str(cut) in failed[0]["error"]


@pytest.mark.parametrize("chroma", ["420jpeg", "422p10", "444", "411", "mono", "mono12", "444alpha"])
def test_a_truncated_y4m_file_is_an_error(tmp_path, chroma):
    chroma_samples = {"420": 2 * 8 * 6, "422": 2 * 8 * 11, "444": 2 * 15 * 11, "411": 2 * 4 * 11, "mon": 0}[chroma[:3]]
    samples = 15 * 11 * (2 if chroma == "444alpha" else 1) + chroma_samples
    frame = b"FRAME\n" + bytes(samples * (2 if chroma[-2:] in ("10", "12") else 1))
    header = f"YUV4MPEG2 W15 H11 F25:1 C{chroma}\n".encode()
    file = tmp_path / "frames.y4m"
    for data, missing in ((2 * frame, 0), (frame + frame[:-7], 7), (2 * frame + b"rest", 1), (frame + frame[:3], 1)):
        file.write_bytes(header + data)
        assert (missing_bytes(str(file)) > 0) == (missing > 0)
    assert "the file is truncated" in error_of(file, file)


def test_frames_before_the_truncation_are_scored_if_requested(tmp_path, frames):
    whole = write_video(tmp_path / "whole.ts", frames, g=4)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: int(0.8 * whole.stat().st_size)])
    # The cut lies inside a frame. Which is noticed first depends on the decoder's threads.
    error = error_of(whole, cut)
    assert "the file is truncated" in error or "is damaged, and the decoder has concealed" in error
    assert score_of(whole, cut, frames=(0, 4, 1))["ssim"] == 1.0


def test_a_damaged_frame_and_its_dependents_are_errors(tmp_path):
    frames = moving_picture(30, WIDTH, HEIGHT)
    whole = write_video(tmp_path / "whole.h264", frames, g=10, bf=0)
    with av.open(str(whole)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    packets[13] = packets[13][: len(packets[13]) // 2]
    broken = tmp_path / "broken.h264"
    broken.write_bytes(b"".join(packets))
    error = error_of(whole, broken)
    assert f"{broken}: frame 13 is damaged, and the decoder has concealed" in error
    assert "frame 16 is damaged" in error_of(whole, broken, frames=(16, 18, 1))
    assert score_of(whole, broken, frames=(0, 13, 1))["ssim"] == 1.0
    assert score_of(whole, broken, frames=(20, 30, 1))["ssim"] == 1.0


def test_a_file_without_a_video_stream_is_an_error(tmp_path, reference):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    assert error_of(reference, path) == f"{path}: the file has no video stream"


def test_files_with_undecodable_metadata_are_read(tmp_path, distorted):
    """A title that is not UTF-8 must not prevent reading."""
    path = tmp_path / "x.mkv"
    with av.open(distorted) as source, av.open(str(path), "w") as target:
        target.metadata["title"] = "TITLE"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xff\xfe\xfd\xfc\xfb"))
    assert len(list(Video(str(path)).frames())) == COUNT
