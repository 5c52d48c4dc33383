"""The operators as differentiable functions."""

from __future__ import annotations

import math
from typing import Any

import torch

from ssim_fused import _ops, composite
from ssim_fused.window import Window


def similarity(
    preds: torch.Tensor,
    target: torch.Tensor,
    constants: torch.Tensor | None,
    window: Window,
    want_contrast: bool,
    want_map: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per-image SSIM ``[B]``, contrast sensitivity ``[B]`` and the SSIM map, differentiable where wanted."""
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (preds, target, constants)):
        return Similarity.apply(preds, target, constants, window, want_contrast, want_map)
    return _ops.similarity(
        preds, target, *window, constants, "similarity", 1.0, want_map, False, False, False
    )[:3]  # fmt: skip


class Similarity(torch.autograd.Function):
    """The function above where something requires a gradient.

    Where only SSIM is asked for, the forward's pass over the pixels computes each image's gradient too, and the
    backward is one multiplication. Otherwise, the upstream gradient being a picture or of two kinds, the backward
    computes it in a pass of its own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        preds: torch.Tensor,
        target: torch.Tensor,
        constants: torch.Tensor | None,
        window: Window,
        want_contrast: bool,
        want_map: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        wanted = ctx.needs_input_grad[:3]
        scale = None if want_contrast or want_map else gradient_scale(preds, constants, window)
        similarity, contrast, image, *gradients = _ops.similarity(
            preds, target, *window, constants, "similarity", scale or 1.0, want_map,
            *(wanted if scale else (False, False, False)),
        )  # fmt: skip
        ctx.window, ctx.scale = window, scale
        ctx.save_for_backward(preds, target, constants, *(gradients if scale else ()))
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*([] if want_contrast else [contrast]), *([] if want_map else [image]))
        return similarity, contrast, image

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        preds, target, constants, *gradients = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if all(grad is None for grad in grads):
            return (None,) * 6
        if torch.is_grad_enabled():  # the gradient shall be differentiated again
            found = composite.similarity_backward(preds, target, constants, ctx.window, grads, wanted)
        elif ctx.scale:
            factor = grads[0] if ctx.scale == 1 else grads[0] / ctx.scale
            found = tuple(
                _times(gradient, factor) if want else None for gradient, want in zip(gradients, wanted, strict=True)
            )
        else:
            found = _ops.similarity_backward(preds, target, *ctx.window, constants, *grads, *wanted)
            found = tuple(gradient if want else None for gradient, want in zip(found, wanted, strict=True))
        grad_preds, grad_target, grad_constants = found
        if grad_constants is not None and grad_constants.ndim == 2:  # [B, 2]
            grad_constants = grad_constants.sum(0)
        return grad_preds, grad_target, grad_constants, None, None, None


def _times(gradient: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """``gradient`` times one factor per image."""
    factor = factor.view(-1, *[1] * (gradient.ndim - 1))
    if factor.dtype == gradient.dtype:
        return gradient * factor
    # A product of float16 and float32 is rounded once, and not kept in float32.
    return torch.mul(gradient, factor, out=torch.empty_like(gradient))


def gradient_scale(preds: torch.Tensor, constants: torch.Tensor | None, window: Window) -> float | None:
    """What the gradient kept between forward and backward is multiplied by; None where it cannot be kept.

    The gradient of a mean over millions of pixels underflows float16. The gradient of the sum is bounded by a
    small multiple of 1 / sqrt(min(c1, c2)), so a power of two near the product of the two keeps it in range.
    """
    if preds.dtype != torch.float16:
        return 1.0
    smallest = 0.0 if constants is not None else min(window.c1, window.c2)
    pixels = preds[0].numel() if len(preds) else 1
    return 2.0 ** math.floor(math.log2(pixels * math.sqrt(smallest))) if smallest > 0 else None
