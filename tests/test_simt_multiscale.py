"""A training step of MS-SSIM with the CUDA kernels, run on the host by tests/simt.

Its results are compared with PyTorch in float64, and its launches are counted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_program import Program, program_fixture, raw, run_case
from simt_cases import C1, C2, taps, terms, type_name
from test_simt_pyramid import halved
from torch import Tensor

BETAS = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]
SSIM_WEIGHT = 0.3  # the weight of MS-SSIM in its sum with L1
# Marches with 11 taps have rounding errors of about 1e-6. The product and the gathering add no larger ones.
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-11}


program = program_fixture("multiscale", has_few_cases=True)


def exact(preds: Tensor, target: Tensor, betas: list[float], size: int, pixels: bool) -> dict[str, Tensor]:
    """Return 1 - MS-SSIM, or its weighted sum with L1, averaged over the batch, and the gradients."""
    finest, images = preds.clone().requires_grad_(), preds.shape[0]
    constants = torch.tensor([[C1], [C2]], dtype=torch.float64).repeat(1, images).requires_grad_()
    radius, means, level = size // 2, [], (finest, target)
    for number in range(len(betas)):
        similarity, contrast = terms(
            *level, [taps(size)] * 2, (radius, radius), "reflect", constants.view(2, images, 1, 1, 1)
        )
        contrast = contrast[..., radius : contrast.shape[-2] - radius, radius : contrast.shape[-1] - radius]
        means.append((similarity if number + 1 == len(betas) else contrast).flatten(1).mean(1))
        level = halved(level[0]), halved(level[1])
    value = 1 - (torch.stack(means).clamp(min=0) ** torch.tensor(betas, dtype=torch.float64)[:, None]).prod(0)
    if pixels:
        value = SSIM_WEIGHT * value + (1 - SSIM_WEIGHT) * (finest - target).abs().flatten(1).mean(1)
    gradient, by_constants = torch.autograd.grad(value.mean(), (finest, constants))
    return {"value": value.mean().detach().view(1), "gradient": gradient, "grad_constants": by_constants.T}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("shape", "levels", "options", "launches"),
    [
        # Two launches for four halvings, one march per level, product, gather.
        ((2, 1, 96, 128), 5, {}, 2 + 5 + 1 + 1),
        ((1, 2, 48, 56), 3, {}, 1 + 3 + 1 + 1),
        ((1, 1, 44, 48), 2, {}, 1 + 2 + 1 + 1),
        ((2, 1, 24, 24), 1, {}, 1 + 1 + 1),
        # The rows of the second level, or of the first, are not whole vectors.
        ((1, 1, 96, 100), 4, {}, 2 + 4 + 1 + 1),
        ((1, 1, 48, 57), 3, {}, 2 + 3 + 1 + 1),
        # The sums of the pixel term are a separate pass.
        ((2, 1, 48, 48), 3, {"pixels": "l1"}, 1 + 3 + 1 + 1 + 1),
        # Levels run different kernels, whose blocks leave different sums.
        ((2, 1, 48, 52), 3, {"want_grad_constants": 1}, 1 + 3 + 1 + 1),
        ((2, 1, 48, 48), 3, {"wide": [0]}, None),
        ((2, 2, 48, 48), 3, {"wide": [1, 2], "want_grad_constants": 1, "pixels": "l1"}, None),
    ],
    ids=str,
)
def test_a_step(
    program: Program,
    tmp_path: Path,
    shape: tuple[int, ...],
    levels: int,
    options: dict[str, int],
    launches: int | None,
    dtype: torch.dtype,
) -> None:
    generator = torch.Generator().manual_seed(levels)
    target = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    preds = (target + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    for name, image in {"preds": preds, "target": target}.items():
        (tmp_path / f"{name}.bin").write_bytes(raw(image))
    fields = {
        "dtype": type_name(dtype),
        "shape": shape,
        "betas": BETAS[:levels],
        "taps": taps(11).tolist(),
        **options,
    }
    printed = run_case(program, tmp_path, fields)
    if launches is not None:
        assert int(printed.split("launches ")[1]) == launches
    expected = exact(preds.double(), target.double(), BETAS[:levels], 11, "pixels" in options)
    if "want_grad_constants" not in options:
        del expected["grad_constants"]
    for name, array in expected.items():
        stored = bytearray((tmp_path / f"{name}.bin").read_bytes())
        found = torch.frombuffer(stored, dtype=dtype).view(array.shape)
        atol = TOLERANCE[dtype] * array.abs().max().item()
        torch.testing.assert_close(
            found.double(), array, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
