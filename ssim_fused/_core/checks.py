"""Finds what is wrong with a call, and raises the exception type that the reference raises for the same mistake.

Messages name the argument, its value, what was expected, and the fix, in this order.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssim_fused._core._ops import TYPE_RANGES
from ssim_fused._core.window import PADDINGS, DataRange, Window, as_float, checked_constants, range_of


class Call(NamedTuple):
    """The caller's arguments other than the images, before any check."""

    gaussian_kernel: bool
    sigma: float | Sequence[float]
    kernel_size: int | Sequence[int]
    reduction: str | None
    data_range: DataRange
    k1: float
    k2: float
    padding: str = "reflect"
    per_channel: bool = False
    levels: int = 0  # levels of MS-SSIM; 0 for SSIM
    range_is_given: bool = True  # False if `data_range` is the default of a loss, which is meant for float images


def check_call(preds: Tensor, target: Tensor, call: Call) -> tuple[Sequence[float], Sequence[int]]:
    """Checks all arguments that both functions share; returns ``sigma`` and ``kernel_size`` for the operators."""
    check_images(preds, target)
    sigmas, sizes = check_window(preds.ndim - 2, call.gaussian_kernel, call.sigma, call.kernel_size)
    if not isinstance(call.reduction, str | None) or call.reduction not in ("elementwise_mean", "sum", "none", None):
        raise ValueError(f"`reduction` is {call.reduction!r}, expected 'elementwise_mean', 'sum', 'none' or None.")
    checked_constants(call.k1, call.k2)
    check_padding(call.padding)
    range_of(preds, target, call.data_range, call.range_is_given)
    window = Window(sigmas if call.gaussian_kernel else (), sizes, padding=call.padding)
    check_sides(preds.shape, window, call.levels)
    return window.sigma, window.kernel_size


def check_padding(padding: str) -> None:
    """Checks ``padding``, the way in which images continue beyond their edges."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise ValueError(f"`padding` is {padding!r}, expected 'reflect', 'zero' or 'valid'.")


def check_flags(**flags: Any) -> None:
    """Checks that arguments are True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"`{name}` is {flag!r}, a {type(flag).__name__}; expected True or False.")


def check_mask_mode(mask_mode: Any) -> None:
    """Checks ``mask_mode``."""
    if not isinstance(mask_mode, str) or mask_mode not in ("window", "map"):
        raise ValueError(f"`mask_mode` is {mask_mode!r}, expected 'window' or 'map'.")


def check_sides(shape: Sequence[int], window: Window, levels: int = 0) -> None:
    """Checks that images of this shape are large enough for ``levels`` levels of MS-SSIM, or for SSIM if it is 0."""
    check_pyramid(shape, window.kernel_size, levels, window)
    for level in range(max(levels, 1)):
        check_room(shape, window, level)


def check_levels(betas: tuple[float, ...], normalize: str | None) -> None:
    """Checks the arguments that only MS-SSIM has."""
    if not isinstance(betas, tuple) or not betas or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"`betas` is {betas!r}, expected a tuple of floats, one per level.")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"`normalize` is {normalize!r}, expected 'relu', 'simple' or None.")


class _NoTensorError(TypeError, AttributeError):
    """A TypeError that is also an AttributeError, because that is what the reference raises for a non-tensor.

    It is displayed and pickled as a plain TypeError.
    """

    def __reduce__(self) -> tuple[type[TypeError], tuple]:
        return TypeError, self.args


_NoTensorError.__name__ = _NoTensorError.__qualname__ = "TypeError"
_NoTensorError.__module__ = "builtins"


