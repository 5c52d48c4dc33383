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

from ssim_fused._core._ops import TYPE_RANGES
from ssim_fused._core.window import PADDINGS, DataRange, Window, as_float, checked_constants, range_of


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
    range_is_given: bool = True  # False: the range is a loss's default, which is that of floating-point images


def check_call(preds: Tensor, target: Tensor, call: Call) -> tuple[Sequence[float], Sequence[int]]:
    """Checks everything that both functions take; returns the window as the operators take it."""
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
    """Checks how the images continue beyond their edges."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise ValueError(f"`padding` is {padding!r}, expected 'reflect', 'zero' or 'valid'.")


def check_flags(**flags: Any) -> None:
    """Checks arguments that are True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"`{name}` is {flag!r}, a {type(flag).__name__}; expected True or False.")


def check_mask_mode(mask_mode: Any) -> None:
    """Checks what a mask means."""
    if not isinstance(mask_mode, str) or mask_mode not in ("window", "map"):
        raise ValueError(f"`mask_mode` is {mask_mode!r}, expected 'window' or 'map'.")


def check_sides(shape: Sequence[int], window: Window, levels: int = 0) -> None:
    """Checks that images of this shape are large enough; ``levels`` are MS-SSIM's, 0 for SSIM."""
    check_pyramid(shape, window.kernel_size, levels, window)
    for level in range(max(levels, 1)):
        check_room(shape, window, level)


def check_levels(betas: tuple[float, ...], normalize: str | None) -> None:
    """Checks what MS-SSIM alone takes."""
    if not isinstance(betas, tuple) or not betas or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"`betas` is {betas!r}, expected a tuple of floats, one for each level.")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"`normalize` is {normalize!r}, expected 'relu', 'simple' or None.")


class _NoTensorError(TypeError, AttributeError):
    """The reference fails on the first attribute it misses; what is wrong is the type, and so it is shown."""

    def __reduce__(self) -> tuple[type[TypeError], tuple]:
        return TypeError, self.args


_NoTensorError.__name__ = _NoTensorError.__qualname__ = "TypeError"
_NoTensorError.__module__ = "builtins"


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
            f"got {tuple(preds.shape)}.{_missing_axes(preds.shape)}"
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
        if image.dtype in _FLOATS or image.dtype in TYPE_RANGES:
            continue
        if image.is_complex():
            raise NotImplementedError(
                f"`{name}` has the dtype {image.dtype}, expected real numbers: take `.real` and `.imag`, or `.abs()`."
            )
        if name == "target" and image.is_floating_point():
            continue  # cast to the dtype of `preds`
        fix = "target.to(preds.dtype)" if name == "target" and preds.is_floating_point() else f"{name}.float()"
        raise NotImplementedError(
            f"`{name}` has the dtype {image.dtype}, expected float32, float64, float16, bfloat16, uint8, uint16, int8 "
            f"or int16: convert it, for instance by `{fix}`, and give the matching `data_range`."
        )
    if preds.dtype in TYPE_RANGES and target.dtype != preds.dtype:
        raise NotImplementedError(
            f"`target` has the dtype {target.dtype} beside `preds` of {preds.dtype}, to which a cast would lose what "
            "it has: convert `preds` by `.to(target.dtype)`, and give the `data_range` of both."
        )


def _missing_axes(shape: Sequence[int]) -> str:
    """What to do with images of fewer than four dimensions."""
    if len(shape) == 2:
        return " Of one image [H, W], pass `preds[None, None]` and `target[None, None]`."
    if len(shape) != 3:
        return ""
    if shape[-1] in _CHANNELS and shape[0] not in _CHANNELS:
        return " Of one image [H, W, C], whose channels come last, pass `preds.permute(2, 0, 1).unsqueeze(0)`."
    return (
        " Of one image [C, H, W], pass `preds.unsqueeze(0)` and `target.unsqueeze(0)`; of a batch without channels "
        "[B, H, W], `preds.unsqueeze(1)` and `target.unsqueeze(1)`."
    )


