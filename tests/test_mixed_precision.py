"""Autocast and 16-bit images: float32 values, gradients in the images' dtypes, no overflow under loss scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

Function = Callable[[Tensor, Tensor], Tensor]
MEASURES: dict[str, Function] = {
    "image": lambda x, y: ssim(x, y, data_range=1.0),
    "none": lambda x, y: ssim(x, y),
    "map": lambda x, y: ssim(x, y, data_range=1.0, return_full_image=True)[1].mean(),
    "contrast": lambda x, y: ssim(x, y, data_range=1.0, return_contrast_sensitivity=True)[1].mean(),
    "pyramid": lambda x, y: msssim(x, y, data_range=1.0, betas=(0.4, 0.6), kernel_size=7),
}
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(params=MEASURES)
def function(request: pytest.FixtureRequest) -> Function:
    return MEASURES[request.param]


def pictures(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 40, 44, generator=generator)
    preds = target + 0.1 * torch.randn(target.shape, generator=generator)
    return preds.to(device, dtype), target.to(device, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_value_under_autocast_is_exact(device: str, function: Function, dtype: torch.dtype) -> None:
    x, y = pictures(device, dtype)
    with torch.autocast(device, dtype=dtype):
        value = function(x, y)
    assert value.dtype == torch.float32
    rounded = 2 * torch.finfo(dtype).eps if function is MEASURES["map"] else 1e-5  # the map has the pixels' dtype
    torch.testing.assert_close(value.double(), function(x.double(), y.double()), rtol=0, atol=rounded)
    assert function(x, y).dtype == dtype


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_float32_target_is_not_rounded_under_autocast(device: str, function: Function, dtype: torch.dtype) -> None:
    x, _ = pictures(device, dtype)
    _, y = pictures(device, torch.float32)
    with torch.autocast(device, dtype=dtype):
        value = function(x, y)
    torch.testing.assert_close(value.double(), function(x.double(), y.double()), rtol=0, atol=1e-5)


class Copies(TorchDispatchMode):
    """Records operations that create a float32 tensor of the images' size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.found = size, []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, tuple | list) else (outputs,):
            if isinstance(output, Tensor) and output.dtype == torch.float32 and output.numel() >= self.size:
                self.found.append(function)
        return outputs


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_images_are_not_copied_to_float32(device: str, dtype: torch.dtype) -> None:
    x, y = pictures(device, dtype)
    x.requires_grad_()
    with Copies(x.numel()) as copies, torch.autocast(device, dtype=dtype):
        for name in ("image", "contrast", "pyramid"):
            MEASURES[name](x, y).backward()
    assert not copies.found


@pytest.mark.parametrize("scale", [1.0, 2.0**16, 2.0**24])
@pytest.mark.parametrize("name", ["image", "pyramid"])
def test_scaled_losses(device: str, name: str, scale: float) -> None:
    """GradScaler starts at 65536, with which a float16 loss would be infinite."""
    x, y = pictures(device, torch.float16)
    x.requires_grad_()
    with torch.autocast(device, dtype=torch.float16):
        loss = (1 - MEASURES[name](x, y)) * scale
    assert loss.isfinite()
    loss.backward()
    assert x.grad.dtype == torch.float16
    exact = x.detach().double().requires_grad_()
    ((1 - MEASURES[name](exact, y.double())) * scale).backward()
    if exact.grad.abs().max() < 60000:
        error = (x.grad.double() - exact.grad).abs().max() / exact.grad.abs().max()
        assert error <= 2 * torch.finfo(torch.float16).eps


def test_a_scaler_steps_at_once(device: str) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1).to(device)
    optimizer, scaler = torch.optim.SGD(network.parameters(), lr=0.1), torch.amp.GradScaler(device)
    x, y = pictures(device, torch.float32)
    for _ in range(3):
        before = [parameter.clone() for parameter in network.parameters()]
        with torch.autocast(device, dtype=torch.float16):
            loss = 1 - ssim(network(x), y, data_range=1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert scaler.get_scale() >= 65536
        assert not all(map(torch.equal, before, network.parameters()))


@pytest.mark.parametrize("name", ["image", "pyramid"])
def test_a_gradient_penalty_is_as_exact_as_without_autocast(device: str, name: str) -> None:
    x, y = pictures(device, torch.float32)
    found = []
    for enabled in (True, False):
        variable = x.clone().requires_grad_()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
            value = MEASURES[name](variable, y)
            (gradient,) = torch.autograd.grad(value, variable, create_graph=True)
            penalty = gradient.float().square().sum()
        found.append(torch.autograd.grad(penalty, variable)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-9)
