"""The CUDA kernels of MS-SSIM's pyramid, run on the host by tests/simt, compared with PyTorch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from host_program import Program, program_fixture, raw, run_case
from simt_cases import type_name
from torch import Tensor

program = program_fixture("pyramid")


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# For two products, sums of at most six numbers, and rounding to the type of the result.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
# Types of preds and target: integers, or floats compared with integers. Results are float32.
TYPES = {
    torch.uint8: (torch.uint8, torch.uint8), torch.uint16: (torch.float32, torch.uint16),
    torch.int8: (torch.float32, torch.int8), torch.int16: (torch.int16, torch.int16),
}  # fmt: skip
SHAPES = [(2, 3, 21, 30), (1, 1, 4, 7), (1, 2, 64, 129), (2, 2, 9, 6, 13), (1, 1, 16, 5, 4)]
MOST_HALVINGS = 4  # five levels
# For each level, the blocks of an image (more than one round of the reduction's threads; less than a warp; one) and
# the sums per block (without and with those for the constants).
BLOCKS, COUNTS = [300, 3, 1], [2, 4, 4]
# For each level, the number of outputs for the means of similarity and of contrast sensitivity.
OUTPUTS, CROPPED = [5000.0, 1200.0, 300.0], [4600.0, 1000.0, 200.0]
PIXEL_BLOCKS = 290
NORMALIZATIONS = ["none", "relu", "simple"]


def halved(picture: Tensor) -> Tensor:
    """Return the means of 2x2 pixels or 2x2x2 voxels."""
    pool = torch.nn.functional.avg_pool2d if picture.dim() == 4 else torch.nn.functional.avg_pool3d
    return pool(picture, 2)


def halvings_of(shape: tuple[int, ...]) -> int:
    return min(MOST_HALVINGS, min(n.bit_length() - 1 for n in shape[2:]))


def shares(total: Tensor, blocks: int, seed: int) -> Tensor:
    """Divide sums [B, ...] into sums of blocks [B, blocks, ...]."""
    parts = random(total.shape[0], blocks, *total.shape[1:], seed=seed, dtype=torch.float64)
    parts[:, -1] += total - parts.sum(1)
    return parts


def product(means: Tensor, betas: Tensor, normalize: str) -> Tensor:
    """Return MS-SSIM of each image from the means of the levels, [levels, B]."""
    if normalize == "relu":
        means = means.clamp(min=0)
    elif normalize == "simple":
        means = (means + 1) / 2
    return (means ** betas[:, None]).prod(0)


# Pixel terms: name and phi.
PIXELS: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("none", lambda d: 0 * d),
    ("l1", torch.abs),
    ("l2", torch.square),
    ("charbonnier", lambda d: (d**2 + 0.01).sqrt()),
]


def run(
    program: Program,
    directory: Path,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    normalize: str = "relu",
    pixels: int = 0,
    layout: str = "contiguous",
) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
    """Return the results of the kernels, the expected results in float64, and the output of the program."""
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    types, name_of_type = TYPES.get(dtype, (dtype, dtype)), type_name(dtype)
    is_integer, dtype = dtype in TYPES, compute if dtype in TYPES else dtype
    levels, batch, scales = 3, shape[0], (3.0, 2.0)
    masked = [1, 0, 1] if pixels % 2 else [0, 1, 0]  # whether each level has a mask
    images = {name: random(*shape, seed=seed, dtype=dtype) for seed, name in enumerate(("preds", "target"))}
    if is_integer:
        images = {
            name: (40 * (image if type_.is_signed else image.abs())).to(type_)
            for (name, image), type_ in zip(images.items(), types, strict=True)
        }
    gradients = [
        random(*shape[:2], *(n >> level for n in shape[2:]), seed=level, dtype=compute if level else dtype)
        for level in range(levels)
    ]
    factors = random(levels, batch, seed=7, dtype=compute)
    image_factors = random(batch, seed=9, dtype=compute)
    image_factors[0] = 2.0  # times 0.5 is one, which takes the early return
    means = random(levels, batch, seed=8, dtype=torch.float64).abs() + (-1.0 if normalize == "relu" else 0.1)
    losses = 1 - means
    level_constants = random(levels, batch, 2, seed=10, dtype=torch.float64)
    betas = torch.tensor([0.3, 0.0448, 0.7], dtype=torch.float64)
    pixel_means = random(batch, seed=11, dtype=torch.float64).abs()

    arrays = {**images, "factors": factors, "image_factors": image_factors}
    arrays |= {f"level{level}": gradient for level, gradient in enumerate(gradients)}
    for level in range(levels):
        weights = random(batch, 3, seed=13 + level, dtype=torch.float64).abs() + 1
        arrays[f"mask_sums{level}"] = weights
        counts = weights.new_tensor([OUTPUTS[level], CROPPED[level], math.prod(shape[1:])])
        divisor = weights if masked[level] else counts.expand(batch, 3)
        if level == 0:
            arrays["pixel_sums"] = shares(pixel_means * divisor[:, 2], PIXEL_BLOCKS, seed=12)
        # The last level uses the similarity, others the contrast sensitivity. The other sum must have no effect.
        of_level = torch.cat((torch.full((batch, 2), 1e3, dtype=torch.float64), level_constants[level]), 1)
        which = int(level + 1 < levels)
        of_level[:, which] = losses[level] * divisor[:, which]
        arrays[f"sums{level}"] = shares(of_level[:, : COUNTS[level]], BLOCKS[level], seed=20 + level)
        if COUNTS[level] == 2:
            level_constants[level] = 0
    for name, array in arrays.items():
        (directory / f"{name}.bin").write_bytes(raw(array))
    fields = {
        "dtype": name_of_type,
        "preds_type": type_name(types[0]),
        "target_type": type_name(types[1]),
        "shape": " ".join(map(str, shape)),
        "layout": layout,
        "levels": levels,
        "halvings": halvings_of(shape),
        "blocks": BLOCKS,
        "counts": COUNTS,
        "masked": masked,
        "outputs": OUTPUTS,
        "cropped": CROPPED,
        "pixel_blocks": PIXEL_BLOCKS,
        "pixels_of_image": math.prod(shape[1:]),
        "betas": " ".join(map(str, betas.tolist())),
        "normalization": NORMALIZATIONS.index(normalize),
        "pixels": PIXELS[pixels][0],
        "slope": 0.5,
        "as_distance": int(pixels > 0),
        "gradient_scale": scales[0],
        "finest_scale": scales[1],
    }
    printed = run_case(program, directory, fields)

    exact_losses = losses.clone().requires_grad_()
    value = product(1 - exact_losses, betas, normalize)
    (by_losses,) = torch.autograd.grad((1 - value).sum(), exact_losses)
    finest = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    level, gathered = finest, []
    for gradient, factor in zip(gradients, factors, strict=True):
        weight = factor.double().view(-1, *[1] * (len(shape) - 1))
        gathered.append((level * gradient.double() * weight).sum())
        level = halved(level) if min(level.shape[2:]) > 1 else level[:, :, :0]
    (gradient,) = torch.autograd.grad(torch.stack(gathered).sum(), finest)
    difference = (images["preds"].double() - images["target"].double()).requires_grad_()
    (slope,) = torch.autograd.grad(PIXELS[pixels][1](difference).sum(), difference)
    gradient = gradient + 0.5 * slope
    by_images = 0.5 * image_factors.double().view(-1, *[1] * (len(shape) - 1))
    finest_scale = torch.tensor([scales[1], 1.0, 1.0], dtype=torch.float64)[:, None]
    by_constants = ((by_losses / finest_scale)[..., None] * level_constants).sum(0)
    distance = 1 - value
    if pixels:
        value = 0.75 * pixel_means + 0.25 * distance
    expected = {
        "gradient": (gradient, dtype),
        "value": (value, compute),
        "batch_mean": (value.mean().view(1), compute),
        "batch_sum": (value.sum().view(1), compute),
        "product_factors": (by_losses * scales[0] / finest_scale, compute),
        "grad_constants": (by_constants * scales[0], compute),
        "multiplied": (images["preds"].double() * by_images, dtype),
        "multiplied_in_place": (images["preds"].double() * by_images, dtype),
    }
    if pixels:
        expected["terms"] = torch.stack((pixel_means, distance), 1), compute
    for name, image in images.items():
        half = image.double()
        for level in range(1, halvings_of(shape) + 1):
            half = halved(half)
            expected[f"halved{level}_{name}"] = half, compute
            # Two levels from one launch have the same bits as from two launches.
            files = [(directory / f"{way}{level}_{name}.bin").read_bytes() for way in ("halved", "single")]
            assert files[0] == files[1], (level, name)
    if is_integer:
        del expected["multiplied"], expected["multiplied_in_place"]
    found = {}
    for name, (array, type_of_result) in expected.items():
        stored = bytearray((directory / f"{name}.bin").read_bytes())
        found[name] = torch.frombuffer(stored, dtype=type_of_result).view(array.shape)
    return found, {name: array for name, (array, _) in expected.items()}, printed


def check(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, array in expected.items():
        atol = TOLERANCE[found[name].dtype] * array.abs().max().item()
        torch.testing.assert_close(found[name].double(), array, rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("pixels", range(len(PIXELS)))
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", [*TOLERANCE, *TYPES], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_on_the_host(
    program: Program, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, normalize: str, pixels: int
) -> None:
    if pixels and normalize != "relu":
        pytest.skip("the pixel term does not depend on the normalization")
    found, expected, _ = run(program, tmp_path, shape, dtype, normalize, pixels)
    check(found, expected)


def halving_launches(shape: tuple[int, ...], is_vectors: bool, together: bool) -> list[str]:
    """Return the columns per thread and the levels of each launch. Two levels need rows of whole vectors."""
    launches, made = [], 0
    while made < halvings_of(shape):
        whole = is_vectors if made == 0 else (shape[-1] >> made) % 4 == 0
        levels = min(2 if whole and together else 1, halvings_of(shape) - made)
        launches.append(f"{2 if whole else 1}x{levels}")
        made += levels
    return launches


# Shapes whose rows are whole vectors: with patches partly below the image; with levels that end before the image does;
# with more than one tile on each axis; volumes, one of whose halves has an odd number of slices. The others have two
# columns more than whole vectors.
VECTORS = [(2, 3, 22, 32), (1, 2, 35, 12), (1, 1, 70, 264), (2, 1, 9, 7, 16), (1, 2, 10, 12, 24)]
OTHERS = [(2, 2, 22, 34), (1, 3, 6, 7, 18)]


@pytest.mark.parametrize(("dtype", "pixels"), [*((dtype, 0) for dtype in TOLERANCE), (torch.float32, 1)], ids=str)
@pytest.mark.parametrize("shape", VECTORS + OTHERS, ids=str)
def test_results_do_not_depend_on_vectors(
    program: Program, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, pixels: int
) -> None:
    """All memory layouts give the same bits, whether rows are whole vectors or not."""
    results = {}
    for layout in ("contiguous", "padded", "shifted", "channels_last"):
        directory = tmp_path / layout
        directory.mkdir()
        found, expected, printed = run(program, directory, shape, dtype, pixels=pixels, layout=layout)
        check(found, expected)
        results[layout] = found
        one_channel = layout == "channels_last" and shape[1] == 1  # which is contiguous
        is_vectors = shape in VECTORS and (layout in ("contiguous", "padded") or one_channel)
        lines = [line.split() for line in printed.splitlines()]
        assert lines[0] == ["halved", *halving_launches(shape, is_vectors, together=True)]
        assert lines[1] == ["single", *halving_launches(shape, is_vectors, together=False)]
        assert lines[2] == ["gathering", "4" if is_vectors and not pixels else "1"]
    for layout, found in results.items():
        assert all(torch.equal(found[name], results["contiguous"][name]) for name in found), layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8], ids=str)
@pytest.mark.parametrize("shape", [(2, 1, 6, 16), (1, 2, 5, 7), (1, 1, 4, 4, 8)], ids=str)
def test_offsets_beyond_32_bits(program: Program, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found, expected, _ = run(program, tmp_path, shape, dtype, layout="far")
    check(found, expected)
