"""MS-SSIM against torchmetrics in float64: values, both gradients, arguments, errors, clamped levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suite import waves
from support import error, evaluate, upstream
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

from ssim_fused import _ops, functional
from ssim_fused import multiscale_structural_similarity_index_measure as msssim


@pytest.fixture(autouse=True)
def float64_exponents() -> Iterator[None]:
    """The reference rounds its exponents to the default dtype: float64 makes it an oracle to 1e-10."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy_waves(*shape: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    target = waves(*shape) + 0.05 * normal(*shape, seed=1)
    return target + noise * normal(*shape, seed=2), target


SEVEN = (0.1, 0.1, 0.2, 0.1, 0.2, 0.2, 0.1)
# (shape, arguments); sides are odd at several levels, which the next level rounds down.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "default": ((2, 3, 181, 199), {"data_range": 1.0}),
    "sum": ((2, 1, 178, 187), {"data_range": 1.0, "reduction": "sum"}),
    "simple": ((1, 2, 179, 186), {"data_range": 1.0, "normalize": "simple"}),
    "not_normalized": ((1, 2, 183, 179), {"data_range": 1.0, "normalize": None}),
    "range_of_each_level": ((2, 2, 185, 181), {}),
    "clamped_at_each_level": ((2, 1, 181, 183), {"data_range": (0.3, 0.7)}),
    "one_level": ((2, 2, 40, 41), {"data_range": 1.0, "betas": (0.7,)}),
    "two_levels": ((2, 3, 47, 60), {"data_range": 1.0, "betas": (0.4, 0.6)}),
    "seven_levels": ((1, 1, 400, 391), {"data_range": 1.0, "betas": SEVEN, "kernel_size": 3}),
    "uniform": (
        (1, 2, 90, 75),
        {"data_range": 1.0, "betas": (0.3, 0.3, 0.4), "gaussian_kernel": False, "kernel_size": (7, 5)},
    ),
    "wide": ((1, 1, 110, 131), {"data_range": 1.0, "betas": (0.3, 0.3, 0.4), "sigma": (2.9, 1.1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_float64(device: str, name: str) -> None:
    shape, arguments = CASES[name]
    preds, target = noisy_waves(*shape)
    ours = evaluate(msssim, preds.to(device), target.to(device), **{"reduction": "none", **arguments})
    exact = evaluate(reference, preds, target, **{"reduction": "none", **arguments})
    for key, value in exact.items():
        # Both sides round at 1e-16; quotients, sums and powers amplify that by far less than a million.
        assert error(ours[key], value) <= 1e-10, key


@pytest.mark.parametrize("noise", [0.1, 1e-3], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_float32_is_at_least_as_accurate_as_the_reference(device: str, name: str, noise: float) -> None:
    shape, arguments = CASES[name]
    preds, target = (image.float() for image in noisy_waves(*shape, noise=noise))
    arguments = {"reduction": "none", **arguments}
    exact = evaluate(reference, preds.double(), target.double(), **arguments)
    ours = evaluate(msssim, preds.to(device), target.to(device), **arguments)
    theirs = evaluate(reference, preds, target, **arguments)
    for key, value in exact.items():
        # A mean, a power and a product for each level round once more, by luck not at all in the reference.
        assert error(ours[key], value) <= error(theirs[key], value) + 8 * torch.finfo(torch.float32).eps, key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("data_range", [1.0, None, (0.25, 0.75)], ids=str)
def test_half_loses_only_its_rounding(device: str, dtype: torch.dtype, data_range: Any) -> None:
    preds, target = (image.to(dtype) for image in noisy_waves(2, 2, 187, 179))
    scale = 1024.0  # as training scales a loss, so that gradients of means do not underflow

    def scaled(x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
        return scale * (msssim if x.dtype == dtype else reference)(x, y, **arguments)

    arguments = {"reduction": "none", "data_range": data_range}
    exact = evaluate(scaled, preds.double(), target.double(), **arguments)
    ours = evaluate(scaled, preds.to(device), target.to(device), **arguments)
    for key, value in exact.items():
        # Two roundings to half, the second that of the product with the upstream gradient.
        assert error(ours[key], value) <= torch.finfo(dtype).eps, key


def test_gradients_asked_for_one_image_only(device: str) -> None:
    preds, target = (image.to(device) for image in noisy_waves(2, 2, 181, 182))
    both = evaluate(msssim, preds, target, data_range=1.0)
    for name, position in (("grad_preds", 0), ("grad_target", 1)):
        images = [preds.clone(), target.clone()]
        images[position].requires_grad_()
        msssim(*images, data_range=1.0).backward(upstream(torch.zeros((), device=device)))
        torch.testing.assert_close(images[position].grad.cpu(), both[name], rtol=1e-9, atol=1e-12)
        assert images[1 - position].grad is None


def test_identical_images_score_exactly_one(device: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        image = waves(2, 3, 177, 180).to(device, dtype)
        assert (msssim(image, image.clone(), data_range=1.0, reduction="none") == 1).all()


@pytest.mark.parametrize("betas", [(0.5, 0.5), (0.0448, 1.0), (0.0, 1.0), (2.0, 0.3)], ids=str)
@pytest.mark.parametrize("data_range", [1.0, None], ids=["fused", "by_levels"])
def test_clamped_levels_give_zero_never_nan(device: str, betas: tuple[float, ...], data_range: float | None) -> None:
    target = (waves(2, 1, 48, 50) + 0.2 * normal(2, 1, 48, 50)).to(device)
    preds = torch.cat([1 - target[:1], target[1:] + 0.1]).requires_grad_()  # the first is anticorrelated
    score = msssim(preds, target, data_range=data_range, betas=betas, reduction="none")
    (gradient,) = torch.autograd.grad(score.sum(), preds, create_graph=True)
    assert gradient.isfinite().all()
    expected = reference(preds, target, data_range=data_range, betas=betas, reduction="none")
    torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-12)
    assert score[0] == 0
    if data_range:  # else the second image's score flows to the first's extreme pixels, through the range
        assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()
    if gradient.requires_grad:
        assert torch.autograd.grad(gradient.square().sum(), preds)[0].isfinite().all()


def test_a_negative_mean_without_normalization_is_nan_as_in_the_reference(device: str) -> None:
    target = (waves(1, 1, 48, 50) + 0.2 * normal(1, 1, 48, 50)).to(device)
    for function in (msssim, reference):
        assert function(1 - target, target, data_range=1.0, betas=(0.5, 0.5), normalize=None).isnan()


@pytest.mark.parametrize("mean", [1e-44, 1e-30, 1e-9], ids=str)
def test_the_gradient_of_a_tiny_mean_stays_finite(device: str, mean: float) -> None:
    means = [torch.full((1,), value, dtype=torch.float32, device=device) for value in (mean, 0.9)]
    value, factors = _ops.level_product(means, [0.0448, 0.5], "relu")
    torch.testing.assert_close(value.double().cpu(), (means[0].double() ** 0.0448 * 0.9**0.5).cpu(), rtol=1e-6, atol=0)
    assert factors.isfinite().all()
    assert (factors > 0).all()


@pytest.mark.parametrize("arguments", [{}, {"data_range": 1.0}, {"data_range": 1.0, "normalize": "simple"}], ids=str)
def test_double_backward(device: str, arguments: dict[str, Any]) -> None:
    preds, target = noisy_waves(2, 1, 49, 53)
    results = []
    for function, where in ((msssim, device), (reference, "cpu")):
        inputs = [image.to(where).requires_grad_() for image in (preds, target)]
        score = function(*inputs, betas=(0.4, 0.6), **arguments)
        gradients = torch.autograd.grad(score, inputs, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        results.append([gradient.cpu() for gradient in torch.autograd.grad(penalty, inputs)])
    for ours, exact in zip(*results, strict=True):
        assert error(ours, exact) <= 1e-10


@pytest.mark.parametrize("arguments", [{"data_range": 1.0}, {"data_range": 1.0, "normalize": "simple"}, {}], ids=str)
def test_gradcheck(device: str, arguments: dict[str, Any]) -> None:
    inputs = [image.to(device).requires_grad_() for image in noisy_waves(2, 1, 9, 11)]

    def function(x: Tensor, y: Tensor) -> Tensor:
        return msssim(x, y, sigma=0.5, kernel_size=3, betas=(0.3, 0.7), reduction="none", **arguments)

    assert torch.autograd.gradcheck(function, inputs)


@settings(max_examples=25)
@given(
    height=st.integers(21, 70),
    width=st.integers(21, 70),
    channels=st.integers(1, 3),
    sigma=st.sampled_from([0.5, 1.5, (0.8, 1.2)]),
    levels=st.integers(1, 2),
    normalize=st.sampled_from(["relu", "simple"]),
    data_range=st.sampled_from([1.0, None, (0.2, 0.9)]),
)
def test_any_shape(height, width, channels, sigma, levels, normalize, data_range) -> None:
    preds, target = noisy_waves(2, channels, height, width)
    arguments = {"sigma": sigma, "betas": (0.6, 0.4)[:levels], "normalize": normalize, "data_range": data_range}
    arguments["reduction"] = "none"
    ours = evaluate(msssim, preds, target, **arguments)
    for key, value in evaluate(reference, preds, target, **arguments).items():
        assert error(ours[key], value) <= 1e-10, key


def test_a_device_without_a_kernel_takes_the_composite(monkeypatch: pytest.MonkeyPatch) -> None:
    preds, target = noisy_waves(1, 2, 181, 186)
    fused = evaluate(msssim, preds, target, data_range=1.0)
    monkeypatch.setattr(_ops, "has_kernel", lambda device: False)
    functional._warn_of_composite.cache_clear()
    with pytest.warns(UserWarning, match="no kernel"):
        plain = evaluate(msssim, preds, target, data_range=1.0)
    for key, value in plain.items():
        assert error(fused[key], value) <= 1e-10, key


# What is wrong, and a part of our message about it.
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "betas_list": ({"betas": [0.5, 0.5]}, "`betas` is [0.5, 0.5]"),
    "betas_integers": ({"betas": (1, 1)}, "`betas` is (1, 1)"),
    "normalize": ({"normalize": "max"}, "`normalize` is 'max'"),
    "reduction": ({"reduction": "median", "betas": (0.5, 0.5)}, "`reduction` is 'median'"),
    "too_small_for_levels": ({"betas": (0.1,) * 7, "kernel_size": 1}, "its height 60 must be at least 128"),
    "too_small_for_window": ({}, "its height 60 must be at least 176"),
    "sigma": ({"sigma": -1.0, "betas": (1.0,)}, "`sigma` is -1.0"),
    "kernel_size": ({"kernel_size": 4, "betas": (1.0,)}, "`kernel_size` is 4"),
    "padding": (
        {"sigma": 5.0, "betas": (0.2, 0.3, 0.5), "kernel_size": 3},
        "its height 15 at level 2 of the pyramid is too small",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_what_the_reference_raises(device: str, name: str) -> None:
    arguments, message = MISTAKES[name]
    images = [torch.rand(1, 1, 60, 64, device=device) for _ in range(2)]
    with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever the reference raises)
        reference(*images, data_range=1.0, **arguments)
    with pytest.raises(type(expected.value)) as raised:
        msssim(*images, data_range=1.0, **arguments)
    assert message in str(raised.value)


def pyramid(device: str) -> tuple[list[Tensor], Tensor]:
    gradients = [normal(2, 3, 23 >> level, 30 >> level, seed=level).to(device, torch.float32) for level in range(3)]
    return gradients, normal(3, 2).to(device, torch.float32)


def test_pyramid_gradient_sums_the_levels(device: str) -> None:
    gradients, factors = pyramid(device)
    expected = torch.zeros_like(gradients[0])
    for level, gradient in enumerate(gradients):
        share = gradient * factors[level].view(-1, 1, 1, 1) / 4**level
        share = share.repeat_interleave(2**level, 2).repeat_interleave(2**level, 3)
        expected[:, :, : share.shape[2], : share.shape[3]] += share
    torch.testing.assert_close(_ops.pyramid_gradient(gradients, factors), expected)


def test_opcheck(device: str) -> None:
    gradients, factors = pyramid(device)
    last = gradients[0].to(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.ssim_fused.pyramid_gradient.default, ([last, *gradients[1:]], factors))
    torch.library.opcheck(torch.ops.ssim_fused.downsample.default, (last, gradients[0]))
    torch.library.opcheck(torch.ops.ssim_fused.downsample.default, (last.half(), gradients[0].half()))
    torch.library.opcheck(torch.ops.ssim_fused.level_product.default, (list(factors), [0.2, 0.3, 0.5], "relu"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, f: _ops.pyramid_gradient(g[::2], f[:2]), "expected half the level above"),
        (lambda g, f: _ops.pyramid_gradient(g, f[:2]), "factors has shape [2, 2]"),
        (lambda g, f: _ops.pyramid_gradient([g[0], g[1].double(), g[2]], f), "dtype Double for level 1"),
        (lambda g, f: _ops.level_product(list(f), [0.5], "relu"), "betas has 1 elements"),
        (lambda g, f: _ops.level_product(list(f), [0.5] * 3, "max"), "normalize is 'max'"),
        (lambda g, f: _ops.downsample(g[0], g[1]), "target has shape [2, 3, 11, 15]"),
        (lambda g, f: _ops.downsample(g[0][..., :1], g[0][..., :1]), "at least two rows and columns"),
    ],
)
def test_direct_callers_are_told_what_is_wrong(call: Any, message: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        call(*pyramid("cpu"))
    assert message in str(raised.value)


def test_float16_without_constants_keeps_its_gradient(device: str) -> None:
    # c1 = 0: no bound on the gradient that would tell how to keep it in float16.
    preds, target = (image.half() for image in noisy_waves(1, 1, 50, 52))
    arguments = {"data_range": 1.0, "k1": 0.0, "betas": (0.5, 0.5)}
    ours = evaluate(msssim, preds.to(device), target.to(device), **arguments)
    exact = evaluate(reference, preds.double(), target.double(), **arguments)
    for key, value in exact.items():
        assert error(ours[key], value) <= 2 * torch.finfo(torch.float16).eps, key
