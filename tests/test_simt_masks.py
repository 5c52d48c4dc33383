"""The CUDA kernels for masked images and volumes, run on the host, compared with the composite in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host_program import Program, program_fixture, raw
from simt_cases import C1, C2, FULL, LONG, TOLERANCE, Case, pictures, type_name, upstream, windows
from simt_host import Host
from torch import Tensor

from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window

TYPES = [torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64]


program = program_fixture("masked", has_few_cases=True)


def mask_of(case: Case, kind: str) -> Tensor:
    """Return a mask of weights for each channel, or of holes for all channels, which hides the last image entirely."""
    generator = torch.Generator().manual_seed(case.seed + 7)
    if kind == "weights":
        weights = torch.rand(case.shape, generator=generator)
        return torch.where(weights < 0.3, 0.0, weights)
    holes = torch.rand(case.shape[0], 1, *case.shape[2:], generator=generator) > 0.4
    holes[-1] &= case.shape[0] == 1
    return holes


def exact(case: Case, preds: Tensor, target: Tensor, mask: Tensor, mode: str) -> dict[str, Tensor]:
    """Return the expected results of the kernels, in float64."""
    batch = case.shape[0]
    preds, target = preds.clone().requires_grad_(), target.clone().requires_grad_()
    constants = torch.tensor([[C1, C2]], dtype=torch.float64).repeat(batch, 1).requires_grad_()
    taps = torch.cat(windows(case)).tolist()
    padding = case.padding_mode if case.pad is None else "valid"
    window = Window((), case.sizes, taps, padding)
    score = Spec(window, 0, False, want_contrast=True, want_map=True, mask_mode=mode)
    similarity, contrast, image = score.composite(preds, target, constants, mask)
    given = upstream(case)
    if not given:
        given = {"grad_similarity": torch.ones(batch, dtype=torch.float64)}
    outputs = {"grad_similarity": similarity, "grad_contrast": contrast, "grad_map": image}
    objective = torch.stack([(outputs[name] * value).sum() for name, value in given.items()]).sum()
    gradients = torch.autograd.grad(objective, (preds, target, constants))
    results = {"similarity": similarity, "contrast_sensitivity": contrast, "map": image}
    results["batch_similarity"] = similarity.mean().view(1)
    results |= dict(zip(("grad_preds", "grad_target", "grad_constants"), gradients, strict=True))
    return {name: value.detach() for name, value in results.items()}


def run(
    program: Program, directory: Path, case: Case, preds: Tensor, target: Tensor, mask: Tensor, mode: str,
    order: str | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    (directory / "mask.bin").write_bytes(raw(mask))
    strides = list(mask.stride())
    if mask.shape[1] == 1:
        strides[1] = 0
    if mask.ndim == 4:
        strides.insert(2, 0)
    more = {"mask": 1, "mask_type": type_name(mask.dtype), "mask_stride": strides}
    more["weighs_windows"] = int(mode == "window")
    return Host(program, directory).run(case, preds, target, order, **more)


def check(case: Case, results: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in results.items():
        assert torch.equal(value.isnan(), expected[name].isnan()), name
        value, exactly = value.nan_to_num(), expected[name].nan_to_num()  # NaN: a crop without outputs has no mean
        scale = exactly.abs().max().clamp(min=1e-30)
        # Windows that see few pixels have small variances with the rounding errors of the pixels.
        few = 1 if case.dtype == torch.float64 else 25
        type_of_result = case.dtype if value.dim() > 2 or case.dtype == torch.float64 else torch.float32
        allowed = TOLERANCE[type_of_result] + few * TOLERANCE[torch.float32] * (case.dtype != torch.float64)
        assert (value - exactly).abs().max() <= allowed * scale, name


CASES = [
    Case((2, 2, 30, 34)),
    Case((2, 2, 19, 40), sizes=(5, 5), gradients="preds target"),
    Case((2, 1, 30, 34), sizes=(21, 15), want_map=True, **FULL),
    Case((1, 2, 30, 34), sizes=(7, 13), padding_mode="zero", want_map=True, **FULL),
    Case((2, 1, 22, 34), sizes=(11, 7), pad=(0, 0), want_map=True, **FULL),
    Case((3, 1, 14, 50), gradients=""),
    Case((3, 1, 14, 50), gradients="target", dtype=torch.float64),
    Case((1, 1, 13, 67), dtype=torch.float16, gradients="preds target"),
    Case((1, 1, 13, 67), dtype=torch.bfloat16, want_map=True),
    Case((2, 1, 9, 11, 14), sizes=(5, 5, 5), want_map=True, **FULL),
    Case((1, 2, 9, 12, 35), sizes=(3, 13, 7), padding_mode="zero", want_map=True, **FULL),
    Case((1, 1, 12, 13, 14), sizes=(3, 1, 11), pad=(0, 0, 0), dtype=torch.float64, want_map=True, **FULL),
    Case((2, 1, 7, 8, 9), sizes=(3, 3, 3), layout="channels_last", l2_bytes=4000),
    Case((1, 2, 6, 7), sizes=(13, 15), edge=0.05, **LONG),
    Case((1, 2, 6, 7), sizes=(13, 15), edge=0.9, **LONG),
    Case((1, 1, 3, 9, 8), sizes=(7, 3, 5), edge=0.95, **LONG),
]


@pytest.mark.parametrize("mode", ["window", "map"])
@pytest.mark.parametrize("kind", ["holes", "weights"])
@pytest.mark.parametrize("case", CASES, ids=Case.id)
def test_masked_kernels_on_the_host(program: Program, tmp_path: Path, case: Case, kind: str, mode: str) -> None:
    preds, target = pictures(case)
    mask = mask_of(case, kind)
    check(case, run(program, tmp_path, case, preds, target, mask, mode), exact(case, preds, target, mask, mode))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types_of_masks(program: Program, tmp_path: Path, dtype: torch.dtype) -> None:
    case = Case((2, 2, 14, 20), sizes=(5, 5))
    preds, target = pictures(case)
    holes = mask_of(case, "holes")
    expected = run(program, tmp_path, case, preds, target, holes, "window")
    for name, value in run(program, tmp_path, case, preds, target, holes.to(dtype), "window").items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_what_is_masked_reaches_no_number(program: Program, tmp_path: Path, value: float) -> None:
    case = Case((2, 2, 24, 40), gradients="preds target", want_map=True, offset=10.0)
    preds, target = pictures(case)
    mask = mask_of(case, "holes")
    hidden = ~mask.expand(case.shape)
    clean = run(program, tmp_path, case, preds, target, mask, "window")
    spoilt = [image.masked_fill(hidden, value) for image in (preds, target)]
    for name, result in run(program, tmp_path, case, *spoilt, mask, "window", order="reverse").items():
        assert torch.equal(result, clean[name]), name
    assert (clean["grad_preds"][hidden] == 0).all()
    assert clean["similarity"][-1] == 1


def test_a_mask_of_ones(program: Program, tmp_path: Path) -> None:
    case = Case((2, 2, 24, 40), sizes=(13, 13), gradients="preds target", want_map=True)
    preds, target = pictures(case)
    ones = torch.ones(2, 1, 24, 40, dtype=torch.bool)
    for mode in ("window", "map"):
        found = run(program, tmp_path, case, preds, target, ones, mode)
        for name, value in exact(case, preds, target, ones, mode).items():
            if name in found:
                scale = value.abs().max()
                assert (found[name] - value).abs().max() <= 2 * TOLERANCE[torch.float32] * scale, name
