"""The CUDA kernels of MS-SSIM's pyramid with a mask, run on the host, compared with PyTorch in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_program import Program, program_fixture, raw, run_case
from simt_cases import type_name
from test_simt_masks import TYPES as MASK_TYPES
from test_simt_pyramid import PIXELS, TOLERANCE, TYPES, check, halved, random
from torch import Tensor

LEVELS, SLOPE = 3, 0.5
SHAPES = [(2, 3, 21, 30), (1, 1, 4, 7), (1, 2, 70, 69), (2, 2, 9, 6, 13)]


program = program_fixture("masked_pyramid", has_few_cases=True)


def weighed_mean(picture: Tensor, mask: Tensor) -> Tensor:
    """Return the weighted means of 2x2 pixels or 2x2x2 voxels, or zero where all of them are masked."""
    weights = mask.expand(picture.shape)
    total = halved(weights)
    sums = halved(torch.where(weights > 0, picture, 0.0) * weights)
    return torch.where(total > 0, sums / torch.where(total > 0, total, 1.0), 0.0)


def mask_of(shape: tuple[int, ...], channels: int, dtype: torch.dtype) -> Tensor:
    """Return a mask that hides a third of the pixels and a whole corner."""
    weights = torch.rand(shape[0], channels, *shape[2:], generator=torch.Generator().manual_seed(3))
    weights[(..., *[slice(0, 3)] * (len(shape) - 2))] = 0.0
    hidden = weights < 0.33
    return ~hidden if dtype == torch.bool else weights.masked_fill(hidden, 0.0).to(dtype)


def run(
    program: Program,
    directory: Path,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    mask: Tensor,
    pixels: int = 0,
    weighs_windows: bool = True,
    layout: str = "contiguous",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the results of the kernels, and the expected results in float64."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    types, name_of_type = TYPES.get(dtype, (dtype, dtype)), type_name(dtype)
    stored = compute if dtype in TYPES else dtype
    hidden = mask.expand(shape) == 0
    images = {}
    for seed, (name, type_) in enumerate(zip(("preds", "target"), types, strict=True)):
        image = random(*shape, seed=seed, dtype=torch.float64)
        if dtype in TYPES:
            image = 40 * image.abs()
        images[name] = image.to(type_)
        if type_.is_floating_point:  # masked pixels must have no effect
            images[name][hidden] = torch.nan
    masks = [mask.double()]
    for _ in range(1, LEVELS):
        masks.append(halved(masks[-1]).to(compute).double() if min(masks[-1].shape[2:]) > 1 else masks[-1][:, :, :0])
    gradients = [
        random(*shape[:2], *(n >> level for n in shape[2:]), seed=4 + level, dtype=compute if level else stored)
        for level in range(LEVELS)
    ]
    factors = random(LEVELS, shape[0], seed=7, dtype=compute)
    per_image = masks[0].expand(shape).flatten(1).sum(1)
    sums = torch.stack((per_image.new_zeros(shape[0]), per_image.new_zeros(shape[0]), per_image), 1)

    arrays = {**images, "mask": mask, "factors": factors, "mask_sums": sums}
    arrays |= {f"level{level}": gradient for level, gradient in enumerate(gradients)}
    arrays |= {f"coarse_mask{level}": masks[level].to(compute) for level in range(1, LEVELS)}
    for name, array in arrays.items():
        (directory / f"{name}.bin").write_bytes(raw(array))
    fields = {
        "dtype": name_of_type,
        "preds_type": type_name(types[0]),
        "target_type": type_name(types[1]),
        "shape": " ".join(map(str, shape)),
        "layout": layout,
        "levels": LEVELS,
        "mask_type": type_name(mask.dtype),
        "mask_channels": mask.shape[1],
        "weighs_windows": int(weighs_windows),
        "pixels": PIXELS[pixels][0],
        "slope": SLOPE,
    }
    run_case(program, directory, fields)

    finest = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    level, gathered = finest, []
    for number, (gradient, factor) in enumerate(zip(gradients, factors, strict=True)):
        weight = factor.double().view(-1, *[1] * (len(shape) - 1))
        gathered.append((level * gradient.double() * weight).sum())
        if min(level.shape[2:]) <= 1:
            level = level[:, :, :0]
        else:
            level = weighed_mean(level, masks[number]) if weighs_windows else halved(level)
    (gradient,) = torch.autograd.grad(torch.stack(gathered).sum(), finest)
    visible = {name: image.double().nan_to_num() for name, image in images.items()}
    difference = (visible["preds"] - visible["target"]).requires_grad_()
    phi = (masks[0] * PIXELS[pixels][1](difference)).flatten(1).sum(1) / per_image.clamp(min=1e-300)
    (slope,) = torch.autograd.grad(phi.sum(), difference)
    expected = {
        "half_mask": halved(masks[0]),
        "half_preds": weighed_mean(visible["preds"], masks[0]),
        "half_target": weighed_mean(visible["target"], masks[0]),
        "gradient": gradient + SLOPE * slope,
    }
    found = {}
    for name, array in expected.items():
        content = bytearray((directory / f"{name}.bin").read_bytes())
        found[name] = torch.frombuffer(content, dtype=stored if name == "gradient" else compute).view(array.shape)
    return found, expected


@pytest.mark.parametrize("channels", ["one", "each"])
@pytest.mark.parametrize("weighs_windows", [True, False], ids=["window", "map"])
@pytest.mark.parametrize("dtype", [*TOLERANCE, *TYPES], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_on_the_host(
    program: Program, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, weighs_windows: bool, channels: str
) -> None:
    mask = mask_of(shape, shape[1] if channels == "each" else 1, torch.float32)
    check(*run(program, tmp_path, shape, dtype, mask, weighs_windows=weighs_windows))


@pytest.mark.parametrize("pixels", range(1, len(PIXELS)))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_pixel_terms(program: Program, tmp_path: Path, layout: str, pixels: int) -> None:
    shape = (2, 2, 18, 20)
    mask = mask_of(shape, 1, torch.float32)
    check(*run(program, tmp_path, shape, torch.float32, mask, pixels, layout=layout))


@pytest.mark.parametrize("mask_type", MASK_TYPES, ids=str)
def test_types_of_masks(program: Program, tmp_path: Path, mask_type: torch.dtype) -> None:
    shape = (2, 1, 18, 22)
    check(*run(program, tmp_path, shape, torch.float32, mask_of(shape, 1, mask_type)))
