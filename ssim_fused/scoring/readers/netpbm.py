"""PBM, PGM, PPM, PAM and PFM, by netpbmfile. White is the file's own MAXVAL."""

from __future__ import annotations

import io

import numpy as np

from .samples import Limits, Opened, Raw, ReadError

_BITMAPS = ("P1", "P4")
_ALPHA = "ALPHA"


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens one image, or several in one file."""
    from netpbmfile import NetpbmFile

    file = NetpbmFile(io.BytesIO(data))
    limits.check_size(file.width, file.height)
    if file.magicnumber == "P7 332" or file.depth not in (1, 2, 3, 4):
        raise ReadError(f"netpbm {file.magicnumber} of {file.depth} channels is not read")
    images = _images(file)

    def frame(number: int) -> Raw:
        samples = images[number]
        if file.magicnumber in _BITMAPS:  # 1 is black
            return Raw(samples[..., 0].astype(np.uint8), "grey", 1, inverted=True)
        alpha = "straight" if file.depth in (2, 4) else None
        model = "grey" if file.depth < 3 else "rgb"
        if samples.dtype.kind == "f":
            # PFM has its last row first. Its scale is a unit, which is not applied.
            return Raw(samples[::-1].astype(samples.dtype.newbyteorder("=")), model, None, alpha=alpha)
        if file.maxval > 65535:
            raise ReadError(f"a netpbm MAXVAL of {file.maxval} is not read; the format's largest is 65535")
        return Raw(samples, model, file.maxval.bit_length(), white=file.maxval, alpha=alpha)

    return Opened(len(images), frame)


def _images(file) -> np.ndarray:
    """Images ``[N, H, W, C]``; a file may have several, one after the other."""
    array = np.asarray(file.asarray())
    try:
        return array.reshape(-1, file.height, file.width, file.depth)
    except ValueError as error:
        raise ReadError("broken netpbm: truncated before its last pixel") from error
