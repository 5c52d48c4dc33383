"""Rectangles of a picture that are excluded from the score: ``--ignore x,y,w,h``."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ssim_fused.scoring.errors import PairError, UsageError

Rectangle = tuple[int, int, int, int]  # x, y, width, height


def parsed(text: str) -> Rectangle:
    """Parses a rectangle ``x,y,w,h``.

    Raises:
        ValueError: the text is not four integers.

    """
    x, y, width, height = (int(number) for number in text.split(","))
    return x, y, width, height


def check(rectangles: tuple[Rectangle, ...]) -> None:
    """Checks rectangles as far as possible without a picture.

    Raises:
        UsageError: a rectangle is not four integers, is empty, or has a negative x or y.

    """
    for rectangle in rectangles:
        if len(rectangle) != 4 or not all(isinstance(number, int) for number in rectangle):
            raise UsageError(f"ignore has {rectangle!r}; expected four integers (x, y, w, h).")
        x, y, width, height = rectangle
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise UsageError(f"ignore is {x},{y},{width},{height}; expected x, y >= 0 and w, h >= 1.")


def without(mask: Tensor | None, rectangles: tuple[Rectangle, ...], size: tuple[int, int], crop: int) -> Tensor | None:
    """Returns the weights of a cropped picture ``[H, W]``, zero in the rectangles, or None if all pixels count.

    Args:
        mask: weights ``[H, W]`` before the rectangles are applied, or None for all ones.
        rectangles: in pixels of the picture before cropping.
        size: height and width of the picture after cropping.
        crop: pixels removed from each side.

    Raises:
        PairError: a rectangle does not fit into the picture, or no pixel is left.

    """
    if not rectangles:
        return mask
    weights = _weights(rectangles, size, crop)
    weights = weights if mask is None else mask * weights
    if not weights.any():
        raise PairError("--ignore and the mask exclude all pixels; leave some to be scored")
    return weights


@lru_cache(maxsize=8)  # all frames of a video have the same weights
def _weights(rectangles: tuple[Rectangle, ...], size: tuple[int, int], crop: int) -> Tensor:
    height, width = (side + 2 * crop for side in size)
    weights = torch.ones(height, width)
    for x, y, w, h in rectangles:
        if x + w > width or y + h > height:
            raise PairError(f"--ignore {x},{y},{w},{h} does not fit into the picture of {width}x{height} pixels")
        weights[y : y + h, x : x + w] = 0
    return weights[crop : height - crop, crop : width - crop]
