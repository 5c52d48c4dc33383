"""Computes the score of two images, and the region where they differ most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from ssim_fused.functional import structural_similarity_index_measure
from ssim_fused.testing.images import HIDDEN, Image, Range, Rectangle, bounds, scaled

__tracebackhide__ = HIDDEN

SIGMA = 1.5  # standard deviation of the Gaussian window, whose side is 2 int(3.5 sigma + 0.5) + 1
BELOW_ONE = math.nextafter(1, 0)  # the highest score of images that differ; a rounded mean could be 1
NOTICED = 0.25  # pixels of a region have at least this fraction of the largest distance
TILES = 64  # at most, per axis; pixels of adjacent tiles belong to the same region
SMALLEST_TILE = 8  # pixels


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        actual: the image under test.
        expected: the image that it is compared with.
        score: the weighted mean SSIM.
        region: the worst region as x, y, width and height; the whole image if the images are equal.
        local: the mean SSIM of the worst region.
        distance: ``1 - SSIM`` of each pixel ``[H, W]``, or None if the images are equal.
        weights: weights of the pixels ``[H, W]``, or None if all have the weight 1.
        shown: both images ``[C, H, W]`` in [0, 1] as compared, first expected, then actual.

    """

    actual: Image
    expected: Image
    score: float
    region: Rectangle
    local: float
    distance: Tensor | None
    weights: Tensor | None
    shown: tuple[Tensor, Tensor]


def compare(actual: Image, expected: Image, weights: Tensor | None, data_range: Range) -> Comparison:
    """Compares two images of the same size by the rules of :func:`ssim_fused.testing.assert_similar`.

    The score of equal images is 1; SSIM is not computed for them.
    """
    narrow = {torch.uint8, torch.bool, torch.float32, torch.float16, torch.bfloat16}
    dtype = torch.float32 if {actual.pixels.dtype, expected.pixels.dtype} <= narrow else torch.float64
    seen = None if weights is None else weights > 0
    x = scaled(actual, bounds(actual, expected, data_range), seen, dtype)
    y = scaled(expected, bounds(expected, actual, data_range), seen, dtype)
    channels = max(x.shape[0], y.shape[0])
    x, y = x.expand(channels, -1, -1), y.expand(channels, -1, -1)
    shown = _over(y, expected.alpha, 1.0), _over(x, actual.alpha, 1.0)
    if actual.alpha is None and expected.alpha is None:
        backgrounds: tuple[float, ...] = (1.0,)
    else:
        backgrounds = (0.0, 1.0)  # images that are equal over black and over white are equal over any background
    worst: Comparison | None = None
    for background in backgrounds:
        pair = _over(x, actual.alpha, background), _over(y, expected.alpha, background)
        if _equal(*pair, seen):
            continue
        score, distance = _measure(*pair, weights)
        if worst is None or score < worst.score:
            region, local = worst_region(distance, pair[0] - pair[1], weights)
            worst = Comparison(actual, expected, score, region, local, distance, weights, (pair[1], pair[0]))
    height, width = actual.size
    return worst or Comparison(actual, expected, 1.0, (0, 0, width, height), 1.0, None, weights, shown)


def _over(pixels: Tensor, alpha: Tensor | None, background: float) -> Tensor:
    if alpha is None:
        return pixels
    opacity = alpha.to(pixels.dtype)
    return pixels * opacity + background * (1 - opacity)


def _equal(x: Tensor, y: Tensor, seen: Tensor | None) -> bool:
    if seen is None:
        return torch.equal(x, y)
    return not ((x != y).any(0) & seen).any()


def _measure(x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[float, Tensor]:
    """Returns the mean SSIM, limited to ``BELOW_ONE``, and the distance of each pixel, 0 where the weight is 0."""
    # Reflect padding requires sides longer than the radius of the window, so small images use a smaller window.
    sigma = tuple(min(SIGMA, max((side - 1) / 3.5, 0.1)) for side in x.shape[1:])
    mask = None if weights is None else weights[None, None].to(x.dtype)
    score, similarity = structural_similarity_index_measure(
        x[None], y[None], data_range=1.0, sigma=sigma, mask=mask, return_full_image=True
    )
    distance = (1 - similarity[0]).mean(0)
    if weights is not None:
        distance = distance.where(weights > 0, 0)
    return min(float(score), BELOW_ONE), distance


def worst_region(distance: Tensor, difference: Tensor, weights: Tensor | None) -> tuple[Rectangle, float]:
    """Finds the connected region with the largest total distance, and its mean SSIM.

    A pixel belongs to a region if its distance is at least the fraction ``NOTICED`` of the largest one. The region is
    then reduced to the pixels whose values differ, because windows spread a difference by their radius.

    Args:
        distance: ``1 - SSIM`` of each pixel ``[H, W]``, 0 where the weight is 0.
        difference: the difference of the pixel values ``[C, H, W]``.
        weights: weights of the pixels ``[H, W]``, or None.

    Returns:
        The region as x, y, width and height, and its mean SSIM.

    """
    noticed = distance >= NOTICED * distance.max()
    tile = max(SMALLEST_TILE, -(-max(distance.shape) // TILES))
    cost = avg_pool2d(_filled(distance * noticed, tile), tile)[0]
    tiles = max_pool2d(_filled(noticed.to(distance.dtype), tile), tile)[0] > 0
    group = _costliest(tiles, cost)
    inside = group.repeat_interleave(tile, 0).repeat_interleave(tile, 1)[: distance.shape[0], : distance.shape[1]]
    top, bottom, left, right = _box(noticed & inside)
    differs = difference.abs().amax(0)
    if weights is not None:
        differs = differs.where(weights > 0, 0)  # replaces NaN, too
    differs = differs[top:bottom, left:right]
    changed = differs > differs.max() / 10
    if changed.any():
        upper, lower, first, last = _box(changed)
        top, bottom, left, right = top + upper, top + lower, left + first, left + last
    part = distance[top:bottom, left:right]
    share = torch.ones_like(part) if weights is None else weights[top:bottom, left:right].to(part.dtype)
    local = 1 - float((part * share).sum() / share.sum())
    return (left, top, right - left, bottom - top), local


def _filled(plane: Tensor, tile: int) -> Tensor:
    """Pads a plane with zeros to whole tiles: ``[1, H, W]``."""
    height, width = plane.shape
    return pad(plane[None], (0, -width % tile, 0, -height % tile))


def _box(pixels: Tensor) -> tuple[int, int, int, int]:
    """Returns top, bottom, left and right of the bounding box of the pixels that are set; ends are exclusive."""
    rows, columns = pixels.any(1).nonzero(), pixels.any(0).nonzero()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _costliest(tiles: Tensor, cost: Tensor) -> Tensor:
    """Returns the group of adjacent set tiles with the largest total cost, as a mask of tiles."""
    costs = {(int(y), int(x)): float(cost[y, x]) for y, x in tiles.nonzero()}
    best: list[tuple[int, int]] = []
    most = -1.0
    while costs:
        waiting = [next(iter(costs))]
        total, group = costs.pop(waiting[0]), []
        while waiting:
            y, x = waiting.pop()
            group.append((y, x))
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in costs:
                    total += costs.pop(near)
                    waiting.append(near)
        if total > most:
            most, best = total, group
    chosen = torch.zeros_like(tiles)
    for y, x in best:
        chosen[y, x] = True
    return chosen
