"""Converts decoded samples to the pixels that are compared: ranges, color models, transparency, orientation.

The rules are the same for all formats. ``docs/scoring.md`` documents them for users.
"""

from __future__ import annotations

import numpy as np

from .samples import Limits, Raw, ReadError, Samples

LARGEST_EXACT = 1 << 24  # float32 represents every integer up to this one


def finished(raw: Raw, limits: Limits) -> Samples:
    """Applies the rules that all formats share.

    Raises:
        ReadError: the samples have no range, or are outside of it.

    """
    samples = raw.samples if raw.samples.ndim == 3 else raw.samples[..., None]
    channels = {"grey": 1, "rgb": 3, "cmyk": 4}[raw.model] + (raw.alpha is not None)
    if samples.shape[2] != channels:
        raise ReadError(f"has {samples.shape[2]} channels; expected {channels}")
    if raw.bits is None or raw.bits > 16 or samples.dtype.kind == "i":
        samples, white, opaque = _of_float(samples, raw, limits)
    else:
        samples, white, opaque = _of_integers(samples, raw, limits)
    color, alpha = (samples[..., :-1], samples[..., -1:]) if raw.alpha else (samples, None)
    if raw.inverted:
        color = (white - color).astype(color.dtype)
    if raw.model == "cmyk":
        color = _cmyk_to_rgb(color, white)
    if alpha is not None:
        color = _over_white(color, alpha, raw.alpha == "premultiplied", white, opaque)
    color = upright(color, raw.orientation)
    return Samples(color[..., 0] if color.shape[2] == 1 else color, white)


def _of_integers(samples: np.ndarray, raw: Raw, limits: Limits) -> tuple[np.ndarray, int, int]:
    """Returns samples of up to 16 bits as uint8 or uint16, the value of white, and that of full opacity."""
    bits = raw.bits or 0
    opaque = white = raw.white or 2**bits - 1
    samples = samples.astype(np.uint8 if white < 256 else np.uint16, copy=False)
    # If the range is smaller than that of the type, a sample may exceed white.
    if white not in (255, 65535) and samples.max() > white:
        raise ReadError(f"has a sample of {samples.max()}; expected at most {white}, the white of the file")
    given = limits.data_range
    if given is not None and white > 255 and 255 <= given < white and given == int(given):
        color = samples[..., :-1] if raw.alpha else samples
        if color.max() > given:
            raise ReadError(f"has a sample of {color.max()}; expected at most {given:g}, given by --data-range")
        white = int(given)
    if bits in (1, 2, 4) and raw.white is None:  # scaled by 255, 85 or 17, which is exact
        samples, white, opaque = samples * np.uint8(255 // white), 255, 255
    return samples, white, opaque


def _of_float(samples: np.ndarray, raw: Raw, limits: Limits) -> tuple[np.ndarray, float, float]:
    """Returns samples without an inherent range as float32 (float64 stays float64), white, and full opacity."""
    if limits.data_range is None:
        raise ReadError(
            f"{samples.dtype} pixels have no range; give --data-range, the value of white, such as 1 for pixels in 0..1"
        )
    if samples.dtype.kind in "iu":
        if raw.alpha or raw.model == "cmyk":
            raise ReadError(f"{samples.dtype} pixels are supported only in grey or RGB; save the file with 16 bits")
        if np.abs(samples.astype(np.float64)).max() > LARGEST_EXACT:
            raise ReadError(
                f"has {samples.dtype} pixels above {LARGEST_EXACT}, which float32 cannot represent; save the file with "
                "16 bits"
            )
    elif not np.isfinite(samples).all():
        raise ReadError("has infinite or NaN pixels; expected finite values")
    if raw.alpha and (samples[..., -1].min() < 0 or samples[..., -1].max() > 1):
        raise ReadError("has alpha values outside of 0..1")
    kind = np.float64 if samples.dtype == np.float64 else np.float32
    return samples.astype(kind, copy=False), limits.data_range, 1.0


def _cmyk_to_rgb(ink: np.ndarray, white: float) -> np.ndarray:
    """Converts CMYK to RGB by ``(1 - C)(1 - K)`` per channel, as programs without color management display it."""
    if ink.dtype.kind == "f":
        return (white - ink[..., :3]) * (white - ink[..., 3:]) / ink.dtype.type(white)
    paper = np.uint32(white) - ink
    return ((paper[..., :3] * paper[..., 3:] + int(white) // 2) // int(white)).astype(ink.dtype)


def _over_white(color: np.ndarray, alpha: np.ndarray, premultiplied: bool, white: float, opaque: float) -> np.ndarray:
    """Composites color over white. Integers are rounded to nearest."""
    if alpha.min() == opaque:
        return color
    if color.dtype.kind == "f":
        behind = (opaque - alpha) * color.dtype.type(white)
        return color + behind if premultiplied else color * alpha + behind
    wide = alpha.astype(np.uint32)  # products of two 16-bit values, plus half a unit for rounding, fit into 32 bits
    behind = (int(opaque) - wide) * np.uint32(white) + np.uint32(opaque) // 2
    if premultiplied:
        return np.minimum(color + behind // int(opaque), int(white)).astype(color.dtype)
    return ((color * wide + behind) // int(opaque)).astype(color.dtype)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Rotates and mirrors ``[H, W, C]`` by an EXIF orientation. Undefined orientations are ignored."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels if orientation not in range(2, 9) else np.ascontiguousarray(pixels)
