"""Calls the operators directly with arguments that hypothesis draws, so that only the C++ checks stand before a kernel.

    python hostile.py EXAMPLES SEED PATH

test_hostile.py runs this in a separate process, because a missing check crashes it. The arguments of each call are
written to PATH first. A call either raises, or returns results of the shapes and dtypes that the operator's fake
predicts.
"""

from __future__ import annotations

import faulthandler
import random
import sys
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from ssim_fused._core import _ops

EXAMPLES, SEED, PATH = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
OPERATORS = [
    _ops.similarity, _ops.similarity_backward, _ops.multiscale, _ops.multiply_gradient, _ops.multiply_gradient_,
    _ops.prepared, _ops.prepared_value, _ops.prepared_multiply_,
]  # fmt: skip
EXPECTED = (RuntimeError, ValueError, TypeError, NotImplementedError, MemoryError, IndexError)
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHERS = [torch.int32, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16]
LARGE = [2**31 - 1, 2**31, 2**31 + 1, 2**53 + 1, 2**62 + 1, 2**63 - 1, -(2**63)]
NUMBERS = st.one_of(st.floats(), st.sampled_from([1.0, 0.01, 0.03, 255.0, 0.0, -1.0, 5e-324, 1e308]))
INTEGERS = st.one_of(st.integers(-2, 16), st.sampled_from(LARGE))
WORDS = {
    "padding": ["reflect", "zero", "valid"],
    "normalize": ["none", "relu", "simple"],
    "pixel_term": ["none", "l1", "l2", "charbonnier"],
}
COUNTS = {"reduction": st.sampled_from([0, 1, 2])}
SIZES = st.sampled_from([1, 3, 5, 7, 11, 1, 3])
PREPARED = [_ops.prepare(**keywords) for keywords in ({}, {"sigma": [0.5], "reduction": 0}, {"betas": [0.4, 0.6]})]


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in any layout, most of the time of this shape and dtype."""
    if draw(st.integers(0, 60)) == 60:
        shape = tuple(draw(st.lists(st.integers(0, 12), max_size=6)))
    if draw(st.integers(0, 60)) == 60:
        dtype = draw(st.sampled_from(FLOATS + OTHERS))
    values = torch.rand(shape)
    if draw(st.integers(0, 15)) == 15 and values.numel():
        values.view(-1)[draw(st.integers(0, values.numel() - 1))] = draw(st.sampled_from([float("nan"), float("inf")]))
    tensor = (values * 255).to(dtype) if dtype in OTHERS[1:2] else values.to(dtype)
    layout = draw(
        st.sampled_from(["plain"] * 24 + ["expanded", "strided", "turned", "offset", "meta", "sparse", "neg"])
    )
    if layout == "expanded":
        return tensor[..., :1].expand(tensor.shape) if tensor.ndim and tensor.numel() else tensor
    if layout == "strided" and tensor.ndim:
        return torch.stack([tensor, tensor], -1)[..., 1]
    if layout == "turned" and tensor.ndim > 1:
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "offset":
        return torch.cat([tensor.new_zeros(3), tensor.flatten()])[3:].view(tensor.shape)
    if layout == "meta":
        return tensor.to("meta")
    if layout == "sparse" and tensor.dtype in FLOATS:
        return tensor.to_sparse()
    if layout == "neg" and tensor.is_floating_point():
        return torch._neg_view(tensor)
    return tensor


@st.composite
def values(draw: st.DrawFn, argument: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
    """A value for an operator's argument, chosen by its name and type. An unknown argument gets one of its type."""
    name, kind = argument.name, str(argument.type)
    hostile = draw(st.integers(0, 60)) == 60
    batch, compute = shape[:1], torch.float64 if dtype == torch.float64 else torch.float32
    if kind == "Tensor" and name != "upstream":
        return draw(tensors(shape, dtype))
    if "Tensor" in kind:
        if kind == "Optional[Tensor]" and draw(st.booleans()):
            return None
        if name == "constants":
            return draw(tensors(draw(st.sampled_from([(2,), (*batch, 2)])), compute))
        whole = draw(st.integers(0, 2)) == 0 or name == "grad_map"
        return draw(tensors(shape if whole else draw(st.sampled_from([(), batch])), dtype if whole else compute))
    if name == "kernel_size":
        return draw(st.lists(INTEGERS, max_size=3) if hostile else st.lists(SIZES, min_size=1, max_size=1))
    if name == "taps":
        return draw(st.lists(NUMBERS, max_size=24)) if hostile or draw(st.integers(0, 9)) == 9 else None
    if kind.startswith("List[float]"):
        return draw(st.lists(NUMBERS, max_size=40) if hostile else st.lists(st.floats(0.1, 1.2), max_size=1))
    if kind.startswith(("List[int]", "Optional[List")):
        return draw(st.lists(INTEGERS, max_size=4))
    if kind == "str":
        return draw(st.text(max_size=9)) if hostile or name not in WORDS else draw(st.sampled_from(WORDS[name]))
    if name == "number":
        return draw(INTEGERS if hostile else st.sampled_from(PREPARED))
    if kind == "int":
        return draw(INTEGERS if hostile or name not in COUNTS else COUNTS[name])
    if kind == "float":
        return draw(NUMBERS if hostile or name not in ("ssim_weight", "pixel_eps") else st.floats(0.01, 1))
    if kind == "bool":
        return draw(st.booleans())
    raise AssertionError(f"{name} is of the type {kind}, which this program knows nothing of")


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    operator = draw(st.sampled_from(OPERATORS))
    sides = draw(st.lists(st.one_of(st.integers(6, 14), st.integers(1, 14)), min_size=2, max_size=3))
    shape = (draw(st.sampled_from([1, 2, 3, 0])), draw(st.sampled_from([1, 2, 1, 2, 1, 2, 0])), *sides)
    dtype = draw(st.sampled_from(FLOATS))
    return operator, {argument.name: draw(values(argument, shape, dtype)) for argument in operator._schema.arguments}


def shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.layout} {value.device} {value.dtype} {tuple(value.shape)}"
    return repr(value)


@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(calls())
def search(call: tuple[Any, dict[str, Any]]) -> None:
    operator, arguments = call
    lines = [f"{name} = {shown(value)}" for name, value in arguments.items()]
    PATH.write_text("\n".join([str(operator), *lines]))
    try:
        results = operator(**arguments)
    except EXPECTED:
        outcomes["refused"] += 1
        return
    outcomes["served"] += 1
    for result in results if isinstance(results, list) else [results]:
        assert result is None or result.numel() == 0 or result.device.type in ("cpu", "meta")


outcomes = {"served": 0, "refused": 0}
if __name__ == "__main__":
    faulthandler.enable()
    random.seed(SEED)
    torch.manual_seed(SEED)
    search()
    print(outcomes["served"], outcomes["refused"])
