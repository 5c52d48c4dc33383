"""Reads 8-bit JPEG with Pillow."""

from __future__ import annotations

import io

import numpy as np

from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length field
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _EXIF = 0xDA, 0xE1
# Segments with previews, profiles and comments, which Pillow would parse. JFIF and Adobe define colors and are kept.
_IGNORED = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens an 8-bit JPEG: grey, YCbCr, RGB or CMYK."""
    needed, precision, exif = _parts(data)
    if precision != 8:
        raise ReadError(f"JPEG of {precision} bits is not supported; expected 8; convert it to 16-bit PNG or TIFF")
    from PIL.JpegImagePlugin import JpegImageFile

    image = JpegImageFile(io.BytesIO(needed))  # not Image.open, which applies its own limit on the number of pixels
    limits.check_size(*image.size)
    orientation = orientation_of(exif)

    def frame(_: int) -> Raw:
        if image.mode == "CMYK":
            return Raw(np.asarray(image), "cmyk", 8, orientation=orientation)
        if image.mode == "L":
            return Raw(np.asarray(image), "grey", 8, orientation=orientation)
        # convert() copies, even if the mode is RGB already.
        color = image if image.mode == "RGB" else image.convert("RGB")
        return Raw(np.asarray(color), "rgb", 8, orientation=orientation)

    return Opened(1, frame)


def _parts(data: bytes) -> tuple[bytes, int, bytes | None]:
    """Returns the file without segments that pixels do not depend on, its bits per sample, and its EXIF.

    Raises:
        ReadError: the file ends before its first scan.

    """
    kept, precision, exif, at = [data[:2]], 0, None, 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # padding, which decoders skip
            at += 1
            continue
        if marker == _SCAN:
            kept.append(data[at:])
            return b"".join(kept), precision, exif
        end = at + 2 if marker in _STANDALONE else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES and at + 4 < len(data):
            precision = data[at + 4]
        if marker == _EXIF and exif is None and data[at + 4 : at + 10] == b"Exif\0\0":
            exif = data[at + 4 : end]
        if marker not in _IGNORED:
            kept.append(data[at:end])
        at = end
    raise ReadError("broken JPEG: truncated before its pixels")
