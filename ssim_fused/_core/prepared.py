"""Prepared calls: eager code on plain tensors passes the operators a number in place of some twenty arguments.

Parsing these arguments costs more than a small image. So a call that the long way has accepted twice is *prepared*: its
arguments besides the images are stored in the operators' libraries under a number (``csrc/api/prepared.h``), and later
calls with the same arguments pass the number.

- A number never enters a graph. Under ``torch.compile``, ``torch.export``, ``torch.jit.trace``, fake tensors,
  ``torch.func``, forward mode, any dispatch or function mode, and for subclasses of tensors, :func:`run` declines, and
  the caller goes the long way.
- A refusal is not explained here: :func:`run` declines, and the long way finds out what is wrong.
- Numbers mean the same in every thread and in forked children. They are not pickled: a copy of a module, and a spawned
  process, prepare anew.
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

# A name of torch's that is missing makes `run` decline: the modes it tells of could be active.
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
_function_modes = getattr(torch._C, "_len_torch_function_stack", lambda: 1)
_tracer = getattr(torch._C, "_get_tracing_state", lambda: True)
_is_grad_enabled, _default_dtype = torch.is_grad_enabled, torch.get_default_dtype
_PLAIN = frozenset((Tensor, nn.Parameter))
_FLOATS = frozenset((torch.float32, torch.float64))  # of which value and result have one dtype, under autocast too
_NUMBERS = frozenset((int, float))
_MOST_KEYS = 1024

# The operator has no derivative formula: it is called below autograd, or where nothing requires a gradient.
_library = torch.library.Library("ssim_fused", "IMPL")
_library.impl("prepared_value", torch.library.fallthrough_kernel, "Autograd")
_library.impl("prepared", torch.library.fallthrough_kernel, "Autograd")
_library.impl("prepared_multiply_", torch.library.fallthrough_kernel, "Autograd")


class Prepared(NamedTuple):
    """A spec and its number; and what the operators do not check of MS-SSIM."""

    number: int
    spec: Spec
    default_dtype: torch.dtype | None = None  # torch's, which the exponents depend on
    least_sides: tuple[int, int] = (0, 0)  # height and width, as the reference asks
    # The upstream gradient whose gradient is the stored one, that of the distance; None if there is one for each image.
    unit: float | None = None


_prepared: dict[Hashable, Prepared | None] = {}  # by a call's arguments; None: accepted once
_by_spec: dict[Spec, Prepared] = {}  # of at most `_ops.MOST_PREPARED`


def find(key: Hashable) -> Prepared | None:
    """What was prepared for a call's arguments, if anything was.

    The key has the arguments and, since equal numbers of some types are refused, the types of the numbers. Arguments of
    most types never get into a key (:func:`may_prepare`): finding one here is only a miss.
    """
    try:
        return _prepared.get(key)
    except TypeError:  # an argument is not hashable; the long way says whether it is valid
        return None


def may_prepare(gaussian_kernel: Any, *numbers: Any) -> bool:
    """Whether a call's arguments may be prepared: those that are immutable and that decide the call by their values."""
    return type(gaussian_kernel) is bool and _NUMBERS.issuperset(map(type, numbers))


def modes_active() -> bool:
    """Whether anything but plain eager code would see the call."""
    return bool(
        _dispatch_modes()
        or _function_modes()
        or transforms_active()
        or forward_ad._current_level >= 0
        or _tracer() is not None
    )


def remember(key: Hashable, spec: Spec) -> None:
    """Notes that the long way has accepted a call; prepares it the second time.

    A call that never comes again, such as one with a range computed from its batch, thus uses up no number.
    """
    if key not in _prepared:
        if len(_prepared) >= _MOST_KEYS:
            _prepared.clear()
        _prepared[key] = None
    elif _prepared[key] is None:
        _prepared[key] = prepare(spec)


def prepare(spec: Spec) -> Prepared | None:
    """What a spec is prepared as; None if the libraries have no room left, or while a mode is active."""
    if modes_active():
        return None
    if spec not in _by_spec and (made := _stored(spec)) is not None:
        _by_spec[spec] = made
    return _by_spec.get(spec)


def _stored(spec: Spec) -> Prepared | None:
    """Stores a spec in the libraries, under a new number."""
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
    """The value, and the terms if requested, differentiable by the images; None to decline."""
    if (
        type(preds) not in _PLAIN
        or type(target) not in _PLAIN
        or _dispatch_modes()  # `modes_active`, without the call
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
    except Exception:  # of any type; the long way meets the same mistake, and explains it
        return None


class _RefusedError(Exception):
    """The operator has refused. Other exceptions of a forward are those of hooks on saved tensors, which pass.

    ``torch.utils.checkpoint`` stops a second forward by such an exception.
    """


class PreparedScore(torch.autograd.Function):
    """A prepared call where something requires a gradient, as :class:`~ssim_fused._core.autograd.StoredScore`."""

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
    def backward(ctx: Any, of_value: Tensor, *of_terms: Tensor) -> tuple[Tensor | None, ...]:
        preds, target, *stored = ctx.saved_tensors
        _, by_preds, by_target = ctx.needs_input_grad
        prepared = ctx.prepared
        spec = prepared.spec
        if _is_grad_enabled() or transforms_active():  # it may be differentiated again, or mapped over
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
    """The first stored gradient times the upstream one: in place, unless somebody else can see it."""
    gradient, is_ours = donation.take(stored)
    if not is_ours:
        return prepared.spec.multiplied(gradient, upstream)
    # The usual loss has the factor one. A number on the CPU is read for less than the operator costs.
    if prepared.unit is None or not upstream.is_cpu or upstream.item() != prepared.unit:
        _ops.prepared_multiply_(gradient, upstream, prepared.number)
    return gradient


# `Function.apply` in C++, past the Python that looks for transforms, which `run` has done.
_apply = super(torch.autograd.Function, PreparedScore).apply
