"""The operators called directly: what the public function does not reach, and what PyTorch expects of them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import ssim_fused
from ssim_fused import _ops, composite, functional
from ssim_fused.window import Window, gaussian, uniform

PADDINGS = {"same": ("reflect", None), "valid": ("reflect", 0), "zero": ("zero", None), "narrow": ("zero", 1)}


def window_of(padding: str, rows: tuple[float, ...], columns: tuple[float, ...]) -> Window:
    mode, pad = PADDINGS[padding]
    pads = tuple(len(taps) // 2 if pad is None else min(pad, len(taps) // 2) for taps in (rows, columns))
    return Window((*rows, *columns), (len(rows), len(columns)), pads, mode, 1e-4, 9e-4)


def pictures(device: str, *shape: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    target = torch.rand(shape, generator=generator, dtype=dtype)
    preds = target + 0.1 * torch.randn(shape, generator=generator, dtype=dtype)
    return preds.to(device), target.to(device)


SKEWED = (0.1, 0.2, 0.05, 0.4, 0.25)  # the operators take any taps, not only symmetric ones


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    "taps",
    [(gaussian(1.5), gaussian(1.5)), (uniform(3), gaussian(2.0)), (SKEWED, uniform(1)), (gaussian(3.1), SKEWED)],
    ids=["gaussian11", "mixed", "skewed", "wide"],
)
@pytest.mark.parametrize("size", [(24, 26), (40, 700), (101, 31)], ids=str)
def test_padding_modes_match_autograd(device: str, padding: str, taps: Any, size: tuple[int, int]) -> None:
    window = window_of(padding, *taps)
    preds, target = pictures(device, 2, 2, *size)
    constants = torch.tensor([window.c1, window.c2], dtype=torch.float64, device=device)
    inputs = [t.clone().requires_grad_() for t in (preds, target, constants)]
    expected = composite.similarity(*inputs, window)
    weights = [torch.rand_like(t) for t in expected]
    gradients = torch.autograd.grad(expected, inputs, weights)

    *values, _, _, _ = _ops.similarity(preds, target, *window, constants, "similarity", 1.0, True, False, False, False)
    found = _ops.similarity_backward(preds, target, *window, constants, *weights, True, True, True)
    # Both sides are float64; the composite takes another pivot, so they round differently.
    for ours, theirs in zip((*values, *found[:2], found[2].sum(0)), (*expected, *gradients), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("objective", ["similarity", "contrast_sensitivity"])
@pytest.mark.parametrize("taps", [gaussian(1.5), gaussian(0.8), gaussian(2.5)], ids=["radius5", "radius3", "radius9"])
def test_forward_gradients_are_those_of_the_objective(device: str, objective: str, taps: tuple[float, ...]) -> None:
    window = window_of("same", taps, taps)
    preds, target = pictures(device, 2, 3, 37, 41)
    grads = [None, None]
    grads[objective == "contrast_sensitivity"] = torch.ones(2, dtype=torch.float64, device=device)
    expected = _ops.similarity_backward(preds, target, *window, None, *grads, None, True, True, True)
    found = _ops.similarity(preds, target, *window, None, objective, 8.0, False, True, True, True)[3:]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, 8 * theirs, rtol=1e-12, atol=1e-15)


def operator_calls(device: str) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Arguments for every kind of output, as opcheck wants them."""
    window = window_of("same", gaussian(1.0), gaussian(1.5))
    head = (list(window.taps), list(window.sizes), list(window.pad), *window[3:])
    preds, target = pictures(device, 2, 3, 14, 17, dtype=torch.float32)
    last = preds.to(memory_format=torch.channels_last)
    constants = torch.tensor([1e-4, 9e-4], device=device)
    image, batch = torch.rand_like(preds), torch.rand(2, device=device)
    half = [t.half() for t in (preds, target)]
    forward, backward = torch.ops.ssim_fused.similarity.default, torch.ops.ssim_fused.similarity_backward.default
    return {
        "value": (forward, (preds, target, *head, None, "similarity", 1.0, False, False, False, False)),
        "everything": (forward, (last, target, *head, constants, "similarity", 2.0, True, True, True, True)),
        "half": (forward, (*half, *head, constants, "contrast_sensitivity", 1.0, True, False, True, False)),
        "backward": (backward, (preds, target, *head, None, batch, None, None, True, False, False)),
        "backward_everything": (backward, (last, target, *head, constants, batch, batch, image, True, True, True)),
    }


@pytest.mark.parametrize("name", ["value", "everything", "half", "backward", "backward_everything"])
def test_opcheck(device: str, name: str) -> None:
    operator, arguments = operator_calls(device)[name]
    torch.library.opcheck(operator, arguments)


