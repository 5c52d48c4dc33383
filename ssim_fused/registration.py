"""What PyTorch is told of the operators: derivatives and shapes, for torch.compile, torch.export and direct calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssim_fused import _ops, composite
from ssim_fused.autograd import _gradient, _present
from ssim_fused.score import Score
from ssim_fused.window import Window


def _score_of(inputs: tuple) -> Score:
    """What the inputs of `similarity` or `multiscale` ask for."""
    window = Window(*inputs[2:9])
    score = Score(window, 1, False, False, False, (), "relu", inputs[11], *inputs[12:16])
    if isinstance(inputs[16], int):
        reduction, as_distance, want_contrast, want_map = inputs[16:20]
        return score._replace(
            reduction=reduction, as_distance=as_distance, want_contrast=want_contrast, want_map=want_map
        )
    betas, normalize, reduction, as_distance = inputs[16:20]
    return score._replace(reduction=reduction, as_distance=as_distance, betas=tuple(betas), normalize=normalize)


def _setup_context(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    ctx.score, ctx.count = _score_of(inputs), len(inputs)
    ctx.stored = inputs[-3:]
    ctx.save_for_backward(inputs[0], inputs[1], inputs[9], inputs[10], *output[ctx.score.results :])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    preds, target, constants, mask, *stored = ctx.saved_tensors
    score = ctx.score
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 9)]
    upstream = [grads[0], *grads[1 + score.want_terms : score.results]]
    stores = list(ctx.stored) == wanted and score.stores_gradients(preds, constants, mask)
    if torch.is_grad_enabled():
        found = _gradient(score, wanted, upstream, preds, target, constants, mask, stored if stores else ())
    elif not stores:
        found = score.gradients(upstream, preds, target, constants, wanted, mask)
    elif preds.dtype == torch.float16:
        found = score.from_stored(stored, upstream[0], constants, wanted)
    else:  # in operations that Inductor fuses with their neighbours
        by = (upstream[0] if score.as_distance else -upstream[0]).reshape(-1, *[1] * (preds.ndim - 1))
        kept = iter(stored)
        by_images = [(next(kept) * by).to(preds.dtype) if want else None for want in wanted[:2]]
        found = (*by_images, score.of_constants(next(kept), upstream[0], constants) if wanted[2] else None)
    return _in_places(ctx, (0, 1, 9), found)


def _setup_backward_context(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    of_contrast, of_map = inputs[15] is not None, inputs[16] is not None
    ctx.score = Score(Window(*inputs[2:9]), inputs[12], inputs[13], of_contrast, of_map, mask_mode=inputs[11])
    ctx.wanted, ctx.count = inputs[17:20], len(inputs)
    ctx.save_for_backward(inputs[0], inputs[1], inputs[9], inputs[10], *inputs[14:17])


def _backward_of_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    score, wanted = ctx.score, ctx.wanted
    *images, mask = ctx.saved_tensors[:4]
    function = partial(score.composite, mask=mask)

    def first(preds: Tensor, target: Tensor, constants: Tensor | None, *upstream: Tensor | None) -> tuple:
        if constants is None and wanted[2]:
            dtype = _ops.compute_dtype(preds.dtype)
            constants = torch.tensor(score.window.constants, dtype=dtype, device=preds.device)
        per_image = constants if constants is None or constants.ndim == 2 else constants.expand(len(preds), 2)
        found = composite.gradients(function, (preds, target, per_image), _present(score, upstream))
        return tuple(gradient for gradient, want in zip(found, wanted, strict=True) if want)

    found = composite.gradients(first, (*images, *ctx.saved_tensors[4:]), tuple(grads))
    return _in_places(ctx, (0, 1, 9, 14, 15, 16), found)


def _in_places(ctx: Any, places: Sequence[int], gradients: Sequence[Tensor | None]) -> tuple:
    """Gradients of an operator's inputs; an empty list, as of a uniform window's sigma, counts as one of tensors."""
    found: list = [None] * ctx.count
    if not ctx.score.window.sigma:
        found[2] = []
    for place, gradient in zip(places, gradients, strict=True):
        found[place] = gradient
    return tuple(found)


def _setup_multiply_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    gradient, upstream, *ctx.numbers = inputs
    ctx.save_for_backward(gradient, upstream)


def _backward_of_multiply(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradient, upstream = ctx.saved_tensors
    by_gradient = _ops.multiply_gradient(grad.contiguous(), upstream, *ctx.numbers)
    plain = _ops.multiply_gradient(gradient, torch.ones_like(upstream), *ctx.numbers)
    by_image = (plain.to(upstream.dtype) * grad.to(upstream.dtype)).flatten(1).sum(1)
    return (
        by_gradient,
        by_image.reshape(upstream.shape) if upstream.numel() != 1 else by_image.sum().reshape(upstream.shape),
        None,
        None,
        None,
        None,
    )


torch.library.register_autograd("ssim_fused::similarity", _backward, setup_context=_setup_context)
torch.library.register_autograd("ssim_fused::multiscale", _backward, setup_context=_setup_context)
torch.library.register_autograd(
    "ssim_fused::similarity_backward", _backward_of_backward, setup_context=_setup_backward_context
)
torch.library.register_autograd(
    "ssim_fused::multiply_gradient", _backward_of_multiply, setup_context=_setup_multiply_context
)


def _check_devices(preds: Tensor, **others: Tensor | None) -> None:
    """A call with one tensor on the meta device comes here, too, and would return memory that nobody wrote."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != preds.device:
            raise RuntimeError(f"preds is on {preds.device} and {name} on {tensor.device}; move one of them")


