"""The operators called directly: cases that the public functions do not reach, and PyTorch's requirements."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import without_kernels
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

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
    """The width is padded for `kernel_size`, so the map is wider or narrower than the volume."""
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
    # Both sides are float64. The composite uses another pivot, so they round differently.
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


# The sides and windows of operator_calls. The volumes' maps are wider than the volumes.
KINDS = {
    "image": ((14, 17), Window((1.0, 1.5), (11, 11))),
    "volume": ((9, 11, 12), Window((0.5, 1.0, 1.5), (5, 9, 15))),
}


def operator_calls(device: str, kind: str = "image") -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Arguments for every operator and kind of output, as opcheck expects them: operator, tensors, keywords."""
    sides, window = KINDS[kind]
    head = window._asdict() | {"sigma": list(window.sigma), "kernel_size": list(window.kernel_size)}
    preds, target = pictures(device, 2, 3, *sides, dtype=torch.float32)
    last = preds.movedim(1, -1).contiguous().movedim(-1, 1)
    constants = torch.tensor([1e-4, 9e-4], device=device)
    image, batch = torch.rand(2, 3, *window.output_sides(sides), device=device), torch.rand(2, device=device)
    half = [t.half() for t in (preds, target)]
    every = {"want_grad_preds": True, "want_grad_target": True, "want_grad_constants": True}
    l1 = {"pixel_term": "l1", "ssim_weight": 0.2, "want_terms": True, "distance": True}
    l2 = {"pixel_term": "l2", "ssim_weight": 0.7, "distance": True}
    forward, backward = _ops.similarity, _ops.similarity_backward
    pyramid = {"sigma": [0.5], "kernel_size": [3], "betas": [0.4, 0.6]}
    first = {"want_grad_preds": True}
    return {
        "value": (forward, (preds, target), head),
        "distance": (forward, (preds, target), head | first | {"reduction": 2, "distance": True}),
        "everything": (
            forward, (last, target, constants),
            head | every | {"reduction": 0, "want_contrast": True, "want_map": True},
        ),
        "pixels": (forward, (last, target, constants), head | l1 | every | {"reduction": 0}),
        "pixels_value": (forward, (preds, target), head | l2),
        "half": (forward, tuple(half), head | first | {"reduction": 0}),
        "backward": (backward, (preds, target, None, None, batch), head | first | {"reduction": 0}),
        "backward_everything": (
            backward, (last, target, constants, None, batch[0], batch, image), head | every | {"distance": True},
        ),
        "backward_of_a_number's_constants": (
            backward, (preds, target, None, None, batch), head | every | {"reduction": 0},
        ),
        "multiscale": (_ops.multiscale, (preds, target), pyramid | first),
        "multiscale_everything": (
            _ops.multiscale, (last, target, constants),
            pyramid | every | {"normalize": "simple", "reduction": 0, "distance": True},
        ),
        "multiscale_pixels": (_ops.multiscale, (last, target), pyramid | l1 | every | {"reduction": 0}),
        "multiply": (_ops.multiply_gradient, (last, batch), {"factor": -1.0}),
        "multiply_in_place": (_ops.multiply_gradient_, (preds.clone(), batch[:1]), {"factor": 2.0}),
    }  # fmt: skip


CALLS = list(operator_calls("cpu"))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(device: str, kind: str, name: str, requires_grad: bool) -> None:
    operator, tensors, keywords = operator_calls(device, kind)[name]
    if requires_grad:
        if name == "multiply_in_place":
            pytest.skip("a gradient that is scaled in place never requires grad")
        tensors = tuple(a.clone().requires_grad_() if i < 2 else a for i, a in enumerate(tensors))
    torch.library.opcheck(operator, tensors, keywords)


