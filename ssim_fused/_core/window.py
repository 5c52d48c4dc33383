"""Windows, padding, range and constants of a call: their checks, their form for the operators, and their taps."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ssim_fused._core._ops import TYPE_RANGES

Padding = Literal["reflect", "zero", "valid"]  # how images continue beyond their edges; "valid" means no padding
PADDINGS: tuple[str, ...] = get_args(Padding)
DataRange = float | Tensor | tuple[float, float] | None
_LONGEST_SUM = 4096  # up to this radius the weights of a Gaussian are summed one by one
_LEAST_OF_INTEGERS = 255.0  # the smallest range of integer images: that of 8 bits


class DefaultRange(float):
    """The default of a ``data_range`` in a signature: a number that can be told from one that a caller passed."""


class Window(NamedTuple):
    """The operators' arguments that describe windows, padding and constants (``csrc/api/request.h``).

    ``sigma`` is empty for uniform windows; a single element applies to all axes. ``taps``, if not None, are custom
    windows: the taps of all axes, concatenated, with the lengths in ``kernel_size``. If a call has a tensor of
    constants, it replaces ``data_range``, ``k1`` and ``k2``.
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
        """The constants ``c1`` and ``c2``; both are NaN if the range is infinite."""
        finite = self.data_range + (self.data_range - self.data_range)  # inf - inf is NaN
        return (self.k1 * finite) * (self.k1 * finite), (self.k2 * finite) * (self.k2 * finite)

    def sizes(self, axes: int) -> tuple[int, ...]:
        """Returns the number of taps along each axis."""
        if self.taps is None and self.sigma:
            return tuple(2 * int(3.5 * sigma + 0.5) + 1 for sigma in _each(self.sigma, axes))
        return tuple(_each(self.kernel_size, axes))

    def pad(self, axes: int) -> tuple[int, ...]:
        """Returns the padding of each axis at either end, in pixels."""
        if self.padding == "valid":
            return (0,) * axes
        pad = tuple(size // 2 for size in self.sizes(axes))
        if axes == 3 and self.padding == "reflect":  # in the reference, `kernel_size` sets the padding of the width
            pad = (*pad[:2], _each(self.kernel_size, axes)[2] // 2)
        return pad

    def output_sides(self, sides: Sequence[int]) -> list[int]:
        """Returns the sides of the map for images or volumes with these sides."""
        if self.padding == "zero":
            return list(sides)  # not computed, because twice the length of a long window can exceed 64 bits
        axes = len(sides)
        return [n + 2 * p - size + 1 for n, p, size in zip(sides, self.pad(axes), self.sizes(axes), strict=True)]

    def reaching(self, sides: Sequence[int]) -> Window:
        """Shortens a window with zero padding to the taps that reach a pixel for some output of images of these sides.

        An axis of ``n`` pixels keeps the taps at distances up to ``n``. The first and the last one, at distance ``n``,
        get the total weight of all taps at that distance or beyond.
        """
        sizes = self.sizes(len(sides))
        if self.padding != "zero" or all(size // 2 <= n for n, size in zip(sides, sizes, strict=True)):
            return self
        taps = [self._clipped(axis, size // 2, n) for axis, (n, size) in enumerate(zip(sides, sizes, strict=True))]
        return self._replace(sigma=(), kernel_size=[len(t) for t in taps], taps=[tap for t in taps for tap in t])

    def _clipped(self, axis: int, radius: int, n: int) -> list[float]:
        """Returns the taps that :meth:`reaching` keeps along an axis of ``n`` pixels."""
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
        """Returns whether most of the window's weight lies on zero padding, for a window from :meth:`reaching`.

        It agrees with ``is_mostly_padding`` in ``csrc/math/geometry.h``.
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
        """Returns the window of each axis as a tensor with the dtype and device of ``like``."""
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
    """Returns the taps of a Gaussian, cut at 3.5 ``sigma`` and summing to 1, as ``gaussian_taps`` in request.h."""
    radius = int(3.5 * sigma + 0.5)
    weights = [_gaussian(i, sigma) for i in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _gaussian(distance: float, sigma: float) -> float:
    return math.exp(-((distance / sigma) ** 2) / 2)


def _gaussian_sum(sigma: float, radius: int) -> float:
    """Returns the sum of a Gaussian's weights before normalization, as ``gaussian_sum`` in ``csrc/api/checks.h``."""
    if radius <= _LONGEST_SUM:
        return math.fsum(_gaussian(i, sigma) for i in range(-radius, radius + 1))
    # The Euler-Maclaurin formula: the integral, plus two terms of the difference between sum and integral.
    ends, slope = _gaussian(radius, sigma), radius / sigma / sigma
    return sigma * math.sqrt(2 * math.pi) * math.erf(radius / sigma / math.sqrt(2)) + ends - slope * ends / 6


def apply_range(
    preds: Tensor, target: Tensor, data_range: DataRange, k1: float, k2: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, float, Tensor | None]:
    """Applies the range of a call to its images.

    Args:
        preds: The images.
        target: The images to compare with.
        data_range: The range as :func:`range_of` returns it. A tuple clamps both images. None means the range of the
            unmasked pixels.
        k1: Luminance constant.
        k2: Contrast constant.
        mask: The mask of the call, or None.

    Returns:
        Both images, the range as a number, and a tensor of c1 and c2: ``[2]``, or ``[B, 2]`` if each image has its own
        range. The tensor is None if the range is known as a number; otherwise that number has no meaning.

    """
    if isinstance(data_range, float | int):
        return preds, target, data_range, None
    if isinstance(data_range, tuple):
        low, high = data_range
        # Integers are clamped as floats, because a bound can be fractional or outside the range of the integer type.
        preds = preds if preds.is_floating_point() else preds.float()
        target = target.to(preds.dtype)
        return preds.clamp(low, high), target.clamp(low, high), high - low, None
    dtype = torch.float64 if preds.dtype == torch.float64 else torch.float32
    if data_range is None:
        spans = []
        for image in (preds, target):
            image = image.float() if image.dtype == torch.uint16 else image  # PyTorch has no aminmax of uint16
            low, high = torch.aminmax(image) if mask is None else _extremes(image, mask)
            spans.append(high.to(dtype) - low.to(dtype))
        data_range = torch.where(spans[1] > spans[0], spans[1], spans[0])  # Python's max() would synchronize
    is_each = data_range.numel() != 1
    data_range = data_range.to(device=preds.device, dtype=dtype).reshape(-1 if is_each else ())
    data_range = data_range + (data_range - data_range)  # NaN if the range is infinite
    return preds, target, 1.0, torch.stack([(k * data_range) ** 2 for k in (k1, k2)], -1)


def _extremes(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the smallest and the largest unmasked pixel, or 0 and 1 if all pixels are masked."""
    seen = mask > 0
    low, high = (torch.where(seen, image, bound) for bound in (math.inf, -math.inf))
    some = seen.any()
    return torch.where(some, low.amin(), 0.0), torch.where(some, high.amax(), 1.0)


def range_of(preds: Tensor, target: Tensor, data_range: Any, is_given: bool = True) -> DataRange:
    """Checks the range of a call; returns it in the form that :func:`apply_range` expects.

    Integer images have the range of their dtype unless a range is given. An integer ``target`` next to floating-point
    ``preds`` is refused if the range cannot be that of both. The decision depends on dtypes, shapes and numbers alone:
    no pixel and no tensor is read.

    Args:
        preds: The images as the caller passed them.
        target: The images as the caller passed them.
        data_range: The range that the caller passed, or the default.
        is_given: Whether the caller passed it. A default of None counts as passed.

    """
    data_range = checked_range(data_range)
    if isinstance(data_range, Tensor):
        _check_range_tensor(preds, data_range)
    if preds.is_floating_point() and target.is_floating_point():
        if data_range is None and preds.numel() == 0:
            raise RuntimeError(
                f"`preds` has the shape {tuple(preds.shape)}, expected at least one image, because an empty batch has "
                "no range: pass a number as `data_range`."
            )
        return data_range
    if preds.dtype == target.dtype:
        return data_range if is_given and data_range is not None else TYPE_RANGES.get(preds.dtype, data_range)
    if preds.is_floating_point():
        _check_fits_both(preds, target, data_range, is_given)
    return data_range


def _check_fits_both(preds: Tensor, target: Tensor, data_range: DataRange, is_given: bool) -> None:
    """Checks the range for floating-point ``preds`` with an integer ``target``."""
    kinds = f"`preds` has the dtype {preds.dtype} and `target` {target.dtype}"
    whole = TYPE_RANGES.get(target.dtype)
    if whole is None:
        raise NotImplementedError(
            f"{kinds}, expected a dtype of images (uint8, uint16, int8 or int16, or floating point): convert `target` "
            "to the range of `preds`, for instance by `target.to(preds.dtype)`, and pass the `data_range` of both."
        )
    fix = (
        f"convert `target` to the range of `preds`, for instance by `target.float() / {whole:.0f}`; or, if `preds` has "
        f"the range of `target`, pass `data_range={whole}`."
    )
    if not is_given:
        raise ValueError(
            f"{kinds}, and `data_range` is not given, expected the range of both, because the default is meant for "
            f"floating-point images: {fix}"
        )
    if isinstance(data_range, tuple):  # bounds meant for float images would clamp integers to 0 and 1
        fits = not (data_range[0] >= -1 and data_range[1] <= 1)
    else:
        fits = data_range is None or isinstance(data_range, Tensor) or data_range >= _LEAST_OF_INTEGERS
    if not fits:
        raise ValueError(f"{kinds}, and `data_range` is {data_range}, expected the range of both images: {fix}")


def checked_range(data_range: Any) -> DataRange:
    """Checks ``data_range`` as far as possible without images; returns numbers of any type as floats."""
    if data_range is None or isinstance(data_range, Tensor):
        return data_range
    if isinstance(data_range, tuple):
        return check_bounds(data_range)
    is_plain = isinstance(data_range, float | int)
    data_range = as_float("data_range", data_range) if is_plain else _as_number(data_range)
    if not 0 < data_range < math.inf:
        raise ValueError(f"`data_range` is {data_range}, expected a finite number above zero.")
    return data_range


def _as_number(value: Any) -> float:
    """Converts a ``data_range`` to a float: a real number of any type, or a zero-dimensional array of one."""
    given = value
    if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, numbers.Real):
        hint = ""
        if getattr(value, "ndim", 0) and hasattr(value, "dtype"):
            hint = " Convert an array by `torch.as_tensor(data_range)`."
        raise TypeError(
            f"`data_range` is {given!r}, a {type(given).__name__}; expected a number, a tensor with one element or one "
            f"per image, a tuple (low, high) or None.{hint}"
        )
    return as_float("data_range", value)


def as_float(name: str, value: Any) -> float:
    """Converts a real number to a float."""
    try:
        return float(value)
    except OverflowError as error:
        raise OverflowError(f"`{name}` is too large for a float, expected a smaller number.") from error


def checked_constants(k1: Any, k2: Any) -> tuple[float, float]:
    """Checks that ``k1`` and ``k2`` are numbers; returns them as floats."""
    for name, k in (("k1", k1), ("k2", k2)):
        if not isinstance(k, float | numbers.Real):
            raise TypeError(f"`{name}` is {k!r}, a {type(k).__name__}; expected a number.")
    return as_float("k1", k1), as_float("k2", k2)


def _check_range_tensor(preds: Tensor, data_range: Tensor) -> None:
    """Checks the shape, dtype and device of a ``data_range`` tensor, without reading its values."""
    shape, batch = tuple(data_range.shape), preds.shape[0]
    if data_range.numel() != 1 and shape not in ((batch,), (batch, *(1,) * (preds.ndim - 1))):
        raise ValueError(
            f"`data_range` is a tensor of shape {shape} and `preds` has the shape {tuple(preds.shape)}; expected one "
            f"element, or the shape [{batch}] with one element per image."
        )
    if data_range.is_complex() or data_range.dtype == torch.bool:
        raise TypeError(f"`data_range` is a tensor of {data_range.dtype}; expected real numbers.")
    if data_range.device != preds.device and data_range.device.type != "cpu":
        raise RuntimeError(
            f"`data_range` is on {data_range.device} and `preds` on {preds.device}, expected the same device or the "
            "CPU: move it by `data_range.to(preds.device)`."
        )


def check_bounds(bounds: tuple[Any, ...]) -> tuple[float, float]:
    """Checks a ``data_range`` that is a tuple ``(low, high)``; returns both bounds as floats."""
    expected = f"`data_range` is {bounds}, expected a tuple (low, high) of two finite numbers, low < high."
    if len(bounds) < 2:
        raise IndexError(expected)
    if not all(isinstance(bound, numbers.Real | torch.SymFloat | torch.SymInt) for bound in bounds):
        raise TypeError(expected)
    if len(bounds) > 2:
        raise ValueError(expected)
    low, high = (bound if type(bound) is float else as_float("data_range", bound) for bound in bounds)
    if not 0 < high - low < math.inf:
        raise ValueError(expected)
    return low, high
