"""Orientation from EXIF, by Pillow's parser."""

from __future__ import annotations

ORIENTATION = 0x0112


def orientation_of(exif: bytes | None) -> int:
    """The orientation that EXIF states, 1 where it states none."""
    if not exif:
        return 1
    from PIL.Image import Exif

    tags = Exif()
    tags.load(exif)
    value = tags.get(ORIENTATION, 1)
    return value if isinstance(value, int) else 1
