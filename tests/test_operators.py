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

# Padding mode, padding (None: half the window), and that of the last axis beyond it.
PADDINGS = {
    "same": ("reflect", None, 0),
    "valid": ("reflect", 0, 0),
    "zero": ("zero", None, 0),
    "narrow": ("zero", 1, 0),
    "wider": ("reflect", None, 2),
}


def window_of(padding: str, *axes: tuple[float, ...]) -> Window:
    mode, pad, more = PADDINGS[padding]
    pads = [len(taps) // 2 if pad is None else min(pad, len(taps) // 2) for taps in axes]
    pads[-1] += more
    return Window(sum(axes, ()), tuple(map(len, axes)), tuple(pads), mode, 1e-4, 9e-4)


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
    assert_like_the_composite(window_of(padding, *taps), *pictures(device, 2, 2, *size))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    "taps",
    [
        (gaussian(1.5), gaussian(1.5), gaussian(1.5)),
        (uniform(3), gaussian(2.0), gaussian(0.5)),
        (SKEWED, uniform(1), SKEWED[::-1]),
        (gaussian(0.5), SKEWED, uniform(1)),
        (gaussian(2.0), gaussian(0.5), gaussian(2.0)),
    ],
    ids=["gaussian11", "mixed", "skewed", "one_column", "wide"],
)
@pytest.mark.parametrize("size", [(15, 16, 17), (40, 15, 16)], ids=str)
def test_padding_modes_of_volumes_match_autograd(
    device: str, padding: str, taps: Any, size: tuple[int, int, int]
) -> None:
    assert_like_the_composite(window_of(padding, *taps), *pictures(device, 1, 2, *size))


@pytest.mark.parametrize("taps", [gaussian(1.5), gaussian(2.0)], ids=["radius5", "radius7"])
def test_volumes_wider_than_a_strip_match_autograd(device: str, taps: tuple[float, ...]) -> None:
    assert_like_the_composite(window_of("wider", taps, taps, taps), *pictures(device, 1, 1, 15, 16, 262))


def assert_like_the_composite(window: Window, preds: Tensor, target: Tensor) -> None:
    device = preds.device
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
@pytest.mark.parametrize("size", [(37, 41), (19, 23, 21)], ids=str)
def test_forward_gradients_are_those_of_the_objective(
    device: str, size: tuple[int, ...], objective: str, taps: tuple[float, ...]
) -> None:
    window = window_of("same", *[taps] * len(size))
    preds, target = pictures(device, 2, 3, *size)
    grads = [None, None]
    grads[objective == "contrast_sensitivity"] = torch.ones(2, dtype=torch.float64, device=device)
    expected = _ops.similarity_backward(preds, target, *window, None, *grads, None, True, True, True)
    found = _ops.similarity(preds, target, *window, None, objective, 8.0, False, True, True, True)[3:]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, 8 * theirs, rtol=1e-12, atol=1e-15)


# The sides and windows of operator_calls; the volumes' maps are wider than the volumes.
KINDS = {
    "image": ((14, 17), window_of("same", gaussian(1.0), gaussian(1.5))),
    "volume": ((9, 11, 12), window_of("wider", gaussian(0.5), gaussian(1.0), gaussian(1.5))),
}


def operator_calls(device: str, kind: str = "image") -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Arguments for every kind of output, as opcheck wants them."""
    sides, window = KINDS[kind]
    head = (list(window.taps), list(window.sizes), list(window.pad), *window[3:])
    preds, target = pictures(device, 2, 3, *sides, dtype=torch.float32)
    last = preds.movedim(1, -1).contiguous().movedim(-1, 1)
    constants = torch.tensor([1e-4, 9e-4], device=device)
    mapped = [n + 2 * p - size + 1 for n, p, size in zip(sides, window.pad, window.sizes, strict=True)]
    image, batch = torch.rand(2, 3, *mapped, device=device), torch.rand(2, device=device)
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
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(device: str, kind: str, name: str) -> None:
    operator, arguments = operator_calls(device, kind)[name]
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


# For volumes of 9x11x12 with windows of 5, 9 and 11 taps.
WRONG_FOR_VOLUMES = {
    "preds has shape [2, 3, 9, 11, 12, 1]": {0: torch.rand(2, 3, 9, 11, 12, 1)},
    "target has shape [2, 3, 11, 12]": {1: torch.rand(2, 3, 11, 12)},
    "taps has 22 elements": {2: [1 / 22] * 22},
    "sizes has 2 elements": {3: [5, 9]},
    "sizes is [5, 8, 11]": {3: [5, 8, 11]},
    "pad has 2 elements": {4: [2, 4]},
    "pad is [2, 4, -1]": {4: [2, 4, -1]},
    "pad is [3, 4, 5], expected non-negative numbers, all but the last": {4: [3, 4, 5]},
    "too small for reflection by pad [2, 4, 12]": {4: [2, 4, 12]},
    "pad is [2, 4, 11], expected less than the window's size": {4: [2, 4, 11], 5: "zero"},
    "smaller than the window, sizes [11, 9, 5] with pad [0, 4, 2]": {3: [11, 9, 5], 4: [0, 4, 2]},
}


@pytest.mark.parametrize(
    ("kind", "message"),
    [("image", message) for message in WRONG] + [("volume", message) for message in WRONG_FOR_VOLUMES],
)
def test_direct_callers_are_told_what_is_wrong(kind: str, message: str) -> None:
    operator, arguments = operator_calls("cpu", kind)["value"]
    arguments = list(arguments)
    for position, value in {"image": WRONG, "volume": WRONG_FOR_VOLUMES}[kind][message].items():
        arguments[position] = value
    with pytest.raises(RuntimeError) as raised:
        operator(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "message", "position", "value"),
    [
        ("image", "grad_similarity has shape [3]", 9, torch.rand(3)),
        ("image", "grad_contrast has dtype Double", 10, torch.rand(2, dtype=torch.float64)),
        ("image", "grad_map has shape [2, 3, 14, 16]", 11, torch.rand(2, 3, 14, 16)),
        # The map is wider than the volume.
        ("volume", "grad_map has shape [2, 3, 9, 11, 12], expected [2, 3, 9, 11, 16]", 11, torch.rand(2, 3, 9, 11, 12)),
    ],
)
def test_upstream_gradients_are_checked(kind: str, message: str, position: int, value: Tensor) -> None:
    operator, arguments = operator_calls("cpu", kind)["backward"]
    arguments = list(arguments)
    arguments[position] = value
    with pytest.raises(RuntimeError) as raised:
        operator(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize("size", [(20, 22), (12, 13, 14)], ids=str)
def test_a_device_without_a_kernel_takes_the_composite_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...]
) -> None:
    preds, target = (t.requires_grad_() for t in pictures("cpu", 2, 3, *size))
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
    image, volume = (45, 371), (15, 17, 99)
    for sides, sigma in ((image, 1.5), (image, 2.5), (image, (0.6, 1.5)), (volume, 1.5), (volume, (1.5, 2.0, 0.6))):
        target = torch.rand(2, 2, *sides, dtype=dtype)
        preds = (target + 0.1 * torch.randn_like(target)).requires_grad_()
        target.requires_grad_()
        value = ssim_fused.structural_similarity_index_measure(preds, target, data_range=1.0, sigma=sigma)
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