def check_images(preds: Tensor, target: Tensor) -> None:
    """Checks the type, layout, shape, dtype and device of both images."""
    for name, image in (("preds", preds), ("target", target)):
        if not isinstance(image, Tensor):
            raise _NoTensorError(
                f"`{name}` is a {type(image).__name__}, expected a torch.Tensor: convert arrays and lists by "
                f"`torch.as_tensor({name})`."
            )
    for name, image in (("preds", preds), ("target", target)):
        if image.layout != torch.strided or image.is_nested:
            kind = "a nested tensor" if image.is_nested else f"of layout {image.layout}"
            raise NotImplementedError(f"`{name}` is {kind}, expected a dense tensor: convert it by `.to_dense()`.")
    if preds.shape != target.shape:
        raise RuntimeError(
            f"`preds` and `target` have the shapes {tuple(preds.shape)} and {tuple(target.shape)}, expected the same "
            "shape: crop or resize one of them."
        )
    if preds.ndim not in (4, 5):
        raise ValueError(
            f"`preds` and `target` have the shape {tuple(preds.shape)}, expected [B, C, H, W] or [B, C, D, H, W]."
            f"{_missing_axes(preds.shape)}"
        )
    check_dtypes(preds, target)
    if preds.shape[1] == 0:
        raise RuntimeError(f"`preds` has the shape {tuple(preds.shape)}, expected at least one channel.")
    if preds.device != target.device:
        raise RuntimeError(
            f"`preds` is on {preds.device} and `target` on {target.device}, expected one device: move one of them by "
            "`.to(...)`."
        )


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def check_dtypes(preds: Tensor, target: Tensor) -> None:
    """Checks the dtypes of the images as the caller passed them, before any cast."""
    for name, image in (("preds", preds), ("target", target)):
        if image.dtype in _FLOATS or image.dtype in TYPE_RANGES:
            continue
        if image.is_complex():
            raise NotImplementedError(
                f"`{name}` has the dtype {image.dtype}, expected real numbers: pass `.real` and `.imag`, or `.abs()`."
            )
        if name == "target" and image.is_floating_point():
            continue  # cast to the dtype of `preds`
        fix = "target.to(preds.dtype)" if name == "target" and preds.is_floating_point() else f"{name}.float()"
        raise NotImplementedError(
            f"`{name}` has the dtype {image.dtype}, expected float32, float64, float16, bfloat16, uint8, uint16, int8 "
            f"or int16: convert it, for instance by `{fix}`, and pass the matching `data_range`."
        )
    if preds.dtype in TYPE_RANGES and target.dtype != preds.dtype:
        raise NotImplementedError(
            f"`target` has the dtype {target.dtype} and `preds` {preds.dtype}, expected the same dtype, because a cast "
            "to integers would lose values: convert `preds` by `.to(target.dtype)`, and pass the `data_range` of both."
        )


def _missing_axes(shape: Sequence[int]) -> str:
    """Returns the fix for images with fewer than four dimensions."""
    if len(shape) == 2:
        return " For a single image [H, W], pass `preds[None, None]` and `target[None, None]`."
    if len(shape) != 3:
        return ""
    if shape[-1] in _CHANNELS and shape[0] not in _CHANNELS:
        return (
            " For a single image [H, W, C] with the channels last, pass `preds.permute(2, 0, 1).unsqueeze(0)` and "
            "`target.permute(2, 0, 1).unsqueeze(0)`."
        )
    return (
        " For a single image [C, H, W], pass `preds.unsqueeze(0)` and `target.unsqueeze(0)`; for a batch without "
        "channels [B, H, W], pass `preds.unsqueeze(1)` and `target.unsqueeze(1)`."
    )


def _channels_last(shape: Sequence[int]) -> str:
    """Returns the fix for images whose channels seem to come last, or an empty string."""
    if len(shape) < 4 or shape[-1] not in _CHANNELS or shape[1] in _CHANNELS:
        return ""
    order = ", ".join(map(str, (0, len(shape) - 1, *range(1, len(shape) - 1))))
    letters = "B, H, W, C" if len(shape) == 4 else "B, D, H, W, C"
    return (
        f" The shape looks like [{letters}], with the channels last: pass `preds.permute({order})` and "
        f"`target.permute({order})`."
    )


def _mask_axes(mask: Sequence[int], images: Sequence[int]) -> str:
    """Returns the fix for a mask that lacks axes or whose channels come last, or an empty string."""
    batch, *sides = images[0], *images[2:]
    given = list(mask)
    if given == [batch, *sides]:
        return " It lacks the channel axis: pass `mask.unsqueeze(1)`."
    if given == sides:
        return " It lacks the batch and channel axes: pass `mask.expand(len(preds), 1, *mask.shape)`."
    if given in ([1, *sides], list(images[1:])):
        return " It lacks the batch axis: pass `mask.expand(len(preds), *mask.shape)`."
    if given == [batch, *sides, 1] or given == [batch, *sides, images[1]]:
        order = ", ".join(map(str, (0, len(given) - 1, *range(1, len(given) - 1))))
        return f" Its channels come last: pass `mask.permute({order})`."
    return ""


