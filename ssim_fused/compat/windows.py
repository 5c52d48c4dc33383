"""Code shared by the drop-ins: windows with any number of taps, MS-SSIM with any pooling, borders, operator calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused._core import _ops, autograd
from ssim_fused._core.multiscale import BETAS as BETAS
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window as Window

Constants = tuple[float, float, float]  # data_range, k1 and k2
REDUCTIONS = {"none": 0, "mean": 1, "sum": 2}
_POOL = {2: lambda image: F.avg_pool2d(image, 2), 3: lambda image: F.avg_pool3d(image, 2)}
_ENORMOUS = 1e9  # as k1 or k2: it makes c1 or c2 so large that the moments next to it have no effect


def gaussian_taps(size: int, sigma: float) -> list[float]:
    """Returns a Gaussian with ``size`` taps, odd or even, that sum to 1."""
    distances = [(i - (size - 1) / 2) / sigma for i in range(size)]
    taps = [math.exp(-distance * distance / 2) for distance in distances]  # only operations that a trace can follow
    total = sum(taps)
    return [tap / total for tap in taps]


def gaussian_window(
    sizes: Sequence[int], sigmas: Sequence[float], constants: Constants = (1.0, 0.01, 0.03), padding: str = "valid"
) -> Window:
    """Returns a window that is a Gaussian with ``sizes[i]`` taps along each axis."""
    if all(size == 2 * int(3.5 * sigma + 0.5) + 1 for size, sigma in zip(sizes, sigmas, strict=True)):
        return Window(tuple(map(float, sigmas)), tuple(sizes), None, padding, *constants)  # computed by the operators
    parts = [gaussian_taps(size, sigma) for size, sigma in zip(sizes, sigmas, strict=True)]
    return own_window(parts, constants, padding)


def uniform_window(sizes: Sequence[int], constants: Constants) -> Window:
    """Returns a uniform window with ``sizes[i]`` taps along each axis."""
    if all(size % 2 for size in sizes):
        return Window((), tuple(sizes), None, "valid", *constants)
    return own_window([[1 / size] * size for size in sizes], constants)


def own_window(parts: Sequence[Sequence[float]], constants: Constants, padding: str = "valid") -> Window:
    """Returns a window with custom taps, given for each axis."""
    return Window((), tuple(map(len, parts)), [tap for part in parts for tap in part], padding, *constants)


def luminance_alone(window: Window) -> Window:
    """Returns the same window with a c2 so large that variances have no effect: SSIM is then the luminance factor."""
    return window._replace(k2=_ENORMOUS)


def contrast_alone(window: Window) -> Window:
    """Returns the same window with a c1 so large that means have no effect: SSIM is then the contrast sensitivity."""
    return window._replace(k1=_ENORMOUS)


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
    """Computes SSIM, or MS-SSIM if ``betas`` is not empty; then contrast sensitivity and map if requested.

    There is one value per image ``[B]``, or per channel ``[B, C]``, before the reduction over all of them. The caller
    must have checked that the images contain the window, at every level. Results for integers are float32.
    """
    x, y, dtype = readable(x, y)
    shape = x.shape
    if per_channel:
        x, y = (image.flatten(0, 1).unsqueeze(1) for image in (x, y))
    spec = Spec(window, REDUCTIONS[reduction], as_distance, want_contrast, want_map, betas=tuple(map(float, betas)))
    if all(size % 2 for size in window.kernel_size):
        results = autograd.evaluate(spec, x, y)
    elif betas:
        contrast = Spec(contrast_alone(window), REDUCTIONS["none"])
        similarity = spec._replace(betas=(), reduction=REDUCTIONS["none"], as_distance=False)
        value = multiscale(
            *in_floats(x, y), betas, _POOL[x.ndim - 2],
            lambda x, y, is_last: _evaluate_even(similarity if is_last else contrast, x, y)[0],
        )  # fmt: skip
        results = [spec.reduced(1 - value if as_distance else value)]
    else:
        results = _evaluate_even(spec, x, y)
    return [
        (result.reshape(*shape[:2], *result.shape[2:]) if per_channel and result.ndim else result).to(dtype)
        for result in results
    ]


def evaluate_in_float64(x: Tensor, y: Tensor, window: Window, *, want_map: bool = False) -> list[Tensor]:
    """SSIM ``[B]`` of integer images on the CPU, and the map if requested, in float64 and without a copy of the images.

    The window has an odd number of taps along each axis.
    """
    spec = Spec(window, REDUCTIONS["none"], want_map=want_map)
    return _ops.similarity(x, y, **spec.keywords(), want_map=want_map, want_float64=True)


def readable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Returns both images in a dtype that the operators read, and the dtype of the results.

    Different floating-point dtypes are promoted to the wider one, and integers that the operators do not read to
    float32. Under autocast, results of 16-bit images are float32.
    """
    if x.dtype != y.dtype or not (x.is_floating_point() or x.dtype in _ops.TYPE_RANGES):
        x, y = (image if image.is_floating_point() else image.float() for image in (x, y))
        dtype = torch.promote_types(x.dtype, y.dtype)
        x, y = x.to(dtype), y.to(dtype)
    is_autocast = torch.is_autocast_enabled(x.device.type) and x.dtype is not torch.float64
    return x, y, torch.float32 if is_autocast or not x.is_floating_point() else x.dtype


