"""What a call says of windows and constants, in the form in which the operators take it; and the windows themselves."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

Padding = Literal["reflect", "zero", "valid"]  # how images continue beyond their edges; "valid" images do not
PADDINGS: tuple[str, ...] = get_args(Padding)
DataRange = float | Tensor | tuple[float, float] | None
_LONGEST_SUM = 4096  # radius of the Gaussians whose weights are added up one by one


class Window(NamedTuple):
    """The operators' first arguments after the images (``csrc/api/request.h``): windows, padding and constants.

    ``sigma`` is empty for uniform windows; one element stands for all axes. ``taps``, where given, are windows of one's
    own, one after the other, of lengths ``kernel_size``. ``data_range``, ``k1`` and ``k2`` are ignored where the caller
    passes a tensor of constants beside.
    """

    sigma: Sequence[float]
    kernel_size: Sequence[int]
    taps: Sequence[float] | None = None
    padding: str = "reflect"
    data_range: float = 1.0
    k1: float = 0.01
    k2: float = 0.03

    @property
    def constants(self) -> tuple[float, float]:
        """``c1`` and ``c2``."""
        finite = self.data_range + (self.data_range - self.data_range)  # of an infinite range nothing is known: NaN
        return (self.k1 * finite) * (self.k1 * finite), (self.k2 * finite) * (self.k2 * finite)

    def sizes(self, axes: int) -> tuple[int, ...]:
        """Taps of each axis's window."""
        if self.taps is None and self.sigma:
            return tuple(2 * int(3.5 * sigma + 0.5) + 1 for sigma in _each(self.sigma, axes))
        return tuple(_each(self.kernel_size, axes))

    def pad(self, axes: int) -> tuple[int, ...]:
        """Padding of each axis, at either end."""
        if self.padding == "valid":
            return (0,) * axes
        pad = tuple(size // 2 for size in self.sizes(axes))
        if axes == 3 and self.padding == "reflect":  # the reference pads the width of volumes for `kernel_size`
            pad = (*pad[:2], _each(self.kernel_size, axes)[2] // 2)
        return pad

    def output_sides(self, sides: Sequence[int]) -> list[int]:
        """Sides of the map of images, or volumes, of these."""
        if self.padding == "zero":
            return list(sides)  # whatever the window: twice a long one's length may be beyond 64 bits
        axes = len(sides)
        return [n + 2 * p - size + 1 for n, p, size in zip(sides, self.pad(axes), self.sizes(axes), strict=True)]

    def reaching(self, sides: Sequence[int]) -> Window:
        """The same, without taps that see nothing but zero padding in images of these sides, whatever the output.

        The first and the last tap, a side's length from the middle, have the weight of all taps at that distance or
        beyond.
        """
        sizes = self.sizes(len(sides))
        if self.padding != "zero" or all(size // 2 <= n for n, size in zip(sides, sizes, strict=True)):
            return self
        taps = [self._clipped(axis, size // 2, n) for axis, (n, size) in enumerate(zip(sides, sizes, strict=True))]
        return self._replace(sigma=(), kernel_size=[len(t) for t in taps], taps=[tap for t in taps for tap in t])

    def _clipped(self, axis: int, radius: int, n: int) -> list[float]:
        """The taps of an axis with ``n`` pixels."""
        reach = min(radius, n)
        if self.taps is not None:
            begin = sum(_each(self.kernel_size, axis + 1)[:axis])
            taps, beyond = list(self.taps[begin : begin + 2 * radius + 1]), radius - reach
            inner = taps[beyond + 1 : 2 * radius - beyond]
            return [math.fsum(taps[: beyond + 1]), *inner, math.fsum(taps[2 * radius - beyond :])] if beyond else taps
        if self.sigma:
            sigma = self.sigma[axis if len(self.sigma) > 1 else 0]
            if reach == radius:
                return gaussian_taps(sigma)
            total = _gaussian_sum(sigma, radius)
            inner = [_gaussian(i, sigma) / total for i in range(1 - reach, reach)]
            end = max(0.0, (1.0 - math.fsum(inner)) / 2)
        else:
            size = 2 * radius + 1
            if reach == radius:
                return [1.0 / size] * size
            inner, end = [1.0 / size] * (2 * reach - 1), (radius - reach + 1) / size
        return [end, *inner, end]

    def sees_padding(self, sides: Sequence[int]) -> bool:
        """Whether windows see zero padding for the most part, as ``is_mostly_padding`` of ``csrc/math/geometry.h``.

        ``self`` is the window that :meth:`reaching` returns.
        """
        if self.padding != "zero":
            return False
        weight = 1.0
        for axis, (n, size) in enumerate(zip(sides, self.sizes(len(sides)), strict=True)):
            radius = size // 2
            if radius >= n:
                begin = radius - n // 2
                weight *= math.fsum(self._clipped(axis, radius, n)[begin : begin + n])
        return weight < 0.5

    def per_axis(self, like: Tensor, axes: int) -> list[Tensor]:
        """Each axis's window as a tensor with the dtype and device of ``like``."""
        if self.taps is not None:
            whole = torch.tensor(list(self.taps), dtype=like.dtype, device=like.device)
            return list(whole.split(self.sizes(axes)))
        if self.sigma:
            windows = [gaussian_taps(sigma) for sigma in _each(self.sigma, axes)]
        else:
            windows = [[1.0 / size] * size for size in self.sizes(axes)]
        return [torch.tensor(window, dtype=like.dtype, device=like.device) for window in windows]


def _each(values: Sequence, axes: int) -> Sequence:
    return values if len(values) == axes else list(values) * axes


def gaussian_taps(sigma: float) -> list[float]:
    """Taps of standard deviation ``sigma``, cut at 3.5 sigma, summing to one, as ``gaussian_taps`` of request.h."""
    radius = int(3.5 * sigma + 0.5)
    weights = [_gaussian(i, sigma) for i in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _gaussian(distance: float, sigma: float) -> float:
    return math.exp(-((distance / sigma) ** 2) / 2)


def _gaussian_sum(sigma: float, radius: int) -> float:
    """The sum of a Gaussian's weights before they are normalised, as ``gaussian_sum`` of ``csrc/api/arguments.h``."""
    if radius <= _LONGEST_SUM:
        return math.fsum(_gaussian(i, sigma) for i in range(-radius, radius + 1))
    # The formula of Euler and Maclaurin: the integral, and two terms of its distance from the sum.
    ends, slope = _gaussian(radius, sigma), radius / sigma / sigma
    return sigma * math.sqrt(2 * math.pi) * math.erf(radius / sigma / math.sqrt(2)) + ends - slope * ends / 6


def apply_range(
    preds: Tensor, target: Tensor, data_range: DataRange, k1: float, k2: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, float, Tensor | None]:
    """The images, clamped where asked, and the range: a number, or c1 and c2 [2] where it depends on data.

    What is masked does not enter the data's range.
    """
    if isinstance(data_range, float | int):
        return preds, target, data_range, None
    if isinstance(data_range, tuple):
        check_bounds(data_range)
        low, high = data_range
        # Integers are clamped as floats: a bound need not be an integer, nor in the range of the type.
        preds = preds if preds.is_floating_point() else preds.float()
        target = target.to(preds.dtype)
        return preds.clamp(low, high), target.clamp(low, high), high - low, None
    if data_range is not None:
        check_range(preds, data_range)
    dtype = torch.float64 if preds.dtype == torch.float64 else torch.float32
    if data_range is None:
        spans = []
        for image in (preds, target):
            image = image.float() if image.dtype == torch.uint16 else image  # of which PyTorch has no extremes
            low, high = torch.aminmax(image) if mask is None else _extremes(image, mask)
            spans.append(high.to(dtype) - low.to(dtype))
        data_range = torch.where(spans[1] > spans[0], spans[1], spans[0])  # max() without a look from the host
    data_range = data_range.to(device=preds.device, dtype=dtype).reshape(())
    data_range = data_range + (data_range - data_range)  # of an infinite range nothing is known: NaN
    return preds, target, 1.0, torch.stack([(k * data_range) ** 2 for k in (k1, k2)])


def _extremes(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest pixel that is not masked; zero and one where all are."""
    seen = mask > 0
    low, high = (torch.where(seen, image, bound) for bound in (math.inf, -math.inf))
    some = seen.any()
    return torch.where(some, low.amin(), 0.0), torch.where(some, high.amax(), 1.0)


def check_range(preds: Tensor, data_range: Any) -> None:
    """Checks ``data_range``."""
    if isinstance(data_range, numbers.Real):
        return
    if data_range is None:
        if preds.numel() == 0:
            raise RuntimeError(
                f"`preds` has the shape {tuple(preds.shape)}: of no pixels there is no range; pass `data_range`."
            )
    elif isinstance(data_range, tuple):
        check_bounds(data_range)
    elif not isinstance(data_range, Tensor):
        raise TypeError(
            f"`data_range` is {data_range!r}, a {type(data_range).__name__}; expected a number, a tensor of one, a "
            "tuple (low, high) or None."
        )
    elif data_range.numel() != 1:
        raise ValueError(
            f"`data_range` is a tensor of shape {tuple(data_range.shape)}; expected one element. For a range of each "
            "image's own use torch.func.vmap."
        )
    elif data_range.is_complex() or data_range.dtype == torch.bool:
        raise TypeError(f"`data_range` is a tensor of {data_range.dtype}; expected a real number.")
    elif data_range.device != preds.device and data_range.device.type != "cpu":
        raise RuntimeError(
            f"`data_range` is on {data_range.device} and `preds` on {preds.device}: move it by `.to(preds.device)`."
        )


def check_bounds(bounds: tuple[float, float]) -> None:
    """Checks a `data_range` that is a tuple."""
    expected = f"`data_range` is {bounds}, expected a tuple (low, high) of two numbers, low < high."
    if len(bounds) < 2:
        raise IndexError(expected)
    if not all(isinstance(bound, numbers.Real) for bound in bounds):
        raise TypeError(expected)
    if len(bounds) > 2 or not bounds[0] < bounds[1]:
        raise ValueError(expected)
