"""Reads the formats that Pillow decodes at full bit depth: BMP, GIF, WebP, and older 8-bit formats."""

from __future__ import annotations

import io

import numpy as np

from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError

# Pillow plugins with at most 8 bits per sample. Others render (EPS, WMF), reduce the depth, or only read a header.
_OTHERS = ("BLP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "ICNS", "ICO", "IM", "IMT", "MSP", "PCD", "PCX",
           "PIXAR", "PSD", "QOI", "SGI", "SUN", "TGA", "XBM", "XPM", "XVTHUMB")  # fmt: skip
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}


def bmp(data: bytes, limits: Limits) -> Opened:
    """Opens a Windows bitmap."""
    from PIL.BmpImagePlugin import BmpImageFile

    return _opened(BmpImageFile(io.BytesIO(data)), limits)


def gif(data: bytes, limits: Limits) -> Opened:
    """Opens a GIF with all its frames."""
    from PIL.GifImagePlugin import GifImageFile

    return _opened(GifImageFile(io.BytesIO(data)), limits)


def webp(data: bytes, limits: Limits) -> Opened:
    """Opens a WebP with all its frames."""
    from PIL.WebPImagePlugin import WebPImageFile

    return _opened(WebPImageFile(io.BytesIO(data)), limits)


def other(data: bytes, limits: Limits) -> Opened:
    """Opens a file that matches no signature in ``formats.py``."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # only in this worker process; `_opened` checks the limit
    try:
        image = Image.open(io.BytesIO(data), formats=_OTHERS)
    except Image.UnidentifiedImageError as error:
        raise ReadError("the file is not a picture in a supported format") from error
    if image.format == "PSD":  # the merged picture only: Pillow's frames are the layers
        return _opened(image, limits, count=1)
    return _opened(image, limits)


def _opened(image, limits: Limits, count: int | None = None) -> Opened:
    limits.check_size(*image.size)
    _refuse_deep(image)
    orientation = orientation_of(image.info.get("exif"))
    frames = getattr(image, "n_frames", 1) if count is None else count

    def frame(number: int) -> Raw:
        if frames > 1:
            image.seek(number)
            limits.check_size(*image.size)
            _refuse_deep(image)
        raw = raw_of(image)
        raw.orientation = orientation
        return raw

    return Opened(frames, frame)


def _refuse_deep(image) -> None:
    """Refuses pixels with more bits than Pillow would return."""
    raw_modes = str(getattr(image, "tile", []))  # decoders and their arguments
    high = "BC6" in str(getattr(image, "pixel_format", "")) or image.mode not in _MODES
    if high or any(mark in raw_modes for mark in (";16B", ";16L", ";16N", "SGI16")):
        raise ReadError(f"{image.format} with more than 8 bits per sample is not supported; convert it to PNG or TIFF")


def raw_of(image) -> Raw:
    """Returns the current frame of an 8-bit image."""
    mode, bands = image.mode, image.getbands()
    if mode not in _MODES:
        raise ReadError(f"{image.format} with pixels of mode {mode} is not supported; convert it to PNG or TIFF")
    if mode in ("La", "RGBa"):
        return Raw(np.asarray(image), "grey" if mode == "La" else "rgb", 8, alpha="premultiplied")
    if mode == "LA":
        return Raw(np.asarray(image), "grey", 8, alpha="straight")
    if "A" in bands or "transparency" in image.info:
        grey = mode in ("1", "L")
        return Raw(np.asarray(image.convert("LA" if grey else "RGBA")), "grey" if grey else "rgb", 8, alpha="straight")
    if mode in ("1", "L"):
        return Raw(np.asarray(image.convert("L")), "grey", 8)
    if mode == "CMYK":
        return Raw(np.asarray(image), "cmyk", 8)
    return Raw(np.asarray(image.convert("RGB")), "rgb", 8)
