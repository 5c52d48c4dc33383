"""Makes the operators differentiable in every way that PyTorch offers.

- Eager calls whose arguments were seen before use :class:`PreparedScore` (:mod:`ssim_fused._core.prepared`).
- Other eager calls use :class:`StoredScore`, whose forward stores the gradient and whose backward scales it in place,
  or :class:`EagerScore`, whose backward is a second pass over the images.
- The transforms of ``torch.func`` use :class:`TransformedScore`.
- ``torch.compile`` and direct calls of the operators use the formulas in :mod:`ssim_fused._core.registration`. If a
  compiled function contains a transform, it uses the composite implementation.
- Gradients that may be differentiated again are computed by :class:`ScoreGradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ssim_fused._core import _ops, composite, donation
from ssim_fused._core.spec import Reduction, Spec

# These functions of torch are private. If a version lacks one of them, a slower path is used.
transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
_below_autograd = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
# Tells whether `torch.autograd.grad(..., is_grads_batched=True)` maps over a tensor: it uses an older vmap.
_is_mapped = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda tensor: False)


def in_forward_mode() -> bool:
    """Returns whether forward-mode differentiation is active."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def evaluate(
    spec: Spec, preds: Tensor, target: Tensor, constants: Tensor | None = None, mask: Tensor | None = None
) -> Sequence[Tensor]:
    """Returns the value, then contrast sensitivity and map if ``spec`` requests them, all differentiable."""
    if not _ops.has_kernels(preds):
        return spec.composite(preds, target, constants, mask)
    if (spec.betas or spec.pixel_term != "none") and not spec.knows_scale(preds, constants, mask):
        preds, target = preds.float(), target.float()
    if torch.compiler.is_compiling():
        if transforms_active():  # a trace of torch.func's transforms has no rules for the operators
            return spec.composite(preds, target, constants, mask)
        tracks = torch.is_grad_enabled() and spec.stores_gradients(preds, constants, mask)
        wanted = [tracks and t is not None and t.requires_grad for t in (preds, target, constants)]
        outputs = spec.outputs(preds, target, constants, wanted, mask)
        return outputs[: spec.results]
    if in_forward_mode():
        return spec.composite(preds, target, constants, mask)
    if transforms_active():
        outputs = TransformedScore.apply(spec, preds, target, constants, mask)
        return outputs if isinstance(outputs, tuple) else (outputs,)
    if torch.is_grad_enabled() and (
        preds.requires_grad or target.requires_grad or (constants is not None and constants.requires_grad)
    ):
        if spec.stores_gradients(preds, constants, mask):
            outputs = _apply_stored(spec, preds, target, constants, mask)
            return outputs if isinstance(outputs, tuple) else (outputs,)
        return _apply_eager(spec, preds, target, constants, mask)
    return _outputs(spec, preds, target, constants, mask=mask)


def _outputs(
    spec: Spec,
    preds: Tensor,
    target: Tensor,
    constants: Tensor | None,
    wanted: Sequence[bool] = (False,) * 3,
    mask: Tensor | None = None,
) -> list[Tensor]:
    """Calls the kernels directly, below the Python autograd kernels that ``register_autograd`` installs."""
    if _below_autograd is None:
        return spec.outputs(preds, target, constants, wanted, mask)
    with _below_autograd():
        return spec.outputs(preds, target, constants, wanted, mask)


class StoredScore(torch.autograd.Function):
    """Computes the value if an input requires a gradient.

    The forward also computes the gradient of the distance, in the same pass over the pixels, and stores it. The
    backward scales it, in place if nobody else refers to it.
    """

    @staticmethod
    def forward(
        ctx: Any, spec: Spec, preds: Tensor, target: Tensor, constants: Tensor | None, mask: Tensor | None
    ) -> Tensor | tuple[Tensor, ...]:
        outputs, results = _outputs(spec, preds, target, constants, ctx.needs_input_grad[1:4], mask), spec.results
        ctx.save_for_backward(preds, target, constants, mask, *outputs[results:])
        ctx.spec = spec
        if results == 1:
            return outputs[0]
        ctx.mark_non_differentiable(*outputs[1:results])
        return tuple(outputs[:results])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        preds, target, constants, mask, *stored = ctx.saved_tensors
        _, by_preds, by_target, by_constants, _ = ctx.needs_input_grad
        spec, of_value = ctx.spec, upstream[0]
        if torch.is_grad_enabled() or transforms_active():  # the gradient may be differentiated again, or mapped over
            wanted = by_preds, by_target, by_constants
            return None, *_gradient(spec, wanted, upstream, preds, target, constants, mask, stored), None
        if not donation.may_donate() or _is_mapped(of_value):
            return None, *spec.from_stored(stored, of_value, constants, (by_preds, by_target, by_constants)), None
        # `_donated` removes each gradient from the list, so that this frame adds nothing to its reference count.
        return (
            None,
            _donated(spec, stored, of_value) if by_preds else None,
            _donated(spec, stored, of_value) if by_target else None,
            spec.of_constants(stored[0], of_value, constants) if by_constants else None,
            None,
        )


