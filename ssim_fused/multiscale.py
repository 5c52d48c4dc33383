"""MS-SSIM: a pyramid of levels, each the mean of one pass of the fused kernel, and one pass back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused import _ops, composite
from ssim_fused.autograd import gradient_scale
from ssim_fused.window import Window

# SSIM [B] and contrast sensitivity [B] of one level's images.
LevelMeans = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


def by_levels(preds: Tensor, target: Tensor, betas: tuple[float, ...], normalize: str, means: LevelMeans) -> Tensor:
    """MS-SSIM ``[B]`` by PyTorch's own operations around the levels' means: differentiable as often as these are."""
    dtype, pool = _ops.compute_dtype(preds.dtype), _POOL[preds.ndim - 2]
    value = torch.ones((), dtype=dtype, device=preds.device)
    for level, beta in enumerate(betas):
        similarity, contrast = means(preds, target)
        value = value * _power(similarity if level == len(betas) - 1 else contrast, beta, normalize)
        if level < len(betas) - 1:
            preds, target = (pool(image.to(dtype), 2) for image in (preds, target))
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


def fused(preds: Tensor, target: Tensor, window: Window, betas: tuple[float, ...], normalize: str) -> Tensor:
    """MS-SSIM ``[B]`` where c1 and c2 are numbers, by the kernels alone."""
    if torch.is_grad_enabled() and (preds.requires_grad or target.requires_grad):
        return MultiScale.apply(preds, target, window, betas, normalize)
    return _pyramid(preds, target, window, betas, normalize, (False, False))[0]


def _pyramid(
    preds: Tensor, target: Tensor, window: Window, betas: tuple[float, ...], normalize: str, wanted: tuple[bool, ...]
) -> tuple[Tensor, Tensor, list[list[Tensor]], float]:
    """MS-SSIM, its derivatives by the levels' means, and for both images the levels' gradients of these.

    The gradients of the finest level come multiplied by the last result.
    """
    if preds.dtype == torch.float16 and gradient_scale(preds, None, window) is None:
        preds, target = preds.float(), target.float()
    scale = gradient_scale(preds, None, window)
    means, gradients = [], [[], []]
    for level in range(len(betas)):
        last = level == len(betas) - 1
        similarity, contrast, _, *found, _ = _ops.similarity(
            preds, target, *window, None, "similarity" if last else "contrast_sensitivity",
            1.0 if level else scale, False, *wanted, False,
        )  # fmt: skip
        means.append(similarity if last else contrast)
        for kept, gradient in zip(gradients, found, strict=True):
            kept.append(gradient)
        if not last:
            preds, target = _ops.downsample(preds, target)
    return *_ops.level_product(means, betas, normalize), gradients, scale


class MultiScale(torch.autograd.Function):
    """``fused`` where an image requires a gradient: one pass over each level forward, one over all of them back."""

    @staticmethod
    def forward(
        ctx: Any, preds: Tensor, target: Tensor, window: Window, betas: tuple[float, ...], normalize: str
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:2]
        value, factors, gradients, ctx.scale = _pyramid(preds, target, window, betas, normalize, wanted)
        ctx.by_composite = lambda x, y: (
            by_levels(x, y, betas, normalize, lambda x, y: composite.similarity(x, y, None, window)[:2]),
        )
        ctx.levels = len(betas)
        kept = [gradient for levels, want in zip(gradients, wanted, strict=True) if want for gradient in levels]
        ctx.save_for_backward(preds, target, factors, *kept)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        preds, target, factors, *kept = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # the gradient shall be differentiated again
            found = composite.gradients(ctx.by_composite, (preds, target), (grad,), wanted)
            return *found, None, None, None
        factors = factors * grad
        if ctx.scale != 1:
            factors[0] /= ctx.scale
        levels, found = ctx.levels, []
        for image, want in zip((preds, target), wanted, strict=True):
            if want:
                found.append(_ops.pyramid_gradient(kept[:levels], factors).to(image.dtype))
                kept = kept[levels:]
            else:
                found.append(None)
        return *found, None, None, None
