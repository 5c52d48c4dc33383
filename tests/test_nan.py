"""NaN and infinity stay in their image, in their plane, and within the reach of their window."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from support import CALLS, as_tuple, error, evaluate, reference, ssim
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

BAD = [math.nan, math.inf, -math.inf]

# On CUDA, the kernels of radius 5 also serve radii 1, 2 and, for maps and gradients of both images, 3. They skip the
# outer taps, through which a NaN must not pass. Radii 3 and 11 have separate kernels.
WINDOWS: dict[int, dict[str, Any]] = {
    1: {"gaussian_kernel": False, "kernel_size": 3},
    2: {"sigma": 0.5, "kernel_size": 5},
    3: {"gaussian_kernel": False, "kernel_size": 7},
    5: {},
    11: {"gaussian_kernel": False, "kernel_size": 23},
}

# Corners, edges, the last pixel of the padding, the center, and both sides of a multiple of 256 columns.
PLACES = {
    (24, 300): [(0, 0), (0, 100), (23, 299), (23, 5), (5, 0), (12, 150), (11, 255), (10, 256), (17, 294)],
    (13, 12, 40): [(0, 0, 0), (12, 11, 39), (5, 6, 20), (0, 6, 39), (7, 11, 6)],
    (6, 7, 270): [(5, 6, 269), (3, 0, 255), (2, 6, 256)],
}
CASES = [(sides, radius) for sides in PLACES for radius in WINDOWS if radius < min(sides)]


def pictures(device: str, dtype: torch.dtype, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return first.to(device, dtype), second.to(device, dtype)


def spoiled(image: Tensor, at: tuple[int, ...], value: float) -> Tensor:
    image = image.clone()
    image[at] = value
    return image


def reach(shape: torch.Size, at: tuple[int, ...], radius: int, mirrored: bool = True) -> Tensor:
    """A mask of the pixels whose windows, on the reflected image, contain the pixel at `at`."""
    mark = torch.zeros(shape)
    mark[at] = 1
    if mirrored:
        mark = F.pad(mark, (radius,) * 2 * (len(shape) - 2), mode="reflect")
    return grown(mark, radius, 0 if mirrored else radius).bool()


def grown(mark: Tensor, radius: int, padding: int) -> Tensor:
    """The maximum over each window of an image or a volume."""
    return {4: F.max_pool2d, 5: F.max_pool3d}[mark.ndim](mark, 2 * radius + 1, 1, padding=padding)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize(("sides", "radius"), CASES, ids=str)
def test_map(device: str, sides: tuple[int, ...], radius: int, value: float, dtype: torch.dtype) -> None:
    preds, target = pictures(device, dtype, 1, 1, *sides)
    arguments = {"data_range": 1.0, "return_full_image": True, **WINDOWS[radius]}
    _, clean = ssim(preds, target, **arguments)
    for place, which in itertools.product(PLACES[sides], ("preds", "target")):
        at = (0, 0, *place)
        images = (spoiled(preds, at, value), target) if which == "preds" else (preds, spoiled(target, at, value))
        _, full = ssim(*images, **arguments)
        touched = reach(preds.shape, at, radius)
        assert torch.equal(full.isnan().cpu(), touched), place
        # Results accurate relative to 1 may be computed with another pivot: a rounding error, times 1 / k2.
        limit = 100 * torch.finfo(dtype).eps
        assert (full - clean)[~touched.to(device)].abs().max() <= limit, place


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize(
    ("sides", "radius"), [*(((27, 40), radius) for radius in WINDOWS), ((7, 9, 12), 1), ((9, 8, 11), 2)], ids=str
)
@pytest.mark.parametrize("call", CALLS)
def test_scores_and_gradients_as_in_the_reference(
    device: str, call: str, sides: tuple[int, ...], radius: int, value: float
) -> None:
    """In float64, the result is NaN where the reference's is, and elsewhere equal to it, also in the spoiled plane."""
    preds, target = pictures(device, torch.float64, 2, 2, *sides)
    arguments = {"data_range": 1.0, **WINDOWS[radius], **CALLS[call]}
    middle, border = [n // 2 for n in sides], [0] * (len(sides) - 1) + [sides[-1] - 2]
    for at, which in itertools.product([(0, 1, *middle), (1, 0, *border)], ("preds", "target")):
        images = (spoiled(preds, at, value), target) if which == "preds" else (preds, spoiled(target, at, value))
        ours = evaluate(ssim, *images, **arguments)
        exact = evaluate(reference, *(image.cpu() for image in images), **arguments)
        for name in exact:
            wrong = ours[name].isnan() != exact[name].isnan()
            if name.startswith("grad"):
                # Where a NaN meets a clamped variance or an infinity, autograd and a formula may disagree on whether a
                # gradient is NaN, but only in the spoiled plane and within the reach of two windows.
                permitted = reach(preds.shape, at, radius, mirrored=False)
                permitted = grown(permitted.double(), radius, radius).bool()
                wrong &= ~permitted
                ours[name][permitted], exact[name][permitted] = 0, 0
            assert not wrong.any(), name
            assert error(ours[name], exact[name]) <= 1e-10, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sides", [(30, 28), (11, 12, 13)], ids=str)
def test_other_images_do_not_notice(
    device: str, sides: tuple[int, ...], call: str, value: float, dtype: torch.dtype
) -> None:
    preds, target = pictures(device, dtype, 3, 2, *sides)
    arguments = {"data_range": 1.0, **CALLS[call]}
    clean = evaluate(ssim, preds, target, **arguments)
    for images in (
        (spoiled(preds, (1, 0, *(9 for _ in sides)), value), target),
        (preds, spoiled(target, (1, 1, *(n - 1 for n in sides[:-1]), 0), value)),
        (spoiled(preds, (1,), value), target),
        (spoiled(preds, (1,), value), spoiled(target, (1,), value)),
    ):
        found = evaluate(ssim, *images, **arguments)
        assert found["similarity"][1].isnan()
        for name, result in found.items():
            others = [0, 2]
            assert result[others].isfinite().all(), name
            assert torch.equal(result[others], clean[name][others]), name


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize("sides", [(30, 28), (11, 12, 13)], ids=str)
def test_other_planes_are_unaffected(device: str, sides: tuple[int, ...], value: float) -> None:
    preds, target = pictures(device, torch.float32, 2, 3, *sides)
    arguments = {"data_range": 1.0, **CALLS["map"]}
    clean = evaluate(ssim, preds, target, **arguments)
    found = evaluate(ssim, spoiled(preds, (1, 1, *(n // 2 for n in sides)), value), target, **arguments)
    others = torch.ones(2, 3, dtype=torch.bool)
    others[1, 1] = False
    for name in ("map", "grad_preds", "grad_target"):
        assert torch.equal(found[name][others], clean[name][others]), name


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize(("sides", "radius"), CASES, ids=str)
def test_upstream_gradient(device: str, sides: tuple[int, ...], radius: int, value: float) -> None:
    """A bad number in the upstream image reaches only the pixels under its window."""
    preds, target = (image.requires_grad_() for image in pictures(device, torch.float64, 1, 1, *sides))
    _, full = ssim(preds, target, data_range=1.0, return_full_image=True, **WINDOWS[radius])
    weights = torch.rand_like(target)
    clean = torch.autograd.grad(full, (preds, target), weights, retain_graph=True)
    for place in PLACES[sides]:
        at = (0, 0, *place)
        found = torch.autograd.grad(full, (preds, target), spoiled(weights, at, value), retain_graph=True)
        # Reflection maps a window onto pixels inside the image, all within a square or cube around its center.
        touched = reach(preds.shape, at, radius, mirrored=False).to(device)
        for gradient, expected in zip(found, clean, strict=True):
            assert not gradient[touched].isfinite().all(), place
            assert error(gradient[~touched], expected[~touched]) <= 1e-10, place


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", BAD, ids=str)
def test_a_nan_range_makes_every_result_nan(device: str, value: float, call: str) -> None:
    """One bad number may leave the whole batch without a range. Where the reference returns NaN, we do, too."""
    preds, target = pictures(device, torch.float64, 2, 1, 24, 25)
    for images, data_range in (
        ((spoiled(preds, (1, 0, 3, 3), value), target), None),
        ((preds, spoiled(target, (0, 0, 3, 3), value)), None),
        (
            (preds, target),
            torch.tensor(value, dtype=torch.float64, device=device),
        ),  # numbers are refused: test_errors.py
    ):
        outputs = zip(
            as_tuple(ssim(*images, data_range=data_range, **CALLS[call])),
            as_tuple(reference(*images, data_range=data_range, **CALLS[call])),
            strict=True,
        )
        for ours, theirs in outputs:
            assert theirs.isnan().any()
            assert torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.parametrize("call", CALLS)
def test_black_images_have_no_range(device: str, call: str) -> None:
    black = torch.zeros(2, 1, 24, 25, device=device)
    for function in (ssim, reference):
        for output in as_tuple(function(black, black, **CALLS[call])):
            assert output.isnan().all()


def test_a_clamped_infinity_is_a_number(device: str) -> None:
    preds, target = pictures(device, torch.float64, 2, 1, 20, 24)
    preds = spoiled(spoiled(preds, (0, 0, 3, 3), math.inf), (1, 0, 19, 0), -math.inf)
    for call in CALLS.values():
        ours = evaluate(ssim, preds, target, data_range=(0.0, 1.0), **call)
        exact = evaluate(reference, preds.cpu(), target.cpu(), data_range=(0.0, 1.0), **call)
        for name in exact:
            assert exact[name].isfinite().all()
            assert error(ours[name], exact[name]) <= 1e-10, name