TENSORS = ("preds", "target", "constants", "mask", "grad_similarity", "grad_contrast", "grad_map")
WRONG: dict[str, dict[str, Any]] = {
    "preds has shape [14, 17]": {"preds": torch.rand(14, 17)},
    "target has shape [2, 3, 14, 16]": {"target": torch.rand(2, 3, 14, 16)},
    "preds has dtype Int": {"preds": torch.ones(2, 3, 14, 17, dtype=torch.int32)},
    "target has dtype Double": {"target": torch.rand(2, 3, 14, 17, dtype=torch.float64)},
    "sigma is [1.000000, 1.000000, 1.000000]": {"sigma": [1.0, 1.0, 1.0]},
    "sigma is [-1.000000, 1.000000]": {"sigma": [-1.0, 1.0]},
    "sigma is [inf, 1.000000]": {"sigma": [float("inf"), 1.0]},
    "preds has a side of 14, too small for reflection by 3500": {"sigma": [1000.0, 1.0]},
    "kernel_size is [8, 10]": {"kernel_size": [8, 10]},
    "kernel_size is [3, 3, 3]": {"kernel_size": [3, 3, 3]},
    "taps has 3 elements": {"kernel_size": [3, 5], "taps": [0.2, 0.6, 0.2]},
    "taps has 9 elements": {"kernel_size": [3, 5], "taps": [0.2] * 9},
    "taps has the element inf": {"kernel_size": [3, 3], "taps": [0.1] * 5 + [float("inf")]},
    "smaller than its window of 15 taps": {"sigma": [2.0, 1.0], "padding": "valid"},
    "padding is 'circular', expected 'reflect', 'zero' or 'valid'": {"padding": "circular"},
    "mask_mode is 'pixel', expected 'window' or 'map'": {"mask_mode": "pixel"},
    "constants has shape [3]": {"constants": torch.rand(3)},
    "constants has dtype Double": {"constants": torch.rand(2, dtype=torch.float64)},
    "pixel_term is 'huber', expected 'none', 'l1', 'l2' or 'charbonnier'": {"pixel_term": "huber"},
    "ssim_weight is 1.5": {"pixel_term": "l1", "ssim_weight": 1.5},
    "ssim_weight is nan": {"pixel_term": "l1", "ssim_weight": float("nan")},
    "pixel_eps is 0": {"pixel_term": "charbonnier", "ssim_weight": 0.5, "pixel_eps": 0.0},
    "want_terms is true and pixel_term 'none'": {"want_terms": True},
    "pixel_term is 'l2', which goes with the value alone": {"pixel_term": "l2", "want_map": True},
    "reduction is 3": {"reduction": 3},
}


# For volumes of 9x11x12.
WRONG_FOR_VOLUMES: dict[str, dict[str, Any]] = {
    "preds has shape [2, 3, 9, 11, 12, 1]": {"preds": torch.rand(2, 3, 9, 11, 12, 1)},
    "target has shape [2, 3, 11, 12]": {"target": torch.rand(2, 3, 11, 12)},
    "taps has 22 elements": {"kernel_size": [5, 9, 11], "taps": [1 / 22] * 22},
    "kernel_size is [5, 9]": {"kernel_size": [5, 9]},
    "kernel_size is [5, 8, 11]": {"kernel_size": [5, 8, 11]},
    "too small for reflection by 12": {"kernel_size": [5, 9, 25]},
    "smaller than its window of 11 taps": {"sigma": [1.5, 0.5, 0.5], "padding": "valid"},
}


def refusal(kind: str, name: str, wrong: dict[str, Any]) -> str:
    """The message of a call whose arguments are replaced by these wrong ones."""
    operator, tensors, keywords = operator_calls("cpu", kind)[name]
    given = dict(zip(TENSORS, tensors, strict=False)) | keywords | wrong
    with pytest.raises(RuntimeError) as raised:
        operator(**given)
    return str(raised.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("image", message) for message in WRONG] + [("volume", message) for message in WRONG_FOR_VOLUMES],
)
def test_operators_check_their_arguments(kind: str, message: str) -> None:
    wrong = {"image": WRONG, "volume": WRONG_FOR_VOLUMES}[kind][message]
    assert message in refusal(kind, "value", wrong)


