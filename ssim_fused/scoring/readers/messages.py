"""Messages between a worker and its parent: a line of JSON through a pipe, its bytes through a file in memory.

JSON and not pickle, since the parent must not execute what a decoder that was taken over sends. The file is read and
written, not mapped, since a mapping of a file that the other side cuts short would end the process.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import IO, Any

_LONGEST = 1 << 16  # bytes of a line


def shared_file() -> int:
    """A file descriptor of a file without a name, in memory where the system has that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ssim_fused", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def send(pipe: IO[bytes], message: dict[str, Any], shared: int, payload: Any = b"") -> None:
    """Writes a message, and bytes to the shared file."""
    view, at = memoryview(payload).cast("B"), 0
    while at < len(view):
        at += os.pwrite(shared, view[at:], at)
    pipe.write(json.dumps(message | {"bytes": len(view)}).encode() + b"\n")
    pipe.flush()


def receive(pipe: IO[bytes], shared: int) -> tuple[dict[str, Any], bytearray]:
    """Reads a message, and its bytes from the shared file.

    Raises:
        EOFError: the other side is gone, or sends something else.

    """
    line = pipe.readline(_LONGEST)
    if not line.endswith(b"\n"):
        raise EOFError("the other side is gone")
    message = json.loads(line)
    data = bytearray(message["bytes"])
    view, at = memoryview(data), 0
    while at < len(view):
        read = os.preadv(shared, [view[at:]], at)
        if not read:
            raise EOFError("the other side cut the file short")
        at += read
    os.ftruncate(shared, 0)  # gives the memory back
    return message, data
