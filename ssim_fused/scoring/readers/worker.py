"""The process in which decoders run that may crash: a loop over requests on standard input.

``messages.py`` has the format of requests and answers.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO

import numpy as np

from .formats import format_of, guarded, open_bytes
from .messages import receive, send
from .rules import finished
from .samples import Limits, Opened, ReadError

def main() -> None:
    """Answers ``open`` with the number of frames, and ``frame`` with pixels, until standard input ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Decoders print warnings, which must not get between the answers.
    opened: Opened | None = None
    limits, name = Limits(), None
    while True:
        try:
            request, data = receive(requests)
        except EOFError:
            return
        try:
            if request["do"] == "open":
                limits, name = Limits(request["data_range"], request["max_pixels"]), format_of(data)
                opened = None  # frees the last file first
                opened = open_bytes(bytes(data), limits)
                send(answers, {"count": opened.count})
            elif opened is not None:
                _send_frame(answers, opened, request["number"], limits, name)
        except ReadError as error:
            send(answers, {"error": str(error)})


def _send_frame(answers: BinaryIO, opened: Opened, number: int, limits: Limits, name: str | None) -> None:
    samples = guarded(lambda: finished(opened.frame(number), limits), name)
    pixels = np.ascontiguousarray(samples.pixels)
    message = {"shape": pixels.shape, "dtype": pixels.dtype.str, "white": samples.white}
    send(answers, message, memoryview(pixels).cast("B"))
