"""How the CPU kernels divide planes among threads: each output is written once, and nothing else is written.

tests/tasks.cpp checks the division itself for all small sizes. The tests here use sizes at which the last task has few
rows, or none on which an output is centered, and compare with the results of one thread.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import as_tuple, evaluate, ssim
from torch import Tensor

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused.compat import pytorch_msssim
from ssim_fused.losses import PixelSSIMLoss

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("restore_threads")

# Heights around one, two and three tasks of 64 rows.
EDGES = [*range(63, 70), *range(127, 134), 193, 194]


def images(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    preds = target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return preds.to(dtype), target.to(dtype)


def step(function: Callable[..., Any], preds: Tensor, target: Tensor, **arguments: Any) -> dict[str, Tensor]:
    """The value without a gradient, then the value and both gradients."""
    with torch.no_grad():
        plain = as_tuple(function(preds, target, **arguments))
    return {"plain": plain[-1].double(), **evaluate(function, preds, target, **arguments)}


def each_number_of_threads(*counts: int) -> Iterator[int]:
    for count in counts:
        torch.set_num_threads(count)
        yield count


def assert_like_one_thread(
    function: Callable[..., Any], preds: Tensor, target: Tensor, *threads: int, **arguments: Any
) -> None:
    torch.set_num_threads(1)
    expected = step(function, preds, target, **arguments)
    exact = step(function, preds.double(), target.double(), **arguments)
    for name, value in expected.items():
        scale = exact[name].abs().max() if value.ndim > 1 else 1
        assert (value - exact[name]).abs().max() <= 2e-5 * scale, name
    for count in each_number_of_threads(*threads):
        found = step(function, preds, target, **arguments)
        for name, value in expected.items():
            assert torch.equal(found[name], value), f"{name} with {count} threads"


def test_every_division_owns_each_row_and_output_once(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    program = tmp_path / "tasks"
    command = [compiler, "-std=c++20", "-O1", "-Wno-psabi", f"-I{ROOT / 'csrc'}", str(ROOT / "tests/tasks.cpp")]
    subprocess.run([*command, "-o", str(program)], check=True)
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(ran.stdout.split()[0]) > 100_000


@pytest.mark.parametrize("height", EDGES)
def test_valid_volumes_at_the_edges_of_tasks(height: int) -> None:
    """Includes a uniform window, whose radius along the depth differs."""
    assert_like_one_thread(
        ssim, *images(1, 1, 5, height, 24), 4, 64, data_range=1.0, padding="valid", sigma=(0.5, 1.5, 1.5)
    )
    uniform = {"kernel_size": (3, 11, 11), "gaussian_kernel": False}
    assert_like_one_thread(ssim, *images(1, 1, 8, height, 52), 4, data_range=1.0, padding="valid", **uniform)


@pytest.mark.parametrize("padding", ["reflect", "zero", "valid"])
@pytest.mark.parametrize("height", [65, 66, 69, 129, 132])
def test_images_and_masks_at_the_edges_of_tasks(height: int, padding: str) -> None:
    preds, target = images(1, 2, height, 40)
    mask = torch.rand(1, 1, height, 40, generator=torch.Generator().manual_seed(0)) > 0.2
    for arguments in ({}, {"mask": mask}, {"return_full_image": True}, {"sigma": 4.0}):
        assert_like_one_thread(ssim, preds, target, 4, 64, data_range=1.0, padding=padding, **arguments)


def test_pyramids_of_valid_volumes_on_many_threads() -> None:
    preds, target = images(1, 1, 24, 132, 66)
    arguments = {"data_range": 1.0, "padding": "valid", "betas": (0.4, 0.6), "sigma": 1.0}
    assert_like_one_thread(msssim, preds, target, 4, 64, **arguments)


LARGE = [(2, 1, 32, 257, 400), (1, 1, 48, 129, 480), (1, 1, 15, 513, 470), (1, 1, 15, 1025, 470)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_valid_volumes_on_many_threads(shape: tuple[int, ...]) -> None:
    """The scratch memory between the passes ends with the last output. A row beyond it would be foreign memory."""
    preds, target = images(*shape)
    results = []
    for _ in each_number_of_threads(1, 64):
        found = step(ssim, preds, target, data_range=1.0, padding="valid")
        found["drop-in"] = pytorch_msssim.ssim(preds, target, data_range=1.0).double()
        results.append(found)
    one, many = results
    assert all(torch.equal(one[name], many[name]) for name in one)
    assert abs(one["plain"] - one["drop-in"]) < 1e-5


# The pixel term


@pytest.mark.parametrize("sigma", [1.5, 4.0])
@pytest.mark.parametrize("height", [*EDGES, 140, 257])
def test_each_pixel_counts_once(height: int, sigma: float) -> None:
    """Rows without a centered output have no window, but their pixels count all the same."""
    preds, target = torch.ones(1, 1, height, 64), torch.zeros(1, 1, height, 64)
    for padding in ("reflect", "zero", "valid"):
        loss = PixelSSIMLoss("l1", ssim_weight=0.0, padding=padding, sigma=sigma)
        for count in each_number_of_threads(1, 2, 4, 64):
            assert loss(preds, target) == 1, f"{padding} with {count} threads"
            assert loss(preds.clone().requires_grad_(), target) == 1


@pytest.mark.parametrize("height", [65, 66, 132, 140])
@pytest.mark.parametrize("pixel", ["l1", "l2", "charbonnier"])
def test_pixel_terms_do_not_depend_on_the_number_of_threads(pixel: str, height: int) -> None:
    """For images, volumes, masks and pyramids, and the pixel term of a value equals that of PyTorch's operations."""
    phi = {"l1": lambda d: d.abs(), "l2": lambda d: d**2, "charbonnier": lambda d: (d**2 + 1e-6).sqrt()}[pixel]
    for shape, arguments in (
        ((1, 3, height, 64), {}),
        ((1, 1, 7, height, 20), {"sigma": (0.5, 1.5, 1.5)}),
        ((1, 1, height, 64), {"multiscale": True, "betas": (0.4, 0.6)}),
        ((1, 1, height, 64), {"data_range": (0.0, 1.0)}),
        ((1, 1, height, 64), {"data_range": (0.0, 1.0), "multiscale": True, "betas": (0.4, 0.6)}),
    ):
        preds, target = (image.clamp(0, 1) for image in images(*shape))
        loss = PixelSSIMLoss(pixel, padding="valid", **arguments)
        weights = torch.rand(1, 1, *shape[2:], generator=torch.Generator().manual_seed(1))
        for mask in (None, weights):
            seen = torch.ones(shape) if mask is None else mask.expand(shape)
            exact = (phi(preds.double() - target.double()) * seen).sum() / seen.double().sum()
            bits = set()
            for _ in each_number_of_threads(1, 2, 3, 64):
                plain = loss(preds, target, mask=mask).item(), *(term.item() for term in loss.terms)
                assert abs(plain[1] - exact) <= 1e-6, (shape, arguments)
                tracked = preds.clone().requires_grad_()
                value = loss(tracked, target, mask=mask)
                (gradient,) = torch.autograd.grad(value, tracked)
                bits.add((plain, value.item(), gradient.numpy().tobytes()))
            assert len(bits) == 1, (shape, arguments)


