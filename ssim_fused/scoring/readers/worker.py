"""The worker process, in which decoders run that may crash: it answers requests on standard input in a loop.

``messages.py`` defines the format of requests and answers.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import numpy as np

from .formats import format_of, guarded, open_bytes
from .messages import receive, send
from .rules import finished
from .samples import Limits, Opened, Raw, ReadError, Samples


def main() -> None:
    """Answers ``open`` with the number of frames, and ``frame`` with pixels, until standard input ends."""
    shared = int(sys.argv[3])
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # sends warnings that decoders print to standard error, because answers use standard output
    opened, limits, name = Opened(0, _nothing), Limits(), None
    while True:
        try:
            request, content = receive(requests, shared)
            data = bytes(content)
        except EOFError:
            return
        try:
            if request["do"] == "open":
                limits, name = Limits(request["data_range"], request["max_pixels"]), format_of(data)
                opened = Opened(0, _nothing)  # frees the last file first
                opened = open_bytes(data, limits)
                send(answers, {"count": opened.count}, shared)
            else:
                samples = guarded(partial(_finished, opened, request["number"], limits), name)
                pixels = np.ascontiguousarray(samples.pixels)
                about = {"shape": pixels.shape, "dtype": pixels.dtype.str, "white": samples.white}
                send(answers, about, shared, pixels)
        except ReadError as error:
            send(answers, {"error": str(error)[:1000]}, shared)


def _finished(opened: Opened, number: int, limits: Limits) -> Samples:
    return finished(opened.frame(number), limits)


def _nothing(_: int) -> Raw:
    raise ReadError("no file is open")
