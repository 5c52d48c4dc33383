"""Values and gradients over the exactness suite, in every floating-point dtype, against the reference.

"Exact" is torchmetrics in float64 on the images rounded to the dtype under test.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from suite import Pair, suite
from support import (
    CALLS,
    FLOAT32_SLACK,
    FLOAT64_TOLERANCE,
    as_tuple,
    error,
    errors,
    evaluate,
    reference,
    reference_noise,
    ssim,
)
from torch import Tensor

from ssim_fused.losses import SSIMLoss

# (radius, arguments): the default window, another window shape, and a wide window.
WINDOWS: dict[str, tuple[int, dict[str, Any]]] = {
    "gaussian11": (5, {}),
    "uniform7": (3, {"gaussian_kernel": False, "kernel_size": 7}),
    "gaussian23": (11, {"sigma": 3.1}),
}

# The reference needs long to convolve a volume with a window that it does not separate.
VOLUME_CALLS = {"gaussian11": {"similarity"}, "uniform7": {"map", "contrast"}, "gaussian23": set()}

# The gradient of identical images is zero, so it has no relative error. It has its own test.
CASES = [
    pytest.param(pair, window, call, id=f"{pair.name}-{window}-{call}")
    for pair in suite().values()
    for window, (radius, _) in WINDOWS.items()
    for call in CALLS
    if pair.name not in {"identical", "volume_identical"} and pair.fits(radius)
    if not pair.is_volume or call in VOLUME_CALLS[window]
]

# Left out: in half precision, 1000 + [0, 1] and half of the step are constant; the gradient of an image with a range of
# 1e-6 overflows float16; and if many pixels tie for the maximum, autograd adds two gradients that are rounded already.
HALF_CASES = [
    pytest.param(pair, call, id=f"{pair.name}-{call}")
    for pair in suite().values()
    for call in CALLS
    if pair.name not in {"identical", "offset", "step", "tiny_values", "saturated"}
    if not pair.is_volume or pair.name in {"volume_noisy", "volume_bytes", "volume_channels"}
]


def arguments_of(pair: Pair, window: str, call: str) -> dict[str, Any]:
    return {"data_range": pair.data_range, **WINDOWS[window][1], **CALLS[call]}


def rounded(pair: Pair, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor]:
    return pair.preds.to(device, dtype), pair.target.to(device, dtype)


@cache
def exact_results(name: str, dtype: torch.dtype, window: str, call: str) -> dict[str, Tensor]:
    pair = suite()[name]
    preds, target = rounded(pair, dtype)
    return evaluate(reference, preds.double(), target.double(), **arguments_of(pair, window, call))


@pytest.mark.parametrize(
    ("pair", "window", "call"), [case for case in CASES if not case.id.startswith("volume") or "gaussian11" in case.id]
)
def test_float64(device: str, pair: Pair, window: str, call: str) -> None:
    arguments = arguments_of(pair, window, call)
    exact = exact_results(pair.name, torch.float64, window, call)
    ours = evaluate(ssim, *rounded(pair, torch.float64, device), **arguments)
    tolerance = FLOAT64_TOLERANCE + reference_noise(pair.preds, pair.target, arguments)
    for name, found in errors(ours, exact).items():
        assert found <= tolerance, name


@pytest.mark.parametrize(("pair", "window", "call"), CASES)
def test_float32_is_at_least_as_accurate_as_the_reference(device: str, pair: Pair, window: str, call: str) -> None:
    arguments = arguments_of(pair, window, call)
    exact = exact_results(pair.name, torch.float32, window, call)
    ours = evaluate(ssim, *rounded(pair, torch.float32, device), **arguments)
    theirs = evaluate(reference, *rounded(pair, torch.float32), **arguments)
    permitted = errors(theirs, exact)
    for name, found in errors(ours, exact).items():
        assert found <= permitted[name] + FLOAT32_SLACK, name


@pytest.mark.parametrize("size", [3, 5, 7, 9])
@pytest.mark.parametrize("picture", ["camera", "astronaut", "coins", "moon", "page"])
def test_photographs_with_boxes(device: str, picture: str, size: int) -> None:
    """1/n rounded to float32 does not sum to one, which would bias every variance."""
    data = pytest.importorskip("skimage.data")
    clean = torch.from_numpy(getattr(data, picture)()[:160, :160].copy()).double() / 255
    target = clean.reshape(1, 160, 160, -1).movedim(-1, 1).float()
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    arguments = {"data_range": 1.0, "gaussian_kernel": False, "kernel_size": size, "reduction": "none"}
    for preds in (target + 0.1 * noise, torch.nn.functional.avg_pool2d(target, 5, 1, 2)):
        exact = evaluate(reference, preds.double(), target.double(), **arguments)
        permitted = errors(evaluate(reference, preds, target, **arguments), exact)
        for name, found in errors(evaluate(ssim, preds.to(device), target.to(device), **arguments), exact).items():
            assert found <= permitted[name] + FLOAT32_SLACK, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(("pair", "call"), HALF_CASES)
def test_half_loses_only_its_rounding(device: str, dtype: torch.dtype, pair: Pair, call: str) -> None:
    arguments = arguments_of(pair, "gaussian11", call)
    exact = exact_results(pair.name, dtype, "gaussian11", call)
    ours = evaluate(ssim, *rounded(pair, dtype, device), **arguments)
    in_float32 = evaluate(reference, *(image.float() for image in rounded(pair, dtype)), **arguments)
    for name, value in exact.items():
        beneath = error(in_float32[name], value) + FLOAT32_SLACK
        assert_within_two_roundings(ours[name], value, dtype, beneath)


def assert_within_two_roundings(result: Tensor, exact: Tensor, dtype: torch.dtype, beneath: float) -> None:
    """Allows each number a rounding to half precision, another one in its product with an upstream gradient, and an
    error of `beneath`, relative to the largest, for the float32 arithmetic.
    """
    info = torch.finfo(dtype)
    assert torch.equal(result.isnan(), exact.isnan())
    known = ~exact.isnan()
    if known.any():
        result, exact = result[known], exact[known]
        rounding = (exact.abs() * info.eps / 2).clamp(min=info.smallest_normal * info.eps / 2)
        assert ((result - exact).abs() <= 2 * rounding + beneath * exact.abs().max()).all()


def test_half_gradient_keeps_its_accuracy_under_loss_scaling(device: str) -> None:
    # The gradient of a mean over pixels is near float16's smallest number. Training scales the loss to avoid that. What
    # is saved between forward and backward must not lose the benefit.
    pair, scale = suite()["noisy"], 1024.0
    results = []
    for function, dtype, where in (
        (ssim, torch.float16, device),
        (reference, torch.float64, "cpu"),
    ):
        preds = pair.preds.half().to(where, dtype).requires_grad_()
        target = pair.target.half().to(where, dtype)
        scores = function(preds, target, reduction="none", data_range=1.0)
        (gradient,) = torch.autograd.grad(scores, preds, torch.full_like(scores, scale))
        results.append(gradient.double().cpu())
    assert_within_two_roundings(*results, torch.float16, 2 * FLOAT32_SLACK)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("name", "window"),
    [
        (prefix + kind, window)
        for prefix, windows in (("", WINDOWS), ("volume_", ["gaussian11", "uniform7"]))
        for kind in ("random", "offset", "bytes", "hdr", "noisy", "channels")
        for window in windows
    ],
)
def test_identical_pictures_score_exactly_one(device: str, name: str, window: str, dtype: torch.dtype) -> None:
    pair = suite()[name]
    picture = pair.target.to(device, dtype)
    # In half precision the image with the offset is constant, and a constant has no range.
    data_range = 1.0 if pair.data_range is None else pair.data_range
    radius, arguments = WINDOWS[window]
    for call, outputs_asked in CALLS.items():
        outputs = as_tuple(ssim(picture, picture.clone(), data_range=data_range, **arguments, **outputs_asked))
        assert (outputs[0] == 1).all(), call
        if call != "contrast" or min(picture.shape[2:]) > 2 * radius:  # otherwise the map is cropped to nothing: NaN
            assert (outputs[-1] == 1).all(), call


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("window", ["gaussian11", "uniform7"])
@pytest.mark.parametrize("name", ["identical", "volume_identical"])
@pytest.mark.parametrize("call", CALLS)
def test_identical_pictures_have_no_gradient(
    device: str, call: str, name: str, window: str, dtype: torch.dtype
) -> None:
    pair = suite()[name]
    ours = evaluate(ssim, *rounded(pair, dtype, device), **arguments_of(pair, window, call))
    for gradient in (ours["grad_preds"], ours["grad_target"]):
        assert (gradient == 0).all()


def test_large_offset(device: str) -> None:
    # A range of 1 on top of 1000: float32 stores such pixels to 3e-5, and the score may lose little more than that. The
    # reference in float32 is wrong in the first digit.
    pair = suite()["offset"]
    exact = exact_results(pair.name, torch.float32, "gaussian11", "map")
    arguments = arguments_of(pair, "gaussian11", "map")
    ours = evaluate(ssim, *rounded(pair, torch.float32, device), **arguments)
    for name in ("similarity", "map"):
        assert (ours[name] - exact[name]).abs().max() <= 1e-4, name
    theirs = evaluate(reference, *rounded(pair, torch.float32), **arguments)
    assert (theirs["similarity"] - exact["similarity"]).abs().max() > 1e-2


def blurred_by_zeros(target: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(target, 3, 1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_a_step_in_brightness_within_windows(seed: int) -> None:
    """The step is 1000 data ranges high. The edges of the bright half differ so much that only the dark half has digits
    to lose, and there the reference is exact.
    """
    target = torch.rand(1, 1, 12, 16, generator=torch.Generator().manual_seed(seed))
    target[..., 8:] += 1000
    assert_no_farther_than_the_reference(blurred_by_zeros(target), target)


@pytest.mark.parametrize("change", ["blur", "quantized"])
def test_photographs_with_too_small_a_range(change: str) -> None:
    """Pixels in 0..255 with a data range of 1. With the mean as pivot, black backgrounds lost all digits."""
    data = pytest.importorskip("skimage.data")
    target = torch.from_numpy(data.astronaut().copy()).movedim(-1, 0).unsqueeze(0).float()
    preds = blurred_by_zeros(target) if change == "blur" else (target / 8).round() * 8
    exact = reference(preds.double(), target.double(), data_range=1.0)
    theirs = reference(preds, target, data_range=1.0).double() - exact
    ours = ssim(preds, target, data_range=1.0).double() - exact
    assert abs(ours) <= abs(theirs) + FLOAT32_SLACK
    similarity = ssim(preds, target, data_range=1.0, reduction="none", return_full_image=True)[1]
    assert similarity.abs().max() <= 1 + FLOAT32_SLACK


def assert_no_farther_than_the_reference(preds: Tensor, target: Tensor) -> None:
    arguments = {"data_range": 1.0}
    exact = evaluate(reference, preds.double(), target.double(), **arguments)
    permitted = errors(evaluate(reference, preds, target, **arguments), exact)
    for name, found in errors(evaluate(ssim, preds, target, **arguments), exact).items():
        assert found <= permitted[name] + FLOAT32_SLACK, name


@pytest.mark.parametrize("name", ["step", "low_step", "volume_step", "volume_low_step"])
@pytest.mark.parametrize("options", [{}, {"padding": "valid"}, {"padding": "zero"}, {"masked": True}], ids=str)
def test_scores_and_contrast_sensitivities_lie_within_one(device: str, name: str, options: dict[str, Any]) -> None:
    """Rounding of a covariance must not push them beyond ±1, also not in PyTorch's plain operations."""
    options, pair = dict(options), suite()[name]
    if options.get("padding") == "valid" and not all(n >= 11 for n in pair.preds.shape[2:]):
        options["sigma"] = 0.5
    if options.pop("masked", False):
        generator = torch.Generator().manual_seed(0)
        options["mask"] = torch.rand(pair.preds.shape, generator=generator).to(device) > 0.1
    for preds, target in (rounded(pair, torch.float32, device), rounded(pair, torch.float32, device)[::-1]):
        call = {"data_range": 1.0, "reduction": "none", **options}
        similarity = ssim(preds, target, return_full_image=True, **call)[1]
        assert similarity.abs().max() <= 1 + FLOAT32_SLACK
        tracked = preds.clone().requires_grad_()
        value = ssim(tracked, target, **call)
        (gradient,) = torch.autograd.grad(value.sum(), tracked, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), tracked)
        assert gradient.isfinite().all()
        assert second.isfinite().all()


