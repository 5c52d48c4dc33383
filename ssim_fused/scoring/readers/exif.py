"""Reads the EXIF orientation. Pillow's parser is not used, because it prints warnings on standard error."""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112
_SHORT = 3


def orientation_of(exif: bytes | None) -> int:
    """Returns the orientation in the first directory. Like viewers, returns 1 if it is absent or the data is broken."""
    block = bytes(exif or b"").removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", block, at)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value if value in range(1, 9) else 1
    except struct.error:  # the block is truncated
        pass
    return 1
