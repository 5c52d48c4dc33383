"""Detects video files that are shorter than their container states.

FFmpeg reads a truncated file without an error, and its decoder may make a whole frame of what is left of the last
packet. So this module compares the size of the file with the sizes stated by the outermost structures of common
containers.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_PACKETS = {0: 188, 4: 192}  # offset of the first sync byte of a transport stream to its bytes per packet
_SYNC = 0x47
# y4m format name to the number of chroma planes, and the horizontal and vertical chroma subsampling.
_Y4M_CHROMA = {b"420": (2, 2, 2), b"422": (2, 2, 1), b"444": (2, 1, 1), b"411": (2, 4, 1), b"mono": (0, 1, 1)}
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")


def missing_bytes(path: str) -> int:
    """Returns the number of bytes missing at the end of a file: 0 if it is complete, or does not state its size.

    Args:
        path: a file in Matroska, MP4 or a related format, AVI, FLV, y4m, or an MPEG transport stream.

    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == _EBML:
            expected = _end_of_matroska(file)
        elif head[:4] == b"RIFF":
            expected = 8 + int.from_bytes(head[4:8], "little")
        elif head[4:8] in _FIRST_BOXES:
            expected = _end_of_boxes(file, size)
        elif head.startswith(b"YUV4MPEG2 "):
            expected = _end_of_y4m(file, size)
        elif head[:3] == b"FLV":
            return 0 if _ends_with_a_tag(file, size) else 1
        else:
            return _rest_of_transport_stream(file, size)
    return max(0, expected - size)


def _end_of_y4m(file: BinaryIO, size: int) -> int:
    """Returns the offset after the last frame. If something other than a frame follows, returns ``size + 1``."""
    file.seek(0)
    fields = {field[:1]: field[1:] for field in file.readline(1 << 12).split()[1:]}
    chroma = fields.get(b"C", b"420")
    scale = next((_Y4M_CHROMA[name] for name in _Y4M_CHROMA if chroma.startswith(name)), None)
    if scale is None or not (fields.get(b"W", b"").isdigit() and fields.get(b"H", b"").isdigit()):
        return 0  # FFmpeg reports what is wrong with the header
    width, height = int(fields[b"W"]), int(fields[b"H"])
    planes, across, down = scale
    samples = width * height * (2 if chroma == b"444alpha" else 1) + planes * -(-width // across) * -(-height // down)
    bytes_of_frame = samples * (2 if re.search(rb"(p|mono)(9|10|12|14|16)$", chroma) else 1)
    while file.tell() < size:
        if not file.readline(1 << 12).startswith(b"FRAME"):
            return size + 1
        file.seek(bytes_of_frame, os.SEEK_CUR)
    return file.tell()


def _end_of_matroska(file: BinaryIO) -> int:
    """Returns the offset after the segment, or 0 if a live recording left its size open."""
    file.seek(4)
    length = _variable(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _variable(file)
    return 0 if length is None else file.tell() + length


def _variable(file: BinaryIO) -> int | None:
    """Reads an EBML number, where leading zeros of the first byte count the bytes that follow; None if unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> more)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """Returns the offset after the last box."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0 or not head[4:8].isalnum():  # the box reaches the end of the file, or is other, appended data
            return size
        place += max(length, 8)
    return place


def _ends_with_a_tag(file: BinaryIO, size: int) -> bool:
    """Returns whether the last four bytes are the size of the tag before them, or 0, as some programs write."""
    file.seek(size - 4)
    length = int.from_bytes(file.read(4), "big")
    if length == 0:
        return True
    if not 11 <= length <= size - 13:
        return False
    file.seek(size - 4 - length + 1)
    return int.from_bytes(file.read(3), "big") + 11 == length


def _rest_of_transport_stream(file: BinaryIO, size: int) -> int:
    for first, length in _PACKETS.items():
        if size > 4 * length and all(_byte(file, first + k * length) == _SYNC for k in range(4)):
            return -size % length
    return 0


def _byte(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return file.read(1)[0]