class EagerScore(torch.autograd.Function):
    """Computes several outputs, or one whose gradients cannot be stored; the backward is a second pass."""

    @staticmethod
    def forward(
        ctx: Any, spec: Spec, preds: Tensor, target: Tensor, constants: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(preds, target, constants, mask)
        ctx.set_materialize_grads(False)
        ctx.spec = spec
        return tuple(_outputs(spec, preds, target, constants, mask=mask))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        preds, target, constants, mask = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:4]
        spec = ctx.spec
        if all(grad is None for grad in upstream):
            return (None,) * 5
        if torch.is_grad_enabled() or transforms_active():  # the gradient may be differentiated again, or mapped over
            return None, *_gradient(spec, wanted, upstream, preds, target, constants, mask), None
        if any(_is_mapped(grad) for grad in upstream if grad is not None):
            found = composite.gradients(partial(spec.composite, mask=mask), (preds, target, constants), upstream)
            return None, *(gradient if want else None for gradient, want in zip(found, wanted, strict=True)), None
        with _below_autograd() if _below_autograd else torch.no_grad():
            return None, *spec.gradients(upstream, preds, target, constants, wanted, mask), None


# These are the C++ `Function.apply`: they skip the Python code that looks for transforms, which `evaluate` has done.
_apply_stored = super(torch.autograd.Function, StoredScore).apply  # ty: ignore[missing-attribute]
_apply_eager = super(torch.autograd.Function, EagerScore).apply  # ty: ignore[missing-attribute]


def _donated(spec: Spec, stored: list[Tensor], upstream: Tensor) -> Tensor:
    """Multiplies the first stored gradient by the upstream one, in place unless somebody else refers to it."""
    gradient, is_ours = donation.take(stored)
    return spec.multiplied(gradient, upstream, in_place=is_ours)


