"""The CUDA kernels of MS-SSIM's pyramid, run on the host by tests/simt, against the operators of the CPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from host_program import host_program
from torch import Tensor

from ssim_fused import _ops


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    return host_program("pyramid", request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("simt"))


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# Two products, sums of at most six numbers, and a rounding to the type of the result.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
SHAPES = [(2, 3, 21, 30), (1, 1, 4, 7), (1, 2, 64, 129), (2, 2, 9, 6, 13), (1, 1, 16, 5, 4)]
NORMALIZATIONS = ["none", "relu", "simple"]


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_on_the_host(
    program: Path, tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype, normalize: str
) -> None:
    compute = _ops.compute_dtype(dtype)
    levels = 3
    images = {name: random(*shape, seed=seed, dtype=dtype) for seed, name in enumerate(("preds", "target"))}
    gradients = [
        random(*shape[:2], *(n >> level for n in shape[2:]), seed=level, dtype=compute if level else dtype)
        for level in range(levels)
    ]
    factors = random(levels, shape[0], seed=7, dtype=compute)
    means = random(levels, shape[0], seed=8, dtype=compute).abs() + (-1.0 if normalize == "relu" else 0.1)
    betas = [0.3, 0.0448, 0.7]

    arrays = {**images, "factors": factors, "means": means}
    arrays |= {f"level{level}": gradient for level, gradient in enumerate(gradients)}
    for name, array in arrays.items():
        (tmp_path / f"{name}.bin").write_bytes(array.contiguous().view(torch.uint8).numpy().tobytes())
    fields = {
        "dtype": str(dtype).removeprefix("torch."),
        "shape": " ".join(map(str, shape)),
        "levels": levels,
        "betas": " ".join(map(str, betas)),
        "normalization": NORMALIZATIONS.index(normalize),
    }
    (tmp_path / "case.txt").write_text("".join(f"{name} {value}\n" for name, value in fields.items()))
    ran = subprocess.run([program, tmp_path], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr[-4000:]

    halves = _ops.downsample(*images.values())
    value, product_factors = _ops.level_product(list(means), betas, normalize)
    expected = {
        "half_preds": halves[0],
        "half_target": halves[1],
        "gradient": _ops.pyramid_gradient(gradients, factors),
        "value": value,
        "product_factors": product_factors,
    }
    for name, array in expected.items():
        raw = bytearray((tmp_path / f"{name}.bin").read_bytes())
        found = torch.frombuffer(raw, dtype=array.dtype).view(array.shape)
        tolerance = TOLERANCE[array.dtype]
        largest = array.double().abs().max().item()
        torch.testing.assert_close(found.double(), array.double(), rtol=0, atol=tolerance * largest, msg=name)
