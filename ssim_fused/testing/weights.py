"""Checks ``ignore`` and ``mask``, and combines them to weights of pixels."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssim_fused.testing.images import HIDDEN, PEAKS, SLACK, Image, Rectangle, read

__tracebackhide__ = HIDDEN


def weights_of(ignore: Sequence[Rectangle], mask: Any, actual: Image, expected: Image) -> Tensor | None:
    """Returns weights ``[H, W]`` in [0, 1], or None if all pixels have the weight 1.

    Raises:
        AssertionError: the sizes of the images differ.
        TypeError, ValueError: ``ignore`` or ``mask`` is invalid, does not fit the images, or excludes all pixels.

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
        raise ValueError(f"{named if rectangles else '`mask` leaves'} no pixel to compare; expected at least one.")
    return weights


def check_sizes(actual: Image, expected: Image) -> None:
    """Checks that both images have the same size.

    Raises:
        AssertionError: the sizes differ.

    """
    if actual.size != expected.size:
        (height, width), (other_height, other_width) = actual.size, expected.size
        turned = " One of them may be rotated or transposed." if actual.size == expected.size[::-1] else ""
        raise AssertionError(
            f"`actual` has {width}x{height} pixels and `expected` {other_width}x{other_height}; expected the same size."
            f"{turned}"
        )


def _as_sequence(ignore: Any) -> Sequence[Any]:
    if isinstance(ignore, str) or not hasattr(ignore, "__iter__"):
        raise TypeError(f"`ignore` is {ignore!r}; expected a list of rectangles (x, y, w, h).")
    rectangles = list(ignore)
    if len(rectangles) == 4 and all(hasattr(number, "__index__") for number in rectangles):
        raise TypeError(f"`ignore` is {ignore!r}, one rectangle; expected a list; pass [{tuple(rectangles)}].")
    return rectangles


def _checked(rectangle: Any, size: tuple[int, int]) -> Rectangle:
    try:
        x, y, width, height = (operator.index(number) for number in rectangle)
    except (TypeError, ValueError):
        raise TypeError(f"`ignore` has {rectangle!r}; expected four integers (x, y, w, h).") from None
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > size[1] or y + height > size[0]:
        raise ValueError(
            f"`ignore` has x={x}, y={y}, w={width}, h={height}; expected a rectangle within the image of "
            f"{size[1]}x{size[0]} pixels."
        )
    return x, y, width, height


def _from_mask(mask: Any, size: tuple[int, int]) -> Tensor:
    image = read(mask, "mask")
    if image.pixels.shape[0] != 1:
        if not image.is_picture or image.alpha is not None:
            raise ValueError(f"`mask` is {image.described}, with several channels; expected one, [H, W].")
        if not all(torch.equal(image.pixels[0], channel) for channel in image.pixels[1:]):
            raise ValueError(f"`mask` is {image.described}, in color; expected grey: white counts, black is ignored.")
    if image.size != size:
        raise ValueError(
            f"`mask` has {image.size[1]}x{image.size[0]} pixels; expected {size[1]}x{size[0]}, as in the images."
        )
    dtype = image.pixels.dtype
    if image.is_integer and dtype not in PEAKS:
        raise TypeError(f"`mask` has the dtype {dtype}; expected bool, uint8, or float weights in [0, 1].")
    weights = image.pixels[0].float()
    # A uint8 mask of zeros and ones becomes weights of 0 and 1/255, which give the same score as 0 and 1.
    weights = weights / (image.white or PEAKS[dtype]) if image.is_integer else weights
    if not ((weights >= -SLACK) & (weights <= 1 + SLACK)).all():
        raise ValueError("`mask` has weights that are NaN or outside of [0, 1]; expected weights in [0, 1].")
    return weights.clamp(0, 1)
