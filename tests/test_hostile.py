"""Operators called with hostile arguments, at the limits of sizes, and without enough memory: they never crash."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DEVICES
from hypothesis import settings
from support import FLOAT64_TOLERANCE, effort
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

PROGRAM = Path(__file__).with_name("hostile.py")


@pytest.mark.slow
def test_hostile_operands_end_in_a_result_or_an_exception(tmp_path: Path) -> None:
    seed = 0 if settings.default.derandomize else random.randrange(2**31)
    last = tmp_path / "call.txt"
    command = [sys.executable, str(PROGRAM), str(effort(100)), str(seed), str(last)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    last.touch()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3000)
    assert done.returncode == 0, f"{seed=}\n{last.read_text()}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    served, refused = map(int, done.stdout.split())
    assert served > effort(5)
    assert refused > effort(10)


OUT_OF_MEMORY = """
import resource
import torch
from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim

torch.set_num_threads(2)
images = torch.rand(1, 1, 64, 64).requires_grad_(), torch.rand(1, 1, 64, 64)
loss = lambda: torch.autograd.grad(ssim(*images, data_range=1.0), images[0])[0]
expected = loss()
pixel = torch.rand(1, 1, 1, 1)
flat, deep = pixel.expand(1, 1, 30000, 30000), pixel[..., None].expand(1, 1, 400, 400, 400)
wide = torch.rand(1, 1, 2100, 2000)
calls = {
    "a gradient": lambda: ssim(flat.detach().requires_grad_(), flat, data_range=1.0),
    "a map": lambda: ssim(flat, flat, data_range=1.0, return_full_image=True),
    "a pyramid": lambda: msssim(flat, flat, data_range=1.0),
    "a volume's fields": lambda: ssim(deep, deep, data_range=1.0),
    "rows of a task": lambda: ssim(wide, wide, data_range=1.0, gaussian_kernel=False, kernel_size=3999),
}
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), -1))
for name, call in calls.items():
    try:
        call()
    except RuntimeError as error:
        assert "memory" in str(error), (name, error)
    else:
        raise AssertionError(f"{name} had memory enough")
    assert torch.equal(loss(), expected), name
print("usable")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_out_of_memory_leaves_the_library_usable() -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() == "usable", done.stderr[-4000:]


@pytest.mark.parametrize("shape", [(65537, 1, 6, 7), (1, 65537, 6, 7), (3, 30000, 6, 6), (1, 65537, 3, 4, 3)], ids=str)
def test_many_planes(device: str, shape: tuple[int, ...]) -> None:
    """More planes than the 65535 blocks that the second and third axis of a CUDA grid allow."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    preds = (target + 0.1 * torch.rand(shape, generator=generator)).to(device).requires_grad_()
    arguments = {"data_range": 1.0, "sigma": 0.5, "kernel_size": 5}
    values = ssim(preds, target.to(device), reduction="none", **arguments)
    (gradient,) = torch.autograd.grad(values.sum(), preds)
    last = preds.detach()[-1:, -3:].requires_grad_()
    alone = ssim(last, target[-1:, -3:].to(device), reduction="sum", **arguments)
    if shape[1] == 1:
        torch.testing.assert_close(values[-1], alone, rtol=0, atol=1e-6)
    scale = last.shape[1] / shape[1]  # the mean is over more channels
    (expected,) = torch.autograd.grad(alone * scale, last)
    torch.testing.assert_close(gradient[-1:, -3:], expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    "sides", [(1, 300000), (300000, 1), (1, 1), (2, 300000), (1, 1, 100000), (1, 100000, 1)], ids=str
)
def test_one_pixel_wide(device: str, sides: tuple[int, ...]) -> None:
    """Along axes of one pixel, windows have one tap."""
    window = tuple(1 if n < 3 else 5 for n in sides)
    generator = torch.Generator().manual_seed(0)
    pair = [torch.rand(1, 2, *sides, generator=generator, dtype=torch.float64) for _ in range(2)]
    preds, target = (image.to(device) for image in pair)
    arguments = {"data_range": 1.0, "gaussian_kernel": False}
    value = ssim(preds.requires_grad_(), target, kernel_size=window, **arguments)
    (gradient,) = torch.autograd.grad(value, preds)
    assert gradient.isfinite().all()
    turned = [image.transpose(-1, -2).detach() for image in (preds, target)]
    other = (*window[:-2], window[-1], window[-2])
    torch.testing.assert_close(
        ssim(*turned, kernel_size=other, **arguments), value.detach(), rtol=FLOAT64_TOLERANCE, atol=0
    )


def test_fakes_predict_shapes_beyond_32_bits() -> None:
    with FakeTensorMode():
        preds, target = (torch.empty(9, 1, 16000, 16000, requires_grad=True) for _ in range(2))
        for function in (ssim, msssim):
            value = function(preds, target, data_range=1.0, reduction="none")
            assert value.shape == (9,)
            (gradient,) = torch.autograd.grad(value.sum(), preds)
            assert gradient.numel() > 2**31


def column(height: int) -> tuple[Tensor, Tensor]:
    """Images whose rows all share memory, by a stride of zero."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(1, 1, 1, 50000, generator=generator).expand(1, 1, height, -1) for _ in range(2))


@pytest.mark.nightly
@pytest.mark.parametrize("device", DEVICES)
def test_more_than_two_to_the_31_pixels(device: str) -> None:
    large, small = column(43000), column(64)
    assert large[0].numel() > 2**31
    values = [ssim(*(image.to(device) for image in pair), data_range=1.0) for pair in (large, small)]
    torch.testing.assert_close(*values, rtol=0, atol=1e-6)


@pytest.mark.nightly
def test_a_gradient_of_more_than_two_to_the_31_pixels() -> None:
    with open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) << 10
    if available < 12 << 30:
        pytest.skip("the gradient takes 4.3 GB")
    preds, target = (image.bfloat16() for image in column(1))
    height = 43000
    preds = preds.expand(1, 1, height, -1).requires_grad_()
    value = ssim(preds, target.expand_as(preds), data_range=1.0)
    (gradient,) = torch.autograd.grad(value * height, preds)
    assert gradient.numel() > 2**31
    rows = gradient[0, 0, [30, 1000, height // 2, height - 31]]
    assert torch.equal(rows, rows[:1].expand_as(rows))
    assert (rows != 0).any()
