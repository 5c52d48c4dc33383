"""What is wrong with a call, in the exception type that the reference raises for the same mistake.

Messages name the argument, its value and what would be right.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssim_fused._core._ops import LARGEST
from ssim_fused._core.window import PADDINGS, DataRange, Window, check_range


class Call(NamedTuple):
    """What the caller passed beside the images, as it came: nothing of it is checked yet."""

    gaussian_kernel: bool
    sigma: float | Sequence[float]
    kernel_size: int | Sequence[int]
    reduction: str | None
    data_range: DataRange
    k1: float
    k2: float
    padding: str = "reflect"
    per_channel: bool = False
    levels: int = 0  # MS-SSIM's; 0 for SSIM


def check_call(preds: Tensor, target: Tensor, call: Call) -> tuple[Sequence[float], Sequence[int]]:
    """Checks everything that both functions take; returns the window as the operators take it."""
    check_images(preds, target)
    sigmas, sizes = check_window(preds.ndim - 2, call.gaussian_kernel, call.sigma, call.kernel_size)
    if not isinstance(call.reduction, str | None) or call.reduction not in ("elementwise_mean", "sum", "none", None):
        raise ValueError(f"`reduction` is {call.reduction!r}, expected 'elementwise_mean', 'sum', 'none' or None.")
    for name, k in (("k1", call.k1), ("k2", call.k2)):
        if not isinstance(k, numbers.Real):
            raise TypeError(f"`{name}` is {k!r}, a {type(k).__name__}; expected a number.")
    check_padding(call.padding)
    check_range(preds, call.data_range)
    window = Window(sigmas if call.gaussian_kernel else (), sizes, padding=call.padding)
    check_sides(preds.shape, window, call.levels)
    return window.sigma, window.kernel_size


def check_padding(padding: str) -> None:
    """Checks how the images continue beyond their edges."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise ValueError(f"`padding` is {padding!r}, expected 'reflect', 'zero' or 'valid'.")


def check_sides(shape: Sequence[int], window: Window, levels: int = 0) -> None:
    """Checks that images of this shape are large enough; ``levels`` are MS-SSIM's, 0 for SSIM."""
    check_pyramid(shape, window.kernel_size, levels)
    for level in range(max(levels, 1)):
        check_room(shape, window, level)


def check_levels(betas: tuple[float, ...], normalize: str | None) -> None:
    """Checks what MS-SSIM alone takes."""
    if not isinstance(betas, tuple) or not betas or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"`betas` is {betas!r}, expected a tuple of floats, one for each level.")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"`normalize` is {normalize!r}, expected 'relu', 'simple' or None.")


class _NoTensorError(TypeError, AttributeError):
    """The reference fails on the first attribute it misses; what is wrong is the type."""


def check_images(preds: Tensor, target: Tensor) -> None:
    """Checks both images."""
    for name, image in (("preds", preds), ("target", target)):
        if not isinstance(image, Tensor):
            raise _NoTensorError(f"`{name}` is expected to be a torch.Tensor, got {type(image).__name__}.")
    for name, image in (("preds", preds), ("target", target)):
        if image.layout != torch.strided or image.is_nested:
            kind = "a nested tensor" if image.is_nested else f"of layout {image.layout}"
            raise NotImplementedError(f"`{name}` is {kind}, expected a dense tensor: convert it by `.to_dense()`.")
    if preds.shape != target.shape:
        raise RuntimeError(
            "`preds` and `target` are expected to have the same shape, "
            f"got {tuple(preds.shape)} and {tuple(target.shape)}."
        )
    if preds.ndim not in (4, 5):
        raise ValueError(
            "`preds` and `target` are expected to have the shape [B, C, H, W] or [B, C, D, H, W], "
            f"got {tuple(preds.shape)}."
        )
    check_dtypes(preds, target)
    if preds.shape[1] == 0:
        raise RuntimeError(f"`preds` has the shape {tuple(preds.shape)}, expected at least one channel.")
    if preds.device != target.device:
        raise RuntimeError(
            f"`preds` is on {preds.device} and `target` on {target.device}: move one of them by `.to(...)`."
        )


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_dtypes(preds: Tensor, target: Tensor) -> None:
    """Checks the images' dtypes, before anything converts them."""
    for name, image in (("preds", preds), ("target", target)):
        if image.dtype in _FLOATS or image.dtype in LARGEST:
            continue
        if image.is_complex():
            raise NotImplementedError(
                f"`{name}` has the dtype {image.dtype}, expected real numbers: take `.real` and `.imag`, or `.abs()`."
            )
        if name == "target" and image.is_floating_point():
            continue  # cast to the dtype of `preds`
        raise NotImplementedError(
            f"`{name}` has the dtype {image.dtype}, expected float32, float64, float16, bfloat16, uint8, uint16, int8 "
            f"or int16: convert it, for instance by `{name}.float()`, and give the matching `data_range`."
        )
    if preds.dtype in LARGEST and target.dtype != preds.dtype:
        raise NotImplementedError(
            f"`target` has the dtype {target.dtype} beside `preds` of {preds.dtype}, to which a cast would lose what "
            "it has: convert `preds` by `.to(target.dtype)`, and give the `data_range` of both."
        )