class ScoreGradient(torch.autograd.Function):
    """Computes the requested gradients with respect to preds, target and constants, and is differentiable itself.

    The first derivative comes from the kernels, the second from the composite implementation.
    """

    @staticmethod
    def forward(
        spec: Spec,
        wanted: Sequence[bool],
        preds: Tensor,
        target: Tensor,
        constants: Tensor | None,
        mask: Tensor | None,
        *upstream_and_stored: Tensor | None,
    ) -> tuple[Tensor, ...]:
        upstream, stored = upstream_and_stored[:3], [t for t in upstream_and_stored[3:] if t is not None]
        if stored and upstream[0] is not None:
            found = spec.from_stored(stored, upstream[0], constants, wanted)
        else:
            found = spec.gradients([*_present(spec, upstream)], preds, target, constants, wanted, mask)
        return tuple(gradient for gradient in found if gradient is not None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.spec, ctx.wanted, *tensors = inputs
        ctx.count = len(tensors)
        ctx.save_for_backward(*tensors[:7])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        spec, wanted = ctx.spec, ctx.wanted
        *images, mask = ctx.saved_tensors[:4]
        function = partial(spec.composite, mask=mask)

        def first(preds: Tensor, target: Tensor, constants: Tensor | None, *upstream: Tensor | None) -> tuple:
            found = composite.gradients(function, (preds, target, constants), _present(spec, upstream))
            return tuple(gradient for gradient, want in zip(found, wanted, strict=True) if want)

        found = composite.gradients(first, (*images, *ctx.saved_tensors[4:]), grads)
        return None, None, *found[:3], None, *found[3:], *(None,) * (ctx.count - 7)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        spec, wanted, *tensors = args
        fold = _Fold(info.batch_size, spec, tensors[:2], in_dims[2:4])
        preds, target = fold.images
        constants, mask = fold.constants(tensors[2], in_dims[4]), fold.of_images(tensors[3], in_dims[5])
        has_stored = len(tensors) > 7
        upstream = [
            fold.values(tensors[4], in_dims[6], shared=not has_stored),
            fold.of_images(tensors[5], in_dims[7]),
            fold.of_images(tensors[6], in_dims[8]),
        ]
        stored = [fold.of_images(t, dim) for t, dim in zip(tensors[7:], in_dims[9:], strict=True)]
        found = ScoreGradient.apply(fold.spec, wanted, preds, target, constants, mask, *upstream, *stored)
        found = [fold.unfolded(gradient) for gradient in found]
        if wanted[2] and not fold.constants_are_per_image:
            found[-1] = found[-1].sum(1)
        return tuple(found), (0,) * len(found)


def _present(spec: Spec, upstream: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Selects, from the upstream gradients of value, contrast sensitivity and map, those of the requested outputs."""
    of_value, of_contrast, of_map = upstream
    return (of_value, *([of_contrast] if spec.want_contrast else []), *([of_map] if spec.want_map else []))


def _gradient(
    spec: Spec,
    wanted: Sequence[bool],
    upstream: Sequence[Tensor | None],
    preds: Tensor,
    target: Tensor,
    constants: Tensor | None,
    mask: Tensor | None,
    stored: Sequence[Tensor] = (),
) -> tuple[Tensor | None, ...]:
    """Returns gradients that can be differentiated again; `upstream` has one element per output."""
    spec = spec._replace(want_terms=False)  # terms are not differentiable
    by_output = iter(upstream)
    of_value = next(by_output)
    of_contrast = next(by_output) if spec.want_contrast else None
    of_map = next(by_output) if spec.want_map else None
    if of_value is None and of_contrast is None and of_map is None:
        return (None,) * 3
    found = iter(
        ScoreGradient.apply(spec, tuple(wanted), preds, target, constants, mask, of_value, of_contrast, of_map, *stored)
    )
    return tuple(next(found) if want else None for want in wanted)


class TransformedScore(torch.autograd.Function):
    """Computes the score under the transforms of ``torch.func``.

    There only the backward can tell which inputs require a gradient, so the forward stores none.
    """

    @staticmethod
    def forward(
        spec: Spec, preds: Tensor, target: Tensor, constants: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        return tuple(spec.outputs(preds, target, constants, (False,) * 3, mask))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.spec, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        if ctx.spec.want_terms:
            ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *_gradient(ctx.spec, ctx.needs_input_grad[1:4], upstream, *ctx.saved_tensors), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *args: Any) -> tuple:
        spec, *tensors = args
        fold = _Fold(info.batch_size, spec, tensors[:2], in_dims[1:3])
        constants, mask = fold.constants(tensors[2], in_dims[3]), fold.of_images(tensors[3], in_dims[4])
        outputs = TransformedScore.apply(fold.spec, *fold.images, constants, mask)
        value, *others = (fold.unfolded(output) for output in outputs)
        value = (
            value.mean(1)
            if spec.reduction == Reduction.MEAN
            else value.sum(1)
            if spec.reduction == Reduction.SUM
            else value
        )
        return (value, *others), (0,) * (1 + len(others))


class _Fold:
    """Folds the axis mapped by vmap into the batch, so that one call computes the results of all images."""

    def __init__(self, size: int, spec: Spec, images: Sequence[Tensor], in_dims: Sequence[int | None]) -> None:
        self.size, self.reduction = size, spec.reduction
        self.spec = spec._replace(reduction=Reduction.NONE)
        self.batch = images[0].shape[0 if in_dims[0] is None else int(in_dims[0] == 0)]
        self.constants_are_per_image = False
        self.images = tuple(self.of_images(image, dim) for image, dim in zip(images, in_dims, strict=True))

    def _mapped(self, tensor: Tensor, dim: int | None) -> Tensor:
        return tensor.expand(self.size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)

    def of_images(self, tensor: Tensor | None, dim: int | None) -> Tensor | None:
        """Folds a tensor whose first axis, apart from the mapped one, is the batch."""
        return None if tensor is None else self._mapped(tensor, dim).flatten(0, 1)

    def values(self, upstream: Tensor | None, dim: int | None, shared: bool) -> Tensor | None:
        """Expands an upstream gradient of the reduced value to the upstream gradients of all images' values.

        With ``shared``, the upstream gradient of a mean is divided by B. Stored gradients already contain that factor.
        """
        if upstream is None or self.reduction == Reduction.NONE:
            return self.of_images(upstream, dim)
        each = self._mapped(upstream, dim).reshape(-1, 1).expand(self.size, self.batch).flatten()
        return each / self.batch if self.reduction == Reduction.MEAN and shared else each

    def constants(self, constants: Tensor | None, dim: int | None) -> Tensor | None:
        """Folds constants ``[2]`` or ``[B, 2]`` to ``[size B, 2]``."""
        if constants is None:
            return None
        mapped = self._mapped(constants, dim)
        self.constants_are_per_image = mapped.ndim == 3
        if not self.constants_are_per_image:
            mapped = mapped.unsqueeze(1).expand(self.size, self.batch, 2)
        return mapped.flatten(0, 1)

    def unfolded(self, result: Tensor) -> Tensor:
        return result.unflatten(0, (self.size, self.batch))
