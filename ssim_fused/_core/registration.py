"""Registers derivatives and output shapes of the operators, for torch.compile, torch.export and direct calls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssim_fused._core import _ops, composite
from ssim_fused._core.autograd import _gradient, _present
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window


def _spec_of(arguments: dict[str, Any]) -> Spec:
    """Builds the spec from the keyword-only arguments of an operator; missing arguments get their defaults."""
    window = Window(**{name: arguments[name] for name in Window._fields})
    given = {name: arguments[name] for name in Spec._fields if name in arguments}
    given["betas"] = tuple(given.get("betas", ()))
    return Spec(window, as_distance=arguments["distance"], **given)


def _wanted_of(arguments: dict[str, Any]) -> tuple[bool, bool, bool]:
    """Returns the flags that request gradients with respect to preds, target and constants."""
    return arguments["want_grad_preds"], arguments["want_grad_target"], arguments["want_grad_constants"]


# ----------------------------------------------------------------------------------------------------------------------
# Derivatives


def _setup_context(ctx: Any, inputs: tuple, keyword_only_inputs: dict[str, Any], output: list[Tensor]) -> None:
    ctx.spec, ctx.stored = _spec_of(keyword_only_inputs), _wanted_of(keyword_only_inputs)
    ctx.save_for_backward(*inputs, *output[ctx.spec.results :])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    preds, target, constants, mask, *stored = ctx.saved_tensors
    spec = ctx.spec
    wanted = (*ctx.needs_input_grad, False)[:3]
    upstream = [grads[0], *grads[1 + spec.want_terms : spec.results]]
    stores = ctx.stored == wanted and spec.stores_gradients(preds, constants, mask)
    if torch.is_grad_enabled():
        found = _gradient(spec, wanted, upstream, preds, target, constants, mask, stored if stores else ())
    elif not stores:
        found = spec.gradients(upstream, preds, target, constants, wanted, mask)
    elif preds.dtype == torch.float16:
        found = spec.from_stored(stored, upstream[0], constants, wanted)
    else:  # PyTorch operations, which Inductor fuses with those around them
        # With stored gradients, the value is the only differentiable output: its upstream gradient is not None.
        by = (upstream[0] if spec.as_distance else -upstream[0]).reshape(-1, *[1] * (preds.ndim - 1))  # ty: ignore[missing-union-attribute, unsupported-operator]
        kept = iter(stored)
        by_images = [(next(kept) * by).to(preds.dtype) if want else None for want in wanted[:2]]
        found = (*by_images, spec.of_constants(next(kept), upstream[0], constants) if wanted[2] else None)
    return _for_inputs(ctx, *found, None)


def _for_inputs(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    """Returns as many gradients as the call had inputs: the dispatcher leaves out trailing inputs that are None."""
    return gradients[: len(ctx.needs_input_grad)]


def _setup_backward_context(ctx: Any, inputs: tuple, keyword_only_inputs: dict[str, Any], output: list[Tensor]) -> None:
    *_, of_contrast, of_map = inputs
    spec = _spec_of(keyword_only_inputs)
    ctx.spec = spec._replace(want_contrast=of_contrast is not None, want_map=of_map is not None)
    ctx.wanted = _wanted_of(keyword_only_inputs)
    ctx.save_for_backward(*inputs)


def _backward_of_backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    spec, wanted = ctx.spec, ctx.wanted
    preds, target, constants, mask, *upstreams = ctx.saved_tensors
    function = partial(spec.composite, mask=mask)

    def first(preds: Tensor, target: Tensor, constants: Tensor | None, *upstream: Tensor | None) -> tuple:
        if constants is None and wanted[2]:
            dtype = _ops.compute_dtype(preds.dtype)
            constants = torch.tensor(spec.window.constants, dtype=dtype, device=preds.device)
        per_image = constants if constants is None or constants.ndim == 2 else constants.expand(len(preds), 2)
        found = composite.gradients(function, (preds, target, per_image), _present(spec, upstream))
        return tuple(gradient for gradient, want in zip(found, wanted, strict=True) if want)

    found = composite.gradients(first, (preds, target, constants, *upstreams), tuple(grads))
    return _for_inputs(ctx, *found[:3], None, *found[3:])


def _setup_multiply_context(ctx: Any, inputs: tuple, keyword_only_inputs: dict[str, Any], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)
    ctx.keywords = keyword_only_inputs


def _backward_of_multiply(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    gradient, upstream = ctx.saved_tensors
    by_gradient = _ops.multiply_gradient(grad.contiguous(), upstream, **ctx.keywords)
    plain = _ops.multiply_gradient(gradient, torch.ones_like(upstream), **ctx.keywords)
    by_image = (plain.to(upstream.dtype) * grad.to(upstream.dtype)).flatten(1).sum(1)
    return by_gradient, (by_image if upstream.numel() != 1 else by_image.sum()).reshape(upstream.shape)


torch.library.register_autograd("ssim_fused::similarity", _backward, setup_context=_setup_context)
torch.library.register_autograd("ssim_fused::multiscale", _backward, setup_context=_setup_context)
torch.library.register_autograd(
    "ssim_fused::similarity_backward", _backward_of_backward, setup_context=_setup_backward_context
)
torch.library.register_autograd(
    "ssim_fused::multiply_gradient", _backward_of_multiply, setup_context=_setup_multiply_context
)


# ----------------------------------------------------------------------------------------------------------------------
# Shapes


def _check_devices(preds: Tensor, **others: Tensor | None) -> None:
    """Refuses tensors on different devices. A call with any tensor on the meta device also arrives here."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != preds.device:
            raise RuntimeError(f"preds is on {preds.device} and {name} on {tensor.device}; move one of them")


