"""Windows longer than the image, with zero padding: exact results, in a time and with an error bounded by the image."""

from __future__ import annotations

import functools
import math
import time
from typing import Any, NamedTuple

import pytest
import textbook
import torch
from torch import Tensor

from ssim_fused import SSIMLoss, fitting_betas, ms_ssim, ssim
from ssim_fused._core import composite
from ssim_fused._core.window import Window

C1, C2 = 0.01**2, 0.03**2
# From about 1170 on, the sum of the weights is computed by a formula.
SIGMAS = [1.0, 2.0, 5.0, 20.0, 100.0, 1169.0, 1171.0, 1e4, 1e6]
SHAPES = [
    (1, 1, 1, 1), (2, 2, 3, 2), (1, 2, 5, 9), (2, 1, 8, 8), (1, 1, 20, 13), (1, 1, 3, 70),
    (1, 1, 1, 1, 1), (1, 2, 2, 5, 3), (2, 1, 8, 6, 9), (1, 1, 12, 4, 20),
]  # fmt: skip


@functools.cache
def weights_within(sigma: float, reach: int) -> Tensor:
    """The Gaussian's taps up to `reach` from the center, divided by the sum of all taps."""
    radius = int(3.5 * sigma + 0.5)
    total = torch.exp(-((torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2) / 2).sum()
    near = torch.arange(-reach, reach + 1, dtype=torch.float64)
    return torch.where(near.abs() <= radius, torch.exp(-((near / sigma) ** 2) / 2) / total, 0.0)


def matrix(sigma: float, n: int) -> Tensor:
    """The convolution of an axis as a matrix of outputs by pixels.

    Zero padding makes it exact for any window length.
    """
    taps = weights_within(sigma, n)
    return torch.stack([taps[n - output : 2 * n - output] for output in range(n)])


def filtered(image: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    for dim, sigma in enumerate(sigmas, start=2):
        weights = matrix(sigma, image.shape[dim]).to(image)
        image = torch.tensordot(image, weights, dims=([dim], [1])).movedim(-1, dim)
    return image


class Exact(NamedTuple):
    """The textbook results for windows of these standard deviations."""

    map: Tensor
    contrast: Tensor
    grad_preds: Tensor
    grad_target: Tensor


def exact(preds: Tensor, target: Tensor, sigmas: tuple[float, ...], weights: Tensor | None = None) -> Exact:
    """The textbook results. `weights` are those of a mask in window mode, whose padding has full weight."""
    x, y = preds.detach().clone().requires_grad_(), target.detach().clone().requires_grad_()
    seen = torch.ones_like(x) if weights is None else weights.to(x).expand_as(x)
    n = 1 + filtered(seen - 1, sigmas)
    mean_x, mean_y = filtered(seen * x, sigmas) / n, filtered(seen * y, sigmas) / n
    variance_x = filtered(seen * x * x, sigmas) / n - mean_x**2
    variance_y = filtered(seen * y * y, sigmas) / n - mean_y**2
    covariance = filtered(seen * x * y, sigmas) / n - mean_x * mean_y
    contrast = (2 * covariance + C2) / (variance_x + variance_y + C2)
    similarity = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1) * contrast
    mean = (seen * similarity).sum() / seen.sum()
    return Exact(similarity.detach(), contrast.detach(), *torch.autograd.grad(mean, (x, y)))


def images(*shape: int, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    return target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64), target


def off_by(found: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest element."""
    assert found.shape == expected.shape
    error = (found.detach().cpu().double() - expected.double()).abs().max()
    return (error / expected.abs().max().clamp(min=1e-30)).item()


def ours(preds: Tensor, target: Tensor, sigma: Any, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The map, and the gradients of the mean."""
    x, y = preds.clone().requires_grad_(), target.clone().requires_grad_()
    options |= {"sigma": sigma, "padding": "zero", "data_range": 1.0}
    image = ssim(preds, target, return_full_image=True, **options)[1]
    return image, *torch.autograd.grad(ssim(x, y, **options), (x, y))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_results_are_those_of_the_whole_window(device: str, sigma: float, shape: tuple[int, ...]) -> None:
    preds, target = images(*shape)
    sigmas = (sigma,) * (len(shape) - 2)
    right = exact(preds, target, sigmas)
    expected = right.map, right.grad_preds, right.grad_target
    for found, known in zip(ours(preds.to(device), target.to(device), sigma), expected, strict=True):
        assert off_by(found, known) < 1e-10

    # In float32, allow the textbook formula's own error and a few roundings.
    single = exact(preds.float(), target.float(), sigmas)
    of_floats = exact(preds.float().double(), target.float().double(), sigmas)
    found = ours(preds.float().to(device), target.float().to(device), sigma)
    names = ("map", "grad_preds", "grad_target")
    for name, result in zip(names, found, strict=True):
        known = getattr(of_floats, name)
        assert off_by(result, known) <= off_by(getattr(single, name), known) + 4e-6, name


@pytest.mark.parametrize("shape", [(2, 2, 8, 11), (1, 2, 2, 5, 3)], ids=str)
@pytest.mark.parametrize("sigma", [0.8, 3.0, 25.0])
def test_results_match_the_textbook_with_every_tap(device: str, sigma: float, shape: tuple[int, ...]) -> None:
    """The other tests' reference is a matrix. Here the images are padded by the whole radius instead."""
    if len(shape) == 5 and sigma > 3:
        sigma = 6.0
    preds, target = images(*shape)
    windows = [textbook.gaussian(2 * int(3.5 * sigma + 0.5) + 1, sigma)] * (len(shape) - 2)
    expected = textbook.ssim_maps(preds, target, windows, C1, C2, "zero")[0]
    found = ours(preds.to(device), target.to(device), sigma)[0]
    assert off_by(found, expected) < 1e-10
    assert off_by(exact(preds, target, (sigma,) * len(windows)).map, expected) < 1e-10


@pytest.mark.parametrize("sigma", [(1e4, 0.5), (0.5, 1e4), (30.0, 2.0)], ids=str)
def test_one_long_axis(device: str, sigma: tuple[float, float]) -> None:
    preds, target = images(2, 1, 9, 30)
    right = exact(preds, target, sigma)
    for found, known in zip(ours(preds.to(device), target.to(device), sigma), (right.map, *right[2:]), strict=True):
        assert off_by(found, known) < 1e-10


@pytest.mark.parametrize("size", [3, 7, 15, 17, 19, 201, 4097, 10**9 + 1, 2**61 + 1])
def test_uniform_windows(device: str, size: int) -> None:
    preds, target = images(2, 2, 8, 5)

    def mean(image: Tensor) -> Tensor:
        for dim in (2, 3):
            n = image.shape[dim]
            near = torch.tensor([[abs(i - o) <= size // 2 for i in range(n)] for o in range(n)], dtype=image.dtype)
            image = torch.tensordot(image, near / size, dims=([dim], [1])).movedim(-1, dim)
        return image

    mean_x, mean_y = mean(preds), mean(target)
    variances = mean(preds**2) - mean_x**2 + mean(target**2) - mean_y**2
    contrast = (2 * (mean(preds * target) - mean_x * mean_y) + C2) / (variances + C2)
    expected = contrast * (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    options = {"gaussian_kernel": False, "kernel_size": size, "padding": "zero", "data_range": 1.0}
    found = ssim(preds.to(device), target.to(device), return_full_image=True, **options)[1]
    assert off_by(found, expected) < 1e-10


def test_custom_windows_keep_each_tap_in_reach(device: str) -> None:
    """The taps are neither symmetric nor sum to one. They reach 7 and 9 pixels, the image only 3 and 5."""
    preds, target = images(1, 2, 3, 5)
    taps = [torch.rand(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64) for size in (15, 19)]
    taps = [window / window.sum() for window in taps]
    arguments = {"sigma": [], "kernel_size": [15, 19], "taps": torch.cat(taps).tolist(), "padding": "zero"}
    found = torch.ops.ssim_fused.similarity(preds.to(device), target.to(device), want_map=True, **arguments)[1]
    expected = textbook.ssim_maps(preds, target, taps, C1, C2, "zero")[0]
    assert off_by(found, expected) < 1e-10
    window = Window((), (15, 19), arguments["taps"], "zero")
    assert off_by(composite.similarity(preds, target, None, window)[2], expected) < 1e-10


@pytest.mark.parametrize("sigma", [2.0, 7.0, 1e5])
@pytest.mark.parametrize("mode", ["window", "map"])
def test_masks(device: str, mode: str, sigma: float) -> None:
    preds, target = images(1, 1, 7, 9)
    mask = torch.rand(1, 1, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round(decimals=1)
    right = exact(preds, target, (sigma, sigma), mask if mode == "window" else None)
    expected = (mask * right.map).sum() / mask.sum()
    for dtype, allowed in ((torch.float64, 1e-10), (torch.float32, 4e-6)):
        x, y = (image.to(device, dtype) for image in (preds, target))
        options = {"mask": mask.to(device), "mask_mode": mode, "sigma": sigma, "padding": "zero", "data_range": 1.0}
        assert abs(ssim(x, y, **options).item() - expected.item()) < allowed


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 1, 6, 30), (1, 1, 4, 6, 5)], ids=str)
@pytest.mark.parametrize("sigma", [2.0, 9.0, 1e6])
def test_the_composite_has_the_same_numbers(sigma: float, shape: tuple[int, ...]) -> None:
    preds, target = images(*shape)
    axes = len(shape) - 2
    window = Window((sigma,), (11,) * axes, padding="zero")
    for dtype in (torch.float64, torch.float32):
        x, y = preds.to(dtype), target.to(dtype)
        right = exact(x.double(), y.double(), (sigma,) * axes).map
        allowed = 1e-10 if dtype == torch.float64 else off_by(exact(x, y, (sigma,) * axes).map, right) + 4e-6
        assert off_by(composite.similarity(x, y, None, window)[2], right) <= allowed
    x = preds.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        ssim(x, target, sigma=sigma, padding="zero", data_range=1.0), x, create_graph=True
    )
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all()
    assert off_by(gradient, exact(preds, target, (sigma,) * axes).grad_preds) < 1e-10


def test_ms_ssim_and_the_contrast_sensitivity(device: str) -> None:
    """Windows longer than the image leave no output for the contrast sensitivity, so its mean is NaN."""
    preds, target = (image.to(device) for image in images(2, 1, 24, 24))
    options: dict[str, Any] = {"sigma": 50.0, "padding": "zero", "data_range": 1.0}
    assert ssim(preds, target, return_contrast_sensitivity=True, **options)[1].isnan().all()
    assert not ssim(preds, target, padding="zero", data_range=1.0, return_contrast_sensitivity=True)[1].isnan().any()
    assert ms_ssim(preds, target, betas=(0.4, 0.6), kernel_size=3, normalize=None, **options).isnan()
    of_one_level = ms_ssim(preds, target, betas=(1.0,), kernel_size=3, normalize=None, **options)
    torch.testing.assert_close(of_one_level, ssim(preds, target, **options), rtol=1e-12, atol=0)


def test_time_depends_on_the_image(device: str) -> None:
    """A window of seven million taps on 8x8 pixels. Visiting each tap would take seconds."""
    preds, target = (image.to(device) for image in images(1, 1, 8, 8))
    ssim(preds, target, sigma=3.0, padding="zero", data_range=1.0)
    begin = time.perf_counter()
    for sigma in (1e3, 1e6, 1e100, 1e300):
        for padded in (preds, preds.float()):
            ssim(padded, target.to(padded.dtype), sigma=sigma, padding="zero", data_range=1.0)
    assert time.perf_counter() - begin < 2  # it takes milliseconds


def test_infinite_windows_average_to_zero(device: str) -> None:
    preds, target = (image.to(device) for image in images(1, 1, 8, 8))
    for dtype in (torch.float64, torch.float32):
        found = ssim(preds.to(dtype), target.to(dtype), sigma=1e300, padding="zero", data_range=1.0)
        assert found.item() == 1.0


BEYOND = {"int": 10**400, "thousands of digits": 10**5000, "radius": 1e308, "inf": math.inf, "pair": (1.5, 10**400)}


@pytest.mark.parametrize("sigma", BEYOND.values(), ids=BEYOND)
def test_sigmas_beyond_all_floats(device: str, sigma: Any) -> None:
    preds, target = (image.to(device) for image in images(1, 1, 8, 8))
    for call in (
        lambda: ssim(preds, target, sigma=sigma, data_range=1.0),
        lambda: ssim(preds, target, sigma=sigma, data_range=1.0, padding="zero"),
        lambda: ms_ssim(preds, target, sigma=sigma, data_range=1.0, kernel_size=1, betas=(0.5, 0.5)),
        lambda: SSIMLoss(sigma=sigma),
        lambda: fitting_betas(8, 8, sigma=sigma),
    ):
        with pytest.raises(OverflowError, match="`sigma` is"):
            call()


def test_compiled() -> None:
    preds, target = images(1, 1, 8, 8)
    for sigma in (5.0, 1e6, 1e300):
        options = {"sigma": sigma, "padding": "zero", "data_range": 1.0, "return_full_image": True}
        compiled = torch.compile(ssim, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(preds, target, **options), ssim(preds, target, **options))
