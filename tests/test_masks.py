"""Masked values and gradients, compared with mask_oracle.py in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mask_oracle import FORMS, KINDS, MODES, assert_close, gradients, images, masks, oracle, pyramid_oracle
from torch import Tensor

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused._core.window import gaussian_taps

CASES = [
    ((2, 3, 37, 41), 1.5, "reflect"),
    ((2, 1, 45, 371), 2.5, "reflect"),
    ((1, 2, 24, 26), 0.8, "zero"),
    ((2, 2, 30, 35), 1.5, "zero"),
    ((2, 2, 30, 35), 1.5, "valid"),
    ((1, 1, 40, 700), 0.8, "valid"),
    ((2, 1, 12, 13, 17), 1.5, "reflect"),
    ((1, 2, 9, 11, 14), 0.8, "zero"),
    ((1, 1, 12, 13, 70), 1.5, "valid"),
    ((1, 1, 9, 12, 500), 0.8, "reflect"),
]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "sigma", "padding"), CASES, ids=str)
def test_values_and_gradients(
    device: str, shape: tuple[int, ...], sigma: float, padding: str, kind: str, mode: str, name: str
) -> None:
    preds, target = images(*shape)
    mask = masks(preds)[kind]
    arguments, place = FORMS[name]
    size = len(gaussian_taps(sigma))  # the size that volumes are padded for

    def function(x: Tensor, y: Tensor) -> Tensor:
        outputs = ssim(
            x, y, sigma=sigma, kernel_size=size, data_range=1.0, padding=padding, mask=mask.to(x.device),
            mask_mode=mode, **arguments,
        )  # fmt: skip
        return outputs if place is None else outputs[place]

    def expected(x: Tensor, y: Tensor, mask: Tensor) -> list[Tensor]:
        return gradients(lambda x, y: oracle(x, y, mask, sigma, mode, padding)[name], x, y)

    found = gradients(function, preds.to(device), target.to(device))
    # The oracle computes variances as differences of squares: about 1000 roundings of 1e-16, divided by c2.
    assert_close([t.cpu() for t in found], expected(preds, target, mask), 1e-9)
    preds, target = preds.float(), target.float()
    found = gradients(function, preds.to(device), target.to(device))
    rounded = mask.float() if kind == "weights" else mask
    # The sums over a window and its adjoint round a few dozen times at 6e-8. A window that sees few pixels has a small
    # variance, but the rounding error of the pixels.
    tolerance = 1e-4 if name == "map" else 2e-5
    assert_close([t.cpu() for t in found], expected(preds.double(), target.double(), rounded), tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3, 61, 47), (2, 1, 24, 22, 25)], ids=str)
def test_multiscale(device: str, shape: tuple[int, ...], kind: str, mode: str) -> None:
    preds, target = images(*shape)
    mask = masks(preds)[kind]
    betas, arguments = (0.25, 0.25, 0.5), {"sigma": 0.5, "kernel_size": 5, "data_range": 1.0, "reduction": "none"}
    expected = gradients(lambda x, y: pyramid_oracle(x, y, mask, 0.5, mode, betas), preds, target)

    def function(x: Tensor, y: Tensor) -> Tensor:
        return msssim(x, y, betas=betas, mask=mask.to(x.device), mask_mode=mode, **arguments)

    assert_close([t.cpu() for t in gradients(function, preds.to(device), target.to(device))], expected, 1e-9)
    found = gradients(function, preds.float().to(device), target.float().to(device))
    assert_close([t.cpu() for t in found], expected, 2e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed"])
def test_strides(device: str, layout: str, mode: str) -> None:
    preds, target = (image.to(device) for image in images(2, 3, 33, 35))
    mask = masks(preds.cpu())["weights"].to(device)

    def strided(image: Tensor) -> Tensor:
        if layout == "channels_last":
            return image.contiguous(memory_format=torch.channels_last)
        if layout == "transposed":
            return image.mT.contiguous().mT
        wide = image.new_zeros(*image.shape[:-1], 2 * image.shape[-1])
        wide[..., ::2] = image
        return wide[..., ::2]

    def score(x: Tensor, y: Tensor, m: Tensor) -> list[Tensor]:
        return gradients(lambda x, y: ssim(x, y, data_range=1.0, mask=m, mask_mode=mode), x, y)

    expected = score(preds, target, mask)
    for found in (score(preds, target, strided(mask)), score(strided(preds), strided(target), strided(mask))):
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("of_images", [torch.float16, torch.float32, torch.float64], ids=str)
def test_dtypes_of_masks(device: str, dtype: torch.dtype, of_images: torch.dtype) -> None:
    preds, target = (image.to(device, of_images) for image in images(2, 3, 33, 35))
    mask = masks(preds.cpu())["holes"].to(device)
    expected = ssim(preds, target, data_range=1.0, mask=mask)
    assert torch.equal(ssim(preds, target, data_range=1.0, mask=mask.to(dtype)), expected)
    assert torch.equal(ssim(preds, target, data_range=1.0, mask=mask.expand(-1, 3, -1, -1)), expected)


ULP = 4e-7  # a few units in the last place of a float32 number up to one


@pytest.mark.parametrize(
    "arguments",
    [{}, {"return_full_image": True}, {"return_contrast_sensitivity": True}, {"data_range": None}],
    ids=["value", "map", "contrast", "range"],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding", ["reflect", "zero", "valid"])
@pytest.mark.parametrize("shape", [(2, 3, 64, 80), (1, 2, 13, 14, 15)], ids=str)
def test_a_mask_of_ones_changes_nothing(
    device: str, shape: tuple[int, ...], padding: str, mode: str, arguments: dict[str, Any]
) -> None:
    preds, target = (image.float().to(device) for image in images(*shape))
    mask = torch.ones(shape[0], 1, *shape[2:], dtype=torch.bool, device=device)

    def both(x: Tensor, y: Tensor, **masked: Any) -> Tensor:
        outputs = ssim(x, y, **{"data_range": 1.0, "padding": padding, **arguments, **masked})
        return torch.cat([output.flatten() for output in outputs]) if isinstance(outputs, tuple) else outputs

    expected = gradients(both, preds, target)
    found = gradients(lambda x, y: both(x, y, mask=mask, mask_mode=mode), preds, target)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=max(1, theirs.abs().max().item()) * ULP)
