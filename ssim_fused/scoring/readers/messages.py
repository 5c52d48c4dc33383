"""Exchanges messages between a worker and its parent: a line of JSON in a pipe, and bytes in an in-memory file.

Messages are JSON, not pickle, because the parent must not execute data from a compromised decoder. The file is read and
written instead of mapped, because a process that accesses a mapping of a truncated file is killed.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import IO, Any

_LONGEST = 1 << 16  # bytes; the longest line that is read


def shared_file() -> int:
    """Returns the descriptor of a file without a name, in memory if the operating system supports that."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ssim_fused", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def send(pipe: IO[bytes], message: dict[str, Any], shared: int, payload: Any = b"") -> None:
    """Writes a message to the pipe, and its bytes to the shared file."""
    view, at = memoryview(payload).cast("B"), 0
    while at < len(view):
        at += os.pwrite(shared, view[at:], at)
    pipe.write(json.dumps(message | {"bytes": len(view)}).encode() + b"\n")
    pipe.flush()


def receive(pipe: IO[bytes], shared: int) -> tuple[dict[str, Any], bytearray]:
    """Reads a message from the pipe, and its bytes from the shared file.

    Raises:
        EOFError: the other process has exited, or sends an invalid message.

    """
    line = pipe.readline(_LONGEST)
    if not line.endswith(b"\n"):
        raise EOFError("the other process has exited")
    message = json.loads(line)
    data = bytearray(message["bytes"])
    view, at = memoryview(data), 0
    while at < len(view):
        read = os.preadv(shared, [view[at:]], at)
        if not read:
            raise EOFError("the other process truncated the file")
        at += read
    os.ftruncate(shared, 0)  # frees the memory
    return message, data