def _fake_outputs(
    preds: Tensor, target: Tensor, window: Window, reduction: int, wanted: Sequence[bool]
) -> list[Tensor]:
    want_terms, want_contrast, want_map, *want_gradients = wanted
    dtype = _ops.compute_dtype(preds.dtype)
    outputs = [preds.new_empty(preds.shape[:1] if reduction == 0 else (), dtype=dtype)]
    if want_terms:
        outputs.append(preds.new_empty((preds.shape[0], 2), dtype=dtype))
    if want_contrast:
        outputs.append(preds.new_empty(preds.shape[:1], dtype=dtype))
    if want_map:
        sides = [*preds.shape[:2], *window.output_sides(preds.shape[2:])]
        outputs.append(preds.new_empty(sides, dtype=_ops.picture_dtype(preds.dtype)))
    return outputs + _fake_gradients(preds, target, want_gradients)


def _fake_gradients(preds: Tensor, target: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    gradients = [torch.empty_like(image) for image, want in zip((preds, target), wanted, strict=False) if want]
    if wanted[2]:
        gradients.append(preds.new_empty((preds.shape[0], 2), dtype=_ops.compute_dtype(preds.dtype)))
    return gradients


@torch.library.register_fake("ssim_fused::similarity")
def _(preds, target, *inputs):
    _check_devices(preds, target=target, constants=inputs[7], mask=inputs[8])
    return _fake_outputs(preds, target, Window(*inputs[:7]), inputs[14], (inputs[13], *inputs[16:21]))


@torch.library.register_fake("ssim_fused::multiscale")
def _(preds, target, *inputs):
    _check_devices(preds, target=target, constants=inputs[7], mask=inputs[8])
    wanted = inputs[13], False, False, *inputs[18:21]
    return _fake_outputs(preds, target, Window(*inputs[:7]), inputs[16], wanted)


@torch.library.register_fake("ssim_fused::similarity_backward")
def _(preds, target, *inputs):
    _check_devices(preds, target=target, constants=inputs[7], mask=inputs[8])
    _check_devices(preds, grad_similarity=inputs[12], grad_contrast=inputs[13], grad_map=inputs[14])
    return _fake_gradients(preds, target, inputs[15:18])


@torch.library.register_fake("ssim_fused::multiply_gradient")
def _(gradient, upstream, factor, data_range, k1, k2):
    _check_devices(gradient, upstream=upstream)
    return torch.empty_like(gradient)


@torch.library.register_fake("ssim_fused::multiply_gradient_")
def _(gradient, upstream, factor, data_range, k1, k2):
    _check_devices(gradient, upstream=upstream)
    return None
