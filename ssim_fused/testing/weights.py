"""Which pixels of an image count: ``ignore`` and ``mask``, checked and combined."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssim_fused.testing.images import HIDDEN, PEAKS, SLACK, Image, Rectangle, read

__tracebackhide__ = HIDDEN


def weights_of(ignore: Sequence[Rectangle], mask: Any, actual: Image, expected: Image) -> Tensor | None:
    """Weights ``[H, W]`` in [0, 1], or None if every pixel counts.

    Raises:
        AssertionError: the images have two sizes.
        TypeError, ValueError: ``ignore`` or ``mask`` doesn't fit the images, or leaves nothing of them.

    """
    check_sizes(actual, expected)
    rectangles = [_checked(rectangle, actual.size) for rectangle in _as_sequence(ignore)]
    if mask is None and not rectangles:
        return None
    weights = torch.ones(actual.size) if mask is None else _from_mask(mask, actual.size)
    for x, y, width, height in rectangles:
        weights[y : y + height, x : x + width] = 0
    if not weights.any():
        named = "`ignore` and `mask` leave" if rectangles and mask is not None else "`ignore` leaves"
        raise ValueError(f"{named if rectangles else '`mask` leaves'} no pixel to compare.")
    return weights


def check_sizes(actual: Image, expected: Image) -> None:
    """Checks that both images have one size.

    Raises:
        AssertionError: they have not.

    """
    if actual.size != expected.size:
        (height, width), (other_height, other_width) = actual.size, expected.size
        turned = " One of them is turned or transposed." if actual.size == expected.size[::-1] else ""
        raise AssertionError(
            f"`actual` has {width}x{height} pixels and `expected` {other_width}x{other_height}; expected the same size."
            f"{turned}"
        )


def _as_sequence(ignore: Any) -> Sequence[Any]:
    if isinstance(ignore, str) or not hasattr(ignore, "__iter__"):
        raise TypeError(f"`ignore` is {ignore!r}, expected a list of rectangles (x, y, w, h).")
    rectangles = list(ignore)
    if len(rectangles) == 4 and all(hasattr(number, "__index__") for number in rectangles):
        raise TypeError(f"`ignore` is {ignore!r}, one rectangle; expected a list of them: [{tuple(rectangles)}].")
    return rectangles


def _checked(rectangle: Any, size: tuple[int, int]) -> Rectangle:
    try:
        x, y, width, height = (operator.index(number) for number in rectangle)
    except (TypeError, ValueError):
        raise TypeError(f"`ignore` has {rectangle!r}, expected four whole numbers (x, y, w, h).") from None
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[1] or y + height > size[0]:
        raise ValueError(
            f"`ignore` has x={x}, y={y}, w={width}, h={height}, expected a rectangle inside of the image of "
            f"{size[1]}x{size[0]} pixels."
        )
    return x, y, width, height


def _from_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    image = read(mask, "mask")
    if image.pixels.shape[0] != 1:
        if not image.is_picture or image.alpha is not None:
            raise ValueError(f"`mask`, {image.described}, has several channels; expected one [H, W].")
        if not all(torch.equal(image.pixels[0], channel) for channel in image.pixels[1:]):
            raise ValueError(f"`mask`, {image.described}, is in colour; expected grey: white counts, black doesn't.")
    if image.size != size:
        raise ValueError(
            f"`mask` has {image.size[1]}x{image.size[0]} pixels, expected those of the images, {size[1]}x{size[0]}."
        )
    dtype = image.pixels.dtype
    if image.is_integer and dtype not in PEAKS:
        raise TypeError(f"`mask` has the dtype {dtype}, expected bool, uint8, or weights in [0, 1] of a float dtype.")
    weights = image.pixels[0].float()
    # uint8 zeros and ones are a mask made from comparisons, not weights of 1/255, which would give the same score.
    weights = weights / (image.white or PEAKS[dtype]) if image.is_integer else weights
    if not ((weights >= -SLACK) & (weights <= 1 + SLACK)).all():
        raise ValueError("`mask` has weights that are NaN or outside of [0, 1].")
    return weights.clamp(0, 1)
