"""The drop-in losses under torch.compile, autocast and two processes, and their second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compat_support import pictures
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from ssim_fused.compat import fused_ssim, kornia, matlab, monai, piq, pytorch_msssim

Loss = Callable[[Tensor, Tensor], Tensor]
THREE = torch.tensor([0.3, 0.3, 0.4])
LOSSES: dict[str, Loss] = {
    "pytorch_msssim.SSIM": pytorch_msssim.SSIM(data_range=1.0),
    "pytorch_msssim.SSIM 9": pytorch_msssim.SSIM(data_range=1.0, win_size=9, nonnegative_ssim=True),
    "pytorch_msssim.MS_SSIM": pytorch_msssim.MS_SSIM(data_range=1.0, win_size=5, weights=[0.4, 0.6]),
    "pytorch_msssim.MS_SSIM corrected": pytorch_msssim.MS_SSIM(
        data_range=1.0, win_size=5, weights=[0.4, 0.6], corrected=True
    ),
    "fused_ssim": fused_ssim.fused_ssim,
    "piq.SSIMLoss": piq.SSIMLoss(),
    "piq.MultiScaleSSIMLoss": piq.MultiScaleSSIMLoss(kernel_size=5, scale_weights=THREE),
    "kornia.SSIMLoss": kornia.SSIMLoss(7),
    "kornia.ssim": lambda x, y: kornia.ssim(x, y, 11).square().mean(),
    "monai.SSIMLoss": monai.SSIMLoss(2, win_size=(7, 11), corrected=True),  # computes in float64
    "monai.SSIMLoss even": monai.SSIMLoss(2, win_size=(4, 11), corrected=True),
    "matlab.ssim": lambda x, y: matlab.ssim(x, y, L=1).mean(),
}


@pytest.fixture(params=LOSSES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def gradients(loss: Loss, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    value = loss(x, y)
    return value.detach(), torch.autograd.grad(value, x)[0]


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], rtol: float = 1e-9) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()))


def test_compiled(device: str, name: str) -> None:
    """Compiled on each device; the results are the CPU's."""
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(LOSSES[name], fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 48, 52), (4, 3, 56, 44)):
        images = pictures(*shape)
        found = gradients(compiled, *(image.to(device) for image in images))
        close(tuple(result.cpu() for result in found), gradients(LOSSES[name], *images))
    assert backend.frame_count <= 2
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(device: str, name: str, dtype: torch.dtype) -> None:
    x, y = (image.to(device, dtype) for image in pictures(2, 3, 48, 52))
    with torch.autocast(device, dtype=dtype):
        value = LOSSES[name](x, y)
    exact = LOSSES[name](x.double(), y.double())
    assert value.dtype in (torch.float32, torch.float64) or name == "kornia.ssim"
    torch.testing.assert_close(value.double(), exact, rtol=1e-4 if name != "kornia.ssim" else 1e-2, atol=1e-5)


def test_twice_differentiated(device: str, name: str) -> None:
    x, y = (image.to(device) for image in pictures(1, 2, 22, 24))
    if name == "matlab.ssim":
        x, y = x[:, :1], y[:, :1]
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: LOSSES[name](x, y), x, fast_mode=True, atol=1e-6)


def step(name: str, part: slice) -> list[Tensor]:
    """Gradients of a small network whose loss is computed on this part of the images."""
    x, y = pictures(4, 3, 48, 52)
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1, dtype=torch.float64)
    model = nn.parallel.DistributedDataParallel(network) if torch.distributed.is_initialized() else network
    LOSSES[name](model(x[part]).sigmoid(), y[part]).backward()
    return [parameter.grad for parameter in network.parameters()]


def run_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        found = {name: step(name, slice(2 * rank, 2 * rank + 2)) for name in LOSSES}
        torch.save(found, Path(folder) / f"{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_process, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in LOSSES:
        expected = step(name, slice(None))
        close(tuple(first[name]), tuple(expected))
        close(tuple(second[name]), tuple(expected))
