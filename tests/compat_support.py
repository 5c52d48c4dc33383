"""Imports the packages that `ssim_fused.compat` replaces, and compares a drop-in with the original."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


def peer(module: str) -> Any:
    """Imports the package's module, or skips the test if the package is not installed."""
    package = module.split(".")[0]
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed")
        if package == "piq":
            # piq's __init__ imports feature extractors and torchvision, which must match torch. SSIM needs neither.
            stub = sys.modules[package] = ModuleType(package)
            stub.__path__ = list(spec.submodule_search_locations or ())
    return importlib.import_module(module)


def pictures(*shape: int, seed: int = 0, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    """A float64 image within the range, and a noisy copy of it."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return data_range * (0.8 * target + 0.1 + 0.02 * noise.clamp(-4, 4)), data_range * target


def with_gradients(function: Callable[..., Any], x: Tensor, y: Tensor, which: Sequence[int] = (0, 1)) -> list[Tensor]:
    """The outputs, and the gradients of the images under upstream gradients that differ between elements."""
    images = [image.detach().clone().requires_grad_(i in which) for i, image in enumerate((x, y))]
    outputs = function(*images)
    outputs = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    upstream = [
        torch.arange(1, output.numel() + 1, dtype=output.dtype).view_as(output) / output.numel() for output in outputs
    ]
    return [o.detach() for o in outputs] + list(torch.autograd.grad(outputs, [images[i] for i in which], upstream))


def assert_same(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    x: Tensor,
    y: Tensor,
    tolerance: float = 1e-10,
    which: Sequence[int] = (0, 1),
) -> None:
    """Compares outputs with an absolute `tolerance`, and gradients relative to the largest."""
    pairs = zip(with_gradients(ours, x, y, which), with_gradients(theirs, x, y, which), strict=True)
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        scale = expected.abs().max().clamp(min=1e-300)
        assert (found - expected).abs().max() <= tolerance * scale


def assert_signature(ours: Any, theirs: Any) -> None:
    """Both have the same argument names, in the same order, with the same defaults."""
    found, expected = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    own = [name for name in found if name != "corrected"]
    assert own == list(expected)
    for name, parameter in expected.items():
        assert found[name].default == parameter.default or str(parameter.default) in ("mean", "gaussian"), name
