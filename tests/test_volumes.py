"""What is specific to volumes [B, C, D, H, W]: windows of three axes, the padding of the last one, and messages.

What volumes share with images is tested together with images in the other files.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import CALLS, FLOAT64_TOLERANCE, as_tuple, assert_matches, error, evaluate, reference, ssim, upstream
from torch import Tensor


def volumes(*shape: int, device: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    preds, target = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return preds.to(device, dtype), (0.5 * target + 0.5 * preds.flip(2)).to(device, dtype)


# Sigmas 0.3, 0.5, 1.0, 1.5 and 2.0 have 3, 5, 9, 11 and 15 taps.
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "window",
    [
        {},
        {"sigma": 0.5, "kernel_size": 5},
        {"sigma": (0.3, 0.5, 1.0)},
        {"sigma": [1.0, 0.3, 0.5]},
        {"sigma": (0.5, 1.0, 0.3), "kernel_size": (3, 7, 5)},
        # The axes with windows wider than the precompiled ones.
        {"sigma": (2.0, 0.3, 0.3), "kernel_size": 3},
        {"sigma": (0.3, 2.0, 0.5), "kernel_size": [11, 11, 5]},
        {"sigma": (0.3, 0.5, 2.0), "kernel_size": 15},
        # The map is narrower than the volume, by 4, by 8, and by all but one voxel, which leaves none for the contrast
        # sensitivity. The last map has fewer voxels than are cropped.
        {"sigma": (0.5, 0.3, 1.5), "kernel_size": (5, 3, 7)},
        {"sigma": (0.3, 0.5, 1.5), "kernel_size": (5, 3, 3)},
        {"sigma": (0.5, 0.3, 2.0), "kernel_size": (5, 3, 3)},
        {"sigma": (0.3, 0.5, 3.1)},
        # The map is wider than the volume, by 4 and by 16 voxels.
        {"sigma": (0.3, 0.3, 1.0), "kernel_size": (3, 3, 13)},
        {"sigma": 0.5, "kernel_size": (3, 5, 21)},
    ],
    ids=str,
)
def test_gaussian_window(device: str, window: dict[str, Any], call: str) -> None:
    assert_matches(*volumes(1, 2, 11, 12, 13, device=device), data_range=1.0, **window, **CALLS[call])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kernel_size", [3, 5, (3, 5, 7), [7, 5, 3], (5, 9, 3), (3, 3, 13)], ids=str)
def test_uniform_window(device: str, kernel_size: Any, call: str) -> None:
    images = volumes(2, 1, 8, 9, 14, device=device)
    assert_matches(*images, gaussian_kernel=False, kernel_size=kernel_size, data_range=1.0, **CALLS[call])


@pytest.mark.parametrize("call", CALLS)
def test_double_backward_without_a_voxel_for_the_contrast(device: str, call: str) -> None:
    results = []
    for function in (ssim, reference):
        images = [image.requires_grad_() for image in volumes(1, 1, 4, 4, 13, device=device)]
        arguments = {"sigma": (0.3, 0.3, 3.1), "data_range": 1.0, **CALLS[call]}
        outputs = as_tuple(function(*images, **arguments))
        first = torch.autograd.grad(outputs, images, [upstream(output) for output in outputs], create_graph=True)
        results.append([*first, *torch.autograd.grad(sum((gradient**2).sum() for gradient in first), images)])
    for ours, theirs in zip(*results, strict=True):
        assert error(ours.detach(), theirs.detach()) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize(("kernel_size", "width"), [(9, 13), ((3, 5, 7), 11), (1, 5), ((99, 99, 11), 15)], ids=str)
def test_the_width_of_the_map(device: str, kernel_size: Any, width: int) -> None:
    """The last axis is padded for `kernel_size`, the others for the Gaussian, here of 9 taps."""
    preds, target = volumes(1, 1, 6, 7, 13, device=device)
    _, full = ssim(preds, target, sigma=1.0, kernel_size=kernel_size, return_full_image=True)
    assert full.shape == (1, 1, 6, 7, width)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 9, 10),
        (1, 1, 9, 1, 10),
        (1, 1, 9, 10, 1),
        (1, 3, 3, 3, 400),
        (2, 1, 3, 400, 3),
        (1, 1, 400, 3, 3),
        (1, 1, 7, 8, 700),
    ],
)
@pytest.mark.parametrize("call", ["similarity", "map"])
def test_tiny_and_long_axes(device: str, shape: tuple[int, ...], call: str) -> None:
    sizes = [1 if n == 1 else 5 for n in shape[2:]]
    images = volumes(*shape, device=device)
    assert_matches(*images, gaussian_kernel=False, kernel_size=sizes, data_range=1.0, **CALLS[call])


@pytest.mark.parametrize("window", [{}, {"sigma": 2.0}, {"gaussian_kernel": False, "kernel_size": 7}], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_one_slice_scores_like_an_image(device: str, call: str, window: dict[str, Any]) -> None:
    """The window has one tap along the depth, and `kernel_size` pads the width for the window's own size."""
    preds, target = volumes(2, 3, 1, 25, 27, device=device)
    if "sigma" in window or not window:
        sigma = window.get("sigma", 1.5)
        flat = {"sigma": (0.1, sigma, sigma), "kernel_size": 2 * int(3.5 * sigma + 0.5) + 1}
    else:
        flat = {**window, "kernel_size": (1, 7, 7)}
    found = evaluate(ssim, preds, target, data_range=1.0, **flat, **CALLS[call])
    expected = evaluate(ssim, preds[:, :, 0], target[:, :, 0], data_range=1.0, **window, **CALLS[call])
    for name, value in expected.items():
        assert error(found[name].reshape(value.shape), value) <= FLOAT64_TOLERANCE, name


@pytest.mark.parametrize("order", [(4, 3, 2), (3, 4, 2), (2, 4, 3)], ids=str)
def test_the_axes_are_interchangeable(device: str, order: tuple[int, ...]) -> None:
    preds, target = volumes(2, 2, 12, 13, 14, device=device)
    expected = evaluate(ssim, preds, target, data_range=1.0)
    turned = evaluate(ssim, *(image.permute(0, 1, *order).contiguous() for image in (preds, target)), data_range=1.0)
    assert error(turned["similarity"], expected["similarity"]) <= FLOAT64_TOLERANCE
    for name in ("grad_preds", "grad_target"):
        assert error(turned[name], expected[name].permute(0, 1, *order)) <= FLOAT64_TOLERANCE, name


def test_volumes_of_a_batch_and_channels_are_independent(device: str) -> None:
    """The batch's scores are those of its volumes, and each channel has its own map."""
    preds, target = volumes(2, 3, 12, 11, 13, device=device)
    scores, full = ssim(preds, target, data_range=1.0, reduction="none", return_full_image=True)
    for i in range(2):
        for j in range(3):
            alone = (image[i : i + 1, j : j + 1] for image in (preds, target))
            _, one = ssim(*alone, data_range=1.0, return_full_image=True)
            assert error(full[i, j], one[0, 0]) <= FLOAT64_TOLERANCE
        assert abs(scores[i] - full[i].mean()) <= FLOAT64_TOLERANCE
