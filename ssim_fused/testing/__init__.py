"""Assertions for image regression tests.

:func:`assert_similar` accepts NumPy arrays, tensors, PIL images and paths. The pytest fixture ``image_snapshot``, which
compares an image with a stored picture, is built on it. Everything except tensors requires
``pip install 'ssim_fused[scoring]'``.
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
    """Asserts that two images are similar: that their mean SSIM is at least ``at_least``.

    The mean hardly shows a small change in a large image. Use ``region_at_least`` to limit the worst region as well.

    An image is a NumPy array ``[H, W]`` or ``[H, W, C]``, a tensor ``[H, W]``, ``[C, H, W]`` or ``[1, C, H, W]``, a PIL
    image, or the path of a picture. ``C`` is 1 (grey), 3 (RGB) or 4 (RGBA). Each image is scaled by its own range, so
    that uint8 can be compared with floats in [0, 1]. If only one image is grey, it is repeated in three channels.
    Images with transparency are compared over black and over white, and the lower score counts. If an image is smaller
    than the window, a smaller window is used.

    Args:
        actual: the image under test.
        expected: the image that it is compared with.
        at_least: the lowest mean SSIM that passes. 1 passes only for equal images.
        region_at_least: the lowest mean SSIM of the worst region that passes, such as 0.9. None does not check it.
        ignore: rectangles ``(x, y, w, h)`` to exclude, in pixels, such as a clock. ``x`` and ``y`` are the left and the
            upper edge.
        mask: the pixels to compare: an image ``[H, W]`` of bool, or of weights from 0 (ignored) to 1, in any of the
            forms above. Pixels under the mask do not affect the score, not even if they are NaN.
        data_range: the range of float images, [0, 1] by default: the value of white, or ``(low, high)``. It is also the
            range of integer images if both images are integers. Without it, integers have the range of their type:
            uint8 0 to 255, uint16 0 to 65535, bool 0 to 1.
        heat_map: path of the PNG file to write on failure. By default, it is written to ``ssim-fused-failures`` in
            pytest's temporary folder (to ``--ssim-results-path`` if that is given), or, outside of pytest, to a new
            temporary folder.

    Returns:
        The mean SSIM.

    Raises:
        AssertionError: the score is below ``at_least``, that of the worst region is below ``region_at_least``, the
            sizes differ, or ``actual`` has a NaN. For a low score, the message has the threshold, the worst region with
            its score, and the path of a heat map.
        TypeError: an argument is not an image, or its dtype has no known range.
        ValueError: a shape, range or rectangle is invalid, ``expected`` has a NaN, or no pixel is left to compare.
        FileNotFoundError: a path does not exist.

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
    """Returns the reason why a comparison fails, or None if it passes."""
    if result.score < at_least:
        return f"SSIM is {_below(result.score, at_least)}, expected at_least={at_least:g}"
    if region_at_least is not None and result.local < region_at_least:
        local = _below(result.local, region_at_least)
        return f"SSIM is {result.score:.6f}, but {local} in a region, expected region_at_least={region_at_least:g}"
    return None


def _below(score: float, threshold: float) -> str:
    """Formats a score with enough digits to be below the threshold as printed."""
    text = f"{score:.6f}"
    return text if float(text) < float(f"{threshold:g}") else repr(score)


def failure(result: Comparison, problem: str, written: str) -> str:
    """Returns the message of a failed comparison. ``written`` is the line that names the heat map."""
    x, y, width, height = result.region
    return (
        f"`actual` is not similar enough to `expected`: {problem}.\n"
        f"  worst region: x={x}, y={y}, w={width}, h={height}, with a local SSIM of {result.local:.4f}\n"
        f"  actual: {result.actual.described}\n"
        f"  expected: {result.expected.described}\n"
        f"  {written}"
    )


def check_thresholds(at_least: float, region_at_least: float | None) -> None:
    """Checks that both thresholds are SSIM values, not percentages."""
    for name, threshold in (("at_least", at_least), ("region_at_least", region_at_least)):
        if threshold is None and name == "region_at_least":
            continue
        if not isinstance(threshold, numbers.Real) or isinstance(threshold, bool):
            raise TypeError(f"`{name}` is {threshold!r}; expected a number from -1 to 1, such as 0.99.")
        if not -1 <= float(threshold) <= 1:
            raise ValueError(f"`{name}` is {threshold}; expected -1 to 1, the range of SSIM; for 99 % pass 0.99.")
