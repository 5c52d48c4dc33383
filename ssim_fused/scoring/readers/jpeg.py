"""JPEG of 8 bits, by Pillow."""

from __future__ import annotations

import io

import numpy as np

from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError

_STANDALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def open_file(data: bytes, limits: Limits) -> Opened:
    precision = _precision(data)
    if precision != 8:
        raise ReadError(f"a JPEG of {precision} bits is not read; convert it to 16-bit PNG or TIFF")
    from PIL.JpegImagePlugin import JpegImageFile

    # The class, not Image.open: that applies a limit of its own. Previews behind the picture (MPO) are no frames.
    image = JpegImageFile(io.BytesIO(data))
    limits.check_size(*image.size)
    orientation = orientation_of(image.info.get("exif"))

    def frame(_: int) -> Raw:
        if image.mode == "CMYK":
            return Raw(np.asarray(image), "cmyk", 8, orientation=orientation)
        if image.mode == "L":
            return Raw(np.asarray(image), "grey", 8, orientation=orientation)
        return Raw(np.asarray(image.convert("RGB")), "rgb", 8, orientation=orientation)

    return Opened(1, frame)


def _precision(data: bytes) -> int:
    """Bits a sample, from the header of the frame."""
    at = 2
    while at + 4 < len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker in _FRAMES:
            return data[at + 4]
        at += 1 if marker == 0xFF else 2 if marker in _STANDALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ReadError("broken JPEG: truncated before its frame header")