WRONG = {
    "preds has shape [14, 17]": {0: torch.rand(14, 17)},
    "target has shape [2, 3, 14, 16]": {1: torch.rand(2, 3, 14, 16)},
    "preds has dtype Int": {0: torch.ones(2, 3, 14, 17, dtype=torch.int32)},
    "target has dtype Double": {1: torch.rand(2, 3, 14, 17, dtype=torch.float64)},
    "taps has 3 elements": {2: [0.2, 0.6, 0.2]},
    "taps has the element inf": {2: [0.1] * 19 + [float("inf")]},
    "sizes is [8, 10]": {3: [8, 10]},
    "sizes has 1 elements": {3: [11]},
    "pad is [-1, 4]": {4: [-1, 4]},
    "pad is [9, 4]": {4: [9, 4]},
    "too small for reflection by pad [3, 17]": {4: [3, 17]},
    "pad is [0, 11], expected less than the window's size": {4: [0, 11], 5: "zero"},
    "padding_mode is 'circular'": {5: "circular"},
    "constants has shape [3]": {8: torch.rand(3)},
    "constants has dtype Double": {8: torch.rand(2, dtype=torch.float64)},
    "objective is 'luminance'": {9: "luminance"},
}


@pytest.mark.parametrize("message", WRONG)
def test_direct_callers_are_told_what_is_wrong(message: str) -> None:
    operator, arguments = operator_calls("cpu")["value"]
    arguments = list(arguments)
    for position, value in WRONG[message].items():
        arguments[position] = value
    with pytest.raises(RuntimeError) as raised:
        operator(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("message", "position", "value"),
    [
        ("grad_similarity has shape [3]", 9, torch.rand(3)),
        ("grad_contrast has dtype Double", 10, torch.rand(2, dtype=torch.float64)),
        ("grad_map has shape [2, 3, 14, 16]", 11, torch.rand(2, 3, 14, 16)),
    ],
)
def test_upstream_gradients_are_checked(message: str, position: int, value: Tensor) -> None:
    operator, arguments = operator_calls("cpu")["backward"]
    arguments = list(arguments)
    arguments[position] = value
    with pytest.raises(RuntimeError) as raised:
        operator(*arguments)
    assert message in str(raised.value)


def test_a_device_without_a_kernel_takes_the_composite_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = (t.requires_grad_() for t in pictures("cpu", 2, 3, 20, 22))
    calls = [{}, {"return_full_image": True}, {"return_contrast_sensitivity": True}, {"data_range": 1.0}]

    def results() -> list[Tensor]:
        found = []
        for arguments in calls:
            outputs = ssim_fused.structural_similarity_index_measure(preds, target, **arguments)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found += [*outputs, *torch.autograd.grad(sum(t.sum() for t in outputs), (preds, target))]
        return found

    fused = results()
    monkeypatch.setattr(_ops, "has_kernel", lambda device: False)
    functional._warn_of_composite.cache_clear()
    with pytest.warns(UserWarning, match="no kernel for device 'cpu'") as warned:
        plain = results()
    assert len(warned) == 1
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_cuda_tensors_on_a_build_without_cuda_are_told_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ops, "has_kernel", lambda device: False)
    preds = SimpleNamespace(device=torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match=r"`preds` is on cuda:0, .*SSIM_FUSED_CUDA=1 pip install"):
        functional._kernels_serve(preds)


SETS = ["baseline", "avx2", "avx512"]
IN_ANOTHER_PROCESS = """
import torch, ssim_fused
torch.manual_seed(0)
results = []
for dtype in (torch.float32, torch.float64):
    for arguments in ({}, {"sigma": 2.5}, {"sigma": (0.6, 1.5)}):
        target = torch.rand(2, 2, 45, 371, dtype=dtype)
        preds = (target + 0.1 * torch.randn_like(target)).requires_grad_()
        target.requires_grad_()
        value = ssim_fused.structural_similarity_index_measure(preds, target, data_range=1.0, **arguments)
        results += [t.double().flatten() for t in (value, *torch.autograd.grad(value, (preds, target)))]
import sys
torch.save((ssim_fused.build_info()["instruction_set"], results), sys.argv[1])
"""


def run_with(instruction_set: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SSIM_FUSED_INSTRUCTION_SET": instruction_set}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, path]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_instruction_sets_agree(tmp_path) -> None:
    best = ssim_fused.build_info()["best_instruction_set"]
    outcomes = []
    for name in SETS[: SETS.index(best) + 1]:
        done = run_with(name, str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        used, results = torch.load(tmp_path / name)
        assert used == name
        outcomes.append(results)
    for results in outcomes[1:]:
        for ours, theirs in zip(results, outcomes[0], strict=True):
            # They differ in which products are rounded before they are added: a few float32 units.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 * theirs.abs().max().item())


def test_an_unknown_instruction_set_is_refused(tmp_path) -> None:
    done = run_with("sse9", str(tmp_path / "none"))
    assert done.returncode != 0
    assert "SSIM_FUSED_INSTRUCTION_SET is 'sse9'" in done.stderr
