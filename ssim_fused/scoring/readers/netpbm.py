"""Reads PBM, PGM, PPM, PAM and PFM with netpbmfile. White is the MAXVAL of the file."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np

from .samples import Limits, Opened, Raw, ReadError

_BITMAPS = ("P1", "P4")
_PLAIN = ("P1", "P2", "P3")
_HEADER = re.compile(rb"P[1-7Ff]\s")


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens a file with one or more images."""
    images: list[tuple[Any, np.ndarray]] = []
    while not images or _HEADER.match(data):
        file, frames, end = _read(data, limits)
        images += [(file, frame) for frame in frames]
        data = data[end:].lstrip()
    return Opened(len(images), lambda number: _raw(*images[number]))


def _read(data: bytes, limits: Limits) -> tuple[Any, np.ndarray, int]:
    """Returns the first header of the file, the images ``[N, H, W, C]`` after it, and the offset after the images.

    Binary formats may have several images: each with its own header, or all after the first header.
    """
    from netpbmfile import NetpbmFile

    try:
        file = NetpbmFile(io.BytesIO(data))
    except ValueError as error:
        shown = data[:32]
        raise ReadError(
            f"broken netpbm: the header is {shown!r}; expected P1 to P7 with a width, a height and a MAXVAL, such as "
            "P5 640 480 255, followed by pixels"
        ) from error
    limits.check_size(file.width, file.height)
    if file.magicnumber == "P7 332" or file.depth not in (1, 2, 3, 4):
        raise ReadError(
            f"netpbm {file.magicnumber} with {file.depth} channels is not supported; expected 1 to 4; convert it"
        )
    if file.dtype.kind != "f" and not 1 <= file.maxval <= 65535:
        raise ReadError(f"broken netpbm: MAXVAL is {file.maxval}; expected 1 to 65535")
    held = len(data) - file.dataoffset
    if file.magicnumber in _PLAIN:
        try:
            return file, _images(file), len(data)
        except ValueError as error:
            raise ReadError("broken netpbm: truncated before the last pixel, or with text between numbers") from error
    row = math.ceil(file.width / 8) if file.magicnumber in _BITMAPS else file.width * file.depth * file.dtype.itemsize
    one = row * file.height
    if held < one:
        raise ReadError(f"broken netpbm: truncated; it has {held} bytes of pixels; expected {one}")
    bare = not _HEADER.match(data[file.dataoffset + one :].lstrip()[:3])
    count = held // one if bare and held % one == 0 else 1
    end = file.dataoffset + count * one
    return file, _images(NetpbmFile(io.BytesIO(data[:end]))), end


def _images(file: Any) -> np.ndarray:
    return np.asarray(file.asarray()).reshape(-1, file.height, file.width, file.depth)


def _raw(file: Any, samples: np.ndarray) -> Raw:
    if file.magicnumber in _BITMAPS:  # 1 is black
        return Raw(samples[..., 0].astype(np.uint8), "grey", 1, inverted=True)
    alpha = "straight" if file.depth in (2, 4) else None
    model = "grey" if file.depth < 3 else "rgb"
    if samples.dtype.kind == "f":
        # PFM stores the last row first. Its scale is a unit and is not applied.
        return Raw(samples[::-1].astype(samples.dtype.newbyteorder("=")), model, None, alpha=alpha)
    return Raw(samples, model, file.maxval.bit_length(), white=file.maxval, alpha=alpha)
