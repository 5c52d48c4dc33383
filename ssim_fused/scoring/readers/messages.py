"""Messages between a worker and its parent: two lengths, JSON of the first, and bytes of the second.

JSON and not pickle, since the parent must not execute what a decoder that was taken over sends.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_LENGTH = struct.Struct(">QQ")  # of the JSON and of the bytes behind it


def send(pipe: BinaryIO, message: dict[str, Any], payload: Any = b"") -> None:
    """Writes a message with bytes behind it."""
    text = json.dumps(message).encode()
    pipe.write(_LENGTH.pack(len(text), len(payload)) + text)
    pipe.write(payload)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[dict[str, Any], bytearray]:
    """Reads a message and its bytes.

    Raises:
        EOFError: the other side is gone.

    """
    text, payload = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return json.loads(_exactly(pipe, text)), _exactly(pipe, payload)


def _exactly(pipe: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        read = pipe.readinto(view[at:])  # type: ignore[attr-defined]
        if not read:
            raise EOFError("the other side is gone")
        at += read
    return data
