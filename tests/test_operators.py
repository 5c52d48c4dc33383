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
from ssim_fused._core import _ops
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window, gaussian_taps

PADDINGS = ["reflect", "valid", "zero"]
Taps = tuple[float, ...]


def gaussian(sigma: float) -> Taps:
    return tuple(gaussian_taps(sigma))


def uniform(size: int) -> Taps:
    return (1.0 / size,) * size


def window_of(padding: str, *axes: Taps) -> Window:
    return Window((), tuple(map(len, axes)), sum(axes, ()), padding)


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


@pytest.mark.parametrize(("sigma", "kernel_size"), [(1.5, 15), (2.0, 19), (1.0, 3)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_volumes_padded_for_another_size_match_autograd(
    device: str, padding: str, sigma: float, kernel_size: int
) -> None:
    """The width is padded for `kernel_size`, so that the map is wider or narrower than the volume."""
    window = Window((sigma,), (kernel_size,), None, padding)
    assert_like_the_composite(window, *pictures(device, 1, 1, 15, 16, 262))


def assert_like_the_composite(window: Window, preds: Tensor, target: Tensor) -> None:
    device = preds.device
    constants = torch.tensor([[1e-4, 9e-4]], dtype=torch.float64, device=device).expand(len(preds), 2)
    inputs = [t.clone().requires_grad_() for t in (preds, target, constants)]
    spec = Spec(window, 0, False, True, True)
    expected = spec.composite(*inputs)
    weights = [torch.rand_like(t) for t in expected]
    gradients = torch.autograd.grad(expected, inputs, weights)

    values = spec.outputs(preds, target, constants, (False, False, False))
    found = spec.gradients(weights, preds, target, constants, (True, True, True))
    # Both sides are float64; the composite takes another pivot, so they round differently.
    for ours, theirs in zip((*values, *found), (*expected, *gradients), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("sigma", [1.5, 0.8, 2.5])
@pytest.mark.parametrize("size", [(37, 41), (19, 23, 21)], ids=str)
def test_stored_gradients_are_those_of_the_backward(
    device: str, size: tuple[int, ...], reduction: int, sigma: float
) -> None:
    spec = Spec(Window((sigma,), (11,)), reduction)
    preds, target = pictures(device, 2, 3, *size)
    constants = torch.tensor([1e-4, 9e-4], dtype=torch.float64, device=device)
    upstream = torch.full((2,) if reduction == 0 else (), 3.0, dtype=torch.float64, device=device)
    wanted = (True, True, True)
    expected = spec.gradients([upstream], preds, target, constants, wanted)
    _, *stored = spec.outputs(preds, target, constants, wanted)
    for ours, theirs in zip(spec.from_stored(stored, upstream, constants, wanted), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


# The sides and windows of operator_calls; the volumes' maps are wider than the volumes.
KINDS = {
    "image": ((14, 17), Window((1.0, 1.5), (11, 11))),
    "volume": ((9, 11, 12), Window((0.5, 1.0, 1.5), (5, 9, 15))),
}


def operator_calls(device: str, kind: str = "image") -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Arguments for every operator and kind of output, as opcheck wants them."""
    sides, window = KINDS[kind]
    head = (list(window.sigma), list(window.kernel_size), *window[2:])
    preds, target = pictures(device, 2, 3, *sides, dtype=torch.float32)
    last = preds.movedim(1, -1).contiguous().movedim(-1, 1)
    constants = torch.tensor([1e-4, 9e-4], device=device)
    image, batch = torch.rand(2, 3, *window.output_sides(sides), device=device), torch.rand(2, device=device)
    half = [t.half() for t in (preds, target)]
    every, none = (True, True, True), (False, False, False)
    no_mask = (None, "window")
    plain = (*no_mask, "none", 1.0, 1e-3, False)
    l1, l2 = (*no_mask, "l1", 0.2, 1e-3, True), (*no_mask, "l2", 0.7, 1e-3, False)
    forward, backward = _ops.similarity, _ops.similarity_backward
    pyramid = ([0.5], [3], None, "reflect", *window[4:])
    return {
        "value": (forward, (preds, target, *head, None, *plain, 1, False, False, False, *none)),
        "distance": (forward, (preds, target, *head, None, *plain, 2, True, False, False, True, False, False)),
        "everything": (forward, (last, target, *head, constants, *plain, 0, False, True, True, *every)),
        "pixels": (forward, (last, target, *head, constants, *l1, 0, True, False, False, *every)),
        "pixels_value": (forward, (preds, target, *head, None, *l2, 1, True, False, False, *none)),
        "half": (forward, (*half, *head, None, *plain, 0, False, False, False, False, True, False)),
        "backward": (backward, (preds, target, *head, None, *no_mask, 0, False, batch, None, None, True, False, False)),
        "backward_everything": (
            backward, (last, target, *head, constants, *no_mask, 1, True, batch[0], batch, image, *every),
        ),
        "backward_of_a_number's_constants": (
            backward, (preds, target, *head, None, *no_mask, 0, False, batch, None, None, *every),
        ),
        "multiscale": (
            _ops.multiscale, (preds, target, *pyramid, None, *plain, [0.4, 0.6], "relu", 1, False, True, False, False),
        ),
        "multiscale_everything": (
            _ops.multiscale, (last, target, *pyramid, constants, *plain, [0.4, 0.6], "simple", 0, True, *every),
        ),
        "multiscale_pixels": (
            _ops.multiscale, (last, target, *pyramid, None, *l1, [0.4, 0.6], "relu", 0, True, *every),
        ),
        "multiply": (_ops.multiply_gradient, (last, batch, -1.0, 1.0, 0.01, 0.03)),
        "multiply_in_place": (_ops.multiply_gradient_, (preds.clone(), batch[:1], 2.0, 1.0, 0.01, 0.03)),
    }  # fmt: skip


CALLS = list(operator_calls("cpu"))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(device: str, kind: str, name: str, requires_grad: bool) -> None:
    operator, arguments = operator_calls(device, kind)[name]
    if requires_grad:
        if name == "multiply_in_place":
            pytest.skip("the gradient that is scaled in place is nobody's variable")
        arguments = tuple(
            a.clone().requires_grad_() if isinstance(a, Tensor) and i < 2 else a for i, a in enumerate(arguments)
        )
    torch.library.opcheck(operator, arguments)


WRONG = {
    "preds has shape [14, 17]": {0: torch.rand(14, 17)},
    "target has shape [2, 3, 14, 16]": {1: torch.rand(2, 3, 14, 16)},
    "preds has dtype Int": {0: torch.ones(2, 3, 14, 17, dtype=torch.int32)},
    "target has dtype Double": {1: torch.rand(2, 3, 14, 17, dtype=torch.float64)},
    "sigma is [1.000000, 1.000000, 1.000000]": {2: [1.0, 1.0, 1.0]},
    "sigma is [-1.000000, 1.000000]": {2: [-1.0, 1.0]},
    "sigma is [inf, 1.000000]": {2: [float("inf"), 1.0]},
    "preds has a side of 14, too small for reflection by 3500": {2: [1000.0, 1.0]},
    "kernel_size is [8, 10]": {3: [8, 10]},
    "kernel_size is [3, 3, 3]": {3: [3, 3, 3]},
    "taps has 3 elements": {3: [3, 5], 4: [0.2, 0.6, 0.2]},
    "taps has 9 elements": {3: [3, 5], 4: [0.2] * 9},
    "taps has the element inf": {3: [3, 3], 4: [0.1] * 5 + [float("inf")]},
    "smaller than its window of 15 taps": {2: [2.0, 1.0], 5: "valid"},
    "padding is 'circular'": {5: "circular"},
    "constants has shape [3]": {9: torch.rand(3)},
    "constants has dtype Double": {9: torch.rand(2, dtype=torch.float64)},
    "pixel_term is 'huber'": {12: "huber"},
    "ssim_weight is 1.5": {12: "l1", 13: 1.5},
    "ssim_weight is nan": {12: "l1", 13: float("nan")},
    "pixel_eps is 0": {12: "charbonnier", 13: 0.5, 14: 0.0},
    "want_terms is true and pixel_term 'none'": {15: True},
    "pixel_term is 'l2', which goes with the value alone": {12: "l2", 13: 0.5, 19: True},
    "reduction is 3": {16: 3},
}


# For volumes of 9x11x12.
WRONG_FOR_VOLUMES = {
    "preds has shape [2, 3, 9, 11, 12, 1]": {0: torch.rand(2, 3, 9, 11, 12, 1)},
    "target has shape [2, 3, 11, 12]": {1: torch.rand(2, 3, 11, 12)},
    "taps has 22 elements": {3: [5, 9, 11], 4: [1 / 22] * 22},
    "kernel_size is [5, 9]": {3: [5, 9]},
    "kernel_size is [5, 8, 11]": {3: [5, 8, 11]},
    "too small for reflection by 12": {3: [5, 9, 25]},
    "smaller than its window of 11 taps": {2: [1.5, 0.5, 0.5], 5: "valid"},
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
        ("image", "grad_similarity has shape [3]", 14, torch.rand(3)),
        ("image", "grad_contrast has dtype Double", 15, torch.rand(2, dtype=torch.float64)),
        ("image", "grad_map has shape [2, 3, 14, 16]", 16, torch.rand(2, 3, 14, 16)),
        # The map is wider than the volume.
        ("volume", "grad_map has shape [2, 3, 9, 11, 12]", 16, torch.rand(2, 3, 9, 11, 12)),
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
    monkeypatch.setattr(_ops, "has_kernels", lambda preds: _ops._warn_of_composite("cpu"))
    _ops._warn_of_composite.cache_clear()
    with pytest.warns(UserWarning, match="no kernel for device 'cpu'") as warned:
        plain = results()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_cuda_tensors_on_a_build_without_cuda_are_told_the_fix() -> None:
    if "cuda" in _ops._served:
        pytest.skip("this build has CUDA")
    preds = SimpleNamespace(device=torch.device("cuda", 0), is_cpu=False)
    with pytest.raises(RuntimeError, match=r"`preds` is on cuda:0, .*SSIM_FUSED_CUDA=1 pip install"):
        _ops.has_kernels(preds)


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
