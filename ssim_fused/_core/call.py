"""What functions, losses and drop-ins share between their arguments and a spec: images, range, and explained errors.

The operators check what they are given. Once one of them has refused, :mod:`ssim_fused._core.checks` explains why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssim_fused._core import _ops, checks, window
from ssim_fused._core.checks import Call
from ssim_fused._core.window import DataRange


def explained(compute: Callable[..., Sequence[Tensor]], preds: Tensor, target: Tensor, call: Call) -> Sequence[Tensor]:
    """What ``compute`` returns, or the reference's exception that explains what is wrong with the call."""
    given = elements(call.sigma), elements(call.kernel_size)
    # What a trace refuses is not tried again.
    if call.gaussian_kernel is not True or None in given or torch.compiler.is_compiling():
        return compute(preds, target, *checks.check_call(preds, target, call))
    try:
        return compute(preds, target, *given)
    except Exception as error:  # of any type: the parser of the operators' arguments, an operator, or Python refused
        if type(error).__module__ not in ("builtins", "torch"):  # of a hook on saved tensors, as that of a checkpoint
            raise
        if "CUDA out of memory" in str(error):  # torch's own type does not come through the C interface
            raise torch.OutOfMemoryError(str(error)) from error
        if "driver version is insufficient" in str(error):  # for the CUDA runtime in the library; torch's may be older
            raise RuntimeError(f"{error}\n{_ops.driver_is_too_old()}") from error
        meant = checks.check_call(preds, target, call)  # raises what is wrong; if nothing is, ours is the caller's
        if all(type(v) is type(w) for a, b in zip(given, meant, strict=True) for v, w in zip(a, b, strict=False)):
            raise
    return compute(preds, target, *meant)  # numbers of types that the operators do not take


def elements(value: float | Sequence[float]) -> Sequence[float] | None:
    """As the operators take it; None where these would take for all axes, or for none, what the reference refuses."""
    if isinstance(value, tuple | list):
        return value if len(value) > 1 else None
    return (value,)


def prepare_images(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both images as the operators take them, and the dtype of the results.

    That is the dtype of ``preds``, of integers and under autocast float32. Of two dtypes, target's is cast, but where
    the operators read it as it is.
    """
    dtype = preds.dtype
    if dtype is torch.float32 and target.dtype is torch.float32:
        return preds, target, dtype
    checks.check_dtypes(preds, target)
    may_autocast = dtype is not torch.float64 and not preds.is_meta  # meta tensors have no autocast
    is_autocast = may_autocast and torch.is_autocast_enabled(preds.device.type)
    of_results = torch.float32 if is_autocast else _ops.map_dtype(dtype)
    if dtype == target.dtype or dtype in _ops.TYPE_RANGES or _ops.holds_integers_of(preds, target):
        return preds, target, of_results
    if is_autocast:
        return preds.float(), target.float(), of_results
    return preds, target.to(dtype), of_results


def range_of(preds: Tensor, target: Tensor, data_range: Any, is_given: bool = True) -> DataRange:
    """As :func:`ssim_fused._core.window.range_of`; refuses integers that the operators do not read."""
    if not preds.is_floating_point():
        checks.check_images(preds, target)
    return window.range_of(preds, target, data_range, is_given)


def as_batch(
    preds: Tensor, target: Tensor, data_range: DataRange, mask: Tensor | None
) -> tuple[Tensor, Tensor, DataRange, Tensor | None]:
    """Each channel as an image of its own: a batch of ``B C`` with one channel; and a range of each image for each."""
    checks.check_images(preds, target)  # before the shapes are hidden
    if mask is not None:
        mask = mask.expand(preds.shape).flatten(0, 1).unsqueeze(1)
    if isinstance(data_range, Tensor) and data_range.numel() != 1:
        data_range = data_range.reshape(-1, 1).expand(preds.shape[:2]).flatten()
    return preds.flatten(0, 1).unsqueeze(1), target.flatten(0, 1).unsqueeze(1), data_range, mask


def by_channel(results: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
    """The results of such a batch for the images of that shape; what is reduced already stays."""
    return [result.reshape(*shape[:2], *result.shape[2:]) if result.ndim else result for result in results]


def in_dtype(results: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    return results if results[-1].dtype is dtype and results[0].dtype is dtype else [r.to(dtype) for r in results]
