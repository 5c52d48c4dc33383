"""Tests those guarantees of docs/promises.md that no other file tests, and that each line there names a real test."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import evaluate, ssim
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

import ssim_fused
from ssim_fused import multiscale_structural_similarity_index_measure as msssim

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "promises.md").read_text()
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def pictures(device: str, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator)
    preds = target + 0.1 * torch.randn(shape, generator=generator)
    return preds.to(device, dtype), target.to(device, dtype)


def pyramid(preds: Tensor, target: Tensor, **arguments: Any) -> Tensor:
    return msssim(preds, target, betas=(0.4, 0.6), kernel_size=7, **arguments)


def missing_tests(page: str) -> list[str]:
    """The tests that a page names but that do not exist."""
    missing = []
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page):
        path = ROOT / "tests" / file
        tree = ast.parse(path.read_text() if path.exists() else "")
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{name}")
    return missing


def test_every_promise_names_a_test_that_exists() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not re.match(r"\|( promise|---)", line)]
    assert len(rows) >= 15
    for row in rows:
        assert re.search(r"`test_\w+\.py::test_\w+`", row), f"no test is named: {row}"
    assert not missing_tests(PAGE)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 61, 340), (2, 1, 15, 16, 90)], ids=str)
def test_pyramids_repeat_bit_by_bit_on_any_number_of_threads(
    device: str, restore_threads: None, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    preds, target = pictures(device, *shape, dtype=dtype)
    arguments = {"reduction": "none", "data_range": 1.0, "betas": (0.4, 0.6), "kernel_size": 5, "sigma": 0.8}
    first = evaluate(msssim, preds, target, **arguments)
    for threads in (1, 1, 2, 3, 7):
        torch.set_num_threads(threads)
        again = evaluate(msssim, preds, target, **arguments)
        assert all(torch.equal(first[name], again[name]) for name in first), threads


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("function", [ssim, pyramid], ids=["ssim", "ms-ssim"])
def test_an_image_has_the_same_bits_alone_and_in_any_batch(function: Any, dtype: torch.dtype) -> None:
    preds, target = pictures("cpu", 5, 2, 40, 350, dtype=dtype)
    batch = evaluate(function, preds, target, data_range=1.0, reduction="sum")
    values = function(preds, target, data_range=1.0, reduction="none")
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(function(preds[shuffled], target[shuffled], data_range=1.0, reduction="none"), values[shuffled])
    for i in range(5):
        one = slice(i, i + 1)
        alone = evaluate(function, preds[one], target[one], data_range=1.0, reduction="sum")
        # For the single number, `evaluate` uses the same upstream gradient in both cases.
        assert torch.equal(batch["grad_preds"][one], alone["grad_preds"])
        assert torch.equal(batch["grad_target"][one], alone["grad_target"])
        assert torch.equal(values[one], function(preds[one], target[one], data_range=1.0, reduction="none"))


IN_ANOTHER_PROCESS = """
import os, sys
os.sched_setaffinity(0, set(list(os.sched_getaffinity(0))[: int(sys.argv[2])]))
import torch, ssim_fused
generator = torch.Generator().manual_seed(0)
results = {}
for dtype in (torch.float32, torch.float64, torch.bfloat16):
    for sides in ((45, 371), (15, 17, 99)):
        target = torch.rand(2, 2, *sides, generator=generator).to(dtype)
        preds = (target + 0.1 * torch.rand(2, 2, *sides, generator=generator).to(dtype)).requires_grad_()
        value = ssim_fused.structural_similarity_index_measure(preds, target, data_range=1.0)
        results[f"{dtype} {sides}"] = value.detach(), *torch.autograd.grad(value, preds)
torch.save(results, sys.argv[1])
"""


def results_with(instruction_set: str, cores: int, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    environment = os.environ | {"SSIM_FUSED_INSTRUCTION_SET": instruction_set, "OMP_NUM_THREADS": str(2 * cores - 1)}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(path), str(cores)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-4000:]}"
    return torch.load(path)


@pytest.mark.slow
def test_one_instruction_set_gives_one_result(tmp_path: Path) -> None:
    """On any number of cores and threads. float64 is the same on AVX2 and AVX-512."""
    best = ssim_fused.build_info()["best_instruction_set"]
    one, other = (results_with(best, cores, tmp_path / str(cores)) for cores in (1, 2))
    for name in one:
        assert all(map(torch.equal, one[name], other[name])), name
    if best == "avx512":
        narrower = results_with("avx2", 1, tmp_path / "avx2")
        for name in one:
            if "float64" in name:
                assert all(map(torch.equal, one[name], narrower[name])), name


@pytest.mark.parametrize("function", [ssim, pyramid], ids=["ssim", "ms-ssim"])
def test_a_value_is_the_same_with_and_without_gradient_but_for_rounding(device: str, function: Any) -> None:
    preds, target = pictures(device, 2, 3, 40, 350)
    with torch.no_grad():
        plain = function(preds, target, data_range=1.0)
    tracked = function(preds.requires_grad_(), target, data_range=1.0)
    torch.testing.assert_close(tracked.detach(), plain, rtol=0, atol=2 * torch.finfo(torch.float32).eps)


def test_layouts_give_the_same_bits() -> None:
    preds, target = pictures("cpu", 2, 3, 40, 350)
    expected = evaluate(ssim, preds, target, data_range=1.0)
    for layout in (lambda t: t.to(memory_format=torch.channels_last), lambda t: t.mT.contiguous().mT):
        found = evaluate(ssim, layout(preds), layout(target), data_range=1.0)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_saturated_pixels_have_the_slope_of_clamp_in_this_torch(device: str) -> None:
    """The derivative is 1 before torch 2.14 and 0 since then."""
    preds, target = pictures(device, 1, 1, 20, 22, dtype=torch.float64)
    preds = preds.clamp(0.2, 0.8)  # many pixels lie on a bound
    gradients = []
    for function in (ssim, reference):
        image = preds.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(image, target, data_range=(0.2, 0.8)), image)
        gradients.append(gradient)
    bound = torch.tensor([0.2, 0.8], dtype=torch.float64, device=device).requires_grad_()
    (slope,) = torch.autograd.grad(bound.clamp(0.2, 0.8).sum(), bound)
    on_bound = (preds == 0.2) | (preds == 0.8)
    assert (gradients[0][on_bound] != 0).any() == bool(slope[0] != 0)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-12)
