"""Assertions for image regression tests: whether an image is still what it was.

Takes NumPy arrays, tensors, PIL images and paths. The pytest fixture ``image_snapshot``, which compares with a stored
picture, is built on it. Needs the extra ``[scoring]`` for everything except tensors.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from typing import Any

from ssim_fused.testing.comparison import Comparison, compare
from ssim_fused.testing.failures import check_path, heat_map_path, write_heat_map
from ssim_fused.testing.images import HIDDEN, Range, Rectangle, read
from ssim_fused.testing.weights import weights_of

__all__ = ["assert_similar"]

__tracebackhide__ = HIDDEN


def assert_similar(
    actual: Any,
    expected: Any,
    at_least: float = 0.99,
    *,
    region_at_least: float | None = None,
    ignore: Sequence[Rectangle] = (),
    mask: Any = None,
    data_range: Range = None,
    heat_map: str | os.PathLike[str] | None = None,
) -> float:
    """Asserts that two images are alike: that their mean SSIM is at least ``at_least``.

    The mean hides a small change of a large image; ``region_at_least`` is a bound for the worst region.

    An image is a NumPy array ``[H, W]`` or ``[H, W, C]``, a tensor ``[H, W]``, ``[C, H, W]`` or ``[1, C, H, W]``, a PIL
    image, or the path of a picture. ``C`` is 1 (grey), 3 (RGB) or 4 (RGBA). Both images are scaled by their own range,
    so that uint8 may be compared with floats in [0, 1]. If one image is grey and the other is in colour, the grey one
    is repeated in three channels. Images with transparency are compared over black and over white; the lower score
    counts. Images narrower or lower than the window get a smaller window.

    Args:
        actual: the image under test.
        expected: the image it should look like.
        at_least: the lowest SSIM that passes, at most 1, which only equal images reach.
        region_at_least: the lowest mean SSIM of the worst region that passes, such as 0.9; None for any.
        ignore: rectangles ``(x, y, w, h)`` in pixels that don't count, such as a clock. ``x`` and ``y`` are the left
            and upper edge.
        mask: which pixels count: an image ``[H, W]`` of bool, or of weights from 0 (ignored) to 1 (counts), in any of
            the forms above. Nothing that lies under the mask affects the score, a NaN neither.
        data_range: the range of float images, [0, 1] by default: the white level, or ``(low, high)``. It is also the
            range of integer images if both images are integers. Without it, integers have the range of their type:
            uint8 0 to 255, uint16 0 to 65535, bool 0 to 1.
        heat_map: path of the PNG file to write on failure. By default it is ``ssim-fused-failures`` in pytest's
            temporary folder (with the plugin, ``--ssim-results-path``), or outside of pytest a new temporary folder.

    Returns:
        The mean SSIM.

    Raises:
        AssertionError: the score is lower than ``at_least``, or that of the worst region than ``region_at_least``; the
            sizes differ; or ``actual`` has a NaN. Of a score the message has the threshold, the worst region with its
            own score, and the path of a heat map.
        TypeError: an argument is not an image, or its dtype has no known range.
        ValueError: a shape, range or rectangle that doesn't fit, a NaN in ``expected``, or a mask that leaves nothing
            to compare.
        FileNotFoundError: a path that doesn't exist.

    Example:
        >>> import torch
        >>> from ssim_fused.testing import assert_similar
        >>> expected = torch.rand(3, 48, 64)
        >>> assert_similar(expected.clone(), expected)
        1.0
        >>> actual = expected.clone()
        >>> actual[:, 10:20, 30:50] = 0
        >>> assert_similar(actual, expected, ignore=[(30, 10, 20, 10)])
        1.0

    """
    check_thresholds(at_least, region_at_least)
    check_path("heat_map", heat_map)
    both = [read(image, name, data_range) for name, image in (("actual", actual), ("expected", expected))]
    result = compare(both[0], both[1], weights_of(ignore, mask, both[0], both[1]), data_range)
    problem = problem_of(result, at_least, region_at_least)
    if problem:
        raise AssertionError(
            failure(result, problem, write_heat_map(result, heat_map_path() if heat_map is None else heat_map))
        )
    return result.score


def problem_of(result: Comparison, at_least: float, region_at_least: float | None) -> str | None:
    """Why a comparison fails, or None if it passes."""
    if result.score < at_least:
        return f"SSIM is {_below(result.score, at_least)}, expected at_least={at_least:g}"
    if region_at_least is not None and result.local < region_at_least:
        local = _below(result.local, region_at_least)
        return f"SSIM is {result.score:.6f}, but {local} in a region, expected region_at_least={region_at_least:g}"
    return None


def _below(score: float, threshold: float) -> str:
    """A score with as many digits as it takes to look as if it had not passed."""
    text = f"{score:.6f}"
    return text if float(text) < float(f"{threshold:g}") else repr(score)


def failure(result: Comparison, problem: str, written: str) -> str:
    """The message of a failed comparison; ``written`` names the file to look at."""
    x, y, width, height = result.region
    return (
        f"`actual` is not similar enough to `expected`: {problem}.\n"
        f"  worst region: x={x}, y={y}, w={width}, h={height}, with a local SSIM of {result.local:.4f}\n"
        f"  actual: {result.actual.described}\n"
        f"  expected: {result.expected.described}\n"
        f"  {written}"
    )


def check_thresholds(at_least: float, region_at_least: float | None) -> None:
    """Checks that both thresholds are SSIM, and not percentages."""
    for name, threshold in (("at_least", at_least), ("region_at_least", region_at_least)):
        if threshold is None and name == "region_at_least":
            continue
        if not isinstance(threshold, numbers.Real) or isinstance(threshold, bool):
            raise TypeError(f"`{name}` is {threshold!r}, expected a number of at most 1, such as 0.99.")
        if not -1 <= float(threshold) <= 1:
            raise ValueError(
                f"`{name}` is {threshold}, expected at most 1, the SSIM of equal images: for 99 % pass 0.99."
            )