def _fake_outputs(
    preds: Tensor, target: Tensor, spec: Spec, wanted: Sequence[bool], want_float64: bool = False
) -> list[Tensor]:
    dtype = torch.float64 if want_float64 else _ops.compute_dtype(preds.dtype)
    outputs = [preds.new_empty(preds.shape[:1] if spec.reduction == 0 else (), dtype=dtype)]
    if spec.want_terms:
        outputs.append(preds.new_empty((preds.shape[0], 2), dtype=dtype))
    if spec.want_contrast:
        outputs.append(preds.new_empty(preds.shape[:1], dtype=dtype))
    if spec.want_map:
        sides = [*preds.shape[:2], *spec.window.output_sides(preds.shape[2:])]
        outputs.append(preds.new_empty(sides, dtype=torch.float64 if want_float64 else _ops.map_dtype(preds.dtype)))
    return outputs + _fake_gradients(preds, target, wanted)


def _fake_gradients(preds: Tensor, target: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    gradients = [torch.empty_like(image) for image, want in zip((preds, target), wanted, strict=False) if want]
    if wanted[2]:
        gradients.append(preds.new_empty((preds.shape[0], 2), dtype=_ops.compute_dtype(preds.dtype)))
    return gradients


def _with_defaults(operator: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """Completes the keyword-only arguments of an operator: the dispatcher leaves out those equal to their defaults."""
    defaults = {a.name: a.default_value for a in operator._schema.arguments if a.kwarg_only}
    return defaults | keywords


@torch.library.register_fake("ssim_fused::similarity")
def _(preds, target, constants=None, mask=None, **keywords):
    _check_devices(preds, target=target, constants=constants, mask=mask)
    arguments = _with_defaults(_ops.similarity, keywords)
    if arguments["want_float64"] and preds.dtype not in _ops.TYPE_RANGES:
        raise RuntimeError(f"want_float64 is True and preds has dtype {preds.dtype}, expected 8- or 16-bit integers")
    return _fake_outputs(preds, target, _spec_of(arguments), _wanted_of(arguments), arguments["want_float64"])


@torch.library.register_fake("ssim_fused::multiscale")
def _(preds, target, constants=None, mask=None, **keywords):
    _check_devices(preds, target=target, constants=constants, mask=mask)
    arguments = _with_defaults(_ops.multiscale, keywords)
    return _fake_outputs(preds, target, _spec_of(arguments), _wanted_of(arguments))


@torch.library.register_fake("ssim_fused::similarity_backward")
def _(preds, target, constants=None, mask=None, grad_similarity=None, grad_contrast=None, grad_map=None, **keywords):
    _check_devices(preds, target=target, constants=constants, mask=mask)
    _check_devices(preds, grad_similarity=grad_similarity, grad_contrast=grad_contrast, grad_map=grad_map)
    return _fake_gradients(preds, target, _wanted_of(_with_defaults(_ops.similarity_backward, keywords)))


@torch.library.register_fake("ssim_fused::multiply_gradient")
def _(gradient, upstream, **keywords):
    _check_devices(gradient, upstream=upstream)
    return torch.empty_like(gradient)


@torch.library.register_fake("ssim_fused::multiply_gradient_")
def _(gradient, upstream, **keywords):
    _check_devices(gradient, upstream=upstream)
    return None
