"""Makes frames of every FFmpeg pixel format with known values, laid out by numpy from FFmpeg's table of formats.

The table is libavutil's ``AVPixFmtDescriptor``, a public structure that PyAV does not expose.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

_BIG_ENDIAN, _BITSTREAM, _RGB = 1, 4, 32  # AV_PIX_FMT_FLAG_*


class _Component(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("plane", "step", "offset", "shift", "depth")]


class _Descriptor(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("count", ctypes.c_uint8), ("across", ctypes.c_uint8),
                ("down", ctypes.c_uint8), ("flags", ctypes.c_uint64), ("components", _Component * 4)]  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """The layout of a component: its plane, the pixel step and the offset in bytes (or bits), and its bit depth."""

    plane: int
    step: int
    offset: int
    shift: int
    depth: int


@dataclass(frozen=True)
class Format:
    """The description of a format in the table."""

    name: str
    samples: tuple[Sample, ...]
    subsampled: tuple[int, int]  # log2 of the horizontal and vertical chroma subsampling
    big_endian: bool
    bits: bool
    rgb: bool

    def size(self, component: int, width: int, height: int) -> tuple[int, int]:
        """Returns the rows and columns of a component."""
        if self.rgb or len(self.samples) < 3 or component not in (1, 2):
            return height, width
        return -(-height >> self.subsampled[1]), -(-width >> self.subsampled[0])


@cache
def _library() -> ctypes.CDLL | None:
    bundled = (Path(av.__file__).parents[1] / "av.libs").glob("libavutil*")
    name = next(map(str, bundled), None) or ctypes.util.find_library("avutil")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    library.av_get_pix_fmt.argtypes = [ctypes.c_char_p]
    library.av_pix_fmt_desc_get.restype = ctypes.POINTER(_Descriptor)
    return library


def described(name: str) -> Format | None:
    """Returns the format with this name, or None if libavutil is not found."""
    library = _library()
    if library is None:
        return None
    entry = library.av_pix_fmt_desc_get(library.av_get_pix_fmt(name.encode())).contents
    samples = [Sample(*(getattr(c, field) for field, _ in c._fields_)) for c in entry.components[: entry.count]]
    flags = entry.flags
    return Format(name, tuple(samples), (entry.across, entry.down), bool(flags & _BIG_ENDIAN), bool(flags & _BITSTREAM),
                  bool(flags & _RGB))  # fmt: skip


def frame_of(form: Format, values: list[np.ndarray]) -> av.VideoFrame:
    """Returns a frame with these values, one array ``[H, W]`` per component."""
    height, width = values[0].shape
    frame = av.VideoFrame(width, height, form.name)
    planes = [np.zeros((plane.height, plane.line_size), np.uint8) for plane in frame.planes]
    for component, (sample, array) in enumerate(zip(form.samples, values, strict=True)):
        _put(planes[sample.plane], form, component, sample, array)
    for plane, content in zip(frame.planes, planes, strict=True):
        plane.update(content.tobytes())
    return frame


def _put(plane: np.ndarray, form: Format, component: int, sample: Sample, values: np.ndarray) -> None:
    rows, pixels = plane[: values.shape[0]], np.arange(values.shape[1])
    if form.bits:
        for x in pixels:
            first = sample.offset + x * sample.step
            rows[:, first >> 3] |= (values[:, x] << (8 - sample.depth - (first & 7))).astype(np.uint8)
        return
    if form.name == "uyyvyy411":  # U Y Y V Y Y
        at = 6 * pixels + (0, 0, 3)[component] if component else 6 * (pixels // 4) + np.array([1, 2, 4, 5])[pixels % 4]
        _or(rows, at, values)
        return
    at, shifted = sample.offset + pixels * sample.step, values << sample.shift
    bits = sample.shift + sample.depth
    if bits <= 8:  # for wider words, FFmpeg's offset is that of the first byte
        _or(rows, at + form.big_endian, shifted)
        return
    size = 2 if bits <= 16 else 4
    for byte in range(size):
        _or(rows, at + (size - 1 - byte if form.big_endian else byte), shifted >> (8 * byte))


def _or(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    rows[:, columns] |= (values & 255).astype(np.uint8)
