"""Tests that the planes of every pixel format have the decoder's values, in any width and at any depth."""

from __future__ import annotations

import zlib

import av
import numpy as np
import pytest
from pixel_formats import described, frame_of

from ssim_fused.scoring import PairError
from ssim_fused.scoring.planes import Matched, deep_rgb_of, matched_planes, planar_format

FEW = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 66, 95, 127, 130)
# Formats that FFmpeg refuses to convert.
REFUSED = {"bgr4", "rgb4", "v30xbe", "x2bgr10be", "x2rgb10be", "xv30be", "y210be", "y212be", "y216be"}


def readable(name):
    form = av.VideoFormat(name, 64, 64)
    try:
        planar_format(form)
    except PairError:
        return False
    return not form.has_palette


NAMES = sorted(name for name in av.video.format.names if readable(name))


def planes(met: Matched, side: int) -> list[np.ndarray]:
    first = (met.reference, met.distorted)[side]
    return [*first.pixels.numpy(), *(both[side].pixels[0].numpy() for both in met.chroma)]


def noise(form, width, seed):
    values = np.random.default_rng(seed)
    height = 1 + width % 5
    return [
        values.integers(0, 1 << sample.depth, form.size(component, width, height))
        for component, sample in enumerate(form.samples)
    ]


def expected_of(form, values):
    """Returns the expected planes, Y, U, V or R, G, B. Fewer than 8 bits are scaled to 8."""
    shown = values[:3] if len(values) > 2 else values[:1]
    if form.name == "monow":
        shown = [1 - shown[0]]
    depths = [sample.depth for sample in form.samples]
    return [v if d >= 8 else np.round(v * 255 / ((1 << d) - 1)) for v, d in zip(shown, depths, strict=False)]


def check(name, widths):
    form = described(name)
    if form is None:
        pytest.skip("no libavutil next to PyAV")
    for width in widths:
        values = noise(form, width, zlib.crc32(name.encode()) + width)
        frame = frame_of(form, values)
        met = matched_planes(frame, frame, "planes")
        for side in (0, 1):
            for plane, wanted in zip(planes(met, side), expected_of(form, values), strict=True):
                assert np.array_equal(plane, wanted), (name, width)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_planes_are_the_values_of_the_format(name):
    check(name, FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_planes_are_the_values_of_the_format_in_every_width(name):
    check(name, range(1, 131))


@pytest.mark.parametrize("name", sorted(REFUSED & set(NAMES)))
def test_formats_that_ffmpeg_cannot_convert_are_refused(name):
    frame = av.VideoFrame(16, 16, name)
    with pytest.raises(PairError, match=f"pixel format {name} cannot be converted to"):
        matched_planes(frame, frame, "planes")


def test_a_palette_is_read_as_its_colors():
    frame = av.VideoFrame(33, 5, "pal8")
    places = np.random.default_rng(0).integers(0, 256, (5, 33))
    colors = np.random.default_rng(1).integers(0, 256, (256, 4)).astype(np.uint8)  # blue, green, red, alpha
    rows = np.zeros((5, frame.planes[0].line_size), np.uint8)
    rows[:, :33] = places
    frame.planes[0].update(rows.tobytes())
    np.frombuffer(frame.planes[1], np.uint8)[:1024] = colors.reshape(-1)
    met = matched_planes(frame, frame, "planes")
    assert np.array_equal(met.reference.pixels.numpy(), colors[places][..., [2, 1, 0]].transpose(2, 0, 1))


def deeper(values, few, bits, white):
    return (values << (bits - few)) | (values >> (2 * few - bits)) if white else values << (bits - few)


@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv410p", "yuv420p10be",
                                  "nv12", "p010le", "yuva420p", "gray", "gray10le", "gbrp", "gbrp10be", "gbrap12le",
                                  "rgb24"])  # fmt: skip
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_lower_depths_are_shifted_up_and_full_range_white_stays_white(name, full):
    """Compares a frame with one of the same kind at a larger depth, and with itself."""
    form = described(name)
    if form is None:
        pytest.skip("no libavutil next to PyAV")
    few = form.samples[0].depth
    kind = "gbrp" if form.rgb else "gray" if len(form.samples) < 3 else "yuv444p"
    for bits in (10, 12, 14, 16):
        if bits <= few:
            continue
        for width in FEW:
            values = noise(form, width, width)
            frame = frame_of(form, values)
            other = av.VideoFrame(width, frame.height, f"{kind}{bits}le")
            frame.color_range = other.color_range = 2 if full else 1
            met = matched_planes(frame, other, "luma" if kind == "yuv444p" else "planes")
            first = [deeper(v, few, bits, full or form.rgb) for v in values[: 3 if form.rgb else 1]]
            for plane, wanted in zip(planes(met, 0), first, strict=True):
                assert np.array_equal(plane, wanted), (bits, width)


@pytest.mark.parametrize("name", ["gbrp", "rgb24", "gbrp10le", "gbrap12le", "gbrp12be", "rgb555le"])
def test_rgb_of_any_depth_is_not_converted_through_yuv(name):
    form = described(name)
    if form is None:
        pytest.skip("no libavutil next to PyAV")
    values = noise(form, 35, 0)
    picture = deep_rgb_of(frame_of(form, values))
    few = max(8, form.samples[0].depth)
    wanted = [deeper(v.astype(int), few, 16, True) for v in expected_of(form, values)]
    assert np.array_equal(picture.pixels.numpy(), wanted)
    assert (picture.peak, picture.full_range) == (65535, True)


@pytest.mark.parametrize("name", ["yuv411p", "yuv410p", "yuv440p", "yuv440p10le", "yuv422p10be"])
def test_every_chroma_subsampling_is_converted_to_rgb(name):
    form = described(name)
    if form is None:
        pytest.skip("no libavutil next to PyAV")
    few = form.samples[0].depth
    grey = [np.full(form.size(c, 32, 16), (126 if c == 0 else 128) << (few - 8)) for c in range(3)]
    pixels = deep_rgb_of(frame_of(form, grey)).pixels.int()
    assert (pixels - 65535 * (126 - 16) / 219).abs().max() < 300
