"""What the modules share: windows of any number of taps, borders, and the call of the operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused._core import _ops, autograd, checks
from ssim_fused._core.call import prepare_images
from ssim_fused._core.composite import level_product, pyramid, without_autocast
from ssim_fused._core.spec import Reduction, Spec
from ssim_fused._core.window import Window

Constants = tuple[float, float, float]  # the range, k1 and k2
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}


def gaussian_taps(size: int, sigma: float) -> list[float]:
    """A Gaussian of so many taps, also of an even number, summing to one."""
    distances = [(i - (size - 1) / 2) / sigma for i in range(size)]
    taps = [math.exp(-distance * distance / 2) for distance in distances]  # in operations that a trace can follow
    total = sum(taps)
    return [tap / total for tap in taps]


def gaussian_window(
    sizes: Sequence[int], sigmas: Sequence[float], constants: Constants = (1.0, 0.01, 0.03), padding: str = "valid"
) -> Window:
    """Gaussians of so many taps."""
    for name, values in (("size", sizes), ("standard deviation", sigmas)):
        if not all(value > 0 for value in values):
            raise ValueError(f"The window's {name} is {tuple(values)}, expected positive numbers.")
    if all(size == 2 * int(3.5 * sigma + 0.5) + 1 for size, sigma in zip(sizes, sigmas, strict=True)):
        return Window(tuple(map(float, sigmas)), tuple(sizes), None, padding, *constants)  # the kernels' own
    parts = [gaussian_taps(size, sigma) for size, sigma in zip(sizes, sigmas, strict=True)]
    return own_window(parts, constants, padding)


def uniform_window(sizes: Sequence[int], constants: Constants) -> Window:
    """Means over so many pixels along each axis."""
    if all(size % 2 for size in sizes):
        return Window((), tuple(sizes), None, "valid", *constants)
    return own_window([[1 / size] * size for size in sizes], constants)


def own_window(parts: Sequence[Sequence[float]], constants: Constants, padding: str = "valid") -> Window:
    """The product of one window for each axis."""
    return Window((), tuple(map(len, parts)), [tap for part in parts for tap in part], padding, *constants)


def per_axis(name: str, value: Any, axes: int) -> tuple:
    """A number for each axis."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(values) != axes:
        raise ValueError(f"`{name}` is {value!r}, expected a number or a sequence of {axes}, one for each axis.")
    return values


def evaluate(
    x: Tensor,
    y: Tensor,
    window: Window,
    *,
    reduction: str = "none",
    per_channel: bool = False,
    betas: Sequence[float] = (),
    as_distance: bool = False,
    want_contrast: bool = False,
    want_map: bool = False,
) -> list[Tensor]:
    """SSIM, or MS-SSIM where there are ``betas``; then contrast sensitivity and map where wanted.

    Values are those of images ``[B]``, or of channels ``[B, C]``; ``reduction`` is over all of them. Integers
    that the kernels do not read, those of uint8 and uint16, become float32.
    """
    if x.dtype != y.dtype or x.dtype not in _ops.LARGEST:
        x, y = (image if image.is_floating_point() or image.is_complex() else image.float() for image in (x, y))
    checks.check_images(x, y)
    x, y, dtype = prepare_images(x, y)
    shape = x.shape
    if per_channel:
        x, y = (image.flatten(0, 1).unsqueeze(1) for image in (x, y))
    checks.check_sides(_larger(shape, window), _odd(window))
    score = Spec(window, REDUCTIONS[reduction], as_distance, want_contrast, want_map, betas=tuple(map(float, betas)))
    if any(size % 2 == 0 for size in window.kernel_size) and betas:
        results = _by_levels(score, x, y)
    else:
        results = _evaluate(score, x, y)
    return [
        (result.reshape(*shape[:2], *result.shape[2:]) if per_channel and result.ndim else result).to(dtype)
        for result in results
    ]


def _evaluate(score: Spec, x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """The operators' results, whose windows have odd numbers of taps: an even one gets a tap of zero, and a pixel."""
    window = score.window
    if all(size % 2 for size in window.kernel_size):
        for level in range(len(score.betas)):
            checks.check_room(x.shape, window, level)
        return autograd.evaluate(score, x, y)
    more = [number for size in reversed(window.kernel_size) for number in (0, 1 - size % 2)]
    x, y = (image if image.is_floating_point() else image.float() for image in (x, y))
    with without_autocast(x):
        x, y = F.pad(x, more), F.pad(y, more)
    return autograd.evaluate(score._replace(window=_odd(window)), x, y)


def _by_levels(score: Spec, x: Tensor, y: Tensor) -> list[Tensor]:
    """MS-SSIM where a level's images need a pixel more than what is pooled."""
    means = []
    for level, images in enumerate(pyramid(x, y, len(score.betas))):
        is_last = level == len(score.betas) - 1
        checks.check_room(_larger(images[0].shape, score.window), _odd(score.window))
        of_level = Spec(score.window, Reduction.NONE, want_contrast=not is_last)
        means.append(_evaluate(of_level, *images[:2])[0 if is_last else 1])
    value = level_product(means, score.betas, score.normalize)
    return [score.reduced(1 - value if score.as_distance else value)]


def _odd(window: Window) -> Window:
    """The same window, with an odd number of taps along every axis."""
    if all(size % 2 for size in window.kernel_size):
        return window
    sizes, taps = window.kernel_size, list(window.taps or ())
    parts = []
    for size in sizes:
        parts += [*taps[:size], *([] if size % 2 else [0.0])]
        del taps[:size]
    return window._replace(kernel_size=tuple(size + 1 - size % 2 for size in sizes), taps=parts)


def _larger(shape: Sequence[int], window: Window) -> list[int]:
    return [*shape[:2], *(n + 1 - size % 2 for n, size in zip(shape[2:], window.kernel_size, strict=True))]


def pad_symmetric(image: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Repeats the last axes beyond their ends, the edge pixel first: ``d c b a | a b c d | d c b a``."""
    for dim, (before, after) in zip(range(image.ndim - len(widths), image.ndim), widths, strict=True):
        n = image.shape[dim]
        position = torch.arange(-before, n + after, device=image.device).remainder(2 * n)
        image = image.index_select(dim, torch.where(position < n, position, 2 * n - 1 - position))
    return image
