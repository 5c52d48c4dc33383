"""SSIM and MS-SSIM in plain differentiable PyTorch: for devices without a kernel, and for higher derivatives.

It follows the kernels' mathematics (``csrc/math/ssim.h``) term by term, at the cost of many passes and images.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused._ops import compute_dtype, picture_dtype
from ssim_fused.window import Window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_PAD_MODES = {"reflect": "reflect", "zero": "constant", "valid": "constant"}
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def without_autocast(like: Tensor) -> AbstractContextManager:
    """Convolutions keep the dtype they are given."""
    return torch.autocast(like.device.type, enabled=False)


def similarity(
    preds: Tensor, target: Tensor, constants: Tensor | None, window: Window
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each image one minus SSIM ``[B]``, one minus contrast sensitivity ``[B]``, and the SSIM map."""
    with without_autocast(preds):
        dtype = compute_dtype(preds.dtype)
        x, y = preds.to(dtype).contiguous(), target.to(dtype).contiguous()
        c1, c2 = window.constants if constants is None else constants.unbind(-1)
        if constants is not None and constants.ndim == 2:
            c1, c2 = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in (c1, c2))
        dims = tuple(range(2, x.ndim))

        pivot = y.detach().mean(dims, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        x, y = _pad(x, window), _pad(y, window)
        difference, x, y = x - y, x - pivot, y - pivot
        a, delta, p, d = _filter(torch.stack((x, difference, x * y, difference**2)), window)

        delta_squared = delta**2
        # Clamped as the kernels do it: a NaN stays one, and the slope at the bound is that of what is clamped.
        variance = d - delta_squared
        variance = torch.where(variance < 0, 0.0, variance)
        b1 = (a + pivot) ** 2 + (a - delta + pivot) ** 2 + c1
        b2 = 2 * (p - a * (a - delta)) + variance + c2
        b2 = torch.where(b2 < c2, c2, b2)
        luminance_loss, contrast_loss = delta_squared / b1, variance / b2
        loss = luminance_loss + (1 - luminance_loss) * contrast_loss

        inner = contrast_loss
        for dim, pad in zip(dims, window.pad(len(dims)), strict=True):
            inner = inner.narrow(dim, min(pad, inner.shape[dim]), max(inner.shape[dim] - 2 * pad, 0))
        return loss.flatten(1).mean(1), inner.flatten(1).mean(1), (1 - loss).to(picture_dtype(preds.dtype))


def pixel_mean(preds: Tensor, target: Tensor, term: str, eps: float) -> Tensor:
    """The mean of a term of single pixels (``csrc/math/pixel_term.h``) over each image, ``[B]``."""
    dtype = compute_dtype(preds.dtype)
    difference = preds.to(dtype) - target.to(dtype)
    if term == "charbonnier":
        phi = (difference**2 + eps * eps).sqrt()
    else:
        phi = difference.abs() if term == "l1" else difference**2
    return phi.flatten(1).mean(1)


def multiscale(
    preds: Tensor,
    target: Tensor,
    constants: Tensor | None,
    window: Window,
    betas: tuple[float, ...],
    normalize: str,
) -> Tensor:
    """MS-SSIM ``[B]``."""
    losses = [similarity(*images, constants, window)[:2] for images in pyramid(preds, target, len(betas))]
    # Of every level the contrast sensitivity, of the last one SSIM.
    means = [1 - of_level[1] for of_level in losses[:-1]] + [1 - losses[-1][0]]
    return level_product(means, betas, normalize)


def pyramid(preds: Tensor, target: Tensor, levels: int) -> list[tuple[Tensor, Tensor]]:
    """Both images at every level, each half of the one before: means of 2x2 pixels or 2x2x2 voxels."""
    dtype, pool = compute_dtype(preds.dtype), _POOL[preds.ndim - 2]
    images = [(preds, target)]
    for _ in range(levels - 1):
        x, y = images[-1]
        images.append((pool(x.to(dtype), 2), pool(y.to(dtype), 2)))
    return images


def level_product(means: list[Tensor], betas: tuple[float, ...], normalize: str) -> Tensor:
    """The product of the levels' means, each to its power."""
    value = torch.ones((), dtype=means[0].dtype, device=means[0].device)
    for mean, beta in zip(means, betas, strict=True):
        value = value * _power(mean, beta, normalize)
    return value


def _power(mean: Tensor, beta: float, normalize: str) -> Tensor:
    if normalize == "simple":
        return ((mean + 1) / 2) ** beta
    if normalize == "none":
        return mean**beta
    # The slope of the power at zero is infinite; that of what was clamped is zero.
    positive = mean > 0
    power = torch.where(positive, mean, 1.0) ** beta
    at_zero = torch.full_like(mean, 0.0) ** beta
    return torch.where(positive, power, torch.where(mean.isnan(), mean, at_zero))


def gradients(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor | None, ...],
    grads: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """Gradients of ``function`` by the inputs that are tensors of floats; they can be differentiated again.

    ``grads`` holds an upstream gradient, or None, for each output.
    """
    tensors = [t for t in inputs if t is not None and t.is_floating_point()]

    def used(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        outputs = function(*(t if t is None or not t.is_floating_point() else next(given) for t in inputs))
        return tuple(output for output, grad in zip(outputs, grads, strict=True) if grad is not None)

    _, pull = torch.func.vjp(used, *tensors)
    found = iter(pull(tuple(grad for grad in grads if grad is not None)))
    return tuple(None if t is None or not t.is_floating_point() else next(found) for t in inputs)


def _pad(image: Tensor, window: Window) -> Tensor:
    widths = [width for pad in reversed(window.pad(image.ndim - 2)) for width in (pad, pad)]
    return F.pad(image, widths, mode=_PAD_MODES[window.padding])


def _filter(images: Tensor, window: Window) -> Tensor:
    """Convolves the spatial axes of ``[4, B, C, *spatial]``."""
    result = images.flatten(0, 2).unsqueeze(1)
    spatial = result.ndim - 2
    for axis, taps in enumerate(window.per_axis(images, spatial)):
        shape = [1] * (2 + spatial)
        shape[2 + axis] = -1
        result = _CONV[spatial](result, taps.reshape(shape))
    return result.reshape(*images.shape[:3], *result.shape[2:])