def _channels_last(shape: Sequence[int]) -> str:
    """What to do with images whose channels seem to come last."""
    if len(shape) < 4 or shape[-1] not in _CHANNELS or shape[1] in _CHANNELS:
        return ""
    order = ", ".join(map(str, (0, len(shape) - 1, *range(1, len(shape) - 1))))
    letters = "B, H, W, C" if len(shape) == 4 else "B, D, H, W, C"
    return (
        f" The shape looks like [{letters}], with the channels last: pass `preds.permute({order})` and "
        f"`target.permute({order})`."
    )


def _mask_axes(mask: Sequence[int], images: Sequence[int]) -> str:
    """What to do with a mask that lacks axes, or whose channels come last."""
    batch, *sides = images[0], *images[2:]
    given = list(mask)
    if given == [batch, *sides]:
        return " It lacks the axis of the channels: pass `mask.unsqueeze(1)`."
    if given == sides:
        return " It lacks the axes of batch and channels: pass `mask.expand(len(preds), 1, *mask.shape)`."
    if given in ([1, *sides], list(images[1:])):
        return " It lacks the axis of the batch: pass `mask.expand(len(preds), *mask.shape)`."
    if given == [batch, *sides, 1] or given == [batch, *sides, images[1]]:
        order = ", ".join(map(str, (0, len(given) - 1, *range(1, len(given) - 1))))
        return f" Its channels come last: pass `mask.permute({order})`."
    return ""


def check_mask(preds: Tensor, target: Tensor, mask: Any, mask_mode: Any) -> None:
    """Checks a mask of both images, and what it means."""
    check_images(preds, target)
    check_mask_mode(mask_mode)
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` is expected to be a torch.Tensor or None, got {type(mask).__name__}.")
    expected = (preds.shape, (*preds.shape[:1], 1, *preds.shape[2:]))
    if tuple(mask.shape) not in (tuple(shape) for shape in expected):
        raise ValueError(
            f"`mask` has the shape {tuple(mask.shape)}, expected {tuple(expected[0])} or, for all channels, "
            f"{tuple(expected[1])}: that of `preds`.{_mask_axes(mask.shape, preds.shape)}"
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
    return tuple(as_float("sigma", s) for s in sigmas), tuple(int(size) for size in sizes)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python refuses to write integers of thousands of digits
        return "beyond all floats"


_AXES = ("depth", "height", "width")
_CHANNELS = (1, 2, 3, 4)  # numbers of channels that a last axis is taken for them


def check_room(shape: Sequence[int], window: Window, level: int = 0) -> None:
    """Reflection needs every side to be larger than its padding; and with it, a window must fit in."""
    sides = [n >> level for n in shape[2:]]
    axes = zip(_AXES[-len(sides) :], sides, window.sizes(len(sides)), window.pad(len(sides)), strict=True)
    for name, n, length, pad in axes:
        if _has_no_room(n, length, pad, window.padding):
            # Here and not before: a trace would take the numbers in a text for constants.
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


def check_pyramid(shape: Sequence[int], sizes: Sequence[int], levels: int, window: Window | None = None) -> None:
    """The reference's own bounds, which keep the coarsest level larger than a window of ``kernel_size``.

    ``window``, if given, tells how many levels to advise.
    """
    if levels == 0:
        return
    for name, n, size in zip(("height", "width"), shape[-2:], (*sizes, *sizes), strict=False):
        least = least_side(size, levels)
        if n < least:
            hint = _channels_last(shape) or ("" if window is None else _fewer_levels(shape, window, levels - 1))
            raise ValueError(
                f"`preds` has the shape {tuple(shape)}: for {levels} `betas` and `kernel_size` {size} its {name} "
                f"{n} must be at least {least}. Use fewer `betas`, a smaller `kernel_size`, or larger images.{hint}"
            )


def fits(shape: Sequence[int], window: Window, levels: int) -> bool:
    """Whether images of this shape are large enough for the levels of MS-SSIM."""
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
    """The call of ``fitting_betas`` for images that are too small for ``level + 1`` levels, if a level fits."""
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
    return f" Pass `betas=fitting_betas({', '.join(arguments)})`, of as many levels as fit."


def _shared(values: Sequence[float]) -> float | tuple[float, ...]:
    """One number if all axes have the same."""
    return values[0] if len(set(values)) == 1 else tuple(values)