def in_floats(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both images in the dtype of the arithmetic: float64 if one of them is, otherwise float32."""
    x, y, _ = readable(x, y)
    return (x, y) if x.dtype in (torch.float32, torch.float64) else (x.float(), y.float())


def _evaluate_even(spec: Spec, x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """Evaluates a spec with an even number of taps along some axis.

    The operators need odd windows. Each even axis of the window gets one more tap of 0, and that axis of the images one
    more pixel.
    """
    window = spec.window
    more = [number for size in reversed(window.kernel_size) for number in (0, 1 - size % 2)]
    x, y = in_floats(x, y)
    return autograd.evaluate(spec._replace(window=_odd(window)), F.pad(x, more), F.pad(y, more))


def _odd(window: Window) -> Window:
    """Returns the same window with a tap of 0 appended along each axis that has an even number of taps."""
    sizes, taps = window.kernel_size, list(window.taps or ())
    parts = []
    for size in sizes:
        parts += [*taps[:size], *([] if size % 2 else [0.0])]
        del taps[:size]
    return window._replace(kernel_size=tuple(size + 1 - size % 2 for size in sizes), taps=parts)


def halves_evenly(sides: Sequence[int], levels: int) -> bool:
    """Returns whether only the last level of the pyramid may have an odd side, so that all ways of halving agree."""
    return all(n % 2 ** (levels - 1) == 0 for n in sides)


def multiscale(
    x: Tensor,
    y: Tensor,
    exponents: Sequence[float] | Tensor,
    pool: Callable[[Tensor], Tensor],
    of_level: Callable[[Tensor, Tensor, bool], Tensor],
) -> Tensor:
    """Computes MS-SSIM level by level: the product of the means, clamped at 0 and raised to their exponents.

    Args:
        x: Images of float32 or float64.
        y: Images of the same shape.
        exponents: The exponents of the levels, the finest level first.
        pool: A function that halves images.
        of_level: A function that returns the means of a level. Its last argument tells whether this is the coarsest
            level, for which the mean is that of SSIM instead of the contrast sensitivity.

    """
    value, levels = None, len(exponents)
    for level, exponent in enumerate(exponents):
        if level:
            x, y = pool(x), pool(y)
        mean = of_level(x, y, level == levels - 1)
        # The power has an infinite slope at 0. A clamped mean gets the slope 0 instead.
        power = torch.where(mean > 0, mean, 1.0) ** exponent
        power = torch.where(mean > 0, power, mean.detach().relu() ** exponent)  # 0, 1 or NaN
        value = power if value is None else value * power
    if value is None:
        raise ValueError("MS-SSIM needs at least one level.")
    return value


class Factors(NamedTuple):
    """Maps of the luminance and contrast factors of SSIM, for the images and for ``x`` with ``-y``.

    No operator returns the denominators of the factors. The negated image has the same denominators, so that the sum of
    the two maps of a factor is ``2 c / denominator``.
    """

    luminance: Tensor
    contrast: Tensor
    luminance_of_negative: Tensor
    contrast_of_negative: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, window: Window, k1: float | None = None) -> Factors:
        """Computes the maps for images of float32 or float64, the luminance factor with another ``k1`` if given."""
        of_luminance = luminance_alone(window if k1 is None else window._replace(k1=k1))
        kinds = [(second, kind) for second in (y, -y) for kind in (of_luminance, contrast_alone(window))]
        return cls(*(evaluate(x, second, kind, want_map=True)[1] for second, kind in kinds))

    def ratio_of_constants(self) -> Tensor:
        """Returns the map of ``c1 c2 / (B1 B2)``, where B1 and B2 are the denominators of the factors."""
        return (self.luminance + self.luminance_of_negative) * (self.contrast + self.contrast_of_negative) / 4


def excess_of_sum(x: Tensor, y: Tensor, window: Window, missing: float) -> tuple[Tensor, Tensor]:
    """Returns the maps by which SSIM and the contrast sensitivity change if the window sums to ``1 - missing``.

    Let s be that sum. Take means, variances and covariance with the window divided by s, and divide c1 by s^2 and c2 by
    s. The luminance factor is then unchanged, and the contrast factor of the original window is
    ``(2 cov + c2 + 2 missing mu_x mu_y) / (var_x + var_y + c2 + missing (mu_x^2 + mu_y^2))``.

    Args:
        x: Images of float32 or float64.
        y: Images of the same shape.
        window: The window divided by its sum, with constants divided as above.
        missing: One minus the sum of the original window.

    """
    c1, c2 = window.constants
    maps = Factors.of(x, y, window, k1=1.0)
    scale = window.data_range**2
    # With B1 the denominator of the luminance factor and c1 = `scale`: `both` is 2 c1 / B1, `product` is
    # 4 mu_x mu_y / B1, and `squares` is 2 (mu_x^2 + mu_y^2) / B1.
    both = maps.luminance + maps.luminance_of_negative
    product, squares = maps.luminance - maps.luminance_of_negative, 2 - both
    if c2 > 0:
        inverse = (missing * scale / (2 * c2)) * (maps.contrast + maps.contrast_of_negative)
    else:  # with c2 = 0 the sum of the contrast maps is 0; another c2 gives the variances
        others = Factors.of(x, y, window._replace(k2=1.0), k1=1.0)
        total = others.contrast + others.contrast_of_negative
        inverse = missing * total / (2 - total)
    change = inverse * torch.addcmul(product, maps.contrast, squares, value=-1)
    change = change / torch.addcmul(both, inverse, squares)
    luminance = (scale * product).add(both, alpha=c1) / (scale * squares).add(both, alpha=c1)
    return luminance * change, change


def pad_symmetric(image: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Pads the last axes by mirroring them, including the edge pixel: ``d c b a | a b c d | d c b a``.

    ``widths`` has the padding before and after each of these axes.
    """
    for dim, (before, after) in zip(range(image.ndim - len(widths), image.ndim), widths, strict=True):
        n = image.shape[dim]
        position = torch.arange(-before, n + after, device=image.device).remainder(2 * n)
        image = image.index_select(dim, torch.where(position < n, position, 2 * n - 1 - position))
    return image
