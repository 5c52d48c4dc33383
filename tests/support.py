"""Compares results with the reference, torchmetrics 1.9.0 in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused._core import _ops, prepared

# The kinds of output that a user can request. Each takes a different path through the kernels.
CALLS: dict[str, dict[str, Any]] = {
    "similarity": {"reduction": "none"},
    "map": {"reduction": "none", "return_full_image": True},
    "contrast": {"reduction": "none", "return_contrast_sensitivity": True},
}

# The tolerance for float64. Both sides round at 1e-16; sums over a window, a quotient and a mean over pixels amplify
# that by far less than a million.
FLOAT64_TOLERANCE = 1e-10

# Our float32 error may exceed the reference's float32 error by this much. Where the reference happens to be exact, as
# on a constant image, ours may still be a few units off, because the formula rounds about eight times.
FLOAT32_SLACK = 4 * torch.finfo(torch.float32).eps


def effort(examples: int) -> int:
    """Scales a number of examples to the profile: a tenth in a quick run, 30 times as many in a nightly one."""
    return max(1, examples * settings.default.max_examples // 100)


def without_kernels(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Makes calls behave as on a device without kernels."""
    monkeypatch.setattr(_ops, "has_kernels", lambda preds: _ops._warn_of_composite(device))
    monkeypatch.setattr(prepared, "run", lambda *arguments: None)
    _ops._warn_of_composite.cache_clear()


def as_tuple(outputs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def upstream(output: Tensor, seed: int = 0) -> Tensor:
    """Random upstream gradients for `output`: multiples of 1/4 in [-2, 2], exact in every float dtype."""
    generator = torch.Generator().manual_seed(seed)
    quarters = torch.randint(1, 9, output.shape, generator=generator)
    signs = torch.randint(0, 2, output.shape, generator=generator) * 2 - 1
    return (quarters * signs / 4).to(output)


def evaluate(function: Callable[..., Any], preds: Tensor, target: Tensor, **arguments: Any) -> dict[str, Tensor]:
    """Outputs and both gradients, under random upstream gradients, as float64 on the CPU."""
    preds, target = preds.detach().requires_grad_(), target.detach().requires_grad_()
    outputs = as_tuple(function(preds, target, **arguments))
    gradients = torch.autograd.grad(
        outputs, (preds, target), [upstream(output, seed) for seed, output in enumerate(outputs)]
    )
    for gradient, given in zip(gradients, (preds, target), strict=True):
        assert gradient.shape == given.shape
        assert gradient.dtype == given.dtype
        assert gradient.device == given.device
    second = "map" if arguments.get("return_full_image") else "contrast_sensitivity"
    results = dict(zip(("similarity", second), outputs, strict=False))
    results |= dict(zip(("grad_preds", "grad_target"), gradients, strict=True))
    return {name: result.detach().double().cpu() for name, result in results.items()}


def error(result: Tensor, exact: Tensor, scale: float | None = None) -> float:
    """The largest error over `scale`, by default the largest exact magnitude. NaN must be in the same positions."""
    assert result.shape == exact.shape
    assert torch.equal(result.isnan(), exact.isnan())
    known = ~exact.isnan()
    if not known.any():
        return 0.0
    scale = scale or exact[known].abs().max().item() or 1.0
    return (result - exact)[known].abs().max().item() / scale


def errors(results: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """The error of each result: absolute for scores, relative to the largest exact magnitude for images.

    A score is a mean of pixels of both signs. Its rounding error depends on the size of a pixel, up to one, and not on
    what is left of the sum.
    """
    assert results.keys() == exact.keys()
    scales = {"similarity": 1.0, "contrast_sensitivity": 1.0}
    return {name: error(result, exact[name], scales.get(name)) for name, result in results.items()}


def reference_noise(preds: Tensor, target: Tensor, arguments: dict[str, Any]) -> float:
    """A bound on the error of float64 torchmetrics itself.

    It computes a variance as the difference of two rounded numbers near x^2, and adds c2. Relative to c2 the error is a
    few epsilon times x^2 / c2, which only matters for images with a large offset. In a volume it sums up to 1000 taps
    one by one, and each addition rounds.
    """
    roundings = 4 if preds.ndim == 4 else 11**3
    data_range, k2 = arguments.get("data_range"), arguments.get("k2", 0.03)
    if isinstance(data_range, tuple):
        preds, target = preds.clamp(*data_range), target.clamp(*data_range)
        data_range = data_range[1] - data_range[0]
    elif data_range is None:
        data_range = max(picture.max() - picture.min() for picture in (preds, target))
    largest = max(picture.abs().max() for picture in (preds, target))
    return float(roundings * torch.finfo(torch.float64).eps * (largest / (k2 * data_range)) ** 2)


def assert_matches(preds: Tensor, target: Tensor, **arguments: Any) -> None:
    """Checks float64 outputs and gradients on the images' device against the reference."""
    ours = evaluate(ssim, preds, target, **arguments)
    exact = evaluate(reference, preds.cpu(), target.cpu(), **arguments)
    tolerance = FLOAT64_TOLERANCE + reference_noise(preds, target, arguments)
    for name, found in errors(ours, exact).items():
        assert found <= tolerance, name
