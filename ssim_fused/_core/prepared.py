"""Prepared calls: repeated eager calls pass the operators one number instead of some twenty arguments.

Parsing these arguments costs more than computing a small image. Therefore a call that the long path has accepted twice
is *prepared*: all its arguments except the images are stored in the operators' libraries under a number
(``csrc/api/prepared.h``), and later calls with the same arguments pass that number. The *long path* is the one through
the full operators and their explained errors (:func:`ssim_fused._core.call.explained`).

- A number never enters a graph. :func:`run` declines, and the caller takes the long path, under ``torch.compile``,
  ``torch.export``, ``torch.jit.trace``, fake tensors, ``torch.func``, forward mode, any dispatch or function mode, and
  for tensor subclasses.
- :func:`run` also declines if the operator refuses the images; the long path then explains the mistake.
- A number means the same in every thread and in forked children. Numbers are not pickled: copies of a module and
  spawned processes prepare their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from ssim_fused._core import _ops, checks, donation
from ssim_fused._core.autograd import _gradient, _is_mapped, transforms_active
from ssim_fused._core.spec import Reduction, Spec

# These functions of torch are private. If a version lacks one of them, `run` always declines, because the mode that the
# function reports could be active.
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_function_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 1)
_tracer = getattr(torch._C, "_get_tracing_state", lambda: True)
_is_grad_enabled, _default_dtype = torch.is_grad_enabled, torch.get_default_dtype
_PLAIN = frozenset((Tensor, nn.Parameter))
_FLOATS = frozenset((torch.float32, torch.float64))  # for these the result has the dtype of `preds`, also in autocast
_NUMBERS = frozenset((int, float))
_MOST_KEYS = 1024

# These operators have no derivative formula: they are called below autograd, or if nothing requires a gradient.
_library = torch.library.Library("ssim_fused", "IMPL")
_library.impl("prepared_value", torch.library.fallthrough_kernel, "Autograd")
_library.impl("prepared", torch.library.fallthrough_kernel, "Autograd")
_library.impl("prepared_multiply_", torch.library.fallthrough_kernel, "Autograd")


class Prepared(NamedTuple):
    """A spec, its number in the libraries, and the conditions of MS-SSIM that the operators do not check."""

    number: int
    spec: Spec
    default_dtype: torch.dtype | None = None  # torch's default dtype at the time, to which the exponents are rounded
    least_sides: tuple[int, int] = (0, 0)  # the least height and width, as in the reference
    # The upstream gradient for which the stored gradient is already the result; None if there is one per image.
    unit: float | None = None


_prepared: dict[Hashable, Prepared | None] = {}  # by the arguments of a call; None if it was accepted once
_by_spec: dict[Spec, Prepared] = {}  # has at most `_ops.MOST_PREPARED` entries


def find(key: Hashable) -> Prepared | None:
    """Returns what was prepared for the arguments in ``key``, or None.

    The key contains the arguments and also the types of the numbers, because a type that the functions refuse can have
    a value equal to a valid one. Most types of arguments are never remembered (:func:`may_prepare`) and always miss.
    """
    try:
        return _prepared.get(key)
    except TypeError:  # an argument is not hashable; the long path decides whether it is valid
        return None


def may_prepare(gaussian_kernel: Any, *numbers: Any) -> bool:
    """Returns whether a call with these arguments may be prepared: all are immutable and fully define the call."""
    return type(gaussian_kernel) is bool and _NUMBERS.issuperset(map(type, numbers))


def modes_active() -> bool:
    """Returns whether a mode or transform is active, so that the call is not plain eager code."""
    return bool(
        _dispatch_modes()
        or _function_modes()
        or transforms_active()
        or forward_ad._current_level >= 0
        or _tracer() is not None
    )


def remember(key: Hashable, spec: Spec) -> None:
    """Records that the long path has accepted a call, and prepares it the second time.

    A call that never repeats, such as one with a range computed from its batch, therefore uses up no number.
    """
    if key not in _prepared:
        if len(_prepared) >= _MOST_KEYS:
            _prepared.clear()
        _prepared[key] = None
    elif _prepared[key] is None:
        _prepared[key] = prepare(spec)


def prepare(spec: Spec) -> Prepared | None:
    """Prepares a spec, unless it already is; returns None if the tables are full or while a mode is active."""
    if modes_active():
        return None
    if spec not in _by_spec and (made := _stored(spec)) is not None:
        _by_spec[spec] = made
    return _by_spec.get(spec)


def _stored(spec: Spec) -> Prepared | None:
    """Stores a spec in the libraries under a new number; returns None if the tables are full."""
    number = _ops.prepare(**spec.keywords(), **spec.pixel_keywords(), **spec.pyramid_keywords())
    if number is None:
        return None
    unit = None if spec.reduction == Reduction.NONE else 1.0 if spec.as_distance else -1.0
    if not spec.betas:
        return Prepared(number, spec, unit=unit)
    sizes = spec.window.kernel_size
    height, width = (checks.least_side(size, len(spec.betas)) for size in (*sizes, *sizes)[:2])
    return Prepared(number, spec, _default_dtype(), (height, width), unit)


def run(prepared: Prepared, preds: Tensor, target: Tensor) -> Sequence[Tensor] | None:
    """Returns the value, and the terms if requested, differentiable by the images; or None to decline the call."""
    if (
        type(preds) not in _PLAIN
        or type(target) not in _PLAIN
        or _dispatch_modes()  # from here on the same as `modes_active`, inlined for speed
        or _function_modes()
        or transforms_active()
        or forward_ad._current_level >= 0
        or _tracer() is not None
    ):
        return None
    if prepared.spec.betas:
        height, width = preds.shape[-2:]
        least_height, least_width = prepared.least_sides
        if height < least_height or width < least_width or prepared.default_dtype is not _default_dtype():
            return None
    dtype = preds.dtype
    if dtype not in _FLOATS or target.dtype is not dtype:
        return None
    if _is_grad_enabled() and (preds.requires_grad or target.requires_grad):
        try:
            outputs = _apply(prepared, preds, target)
        except _RefusedError:
            return None
        return (outputs,) if type(outputs) is Tensor else outputs
    try:
        if prepared.spec.want_terms:
            return _ops.prepared(preds, target, prepared.number, False, False)
        return (_ops.prepared_value(preds, target, prepared.number),)
    except Exception:  # of any type: the long path meets the same error and explains it
        return None


class _RefusedError(Exception):
    """The operator refused its arguments.

    Any other exception in the forward comes from hooks on saved tensors and must propagate: ``torch.utils.checkpoint``
    stops its second forward by such an exception.
    """


class PreparedScore(torch.autograd.Function):
    """Runs a prepared call if an image requires a gradient, as :class:`~ssim_fused._core.autograd.StoredScore`."""

    @staticmethod
    def forward(ctx: Any, prepared: Prepared, preds: Tensor, target: Tensor) -> Tensor | tuple[Tensor, ...]:
        _, by_preds, by_target = ctx.needs_input_grad
        try:
            value, *others = _ops.prepared(preds, target, prepared.number, by_preds, by_target)
        except Exception as error:  # of any type
            raise _RefusedError from error
        ctx.prepared = prepared
        if not prepared.spec.want_terms:
            ctx.save_for_backward(preds, target, *others)
            return value
        terms, *stored = others
        ctx.save_for_backward(preds, target, *stored)
        ctx.mark_non_differentiable(terms)
        return value, terms

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_value = upstream[0]
        preds, target, *stored = ctx.saved_tensors
        _, by_preds, by_target = ctx.needs_input_grad
        prepared = ctx.prepared
        spec = prepared.spec
        if _is_grad_enabled() or transforms_active():  # the gradient may be differentiated again, or mapped over
            found = _gradient(spec, (by_preds, by_target, False), (of_value,), preds, target, None, None, stored)
            return None, *found[:2]
        if is_dynamo_compiling() or not donation.may_donate() or _is_mapped(of_value):
            return None, *spec.from_stored(stored, of_value, None, (by_preds, by_target, False))[:2]
        return (
            None,
            _donated(prepared, stored, of_value) if by_preds else None,
            _donated(prepared, stored, of_value) if by_target else None,
        )


def _donated(prepared: Prepared, stored: list[Tensor], upstream: Tensor) -> Tensor:
    """Multiplies the first stored gradient by the upstream one, in place unless somebody else refers to it."""
    gradient, is_ours = donation.take(stored)
    if not is_ours:
        return prepared.spec.multiplied(gradient, upstream)
    # Most losses have the factor 1. Reading a scalar on the CPU is cheaper than calling the operator.
    if prepared.unit is None or not upstream.is_cpu or upstream.item() != prepared.unit:
        _ops.prepared_multiply_(gradient, upstream, prepared.number)
    return gradient


# This is the C++ `Function.apply`: it skips the Python code that looks for transforms, which `run` has done.
_apply = super(torch.autograd.Function, PreparedScore).apply  # ty: ignore[missing-attribute]