def check_mask(preds: Tensor, target: Tensor, mask: Any, mask_mode: Any) -> None:
    """Checks ``mask`` against both images, and ``mask_mode``."""
    check_images(preds, target)
    check_mask_mode(mask_mode)
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"`mask` is a {type(mask).__name__}, expected a torch.Tensor or None: convert arrays and lists by "
            "`torch.as_tensor(mask)`."
        )
    expected = (preds.shape, (*preds.shape[:1], 1, *preds.shape[2:]))
    if tuple(mask.shape) not in (tuple(shape) for shape in expected):
        raise ValueError(
            f"`mask` has the shape {tuple(mask.shape)}, expected that of `preds`, {tuple(expected[0])}, or "
            f"{tuple(expected[1])} for all channels.{_mask_axes(mask.shape, preds.shape)}"
        )
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(
            f"`mask` has the dtype {mask.dtype}, expected bool, or a floating-point dtype with weights in [0, 1]: "
            "convert it, for instance by `mask.bool()`."
        )
    if mask.device != preds.device:
        raise RuntimeError(
            f"`mask` is on {mask.device} and `preds` on {preds.device}, expected one device: move it by "
            "`mask.to(preds.device)`."
        )
    if mask.requires_grad:
        raise RuntimeError(
            "`mask` requires a gradient, expected a constant, because SSIM is not differentiated with respect to it: "
            "pass `mask.detach()`."
        )


def check_weight(preds: Tensor, weight: Any) -> None:
    """Checks the weights ``[B]`` of the images of a batch."""
    if not isinstance(weight, Tensor):
        raise TypeError(f"`weight` is {weight!r}, a {type(weight).__name__}; expected a tensor [B] with one per image.")
    if isinstance(preds, Tensor) and weight.shape != preds.shape[:1]:
        raise ValueError(
            f"`weight` has the shape {tuple(weight.shape)}, expected ({preds.shape[0]},) with one element per image."
        )
    if isinstance(preds, Tensor) and weight.device != preds.device:
        raise RuntimeError(
            f"`weight` is on {weight.device} and `preds` on {preds.device}, expected one device: move it by "
            "`weight.to(preds.device)`."
        )


_LARGEST_SIGMA = sys.float_info.max / 3.5  # above it, the radius of the Gaussian is infinite