@pytest.mark.parametrize(
    ("kind", "message", "name", "value"),
    [
        ("image", "grad_similarity has shape [3]", "grad_similarity", torch.rand(3)),
        ("image", "grad_contrast has dtype Double", "grad_contrast", torch.rand(2, dtype=torch.float64)),
        ("image", "grad_map has shape [2, 3, 14, 16]", "grad_map", torch.rand(2, 3, 14, 16)),
        # The map is wider than the volume.
        ("volume", "grad_map has shape [2, 3, 9, 11, 12]", "grad_map", torch.rand(2, 3, 9, 11, 12)),
    ],
)
def test_upstream_gradients_are_checked(kind: str, message: str, name: str, value: Tensor) -> None:
    assert message in refusal(kind, "backward", {name: value})


def test_the_constants_have_gradients_if_trailing_arguments_are_none(device: str) -> None:
    """The dispatcher omits trailing arguments that are None.

    Backward must return one gradient per received argument.
    """
    preds, target = (t.requires_grad_() for t in pictures(device, 2, 3, 14, 17))
    constants = torch.tensor([1e-4, 9e-4], dtype=torch.float64, device=device, requires_grad=True)
    for given in ((preds, target), (preds, target, None, None), (preds, target, constants)):
        value = _ops.similarity(*given)[0]
        wanted = [t for t in given if t is not None]
        found = torch.autograd.grad(value, wanted)
        expected = torch.autograd.grad(
            Spec(Window((1.5,), (11,))).composite(preds, target, given[2] if len(given) == 3 else None)[0], wanted
        )
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("size", [(20, 22), (12, 13, 14)], ids=str)
def test_a_device_without_a_kernel_uses_the_composite_with_one_warning(
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
    without_kernels(monkeypatch, "cpu")
    with pytest.warns(UserWarning, match="no kernel for device 'cpu'") as warned:
        plain = results()
    assert len(warned) == 1
    assert Path(warned[0].filename).parent == Path(__file__).parent  # a line outside the package
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_errors_for_cuda_tensors_name_the_fix_without_cuda() -> None:
    if "cuda" in _ops._served:
        pytest.skip("this build has CUDA")
    preds = SimpleNamespace(device=torch.device("cuda", 0), is_cpu=False)
    with pytest.raises(RuntimeError, match=r"`preds` is on cuda:0, .*SSIM_FUSED_CUDA=1 pip install"):
        _ops.has_kernels(preds)


def test_rocm_uses_the_composite_after_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch for ROCm calls its devices "cuda". Fake tensors stand in for them."""
    if "cuda" in _ops._served:
        pytest.skip("this build has CUDA")
    monkeypatch.setattr(torch.version, "hip", "6.4.0")
    _ops._warn_of_composite.cache_clear()
    with FakeTensorMode(), pytest.warns(UserWarning, match="AMD GPUs, which torch for ROCm") as warned:  # noqa: PT031
        preds, target = (torch.empty(2, 3, 32, 30, device="cuda") for _ in range(2))
        for value in (
            ssim_fused.ssim(preds, target, data_range=1.0),
            ssim_fused.ms_ssim(preds, target, data_range=1.0, betas=(0.5, 0.5), kernel_size=7),
            ssim_fused.L1SSIMLoss()(preds, target),
        ):
            assert value.device.type == "cuda"
            assert value.shape == ()
    assert len([w for w in warned if "nvcc" in str(w.message) or "AMD" in str(w.message)]) == 1
    assert "nvcc" not in str(warned[0].message)
    _ops._warn_of_composite.cache_clear()


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


@pytest.mark.slow
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
            # They differ in which products are rounded before they are added: by a few float32 units.
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6 * theirs.abs().max().item())


def test_an_unknown_instruction_set_is_refused(tmp_path) -> None:
    done = run_with("sse9", str(tmp_path / "none"))
    assert done.returncode != 0
    assert "SSIM_FUSED_INSTRUCTION_SET is 'sse9'" in done.stderr
