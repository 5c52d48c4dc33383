"""Tests how frames of two videos are matched, and videos that differ in rotation, chroma, bit depth or color."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import torch
from scoring_files import moving_picture, run, save, write_frames, write_video

from ssim_fused.compat import ffmpeg
from ssim_fused.scoring import UsageError, compare

COUNT, WIDTH, HEIGHT = 30, 64, 48


def made(count=COUNT, pixels="yuv420p", width=WIDTH, height=HEIGHT):
    frames = [av.VideoFrame.from_ndarray(a, format="rgb24") for a in moving_picture(count, width, height)]
    return [frame.reformat(format=pixels, threads=1) for frame in frames]


def lossless(path, frames=None, pixels="yuv420p", **options):
    return str(write_frames(path, made(pixels=pixels) if frames is None else frames, "ffv1", pixels, **options))


def scored(*paths, **settings):
    """Returns the scores of the frames, and the notes."""
    document = compare(*paths, per_frame=True, **settings)
    assert document["failed"] == []
    (pair,) = document["pairs"]
    return {frame["frame"]: frame["ssim"] for frame in pair["frames"]}, pair.get("notes", [])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return lossless(tmp_path_factory.mktemp("reference") / "r.mkv", rate=30)


# The rate of the distorted video, and for each of its frames the number in the reference and the time.
SHOWN = {
    "half the rate": (15, [(2 * k, k) for k in range(15)]),
    "each frame twice": (60, [(k // 2, k) for k in range(60)]),
    "24 of 30": (24, [(int(k * 30 / 24 + 0.5), k) for k in range(24)]),
    "dropped frames": (30, [(k, k) for k in range(30) if k % 7 != 3]),
    "a frozen start": (30, [(k, k) for k in (0, 9, 10, 11, 12, 20, 29)]),
}


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("name", SHOWN)
def test_by_time_frames_match_the_reference_frame_on_display(tmp_path, reference, name, ending):
    """Time stamps are in milliseconds, in exact fractions, and start at 1.4 seconds."""
    rate, shown = SHOWN[name]
    frames = made()
    picked = [frames[number].reformat(format="yuv420p", threads=1) for number, _ in shown]
    copies = [av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p") for frame in picked]
    codec, options = ("ffv1", {}) if ending == "mkv" else ("libx264", {"crf": 0, "preset": "ultrafast", "bf": 0})
    path = str(write_frames(tmp_path / f"d.{ending}", copies, codec, rate=rate, times=[t for _, t in shown], **options))
    scores, notes = scored(reference, path, align="pts")
    assert scores == dict.fromkeys(range(len(shown)), 1.0)
    unmet = COUNT - len({number for number, _ in shown})
    told = [f"matched by time: {unmet} of the 30 reference frames match no distorted frame"] if unmet else []
    assert notes == told


def test_by_time_frames_selects_frames_of_the_distorted_video(tmp_path, reference):
    path = lossless(tmp_path / "d.mkv", made()[::2], rate=15)
    scores, _ = scored(reference, path, align="pts", frames=(3, 12, 4))
    assert scores == {3: 1.0, 7: 1.0, 11: 1.0}


def test_by_time_frames_after_the_end_of_the_reference_are_not_scored(tmp_path, reference):
    longer = lossless(tmp_path / "d.mkv", made(36), rate=30)
    scores, notes = scored(reference, longer, align="pts")
    assert scores == dict.fromkeys(range(COUNT), 1.0)
    assert notes == ["matched by time: 6 distorted frames after the end of the reference were not scored"]


def test_by_time_needs_time_stamps(tmp_path, reference):
    bare = str(write_video(tmp_path / "d.h264", moving_picture(COUNT, WIDTH, HEIGHT)))
    error = compare(reference, bare, align="pts")["failed"][0]["error"]
    assert "has no time stamps, which --align pts needs" in error
    folder = tmp_path / "frames"
    for number, array in enumerate(moving_picture(COUNT, WIDTH, HEIGHT)):
        save(folder / f"{number}.png", array)
    error = compare(reference, str(folder), align="pts")["failed"][0]["error"]
    assert error == "--align is pts, but folders and animations have no time stamps; use --align number"


@pytest.mark.parametrize("swapped", [False, True])
def test_unequal_numbers_of_frames_are_an_error_with_both_counts(tmp_path, reference, swapped):
    half = lossless(tmp_path / "d.mkv", made()[::2], rate=15)
    paths, counts, rates = [reference, half], [30, 15], [30, 15]
    if swapped:
        paths, counts, rates = paths[::-1], counts[::-1], rates[::-1]
    code, _, err = run("compare", *paths)
    assert code == 2
    told = (
        f"{paths[0]} has {counts[0]} frames, {paths[1]} has {counts[1]}, at {rates[0]} and {rates[1]} frames per "
        "second; expected equal numbers of frames, or use --align pts to match frames by time\n"
    )
    assert told in err
    assert run("compare", *paths, "--align", "pts")[0] == 0


def test_unequal_numbers_of_frames_within_a_range(tmp_path, reference):
    short = lossless(tmp_path / "d.mkv", made()[:20], rate=30)
    error = compare(reference, short, frames=(5, 28, 1))["failed"][0]["error"]
    assert f"{reference} has 23 frames within --frames, {short} has 15" in error
    error = compare(reference, short, frames=(5, None, 1))["failed"][0]["error"]
    assert f"{reference} has 30 frames, {short} has 20" in error


# Display matrix [a, b, u, c, d, v, x, y, w] in fixed point, and how to make the coded picture of an upright one.
ONE = 1 << 16
TURNS = {
    "90 clockwise": ((0, ONE, 0, -ONE, 0, 0), lambda a: np.rot90(a, 1)),
    "180": ((-ONE, 0, 0, 0, -ONE, 0), lambda a: np.rot90(a, 2)),
    "270 clockwise": ((0, -ONE, 0, ONE, 0, 0), lambda a: np.rot90(a, 3)),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0), lambda a: a[:, ::-1]),
    "upside down": ((ONE, 0, 0, 0, -ONE, 0), lambda a: a[::-1]),
    "transposed": ((0, ONE, 0, ONE, 0, 0), lambda a: np.swapaxes(a, 0, 1)),
}


@pytest.mark.parametrize("settings", [{}, {"luma": True}, {"rgb": True}], ids=["planes", "luma", "rgb"])
@pytest.mark.parametrize("turn", TURNS)
def test_display_matrices_are_applied(tmp_path, turn, settings):
    matrix, coded = TURNS[turn]
    upright = moving_picture(3, WIDTH, HEIGHT)
    frames = [av.VideoFrame.from_ndarray(a, format="rgb24").reformat(format="yuv444p", threads=1) for a in upright]
    planes = [np.stack([coded(plane) for plane in frame.to_ndarray()]) for frame in frames]
    lying = [av.VideoFrame.from_ndarray(np.ascontiguousarray(p), format="yuv444p") for p in planes]
    x = lossless(tmp_path / "x.mkv", frames, "yuv444p")
    y = str(write_frames(tmp_path / "y.mp4", lying, "libx264", "yuv444p", crf=0,
                         prepare=lambda stream: stream.set_display_matrix([*matrix, 0, 0, 1 << 30])))  # fmt: skip
    assert scored(x, y, **settings)[0] == dict.fromkeys(range(3), 1.0)
    upright_folder = tmp_path / "frames"
    for number, frame in enumerate(frames):
        save(upright_folder / f"{number}.png", frame.reformat(format="rgb24", threads=1).to_ndarray())
    assert min(scored(str(upright_folder), y)[0].values()) > 0.99


def test_a_display_matrix_with_another_angle_is_refused(tmp_path):
    turned = str(write_frames(tmp_path / "y.mp4", made(3), crf=0,
                              prepare=lambda stream: stream.set_display_rotation(30)))  # fmt: skip
    assert "by an angle that is not a multiple of 90 degrees" in compare(turned, turned)["failed"][0]["error"]


def test_different_color_tags_are_noted(tmp_path):
    def tagged(stream):
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1

    untagged = str(write_frames(tmp_path / "x.mkv", made(3), crf=0))
    bt709 = str(write_frames(tmp_path / "y.mkv", made(3), crf=0, prepare=tagged))
    scores, notes = scored(untagged, bt709)
    assert scores == dict.fromkeys(range(3), 1.0)
    assert notes == [
        "the color tags differ: matrix unknown, primaries unknown, transfer unknown, range unknown in the reference, "
        "matrix bt709, primaries bt709, transfer bt709, range tv in the distorted video"
    ]
    assert scored(bt709, bt709)[1] == []
    code, out, err = run("compare", untagged, bt709, "--format", "json")
    assert code == 0
    assert json.loads(out)["pairs"][0]["notes"] == notes
    assert f"{untagged}, {bt709}: note: {notes[0]}\n" in err
    _, out, _ = run("compare", untagged, bt709, "--format", "csv")
    assert notes[0] in out


def test_interlaced_with_progressive_is_noted(tmp_path):
    x = str(write_frames(tmp_path / "x.mkv", made(3), crf=10))
    y = str(write_frames(tmp_path / "y.mkv", made(3), crf=10, x264_params="interlaced=1"))
    note = "the distorted video is interlaced and the other is not; frames are compared with both fields interleaved"
    assert scored(x, y)[1] == [note]
    assert scored(y, y)[1] == []


@pytest.mark.parametrize(("finer", "shape"), [("yuv444p", "yuv420p"), ("yuv422p", "yuv420p"), ("yuv444p", "yuv422p")])
def test_finer_chroma_is_reduced_as_by_ffmpeg(tmp_path, finer, shape):
    fine = made(3, finer)
    coarse = [frame.reformat(format=shape, interpolation="BICUBIC", threads=1) for frame in fine]
    x = lossless(tmp_path / "x.mkv", fine, finer)
    y = lossless(tmp_path / "y.mkv", coarse, shape)
    for paths in ((x, y), (y, x)):
        result = compare(*paths)["pairs"][0]
        assert [result[name] for name in ("ssim", "ssim-y", "ssim-u", "ssim-v")] == [1.0] * 4
        assert "chroma is compared at the lower resolution of both" in result["notes"][-1]


def test_only_luma_is_compared_with_grey(tmp_path):
    def full(frame):
        frame.color_range = 2
        return frame

    colour = [full(frame) for frame in made(3, "yuvj444p")]
    grey = [av.VideoFrame.from_ndarray(frame.to_ndarray()[0], format="gray") for frame in colour]
    x = str(write_frames(tmp_path / "x.mkv", colour, "mjpeg", "yuvj444p", q=1))
    y = lossless(tmp_path / "y.mkv", grey, "gray")
    result = compare(x, y)["pairs"][0]
    assert 0.9 < result["ssim"] < 1
    assert "ssim-u" not in result
    assert result["notes"][-1] == "the pixel formats are yuvj444p and gray; only luma is compared"


def test_alpha_is_not_compared_and_noted(tmp_path):
    x = lossless(tmp_path / "x.mkv", made(3), "yuv420p")
    y = lossless(tmp_path / "y.mkv", made(3, "yuva420p"), "yuva420p")
    scores, notes = scored(x, y)
    assert (scores, notes[-1]) == (dict.fromkeys(range(3), 1.0), "alpha is not compared")


def test_rgb_videos_are_compared_by_channel(tmp_path):
    x = lossless(tmp_path / "x.mkv", made(3, "bgr0"), "bgr0")
    y = str(write_frames(tmp_path / "y.mkv", made(3, "rgb24"), "libx264rgb", "rgb24", crf=0))
    assert scored(x, x)[0] == dict.fromkeys(range(3), 1.0)
    _, out, _ = run("compare", x, y, "--format", "ffmpeg")
    assert all(line.split()[1:4] == ["R:1.000000", "G:1.000000", "B:1.000000"] for line in out.splitlines())
    luma = lossless(tmp_path / "z.mkv", made(3), "yuv420p")
    scores, notes = scored(x, luma)
    assert min(scores.values()) > 0.8
    assert notes[0] == "one video is RGB and the other YUV; both are compared as RGB"


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(67, 49), (64, 48)], ids=["odd", "even"])
def test_odd_sizes_have_chroma_planes_of_rounded_up_sizes(tmp_path, pixels, size):
    """Planes are weighted by their number of pixels."""
    frames = made(2, pixels, *size)
    x = lossless(tmp_path / "x.mkv", frames, pixels)
    y = str(write_frames(tmp_path / "y.mkv", made(2, pixels, *size), "ffv1", pixels))
    assert scored(x, y)[0] == {0: 1.0, 1: 1.0}
    worse = lossless(tmp_path / "z.mkv", made(3, pixels, *size)[1:], pixels)
    result = compare(x, worse)["pairs"][0]
    chroma = size[0] * size[1] if "444" in pixels else -(-size[0] // 2) * -(-size[1] // 2)
    weights = np.array([size[0] * size[1], chroma, chroma])
    each = np.array([result[f"ssim-{plane}"] for plane in "yuv"])
    assert result["ssim"] == pytest.approx(weights @ each / weights.sum(), abs=1e-6)
    assert 0.3 < result["ssim"] < 1


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_convention_ffmpeg_prints_the_output_of_the_filter(tmp_path, pixels):
    x, y = lossless(tmp_path / "x.mkv", made(4, pixels), pixels), str(tmp_path / "y.mkv")
    write_frames(tmp_path / "y.mkv", made(4, pixels), "libx265", pixels, x265_params="qp=40:log-level=none")
    _, out, _ = run("compare", x, y, "--convention", "ffmpeg", "--format", "ffmpeg")
    peak = 255 if pixels == "yuv420p" else 1023
    for line, a, b in zip(out.splitlines(), planes_of(x), planes_of(y), strict=True):
        each = [ffmpeg.ssim(q[None, None], p[None, None], peak).item() for p, q in zip(a, b, strict=True)]
        printed = [float(part.partition(":")[2]) for part in line.split()[1:5]]
        assert printed == pytest.approx([*each, (4 * each[0] + each[1] + each[2]) / 6], abs=1e-6)
    for option in ({"padding": "zero"}, {"sigma": 1.5}, {"kernel_size": 7}, {"window": "gaussian"}):
        with pytest.raises(UsageError, match="convention is 'ffmpeg', which has a fixed window"):
            compare(x, y, convention="ffmpeg", **option)
    mask = str(save(tmp_path / "mask.png", np.full((HEIGHT, WIDTH), 255, np.uint8)))
    assert "does not support masks" in compare(x, y, convention="ffmpeg", mask=mask)["failed"][0]["error"]
    assert compare(x, y, convention="ffmpeg", map=str(tmp_path / "maps"))["failed"] == []
    assert len(list((tmp_path / "maps").iterdir())) == 1


def planes_of(path):
    with av.open(path) as container:
        for frame in container.decode(video=0):
            whole = torch.from_numpy(frame.to_ndarray())
            chroma = whole[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
            yield whole[:HEIGHT], chroma[0].contiguous(), chroma[1].contiguous()


def test_luma_without_a_formula_does_not_consume_paths(tmp_path, reference):
    other = str(write_frames(tmp_path / "y.mp4", made(), crf=35))
    _, expected, _ = run("compare", reference, other, "--luma", "bt601", "--format", "csv")
    for arguments in ((reference, other, "--luma"), ("--luma", reference, other)):
        code, out, err = run("compare", *arguments, "--format", "csv")
        assert (code, out, err) == (0, expected, "")
    picture = str(save(tmp_path / "p.png", moving_picture(1)[0]))
    assert run("compare", "--luma", picture, picture)[0] == 0