def check_window(
    axes: int, gaussian_kernel: bool, sigma: float | Sequence[float], kernel_size: int | Sequence[int]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Checks ``sigma`` and ``kernel_size``; returns both with one value per axis."""
    if not isinstance(gaussian_kernel, bool):
        raise TypeError(
            f"`gaussian_kernel` is {gaussian_kernel!r}, a {type(gaussian_kernel).__name__}; expected True or False. If "
            "you meant the range, which is not the third argument, pass it by keyword: `data_range=1.0`."
        )
    per_axis = []
    for name, value in (("kernel_size", kernel_size), ("sigma", sigma)):
        values = tuple(value) if isinstance(value, Sequence) else axes * (value,)
        if len(values) != axes:
            raise ValueError(
                f"`{name}` is {value}, of length {len(values)}, expected a number or a sequence of {axes} numbers, "
                "one per spatial dimension."
            )
        if not all(isinstance(v, numbers.Real) for v in values):
            raise TypeError(f"`{name}` is {value!r}, expected a number or a sequence of {axes} numbers.")
        per_axis.append(values)
    sizes, sigmas = per_axis
    if any(size == math.inf or size >= 2**62 for size in sizes):
        raise OverflowError(f"`kernel_size` is {kernel_size}, expected less than 2**62.")
    if any(size != size or size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"`kernel_size` is {kernel_size}, expected odd positive numbers.")
    if any(not s > 0 for s in sigmas):
        raise ValueError(f"`sigma` is {sigma}, expected positive numbers.")
    if any(s > _LARGEST_SIGMA for s in sigmas):  # also true for integers that no float can represent
        raise OverflowError(f"`sigma` is {_shown(sigma)}, expected finite numbers.")
    if not gaussian_kernel and not all(isinstance(size, numbers.Integral) for size in sizes):
        raise TypeError(f"`kernel_size` is {kernel_size}, expected integers for a uniform window.")
    return tuple(as_float("sigma", s) for s in sigmas), tuple(int(size) for size in sizes)


def _shown(value: Any) -> str:
    """Returns the ``repr`` of a number, or words if it has too many digits."""
    try:
        return repr(value)
    except ValueError:  # Python refuses to convert integers of thousands of digits
        return "too large for a float"


_AXES = ("depth", "height", "width")
_CHANNELS = (1, 2, 3, 4)  # an axis of one of these lengths may be the channel axis


def check_room(shape: Sequence[int], window: Window, level: int = 0) -> None:
    """Checks that every side at this level is large enough for the window and, with reflection, for the padding."""
    sides = [n >> level for n in shape[2:]]
    axes = zip(_AXES[-len(sides) :], sides, window.sizes(len(sides)), window.pad(len(sides)), strict=True)
    for name, n, length, pad in axes:
        if _has_no_room(n, length, pad, window.padding):
            # The text is made only on failure, because formatting a symbolic size would make it a constant of a trace.
            at = f" at level {level} of the pyramid" if level else ""
            side = f"`preds` has the shape {tuple(shape)}: its {name} {n}{at}"
            fewer = " or fewer `betas`" if level else ""
            hint = _channels_last(shape) or _fewer_levels(shape, window, level)
            raise RuntimeError(side + _too_small(n, length, pad, window.padding, fewer) + hint)


def _has_no_room(n: int, length: int, pad: int, padding: str) -> bool:
    return (n <= pad and padding == "reflect") or n + 2 * pad < length


def _too_small(n: int, length: int, pad: int, padding: str, fewer: str) -> str:
    if padding == "zero":
        return " must be at least 1."
    if padding == "valid":
        return (
            f" is smaller than the window of {length} taps, which must lie inside the image with `padding`='valid'. "
            f"Use a smaller `sigma` (for a uniform window: `kernel_size`){fewer}, or `padding`='reflect'."
        )
    if n <= pad:
        return (
            f" is too small for the window, whose padding is {pad}; expected more than {pad}. Use a smaller `sigma` "
            f"(for a uniform window: `kernel_size`){fewer}."
        )
    return (
        f", padded at both ends by {pad} as `kernel_size` says, is smaller than the Gaussian of {length} taps. Use a "
        f"smaller `sigma` or a larger `kernel_size`{fewer}."
    )


def least_side(size: int, levels: int) -> int:
    """Returns the least height or width of images for MS-SSIM with a window of ``size`` taps, as in the reference."""
    return max(2**levels, size * max(1, levels - 1) ** 2)


def check_pyramid(shape: Sequence[int], sizes: Sequence[int], levels: int, window: Window | None = None) -> None:
    """Checks the reference's bounds on height and width, which keep the coarsest level larger than ``kernel_size``.

    If ``window`` is given, the error also tells which levels would fit.
    """
    if levels == 0:
        return
    for name, n, size in zip(("height", "width"), shape[-2:], (*sizes, *sizes), strict=False):
        least = least_side(size, levels)
        if n < least:
            hint = _channels_last(shape) or ("" if window is None else _fewer_levels(shape, window, levels - 1))
            raise ValueError(
                f"`preds` has the shape {tuple(shape)}: for {levels} `betas` and `kernel_size` {size} its {name} "
                f"{n} must be at least {least}. Use fewer `betas`, a smaller `kernel_size` or larger images.{hint}"
            )


def fits(shape: Sequence[int], window: Window, levels: int) -> bool:
    """Returns whether images of this shape are large enough for that number of levels of MS-SSIM."""
    axes, sizes = len(shape) - 2, window.kernel_size
    if any(n < least_side(size, levels) for n, size in zip(shape[-2:], (*sizes, *sizes), strict=False)):
        return False
    lengths_and_pads = list(zip(window.sizes(axes), window.pad(axes), strict=True))
    return not any(
        _has_no_room(n >> level, length, pad, window.padding)
        for level in range(levels)
        for n, (length, pad) in zip(shape[2:], lengths_and_pads, strict=True)
    )


def _fewer_levels(shape: Sequence[int], window: Window, level: int) -> str:
    """Returns advice to call ``fitting_betas`` if the images have no room for ``level + 1`` levels but for fewer."""
    if level == 0 or not fits(shape, window, 1):
        return ""
    *depth, height, width = shape[2:]
    arguments = [f"{height}", f"{width}"]
    if any(size != 11 for size in window.kernel_size):
        arguments.append(f"kernel_size={_shared(window.kernel_size)}")
    if depth:
        arguments.append(f"depth={depth[0]}")
    if not window.sigma:
        arguments.append("gaussian_kernel=False")
    elif any(sigma != 1.5 for sigma in window.sigma):
        arguments.append(f"sigma={_shared(window.sigma)}")
    if window.padding != "reflect":
        arguments.append(f"padding={window.padding!r}")
    return f" Pass `betas=fitting_betas({', '.join(arguments)})`, which has as many levels as fit."


def _shared(values: Sequence[float]) -> float | tuple[float, ...]:
    """Returns a single number if the values of all axes are equal."""
    return values[0] if len(set(values)) == 1 else tuple(values)