# On a shifted image, `d - delta^2` is a small difference of two large numbers. The exact results come from our float64
# kernels, because 1 - torchmetrics' result has no digits of a distance of 1e-12.
@pytest.mark.parametrize(
    "options", [{}, {"padding": "zero"}, {"padding": "valid"}, {"sigma": 2.5}, {"masked": True}], ids=str
)
@pytest.mark.parametrize("shape", [(2, 1, 40, 400), (1, 2, 12, 14, 30)], ids=["images", "volumes"])
@pytest.mark.parametrize("difference", [1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("kind", ["shift", "noise"])
def test_distances_of_nearly_equal_images(
    kind: str, difference: float, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    options = dict(options)
    generator = torch.Generator().manual_seed(7)
    ramp = torch.linspace(0, 1, shape[-1]).expand(shape)
    texture = torch.rand(shape, generator=generator)
    mask = (torch.rand(shape, generator=generator) > 0.2) if options.pop("masked", False) else None
    loss = SSIMLoss(data_range=1.0, **options)
    for preds in (torch.full(shape, 0.4), 0.1 + 0.6 * ramp, texture):
        step = torch.ones(shape) if kind == "shift" else torch.randn(shape, generator=generator)
        target = preds + difference * step
        x, exact_x = preds.clone().requires_grad_(), preds.double().requires_grad_()
        distance, exact = loss(x, target, mask=mask), loss(exact_x, target.double(), mask=mask)
        assert abs(distance.item() - exact.item()) <= 1e-5 * exact.item()
        if kind == "shift":
            (gradient,), (exact_gradient,) = torch.autograd.grad(distance, x), torch.autograd.grad(exact, exact_x)
            worst = (gradient - exact_gradient).abs().max()
            assert worst <= 1e-5 * exact_gradient.abs().max()
