"""Reads TIFF and BigTIFF with tifffile and the codecs of imagecodecs.

White is ``2 ** BitsPerSample - 1``, whatever type the samples are stored in. Thumbnails and transparency masks
(NewSubfileType) do not count as frames.
"""

from __future__ import annotations

import io
import math

import numpy as np

from .samples import Alpha, Limits, Model, Opened, Raw, ReadError

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_EXTRA_SAMPLES, _ASSOCIATED, _UNASSOCIATED = 338, 1, 2
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2  # SubfileType
_MODELS: dict[int, Model] = {
    _MINISWHITE: "grey", _MINISBLACK: "grey", _RGB: "rgb", _PALETTE: "rgb", _CMYK: "cmyk", _YCBCR: "rgb",
}  # fmt: skip
_COLORS = {_MINISWHITE: 1, _MINISBLACK: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_JPEG = (6, 7)


def open_file(data: bytes, limits: Limits) -> Opened:
    """Opens the full-resolution pages as frames."""
    from tifffile import TiffFile

    file = TiffFile(io.BytesIO(data), _multifile=False)
    if (file.is_shaped or file.is_imagej) and any(series.is_truncated for series in file.series):
        raise ReadError(
            "TIFF with pixels after its pages (ImageJ, tifffile) is not supported; save it with one page each"
        )
    pages = [page for page in (file.pages[n].aspage() for n in range(len(file.pages))) if _is_frame(page)]
    if not pages:
        raise ReadError("the TIFF has no full-resolution page; expected at least one")
    for page in pages:
        limits.check_size(page.imagewidth, page.imagelength)
    return Opened(len(pages), lambda number: _raw(pages[number], len(data)))


def _is_frame(page) -> bool:
    if page.subfiletype & (_REDUCED | _MASK):
        return False
    return not (254 not in page.tags and page.tags.valueof(255, 1) == _OLD_REDUCED)


def _raw(page, size: int) -> Raw:
    photometric = int(page.photometric)
    if photometric not in _MODELS:
        raise ReadError(
            f"TIFF with photometric interpretation {page.photometric!r:.40} is not supported; convert it to grey or RGB"
        )
    if photometric == _YCBCR and int(page.compression) not in _JPEG:
        raise ReadError("TIFF with YCbCr pixels without JPEG compression is not supported; convert it to RGB")
    if photometric == _CMYK and page.tags.valueof(332, 1) != 1:
        raise ReadError("TIFF with inks other than CMYK is not supported; convert it to RGB")
    bits, kind = _bits(page)
    _check_segments(page, size)
    alpha = _alpha(page, _COLORS[photometric])
    samples = _samples(page)
    if photometric == _PALETTE:
        if alpha or kind != "u":
            raise ReadError("TIFF with a palette and alpha, or a signed palette, is not supported; convert it to RGB")
        samples, bits = _looked_up(samples[..., 0], page)
    return Raw(
        samples,
        _MODELS[photometric],
        None if kind == "f" else bits,
        alpha=alpha,
        inverted=photometric == _MINISWHITE,
        orientation=_orientation(page),
    )


def _bits(page) -> tuple[int, str]:
    """Returns the bits per sample, and the kind of sample: u, i or f."""
    bits, sample = page.bitspersample, page.sampleformat
    if isinstance(bits, tuple) or isinstance(sample, tuple) or page.dtype is None:
        raise ReadError(
            f"TIFF with samples of {bits} bits in format {sample} is not supported; expected the same for all "
            "channels; convert it"
        )
    kind = page.dtype.kind
    if kind not in "buif":
        raise ReadError(
            f"TIFF with samples of type {page.dtype} is not supported; expected integers or floats; convert it"
        )
    return int(bits), "u" if kind == "b" else kind


def _check_segments(page, size: int) -> None:
    """Refuses missing and truncated strips and tiles, for which tifffile would return zeros."""
    expected = math.prod(page.chunked)
    offsets, counts = page.dataoffsets, page.databytecounts
    if (len(offsets) < expected or len(counts) < expected) and not (page.is_contiguous and offsets):
        raise ReadError(f"broken TIFF: it has {min(len(offsets), len(counts))} of {expected} strips or tiles")
    for offset, count in zip(offsets, counts, strict=False):
        if offset <= 0 or count <= 0:
            raise ReadError("TIFF with omitted strips or tiles is not supported; save it without sparse tiles")
        if offset + count > size:
            raise ReadError("broken TIFF: truncated before the end of its pixels")


def _samples(page) -> np.ndarray:
    """Returns the samples ``[H, W, C]`` in native byte order."""
    planes, depth, height, width, contiguous = page.shaped
    if depth != 1:
        raise ReadError(f"TIFF with an image depth of {depth} is not supported; expected 1; save slices as pages")
    array = page.asarray(squeeze=False, maxworkers=1).reshape(planes, height, width, contiguous)
    array = array.transpose(1, 2, 0, 3).reshape(height, width, planes * contiguous)
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _alpha(page, colors: int) -> Alpha | None:
    """Returns whether color is premultiplied by alpha, or None if no alpha follows the color channels."""
    extra = [int(value) for value in page.extrasamples]
    count = page.samplesperpixel - colors
    if count < 0:
        raise ReadError(f"broken TIFF: it has {page.samplesperpixel} samples per pixel; expected at least {colors}")
    if count == 0:
        return None
    if _EXTRA_SAMPLES not in page.tags and count == 1 and colors == 3:
        return "straight"  # what programs mean that omit the tag
    if count > 1 or extra not in ([_ASSOCIATED], [_UNASSOCIATED]):
        raise ReadError(
            f"TIFF with {count} extra samples per pixel that ExtraSamples does not mark as alpha is not supported; "
            "remove them"
        )
    return "premultiplied" if extra == [_ASSOCIATED] else "straight"


def _looked_up(index: np.ndarray, page) -> tuple[np.ndarray, int]:
    """Looks up palette colors, which TIFF stores in 16 bits. Returns 8 bits if all entries were made from 8 bits."""
    palette = np.asarray(page.colormap).T  # [N, 3]
    if palette.ndim != 2 or index.max() >= len(palette):
        raise ReadError("broken TIFF: the palette has fewer entries than the largest index")
    # Programs store a byte v as 257 v, as 256 v, or, violating the standard, as v.
    for factor in (257, 256):
        if not (palette % factor).any():
            return (palette // factor).astype(np.uint8)[index], 8
    if palette.max() < 256:
        return palette.astype(np.uint8)[index], 8
    return palette.astype(np.uint16)[index], 16


def _orientation(page) -> int:
    value = page.tags.valueof(274, 1)
    return value if isinstance(value, int) else 1