@pytest.mark.parametrize("data_range", [(0.0, 1.0), None], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_levels_with_ranges_of_their_own_do_not_depend_on_the_number_of_threads(
    masked: bool, data_range: tuple[float, float] | None
) -> None:
    """One image, large enough for PyTorch to divide its mean among threads."""
    preds, target = images(1, 2, 300, 400)
    mask = torch.rand(1, 1, 300, 400, generator=torch.Generator().manual_seed(1)) if masked else None
    for pixel in ("l1", "l2", "charbonnier"):
        loss = PixelSSIMLoss(pixel, multiscale=True, data_range=data_range)
        bits = set()
        for _ in each_number_of_threads(1, 2, 3, 8):
            plain = loss(preds, target, mask=mask).item(), *(term.item() for term in loss.terms)
            tracked = preds.clone().requires_grad_()
            value = loss(tracked, target, mask=mask)
            (gradient,) = torch.autograd.grad(value, tracked)
            bits.add((plain, value.item(), gradient.numpy().tobytes()))
        assert len(bits) == 1, pixel


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
def test_pixel_terms_of_integers(dtype: torch.dtype) -> None:
    preds = torch.ones(1, 1, 66, 64).to(dtype)
    loss = PixelSSIMLoss("l1", ssim_weight=0.0, data_range=255.0, padding="valid")
    for _ in each_number_of_threads(1, 2, 64):
        assert loss(preds, torch.zeros_like(preds)) == 1
