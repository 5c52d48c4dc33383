"""Rectangles of a picture that don't count: ``--ignore x,y,w,h``."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ssim_fused.scoring.errors import PairError, UsageError

Rectangle = tuple[int, int, int, int]  # x, y, width, height


def parsed(text: str) -> Rectangle:
    """The rectangle of the words ``x,y,w,h``.

    Raises:
        ValueError: they are not four whole numbers.

    """
    x, y, width, height = (int(number) for number in text.split(","))
    return x, y, width, height


def check(rectangles: tuple[Rectangle, ...]) -> None:
    """Checks all that can be known of rectangles without a picture.

    Raises:
        UsageError: one is not four whole numbers, has no pixels, or begins before the picture.

    """
    for rectangle in rectangles:
        if len(rectangle) != 4 or not all(isinstance(number, int) for number in rectangle):
            raise UsageError(f"ignore has {rectangle!r}; expected four whole numbers (x, y, w, h).")
        x, y, width, height = rectangle
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise UsageError(f"ignore is {x},{y},{width},{height}; expected x, y >= 0 and w, h >= 1.")


def without(mask: Tensor | None, rectangles: tuple[Rectangle, ...], size: tuple[int, int], crop: int) -> Tensor | None:
    """The weights of a cropped picture ``[H, W]`` with zeros in the rectangles; None if all pixels count.

    Args:
        mask: the weights without the rectangles, or None.
        rectangles: in pixels of the picture before it was cropped.
        size: height and width of the picture after that.
        crop: pixels cut off each side.

    Raises:
        PairError: a rectangle reaches beyond the picture, or nothing is left.

    """
    if not rectangles:
        return mask
    weights = _weights(rectangles, size, crop)
    weights = weights if mask is None else mask * weights
    if not weights.any():
        raise PairError("--ignore leaves no pixel that counts")
    return weights


@lru_cache(maxsize=8)  # for the frames of a video
def _weights(rectangles: tuple[Rectangle, ...], size: tuple[int, int], crop: int) -> Tensor:
    height, width = (side + 2 * crop for side in size)
    weights = torch.ones(height, width)
    for x, y, w, h in rectangles:
        if x + w > width or y + h > height:
            raise PairError(f"--ignore {x},{y},{w},{h} reaches beyond the picture of {width}x{height} pixels")
        weights[y : y + h, x : x + w] = 0
    return weights[crop : height - crop, crop : width - crop]
