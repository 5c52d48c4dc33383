"""The steps from arguments to a spec that functions, losses and drop-ins share: images, range, and errors.

The operators check their arguments themselves. Only after one has refused does :mod:`ssim_fused._core.checks` look for
the reason, so that valid calls are not checked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssim_fused._core import _ops, checks, window
from ssim_fused._core.autograd import transforms_active
from ssim_fused._core.checks import Call
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import DataRange


def explained(compute: Callable[..., Sequence[Tensor]], preds: Tensor, target: Tensor, call: Call) -> Sequence[Tensor]:
    """Returns the result of ``compute``, or raises the reference's exception with an explanation of the mistake."""
    sigma, kernel_size = elements(call.sigma), elements(call.kernel_size)
    # Under torch.compile the checks come first: a failed trace cannot be repeated.
    if call.gaussian_kernel is not True or sigma is None or kernel_size is None or torch.compiler.is_compiling():
        return compute(preds, target, *checks.check_call(preds, target, call))
    try:
        return compute(preds, target, sigma, kernel_size)
    except Exception as error:  # of any type: from the dispatcher's argument parser, an operator, or Python
        if type(error).__module__ not in ("builtins", "torch"):  # from a hook on saved tensors, e.g. checkpointing
            raise
        if "CUDA out of memory" in str(error):  # the stable ABI loses torch's exception type
            raise torch.OutOfMemoryError(str(error)) from error
        if "driver version is insufficient" in str(error):  # for our CUDA runtime; torch may have an older one
            raise RuntimeError(f"{error}\n{_ops.driver_is_too_old()}") from error
        meant = checks.check_call(preds, target, call)  # raises if it finds the mistake
        pairs = zip((sigma, kernel_size), meant, strict=True)
        if all(type(v) is type(w) for a, b in pairs for v, w in zip(a, b, strict=False)):
            raise
    return compute(preds, target, *meant)  # the numbers had types that the operators do not accept


def elements(value: Any) -> Sequence[float] | None:
    """Returns a number or sequence as the tuple or list that the operators expect, or None if it must be checked first.

    The operators would apply a sequence of one element to all axes, and would read an empty ``sigma`` as a uniform
    window. The reference refuses both.
    """
    if isinstance(value, tuple | list):
        return value if len(value) > 1 else None
    return (value,)


def prepare_images(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Returns both images in dtypes that the operators accept, and the dtype of the results.

    The result dtype is that of ``preds``, or float32 for integers and, except for float64, under autocast. If the
    dtypes differ, ``target`` is cast to that of ``preds``, unless the operators read this pair without a cast.
    """
    dtype = preds.dtype
    if dtype is torch.float32 and target.dtype is torch.float32:
        return preds, target, dtype
    checks.check_dtypes(preds, target)
    may_autocast = dtype is not torch.float64 and not preds.is_meta  # the meta device does not support autocast
    is_autocast = may_autocast and torch.is_autocast_enabled(preds.device.type)
    of_results = torch.float32 if is_autocast else _ops.map_dtype(dtype)
    if dtype == target.dtype or dtype in _ops.TYPE_RANGES or _ops.holds_integers_of(preds, target):
        return preds, target, of_results
    if is_autocast:
        return preds.float(), target.float(), of_results
    return preds, target.to(dtype), of_results


def range_of(preds: Tensor, target: Tensor, data_range: Any, is_given: bool = True) -> DataRange:
    """Same as :func:`ssim_fused._core.window.range_of`, but first refuses integer dtypes that the operators lack."""
    if not preds.is_floating_point():
        checks.check_images(preds, target)
    return window.range_of(preds, target, data_range, is_given)


def as_batch(
    preds: Tensor, target: Tensor, data_range: DataRange, mask: Tensor | None
) -> tuple[Tensor, Tensor, DataRange, Tensor | None]:
    """Reshapes ``[B, C, ...]`` to ``[B C, 1, ...]``, so that each channel is scored as an image.

    A range tensor ``[B]`` is repeated for the channels, and a mask is expanded to all of them.
    """
    checks.check_images(preds, target)  # here, so that errors show the shapes that the caller passed
    if mask is not None:
        mask = mask.expand(preds.shape).flatten(0, 1).unsqueeze(1)
    if isinstance(data_range, Tensor) and data_range.numel() != 1:
        data_range = data_range.reshape(-1, 1).expand(preds.shape[:2]).flatten()
    return preds.flatten(0, 1).unsqueeze(1), target.flatten(0, 1).unsqueeze(1), data_range, mask


# Below this size of an image, one call per image costs more than copying the batch.
_FEWEST_PIXELS = 512 * 512 * 3
# The number of active modes such as those of tracers. It is not public in torch; without it the images are copied.
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)


def as_batches(
    preds: Tensor, target: Tensor, data_range: DataRange, mask: Tensor | None
) -> list[tuple[Tensor, Tensor, DataRange, Tensor | None]]:
    """Returns the batch of :func:`as_batch`, or one such batch per image if that avoids a copy.

    In channels_last layout, the channels of one image have a common stride, but those of several images do not.
    """
    if (
        data_range.__class__ is float
        and mask is None
        # A tracer would record the number of images as a constant.
        and preds.__class__ is target.__class__ is Tensor
        and not (torch.compiler.is_compiling() or torch.jit.is_tracing() or transforms_active() or _dispatch_modes())
        and preds.is_cpu
        and target.shape == preds.shape
        and preds.shape[0] > 1
        and preds[0].numel() >= _FEWEST_PIXELS
        and not (torch.is_grad_enabled() and (preds.requires_grad or target.requires_grad))
        and all(image.stride(1) * image.shape[1] != image.stride(0) for image in (preds, target))
    ):
        images = zip(preds.split(1), target.split(1), strict=True)
        return [as_batch(x, y, data_range, None) for x, y in images]
    return [as_batch(preds, target, data_range, mask)]


def joined(parts: Sequence[Sequence[Tensor]], spec: Spec) -> Sequence[Tensor]:
    """Concatenates unreduced results of the batches of :func:`as_batches`, and reduces the values, which come first."""
    values, *others = (torch.cat(of_batches) for of_batches in zip(*parts, strict=True))
    return [spec.reduced(values), *others]


def by_channel(results: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
    """Reshapes the results of :func:`as_batch` from ``[B C, ...]`` to ``[B, C, ...]``; scalars stay scalars.

    ``shape`` is that of the images before :func:`as_batch`.
    """
    return [result.reshape(*shape[:2], *result.shape[2:]) if result.ndim else result for result in results]


def in_dtype(results: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """Casts the results to ``dtype``, and returns the same sequence if nothing has to be cast."""
    return results if results[-1].dtype is dtype and results[0].dtype is dtype else [r.to(dtype) for r in results]
