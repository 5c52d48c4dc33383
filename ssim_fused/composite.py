"""SSIM in plain differentiable PyTorch: for devices without a kernel, and for double backward everywhere.

It follows the kernels' mathematics (``csrc/math/ssim.h``) term by term, at the cost of many passes and images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812

from ssim_fused._ops import compute_dtype
from ssim_fused.window import Window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def similarity(
    preds: torch.Tensor, target: torch.Tensor, constants: torch.Tensor | None, window: Window
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per-image SSIM ``[B]``, contrast sensitivity ``[B]`` and the SSIM map, as the operators return them."""
    dtype = compute_dtype(preds.dtype)
    x, y = preds.to(dtype), target.to(dtype)
    c1, c2 = (window.c1, window.c2) if constants is None else constants.unbind()
    dims = tuple(range(2, x.ndim))

    pivot = y.detach().mean(dims, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
    x, y = _pad(x, window) - pivot, _pad(y, window) - pivot
    a, b, p, d = _filter(torch.stack((x, y, x * y, (x - y) ** 2)), window)

    delta_squared = (a - b) ** 2
    variance = torch.clamp(d - delta_squared, min=0)
    b1 = (a + pivot) ** 2 + (b + pivot) ** 2 + c1
    b2 = torch.clamp(2 * (p - a * b) + variance + c2, min=c2)
    contrast = 1 - variance / b2
    image = (1 - delta_squared / b1) * contrast

    inner = contrast
    for dim, pad in zip(dims, window.pad, strict=True):
        inner = inner.narrow(dim, min(pad, inner.shape[dim]), max(inner.shape[dim] - 2 * pad, 0))
    return image.flatten(1).mean(1), inner.flatten(1).mean(1), image.to(preds.dtype)


def similarity_backward(
    preds: torch.Tensor,
    target: torch.Tensor,
    constants: torch.Tensor | None,
    window: Window,
    grads: tuple[torch.Tensor | None, ...],
    wanted: tuple[bool, bool, bool],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients by preds, target and constants that can be differentiated again."""
    return gradients(lambda *inputs: similarity(*inputs, window), (preds, target, constants), grads, wanted)


def gradients(
    function: Callable[..., tuple[torch.Tensor, ...]],
    inputs: tuple[torch.Tensor | None, ...],
    grads: tuple[torch.Tensor | None, ...],
    wanted: tuple[bool, ...],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of ``function`` by the wanted inputs that can be differentiated again; None for the others.

    ``grads`` holds an upstream gradient, or None, for each output.
    """
    with torch.enable_grad():
        # Views, so that a path from one input to the other outside of this function is not counted here.
        inputs = tuple(None if t is None else t.view_as(t) for t in inputs)
        pairs = [(output, grad) for output, grad in zip(function(*inputs), grads, strict=True) if grad is not None]
        asked = [t for t, want in zip(inputs, wanted, strict=True) if want]
        used, upstream = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(used, asked, upstream, create_graph=True))
        return tuple(next(found) if want else None for want in wanted)


def _pad(image: torch.Tensor, window: Window) -> torch.Tensor:
    widths = [width for pad in reversed(window.pad) for width in (pad, pad)]
    if window.padding_mode == "reflect":
        return F.pad(image, widths, mode="reflect")
    return F.pad(image, widths)


def _filter(images: torch.Tensor, window: Window) -> torch.Tensor:
    """Convolves the spatial axes of ``[4, B, C, *spatial]``."""
    result = images.flatten(0, 2).unsqueeze(1)
    spatial = result.ndim - 2
    for axis, taps in enumerate(window.per_axis(images)):
        shape = [1] * (2 + spatial)
        shape[2 + axis] = -1
        result = _CONV[spatial](result, taps.view(shape))
    return result.view(*images.shape[:3], *result.shape[2:])
