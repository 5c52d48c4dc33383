"""One small case of each kind of CUDA kernel, which compute-sanitizer runs on a GPU (scripts/on_gpu.py).

Results are compared with the same call on the CPU in float64; other tests compare the CPU kernels with torchmetrics. On
a GPU each kind must launch exactly the kernels that it lists, so that no case silently runs other kernels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssim_fused import L1SSIMLoss
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused._core.window import gaussian_taps

ROOT = Path(__file__).parent.parent
IMAGE, VOLUME = (2, 2, 40, 72), (1, 2, 12, 14, 40)

# The allowed error of values and, relative to the largest, of gradients. In float32 the sums of a window and its
# adjoint have a few dozen rounding errors of 6e-8. 16-bit results are also rounded themselves, with MS-SSIM once per
# level.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}

MARCH = {"strip", "reduce"}
STEP = {*MARCH, "multiply"}
WIDE = {"pivot", "set_taps", "wide_moments", "wide_formula", "reduce"}
WIDE_STEP = {*WIDE, "wide_gradient", "multiply"}
VOLUME_STEP = {*STEP, "pivot", "depth"}
MASKED_STEP = {*WIDE_STEP, "mask_sums", "mask_totals"}
PYRAMID_STEP = {"strip", "downsample", "product", "gather", "multiply"}


def map_and_value(x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
    value, picture = ssim(x, y, return_full_image=True, **arguments)
    return value + (picture * torch.linspace(0, 1, picture.shape[-1], device=picture.device).to(picture)).mean()


def range_of_the_data(x: Tensor, y: Tensor) -> Tensor:
    return ssim(x, y)


def masked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function with a mask that shows three quarters of the pixels."""

    def with_mask(x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
        mask = torch.arange(x[0, 0].numel(), device=x.device).view(1, 1, *x.shape[2:]) % 4 != 0
        return function(x, y, mask=mask.expand(x.shape[0], -1, *x.shape[2:]), **arguments)

    return with_mask


@dataclass(frozen=True)
class Kind:
    """A call, the gradients that it computes, and the kernels that it launches on a GPU."""

    kernels: set[str]
    function: Callable[..., Tensor] = ssim
    arguments: dict[str, Any] = field(default_factory=lambda: {"data_range": 1.0})
    shape: tuple[int, ...] = IMAGE
    types: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32)
    gradients: str = "preds"  # any of: preds target
    channels_last: bool = False

    def images(self) -> list[Tensor]:
        """Return preds and target in the types of the case."""
        generator = torch.Generator().manual_seed(0)
        target = torch.rand(self.shape, generator=generator, dtype=torch.float64)
        preds = (target + 0.2 * torch.randn(self.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
        images = []
        for image, dtype in zip((preds, target), self.types, strict=True):
            scaled = image if all(t.is_floating_point for t in self.types) else (200 * image).round()
            images.append(scaled.to(dtype))
        return images

    def run(self, device: str, exact: bool = False) -> dict[str, Tensor]:
        """Return the value and the gradients, as float64 on the CPU. `exact`: compute in float64, too."""
        images = [image.to(device, torch.float64 if exact else image.dtype) for image in self.images()]
        if self.channels_last:
            images = [image.contiguous(memory_format=torch.channels_last) for image in images]
        inputs = dict(zip(("preds", "target"), images, strict=True))
        for name in self.gradients.split():
            inputs[name].requires_grad_()
        with torch.set_grad_enabled(bool(self.gradients)):
            value = self.function(*inputs.values(), **self.arguments)
        if self.gradients:
            (2 * value).backward()  # a factor other than one, so that the gradient is multiplied
        gradients = {name: inputs[name].grad for name in self.gradients.split()}
        assert all(gradient is not None for gradient in gradients.values())
        return {name: result.detach().double().cpu() for name, result in ({"value": value} | gradients).items()}


def of(dtype: torch.dtype, other: torch.dtype | None = None) -> dict[str, Any]:
    return {"types": (dtype, dtype if other is None else other)}


SIGMA, BYTES = (lambda sigma: {"arguments": {"data_range": 1.0, "sigma": sigma}}), {"arguments": {"data_range": 255.0}}
LEVELS = {"data_range": 1.0, "betas": (0.2, 0.3, 0.5)}
PYRAMID: dict[str, Any] = {"function": msssim, "arguments": LEVELS, "shape": (2, 2, 48, 52)}
WITH_L1: dict[str, Any] = {"function": L1SSIMLoss(), "arguments": {}}

KINDS: dict[str, Kind] = {
    "value": Kind(MARCH, gradients=""),
    "gradient": Kind(STEP),
    "both_gradients": Kind(STEP, gradients="preds target"),
    "map": Kind(STEP - {"multiply"}, function=map_and_value),
    "range_of_the_data": Kind(STEP, function=range_of_the_data, arguments={}),
    "single_pixels": Kind(STEP, shape=(2, 2, 40, 71)),
    "channels_last": Kind(STEP, shape=(2, 3, 40, 72), channels_last=True),
    "valid": Kind(STEP, arguments={"data_range": 1.0, "padding": "valid"}),
    "float16": Kind(STEP, **of(torch.float16)),
    "bfloat16": Kind(STEP, **of(torch.bfloat16)),
    "float64": Kind(STEP, **of(torch.float64)),
    "integers": Kind(MARCH, gradients="", **BYTES, **of(torch.uint8)),
    "integers_beside_floats": Kind(STEP, **BYTES, **of(torch.float32, torch.uint8)),
    "short_window": Kind(STEP, **SIGMA(0.5)),
    "radius_3": Kind(STEP, **SIGMA(0.9)),
    "radius_11": Kind(STEP, shape=(1, 1, 72, 80), **SIGMA(3.0)),
    "wide": Kind(WIDE_STEP, **SIGMA(2.0)),
    "wide_value": Kind(WIDE, gradients="", **SIGMA(2.0)),
    "wide_volume": Kind({*WIDE_STEP, "wide_filter"}, shape=VOLUME, **SIGMA(2.0)),
    "pixel_term": Kind(STEP, **WITH_L1),
    "pixel_term_of_a_value": Kind({*MARCH, "pixel_term_sums"}, gradients="", **WITH_L1),
    "mask": Kind(MASKED_STEP, function=masked(ssim)),
    "mask_of_float64": Kind(MASKED_STEP, function=masked(ssim), **of(torch.float64)),
    "mask_of_a_map": Kind(MASKED_STEP, masked(ssim), {"data_range": 1.0, "mask_mode": "map"}),
    "volume": Kind(VOLUME_STEP, shape=VOLUME),
    "volume_value": Kind(VOLUME_STEP - {"multiply"}, shape=VOLUME, gradients=""),
    "volume_of_float16": Kind(VOLUME_STEP, shape=VOLUME, **of(torch.float16)),
    "volume_with_pixel_term": Kind({*VOLUME_STEP, "pixel_term_sums"}, shape=VOLUME, **WITH_L1),
    "pyramid": Kind(PYRAMID_STEP, **PYRAMID),
    "pyramid_of_float16": Kind(PYRAMID_STEP, **PYRAMID, **of(torch.float16)),
    "pyramid_of_volumes": Kind(
        {*PYRAMID_STEP, "pivot", "depth"}, msssim, {"data_range": 1.0, "betas": (0.5, 0.5)}, (1, 1, 24, 26, 28)
    ),
    "pyramid_with_mask": Kind(
        (MASKED_STEP - {"reduce"}) | {"half_mask", "masked_downsample", "masked_gather", "product"},
        **(PYRAMID | {"function": masked(msssim)}),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_results(name: str, device: str) -> None:
    kind = KINDS[name]
    found, expected = kind.run(device), kind.run("cpu", exact=True)
    assert found.keys() == expected.keys()
    tolerance = (
        TOLERANCE[max(kind.types, key=lambda dtype: TOLERANCE.get(dtype, 0))]
        if all(dtype.is_floating_point for dtype in kind.types)
        else TOLERANCE[torch.float32]
    )
    for result, exact in expected.items():
        torch.testing.assert_close(found[result], exact, rtol=0, atol=tolerance * max(1e-6, exact.abs().max().item()))


def launched(names: list[str]) -> set[str]:
    """Return the names of our kernels in a profile: `strip` for `strip_kernel<...>`."""
    return {match[1] for name in names if "ssim_fused" in name and (match := re.search(r"(\w+)_kernel\b", name))}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA: needs a GPU to see which kernels are launched")
@pytest.mark.parametrize("name", KINDS)
def test_the_kernels_of_a_kind(name: str) -> None:
    KINDS[name].run("cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        KINDS[name].run("cuda")
        torch.cuda.synchronize()
    assert launched([event.name for event in profiler.events()]) == KINDS[name].kernels


def test_every_kernel_has_a_kind() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "csrc/cuda/kernels").rglob("*.cuh"))
    kernels = set(re.findall(r"^SSIM_KERNEL\(.*\)\n(\w+)_kernel\(", sources, re.MULTILINE))
    assert len(kernels) > 15
    assert kernels == set().union(*(kind.kernels for kind in KINDS.values()))


def radii_of_marches() -> dict[str, int]:
    """Return the radii that marches are compiled for, by the names of their constants."""
    text = "".join(path.read_text() for path in (ROOT / "csrc/cuda/kernels").rglob("*.cuh"))
    return {name: int(radius) for name, radius in re.findall(r"\bk(\w*)Radius = (\d+)\b", text)}


def test_windows_run_the_kernels_of_their_kind() -> None:
    """If a march is added for a radius, cases that test the kernels for wide windows need another radius."""
    marches = radii_of_marches()
    assert marches.keys() >= {"March", "Short", "Long"}
    for sigma, name in ((1.5, "March"), (0.9, "Short"), (3.0, "Long")):
        assert len(gaussian_taps(sigma)) // 2 == marches[name]
    assert len(gaussian_taps(0.5)) // 2 not in marches.values()
    wide = len(gaussian_taps(2.0)) // 2
    assert wide > marches["March"]
    assert wide not in marches.values()
    losses = (ROOT / "tests/test_cuda_training.py").read_text()
    for name, sigma in (("wide", 2.0), ("radius 11", 3.0)):
        assert re.search(rf'"{name}": .*sigma={sigma}\)', losses)