def check_mask(preds: Tensor, target: Tensor, mask: Any, mask_mode: Any) -> None:
    """Checks a mask of both images, and what it means."""
    check_images(preds, target)
    if mask_mode not in ("window", "map"):
        raise ValueError(f"`mask_mode` is {mask_mode!r}, expected 'window' or 'map'.")
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` is expected to be a torch.Tensor or None, got {type(mask).__name__}.")
    expected = (preds.shape, (*preds.shape[:1], 1, *preds.shape[2:]))
    if tuple(mask.shape) not in (tuple(shape) for shape in expected):
        raise ValueError(
            f"`mask` has the shape {tuple(mask.shape)}, expected {tuple(expected[0])} or, for all channels, "
            f"{tuple(expected[1])}: that of `preds`."
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(
            f"`mask` has the dtype {mask.dtype}, expected bool or weights in [0, 1] of a float dtype: convert it, for "
            "instance by `mask.bool()`."
        )
    if mask.device != preds.device:
        raise RuntimeError(f"`mask` is on {mask.device} and `preds` on {preds.device}: move it by `.to(preds.device)`.")
    if mask.requires_grad:
        raise RuntimeError("`mask` requires a gradient, and the scores have none for it: pass `mask.detach()`.")


_LARGEST_SIGMA = sys.float_info.max / 3.5  # beyond, the Gaussian's radius is infinite


def check_window(
    axes: int, gaussian_kernel: bool, sigma: float | Sequence[float], kernel_size: int | Sequence[int]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Checks both descriptions of the window; returns them per axis."""
    if not isinstance(gaussian_kernel, bool):
        raise TypeError(
            f"`gaussian_kernel` is {gaussian_kernel!r}, a {type(gaussian_kernel).__name__}; expected True or False: "
            "the third argument says whether the window is a Gaussian. Pass the range by keyword: `data_range=1.0`."
        )
    per_axis = []
    for name, value in (("kernel_size", kernel_size), ("sigma", sigma)):
        values = tuple(value) if isinstance(value, Sequence) else axes * (value,)
        if len(values) != axes:
            raise ValueError(
                f"`{name}` has {len(values)} elements, {value}, expected a number or a sequence of {axes}, "
                "one for each spatial dimension."
            )
        if not all(isinstance(v, numbers.Real) for v in values):
            raise TypeError(f"`{name}` is {value!r}, expected a number or a sequence of {axes} numbers.")
        per_axis.append(values)
    sizes, sigmas = per_axis
    if any(size == math.inf or size >= 2**62 for size in sizes):
        raise OverflowError(f"`kernel_size` is {kernel_size}, expected a size that an image can have.")
    if any(size != size or size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"`kernel_size` is {kernel_size}, expected odd positive numbers.")
    if any(not s > 0 for s in sigmas):
        raise ValueError(f"`sigma` is {sigma}, expected positive numbers.")
    if any(s > _LARGEST_SIGMA for s in sigmas):  # of integers beyond all floats, too
        raise OverflowError(f"`sigma` is {_shown(sigma)}, expected finite numbers.")
    if not gaussian_kernel and not all(isinstance(size, numbers.Integral) for size in sizes):
        raise TypeError(f"`kernel_size` is {kernel_size}, expected integers: the window is uniform.")
    return tuple(float(s) for s in sigmas), tuple(int(size) for size in sizes)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "beyond all floats"


_AXES = ("depth", "height", "width")


def check_room(shape: Sequence[int], window: Window, level: int = 0) -> None:
    """Reflection needs every side to be larger than its padding; and with it, a window must fit in."""
    sides = [n >> level for n in shape[2:]]
    axes = zip(_AXES[-len(sides) :], sides, window.sizes(len(sides)), window.pad(len(sides)), strict=True)
    for name, n, length, pad in axes:
        if (n <= pad and window.padding == "reflect") or n + 2 * pad < length:
            # Here and not before: a trace would take the numbers in a text for constants.
            at = f" at level {level} of the pyramid" if level else ""
            side = f"`preds` has the shape {tuple(shape)}: its {name} {n}{at}"
            raise RuntimeError(side + _too_small(n, length, pad, window.padding, " or fewer `betas`" if level else ""))


def _too_small(n: int, length: int, pad: int, padding: str, fewer: str) -> str:
    if padding == "zero":
        return " must be at least 1."
    if padding == "valid":
        return (
            f" is smaller than the window of {length} taps, which with `padding`='valid' must lie inside the image. "
            f"Use a smaller `sigma` (or `kernel_size` of a uniform window){fewer}, or `padding`='reflect'."
        )
    if n <= pad:
        return (
            f" is too small for the window, whose padding is {pad}; it must be larger. Use a smaller `sigma` (or "
            f"`kernel_size` of a uniform window){fewer}."
        )
    return (
        f", padded by {pad} on either side for `kernel_size`, is smaller than the Gaussian of {length} taps. Use a "
        f"smaller `sigma` or a larger `kernel_size`{fewer}."
    )


def least_side(size: int, levels: int) -> int:
    """The least height or width of the images of MS-SSIM, for a window of ``size`` taps, as the reference has it."""
    return max(2**levels, size * max(1, levels - 1) ** 2)


def check_pyramid(shape: Sequence[int], sizes: Sequence[int], levels: int) -> None:
    """The reference's own bounds, which keep the coarsest level larger than a window of ``kernel_size``."""
    if levels == 0:
        return
    for name, n, size in zip(("height", "width"), shape[-2:], (*sizes, *sizes), strict=False):
        least = least_side(size, levels)
        if n < least:
            raise ValueError(
                f"`preds` has the shape {tuple(shape)}: for {levels} `betas` and `kernel_size` {size} its {name} "
                f"{n} must be at least {least}. Use fewer `betas`, a smaller `kernel_size`, or larger images."
            )
