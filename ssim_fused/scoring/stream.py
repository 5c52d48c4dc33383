"""Reads y4m streams from standard input, or from a FIFO such as that of a shell's ``<(ffmpeg ...)``, once.

The y4m header of streams and files is checked here, because FFmpeg's message for a width of 0 is "device is busy".
"""

from __future__ import annotations

import os
import stat
import sys
from typing import Any

from ssim_fused.scoring.errors import PairError

STREAM = "-"  # standard input

_Y4M = b"YUV4MPEG2"
_LONGEST = 1 << 12  # bytes; the longest header that is read
_LARGEST_SIDE = 65535


def is_stream(path: str) -> bool:
    """Returns whether a path is standard input or a FIFO."""
    try:
        return path == STREAM or stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def name_of(path: str) -> str:
    """Returns the name of a path in messages."""
    return "standard input" if path == STREAM else path


class Stream:
    """A y4m stream, as a file object for FFmpeg.

    Args:
        path: ``-`` for standard input, or the path of a FIFO.

    Raises:
        PairError: the stream is empty or not y4m.
        OSError: the FIFO cannot be opened.

    """

    def __init__(self, path: str) -> None:
        # Unlike a buffered file, the raw file has no lock that a blocked read would hold while the interpreter exits.
        standard: Any = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer) if path == STREAM else None
        self._file = standard or open(path, "rb", buffering=0)  # noqa: SIM115 - FFmpeg reads it until it is collected
        self._head = _head_of(self._file, path)

    def read(self, count: int) -> bytes:
        """Reads up to ``count`` bytes, starting with the header, which was read for the check."""
        if self._head:
            piece, self._head = self._head[:count], self._head[count:]
            return piece
        return self._file.read(count)


def check_y4m(path: str, file: Any) -> None:
    """Checks the header of a file if it is y4m, and rewinds the file.

    Raises:
        PairError: the header has no valid frame size.

    """
    head = file.read(len(_Y4M))
    if head == _Y4M:
        _check_header(path, head + file.readline(_LONGEST))
    file.seek(0)


def _head_of(file: Any, path: str) -> bytes:
    """Reads the first line byte by byte, so that the rest of the stream is left to FFmpeg."""
    head = b""
    while len(head) < len(_Y4M) and (piece := file.read(len(_Y4M) - len(head))):
        head += piece
    if head != _Y4M:
        arrived = f"it starts with {head!r}" if head else "it is empty"
        raise PairError(
            f"{name_of(path)} is not a y4m stream: {arrived}; write it with ffmpeg -i FILE -f yuv4mpegpipe -, which "
            "needs -strict -1 for more than 8 bits"
        )
    while not head.endswith(b"\n") and len(head) < _LONGEST and (piece := file.read(1)):
        head += piece
    _check_header(path, head)
    return head


def _check_header(path: str, head: bytes) -> None:
    fields = {word[:1]: word[1:] for word in reversed(head.split()[1:])}
    for field, side in ((b"W", "width"), (b"H", "height")):
        text = fields.get(field)
        if text is None:
            raise PairError(f"{name_of(path)}: broken y4m: the header has no {side} ({field.decode()})")
        if not text.isdigit() or not 1 <= int(text[:9]) <= _LARGEST_SIDE or len(text) > 9:
            shown = text[:20].decode(errors="backslashreplace")
            raise PairError(
                f"{name_of(path)}: broken y4m: the header has the {side} {field.decode()}{shown}; expected 1 to "
                f"{_LARGEST_SIDE}"
            )
