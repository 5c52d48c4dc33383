"""Uniform windows, whose outputs share sums; and 8-bit images under them, whose sums are integers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import ssim_fused
from ssim_fused import ssim
from ssim_fused._core import _ops

UNIFORM = {"gaussian_kernel": False, "data_range": 255.0}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda image: image,
    "channels_last": lambda image: image.contiguous(memory_format=torch.channels_last),
    "batch_last": lambda image: image.movedim(0, -1).contiguous().movedim(-1, 0),
    "transposed": lambda image: image.mT.contiguous().mT,
    "cropped": lambda image: image.repeat(1, 1, 1, 2)[..., : image.shape[3]],
    "every_other_row": lambda image: image.repeat_interleave(2, 2)[:, :, ::2],
}
# Sizes with one strip and several, narrower than a vector, and with rows of whole vectors.
SIDES = [(17, 16), (40, 301), (20, 1600)]


def bytes_of(*shape: int) -> tuple[Tensor, Tensor]:
    """Two similar images, with dark, bright and flat parts."""
    generator = torch.Generator().manual_seed(7)
    target = torch.randint(0, 256, shape, generator=generator)
    target[..., : shape[-2] // 3, :] //= 32
    target[..., -2:, :] = 255
    preds = target + torch.randint(-20, 21, shape, generator=generator)
    preds[..., :3, :] = target[..., :3, :]
    return preds.clamp(0, 255).to(torch.uint8), target.to(torch.uint8)


def results_of(preds: Tensor, target: Tensor, **arguments: Any) -> list[Tensor]:
    """Value alone, value with map, value with contrast sensitivity."""
    found = [ssim(preds, target, reduction="none", **UNIFORM | arguments)]
    found += ssim(preds, target, reduction="none", return_full_image=True, **UNIFORM | arguments)
    found += ssim(preds, target, reduction="none", return_contrast_sensitivity=True, **UNIFORM | arguments)
    return found


def assert_exact(preds: Tensor, target: Tensor, **arguments: Any) -> None:
    exact = results_of(preds.double(), target.double(), **arguments)
    for ours, theirs in zip(results_of(preds, target, **arguments), exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=2**-24 + 1e-12)  # half a unit at 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_bytes_in_every_layout_lose_nothing_but_the_last_rounding(
    sides: tuple[int, int], channels: int, layout: str
) -> None:
    preds, target = (LAYOUTS[layout](image) for image in bytes_of(3, channels, *sides))
    assert_exact(preds, target, kernel_size=7)


@pytest.mark.parametrize("padding", ["reflect", "zero", "valid"])
@pytest.mark.parametrize("size", [3, 5, 7, 11, 15, (3, 11), (15, 17), (13, 3), (17, 17), (1, 7), (7, 1)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "batch_last"])
def test_bytes_under_every_window(layout: str, size: Any, padding: str) -> None:
    """Windows of more than 257 pixels, or of one along an axis, give the results of the same pixels in float32."""
    preds, target = (LAYOUTS[layout](image) for image in bytes_of(2, 3, 41, 190))
    if size == (17, 17) or 1 in (size if isinstance(size, tuple) else (size,)):
        of_floats = results_of(preds.float(), target.float(), kernel_size=size, padding=padding)
        for ours, theirs in zip(results_of(preds, target, kernel_size=size, padding=padding), of_floats, strict=True):
            assert torch.equal(ours, theirs)
    else:
        assert_exact(preds, target, kernel_size=size, padding=padding)


@pytest.mark.parametrize(
    "constants", [(0.0, 0.0), (1e9, 0.03), (0.01, 1e9), (1e-9, 0.03), (0.01, 1e-9), (1e-7, 1e-8), (10.0, 1e-6)], ids=str
)
def test_bytes_with_extreme_constants(constants: tuple[float, float]) -> None:
    preds, target = bytes_of(2, 3, 40, 53)
    k1, k2 = constants
    preds[0, 0, :10], target[0, 0, :10] = 9, 9  # flat
    exact = results_of(preds.double(), target.double(), kernel_size=7, k1=k1, k2=k2)
    for ours, theirs in zip(results_of(preds, target, kernel_size=7, k1=k1, k2=k2), exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-4, equal_nan=True)


def test_identical_bytes_score_exactly_one() -> None:
    for value in (0, 1, 255):
        flat = torch.full((1, 3, 30, 40), value, dtype=torch.uint8)
        assert torch.equal(ssim(flat, flat.clone(), kernel_size=7, **UNIFORM), torch.ones(()))
    image, _ = bytes_of(2, 3, 40, 53)
    for result in results_of(image, image.clone(), kernel_size=7):
        assert torch.equal(result, torch.ones_like(result))


@pytest.mark.parametrize("data_range", [1e-9, 1e-4, 1e-2, 1.0, 255.0, 1e6])
def test_flat_bytes_score_exactly_one_with_any_range(data_range: float) -> None:
    """Next to the sums of bright pixels, tiny constants must not vanish."""
    for size in (3, 7, 15):
        flat = torch.full((1, 3, 30, 40), 255, dtype=torch.uint8)
        value = ssim(flat, flat.clone(), gaussian_kernel=False, kernel_size=size, data_range=data_range)
        assert torch.equal(value, torch.ones(()))
        found = float64_results(flat, flat.clone(), want_map=False, kernel_size=[size], data_range=data_range)[0]
        assert torch.equal(found, torch.ones(1, dtype=torch.float64))


def test_bytes_have_the_same_bits_on_any_number_of_threads() -> None:
    preds, target = bytes_of(2, 3, 201, 301)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            found.append(results_of(preds, target, kernel_size=7))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def float64_results(preds: Tensor, target: Tensor, want_map: bool = True, **window: Any) -> list[Tensor]:
    window = {"sigma": [], "kernel_size": [7], "padding": "valid", "data_range": 255.0} | window
    return _ops.similarity(
        preds, target, reduction=0, want_contrast=want_map, want_map=want_map, want_float64=True, **window
    )


@pytest.mark.parametrize("dtype", _ops.TYPE_RANGES, ids=str)
@pytest.mark.parametrize("window", [{}, {"kernel_size": [31]}, {"sigma": [1.5], "kernel_size": [11]}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_of_integers_in_float64(layout: str, window: dict[str, Any], dtype: torch.dtype) -> None:
    scale = torch.iinfo(dtype).max // 255 or 1
    preds, target = (LAYOUTS[layout]((image.int() // (2 if scale == 1 else 1) * scale).to(dtype))
                     for image in bytes_of(3, 3, 40, 53))  # fmt: skip
    window = window | {"data_range": _ops.TYPE_RANGES[dtype]}
    found = float64_results(preds, target, **window)
    arguments = {"sigma": [], "kernel_size": [7], "padding": "valid"} | window
    exact = _ops.similarity(
        preds.double(), target.double(), reduction=0, want_contrast=True, want_map=True, **arguments
    )
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    alone = float64_results(preds, target, want_map=False, **window)[0]
    torch.testing.assert_close(alone, exact[0], rtol=0, atol=1e-12)


def test_float64_results_as_the_dispatcher_knows_them() -> None:
    preds, target = bytes_of(2, 3, 20, 22)
    keywords = {"sigma": [], "kernel_size": [7], "padding": "valid", "data_range": 255.0, "want_map": True}
    torch.library.opcheck(_ops.similarity, (preds, target), keywords | {"want_float64": True, "reduction": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preds": torch.rand(1, 1, 20, 20), "target": torch.rand(1, 1, 20, 20)}, "preds has dtype Float"),
        ({"mask": torch.ones(1, 1, 20, 20)}, "neither constants, mask, pixel_term nor gradients"),
        ({"constants": torch.ones(2)}, "neither constants, mask, pixel_term nor gradients"),
        ({"pixel_term": "l1"}, "neither constants, mask, pixel_term nor gradients"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_float64_results_that_do_not_exist_are_refused(change: dict[str, Any], message: str) -> None:
    preds, target = bytes_of(1, 1, 20, 20)
    arguments = {"preds": preds, "target": target, "want_float64": True} | change
    with pytest.raises(RuntimeError, match=message):
        _ops.similarity(**arguments)


# ----------------------------------------------------------------------------------------------------------------------
# Floating-point images


@pytest.mark.parametrize("size", [3, 5, 7, 9, 11, 13, 15, 17, 31, (3, 21), (21, 3)], ids=str)
@pytest.mark.parametrize("width", [40, 53, 371])
def test_floats_under_uniform_windows(size: Any, width: int) -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure as reference  # slow to import

    generator = torch.Generator().manual_seed(3)
    target = torch.rand(2, 2, 45, width, generator=generator, dtype=torch.float64)
    preds = (target + 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    arguments = {"gaussian_kernel": False, "kernel_size": size, "data_range": 1.0}

    def value_and_gradients(function: Any, dtype: torch.dtype) -> list[Tensor]:
        images = [image.to(dtype).requires_grad_() for image in (preds, target)]
        value = function(*images, **arguments)
        return [t.detach().double() for t in (value, *torch.autograd.grad(value, images))]

    exact = value_and_gradients(reference, torch.float64)
    for ours, theirs in zip(value_and_gradients(ssim, torch.float64), exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11 * float(theirs.abs().max()))
    rounded = value_and_gradients(reference, torch.float32)
    for ours, theirs, truth in zip(value_and_gradients(ssim, torch.float32), rounded, exact, strict=True):
        unit = torch.finfo(torch.float32).eps * float(truth.abs().max())
        assert float((ours - truth).abs().max()) <= float((theirs - truth).abs().max()) + 4 * unit


@pytest.mark.parametrize("size", [3, 7, 11, 31])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_reaches_the_windows_that_see_it(size: int, bad: float) -> None:
    """Sums that several outputs share must not spread it to other windows."""
    preds, target = torch.rand(1, 1, 60, 97), torch.rand(1, 1, 60, 97)
    preds[0, 0, 33, 41] = bad
    _, image = ssim(preds, target, gaussian_kernel=False, kernel_size=size, data_range=1.0, return_full_image=True)
    seen = F.max_pool2d((~preds.isfinite()).float(), size, stride=1, padding=size // 2) > 0
    assert torch.equal(image.isnan(), seen)


# ----------------------------------------------------------------------------------------------------------------------
# Instruction sets

IN_ANOTHER_PROCESS = """
import sys, torch, ssim_fused
sys.path.insert(0, sys.argv[2])
from test_uniform import LAYOUTS, bytes_of, float64_results, results_of
results = []
for layout in LAYOUTS.values():
    for sides in ((17, 16), (64, 301)):
        images = [layout(image) for image in bytes_of(2, 3, *sides)]
        results += results_of(*images, kernel_size=7) + float64_results(*images)
torch.save((ssim_fused.build_info()["instruction_set"], results), sys.argv[1])
"""


def test_instruction_sets_agree(tmp_path: Any) -> None:
    best = ssim_fused.build_info()["best_instruction_set"]
    sets = ["baseline", "avx2", "avx512"]
    outcomes = []
    for name in sets[: sets.index(best) + 1]:
        path = tmp_path / name
        environment = {**os.environ, "SSIM_FUSED_INSTRUCTION_SET": name}
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(path), os.path.dirname(__file__)]
        subprocess.run(command, env=environment, check=True)
        used, results = torch.load(path)
        assert used == name
        outcomes.append(results)
    for results in outcomes[1:]:
        for ours, theirs in zip(results, outcomes[0], strict=True):
            # Float32 results may round the other way; the sums are the same integers.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 if ours.dtype == torch.float64 else 2**-23)
