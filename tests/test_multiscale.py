"""MS-SSIM against torchmetrics in float64: values, both gradients, arguments, errors, clamped levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from suite import waves
from support import effort, error, evaluate, upstream, without_kernels
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused._core import _ops
from ssim_fused._core.autograd import evaluate as evaluate_score
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window


@pytest.fixture(autouse=True)
def float64_exponents() -> Iterator[None]:
    """The reference rounds its exponents to the default dtype. In float64 it is an oracle to 1e-10."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noisy_waves(*shape: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    target = waves(*shape) + 0.05 * normal(*shape, seed=1)
    return target + noise * normal(*shape, seed=2), target


SEVEN = (0.1, 0.1, 0.2, 0.1, 0.2, 0.2, 0.1)
# (shape, arguments). Some sides are odd at several levels; the next level rounds them down.
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
    "volume": ((1, 1, 13, 23, 24), {"data_range": 1.0, "betas": (0.4, 0.6)}),
    "volume_of_three_levels": (
        (2, 2, 15, 23, 26),
        {"data_range": 1.0, "betas": (0.3, 0.3, 0.4), "sigma": 0.5, "kernel_size": 5},
    ),
    # A Gaussian of 5 taps, on maps that are 4 wider than the volume. The first two elements set the minimum size.
    "volume_wider_maps": (
        (1, 1, 9, 14, 15),
        {"data_range": 1.0, "betas": (0.4, 0.6), "sigma": 0.5, "kernel_size": (3, 13, 9), "normalize": "simple"},
    ),
    "volume_uniform": (
        (1, 2, 12, 17, 15),
        {"data_range": 1.0, "betas": (0.4, 0.6), "gaussian_kernel": False, "kernel_size": (3, 7, 5)},
    ),
    "volume_range_of_each_level": ((2, 1, 13, 12, 15), {"betas": (0.4, 0.6), "sigma": 0.5, "kernel_size": 5}),
    "volume_clamped_at_each_level": (
        (2, 1, 13, 12, 15),
        {"data_range": (0.3, 0.7), "betas": (0.4, 0.6), "sigma": (0.5, 0.3, 0.8), "kernel_size": 5},
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
        # Both sides round at 1e-16. Quotients, sums and powers amplify that by far less than a million.
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
        # Each level adds the rounding of a mean, a power and a product. The reference's may happen to be exact.
        assert error(ours[key], value) <= error(theirs[key], value) + 8 * torch.finfo(torch.float32).eps, key


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("data_range", [1.0, None, (0.25, 0.75)], ids=str)
@pytest.mark.parametrize(
    ("sides", "levels"),
    [((187, 179), {}), ((21, 24, 27), {"betas": (0.3, 0.3, 0.4), "sigma": 0.8, "kernel_size": 5})],
    ids=["image", "volume"],
)
def test_half_loses_only_its_rounding(
    device: str, sides: tuple[int, ...], levels: dict[str, Any], dtype: torch.dtype, data_range: Any
) -> None:
    preds, target = (image.to(dtype) for image in noisy_waves(2, 2, *sides))
    scale = 1024.0  # training scales losses so that gradients of means do not underflow

    def scaled(x: Tensor, y: Tensor, **arguments: Any) -> Tensor:
        return scale * (msssim if x.dtype == dtype else reference)(x, y, **arguments)

    arguments = {"reduction": "none", "data_range": data_range, **levels}
    exact = evaluate(scaled, preds.double(), target.double(), **arguments)
    ours = evaluate(scaled, preds.to(device), target.to(device), **arguments)
    for key, value in exact.items():
        # Two roundings to half precision, the second of the product with the upstream gradient.
        assert error(ours[key], value) <= torch.finfo(dtype).eps, key


@pytest.mark.parametrize(("sides", "betas"), [((47, 52), (0.4, 0.6)), ((14, 17, 15), (0.4, 0.6))], ids=str)
def test_gradient_of_one_image_only(device: str, sides: tuple[int, ...], betas: tuple[float, ...]) -> None:
    preds, target = (image.to(device) for image in noisy_waves(2, 2, *sides))
    arguments = {"data_range": 1.0, "betas": betas}
    both = evaluate(msssim, preds, target, **arguments)
    for name, position in (("grad_preds", 0), ("grad_target", 1)):
        images = [preds.clone(), target.clone()]
        images[position].requires_grad_()
        msssim(*images, **arguments).backward(upstream(torch.zeros((), device=device)))
        torch.testing.assert_close(images[position].grad.cpu(), both[name], rtol=1e-9, atol=1e-12)
        assert images[1 - position].grad is None


@pytest.mark.parametrize(
    ("sides", "betas"), [((48, 51), (0.3, 0.3, 0.4)), ((25, 48, 45), (0.3, 0.3, 0.4))], ids=["image", "volume"]
)
def test_identical_images_score_exactly_one_without_gradient(
    device: str, sides: tuple[int, ...], betas: tuple[float, ...]
) -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        image = waves(2, 3, *sides).to(device, dtype).requires_grad_()
        score = msssim(image, image.detach().clone(), data_range=1.0, betas=betas, reduction="none")
        assert (score == 1).all()
        (gradient,) = torch.autograd.grad(score.sum(), image)
        assert (gradient == 0).all()


@pytest.mark.parametrize("betas", [(0.5, 0.5), (0.0448, 1.0), (0.0, 1.0), (2.0, 0.3)], ids=str)
@pytest.mark.parametrize("data_range", [1.0, None], ids=["fused", "by_levels"])
@pytest.mark.parametrize("sides", [(48, 50), (13, 12, 15)], ids=["image", "volume"])
def test_clamped_levels_give_zero_never_nan(
    device: str, sides: tuple[int, ...], betas: tuple[float, ...], data_range: float | None
) -> None:
    window = {} if len(sides) == 2 else {"sigma": 0.5, "kernel_size": 5}
    target = (waves(2, 1, *sides) + 0.2 * normal(2, 1, *sides)).to(device)
    preds = torch.cat([1 - target[:1], target[1:] + 0.1]).requires_grad_()  # the first image is anticorrelated
    score = msssim(preds, target, data_range=data_range, betas=betas, reduction="none", **window)
    (gradient,) = torch.autograd.grad(score.sum(), preds, create_graph=True)
    assert gradient.isfinite().all()
    expected = reference(preds, target, data_range=data_range, betas=betas, reduction="none", **window)
    torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-12)
    assert score[0] == 0
    if data_range:  # otherwise the second image's score has a gradient at the first's extreme pixels, through the range
        assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).any()
    if gradient.requires_grad:
        assert torch.autograd.grad(gradient.square().sum(), preds)[0].isfinite().all()


def test_a_negative_mean_without_normalization_is_nan_as_in_the_reference(device: str) -> None:
    target = (waves(1, 1, 48, 50) + 0.2 * normal(1, 1, 48, 50)).to(device)
    for function in (msssim, reference):
        assert function(1 - target, target, data_range=1.0, betas=(0.5, 0.5), normalize=None).isnan()


@pytest.mark.parametrize("arguments", [{}, {"data_range": 1.0}, {"data_range": 1.0, "normalize": "simple"}], ids=str)
@pytest.mark.parametrize(
    ("sides", "window"), [((49, 53), {}), ((7, 9, 10), {"sigma": 0.5, "kernel_size": 5})], ids=["image", "volume"]
)
def test_double_backward(
    device: str, sides: tuple[int, ...], window: dict[str, Any], arguments: dict[str, Any]
) -> None:
    preds, target = noisy_waves(2, 1, *sides)
    results = []
    for function, where in ((msssim, device), (reference, "cpu")):
        inputs = [image.to(where).requires_grad_() for image in (preds, target)]
        score = function(*inputs, betas=(0.4, 0.6), **window, **arguments)
        gradients = torch.autograd.grad(score, inputs, create_graph=True)
        penalty = sum(gradient.square().sum() for gradient in gradients)
        results.append([gradient.cpu() for gradient in torch.autograd.grad(penalty, inputs)])
    for ours, exact in zip(*results, strict=True):
        assert error(ours, exact) <= 1e-10


@pytest.mark.parametrize("arguments", [{"data_range": 1.0}, {"data_range": 1.0, "normalize": "simple"}, {}], ids=str)
@pytest.mark.parametrize(("sides", "sigma"), [((9, 11), 0.5), ((4, 5, 4), 0.4)], ids=str)
def test_gradcheck(device: str, sides: tuple[int, ...], sigma: float, arguments: dict[str, Any]) -> None:
    inputs = [image.to(device).requires_grad_() for image in noisy_waves(2, 1, *sides)]

    def function(x: Tensor, y: Tensor) -> Tensor:
        return msssim(x, y, sigma=sigma, kernel_size=3, betas=(0.3, 0.7), reduction="none", **arguments)

    assert torch.autograd.gradcheck(function, inputs)


@settings(max_examples=effort(25))
@given(
    sides=st.one_of(
        st.tuples(st.integers(21, 70), st.integers(21, 70)),
        st.tuples(st.integers(13, 20), st.integers(13, 17), st.integers(13, 20)),
    ),
    channels=st.integers(1, 3),
    sigma=st.sampled_from([0.5, 0.8, 1.5]),
    last_sigma=st.sampled_from([0.5, 0.8, 1.2]),
    levels=st.integers(1, 2),
    normalize=st.sampled_from(["relu", "simple"]),
    data_range=st.sampled_from([1.0, None, (0.2, 0.9)]),
)
def test_any_shape(sides, channels, sigma, last_sigma, levels, normalize, data_range) -> None:
    preds, target = noisy_waves(2, channels, *sides)
    sigmas = (sigma, last_sigma) if len(sides) == 2 else (0.5, min(sigma, 0.8), last_sigma)
    arguments = {"sigma": sigmas, "betas": (0.6, 0.4)[:levels], "normalize": normalize, "data_range": data_range}
    arguments["reduction"] = "none"
    ours = evaluate(msssim, preds, target, **arguments)
    # If all but a corner of a window is clamped, the reference may round a variance of 1e-11 to below zero, and then
    # its gradient is zero.
    tolerance = 1e-8 if isinstance(data_range, tuple) else 1e-10
    for key, value in evaluate(reference, preds, target, **arguments).items():
        assert error(ours[key], value) <= tolerance, key


@pytest.mark.parametrize(
    ("sides", "levels"), [((181, 186), {}), ((14, 15, 17), {"betas": (0.4, 0.6)})], ids=["image", "volume"]
)
def test_a_device_without_a_kernel_uses_the_composite(
    monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...], levels: dict[str, Any]
) -> None:
    preds, target = noisy_waves(1, 2, *sides)
    fused = evaluate(msssim, preds, target, data_range=1.0, **levels)
    without_kernels(monkeypatch, "cpu")
    with pytest.warns(UserWarning, match="no kernel") as warned:
        plain = evaluate(msssim, preds, target, data_range=1.0, **levels)
    assert Path(warned[0].filename).parent == Path(__file__).parent  # the caller's line, not the package's
    for key, value in plain.items():
        assert error(fused[key], value) <= 1e-10, key


# A mistake, and a part of our message about it.
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
    # For volumes of 12 slices.
    "volume_too_small_for_levels": ({"betas": (0.1,) * 7, "kernel_size": 1}, "its height 60 must be at least 128"),
    "volume_too_small_for_window": ({}, "its height 60 must be at least 176"),
    "volume_width": (
        {"betas": (0.2, 0.3, 0.5), "sigma": 0.5, "kernel_size": (3, 17, 3)},
        "its width 64 must be at least 68",
    ),
    "volume_padding": (
        {"sigma": (1.5, 0.3, 0.3), "betas": (0.2, 0.3, 0.5), "kernel_size": 3},
        "its depth 3 at level 2 of the pyramid is too small",
    ),
    "volume_gaussian": (
        {"betas": (0.4, 0.6), "sigma": (0.5, 0.5, 5.0), "kernel_size": 1},
        "its width 32 at level 1 of the pyramid, padded at both ends by 0 as `kernel_size` says, is smaller than "
        "the Gaussian of 37 taps",
    ),
    "volume_betas": ({"betas": [0.5, 0.5]}, "`betas` is [0.5, 0.5]"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_what_the_reference_raises(device: str, name: str) -> None:
    arguments, message = MISTAKES[name]
    sides = (12, 60, 64) if name.startswith("volume") else (60, 64)
    images = [torch.rand(1, 1, *sides, device=device) for _ in range(2)]
    with pytest.raises(Exception) as expected:  # noqa: PT011 - the reference's exception is the expectation
        reference(*images, data_range=1.0, **arguments)
    with pytest.raises(type(expected.value)) as raised:
        msssim(*images, data_range=1.0, **arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize("sides", [(23, 30), (9, 14, 11)], ids=str)
@pytest.mark.parametrize("normalize", ["none", "relu", "simple"])
def test_the_operator_is_the_composite(device: str, sides: tuple[int, ...], normalize: str) -> None:
    """Values and the gradients of images and constants, also for sides that do not halve evenly and for one image."""
    window = Window((0.5,), (3,), None, "reflect")
    betas = (0.3, 0.3, 0.4) if len(sides) == 2 else (0.4, 0.6)
    images = [image.to(device) for image in noisy_waves(2, 3, *sides)]
    constants = torch.tensor([[1e-4, 9e-4], [2e-4, 5e-4]], dtype=torch.float64, device=device)
    for reduction in (0, 1):
        for wanted in ((True, True, True), (False, True, False), (True, False, False)):
            inputs = [t.clone().requires_grad_(want) for t, want in zip((*images, constants), wanted, strict=True)]
            results = []
            for use in (lambda s, *t: s.composite(*t)[0], lambda s, *t: evaluate_score(s, *t)[0]):
                value = use(Spec(window, reduction, betas=betas, normalize=normalize), *inputs)
                asked = [t for t in inputs if t.requires_grad]
                results.append((value, *torch.autograd.grad(value, asked, torch.full_like(value, 1.5))))
            for ours, theirs in zip(*results, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"betas": ()}, "betas has 0 elements"),
        ({"normalize": "max"}, "normalize is 'max'"),
        ({"betas": (0.1,) * 7}, "too small for"),
    ],
)
def test_operators_check_their_arguments(arguments: dict[str, Any], message: str) -> None:
    images = [image.float() for image in noisy_waves(1, 1, 23, 30)]
    given = {"betas": (0.5, 0.5), "normalize": "relu"} | arguments
    with pytest.raises(RuntimeError) as raised:
        _ops.multiscale(*images, sigma=[], kernel_size=[1], want_grad_preds=True, **given)
    assert message in str(raised.value)


def test_float16_stores_all_gradients_at_one_scale() -> None:
    # Of the two levels, only the finest stores its own gradient in float16.
    images = [image.half() for image in noisy_waves(2, 1, 50, 52)]
    wanted = {"betas": [0.4, 0.6], "distance": True, "want_grad_preds": True, "want_grad_constants": True}
    stored = [
        _ops.multiscale(*(image.to(dtype) for image in images), **wanted) for dtype in (torch.float16, torch.float32)
    ]
    scale = stored[0][1].double().norm() / stored[1][1].double().norm()
    assert scale > 2
    torch.testing.assert_close(stored[0][2], scale.float() * stored[1][2], rtol=1e-3, atol=0)


def test_float16_without_constants_keeps_its_gradient(device: str) -> None:
    # c1 = 0 leaves the gradient without the bound from which its float16 scale is chosen.
    preds, target = (image.half() for image in noisy_waves(1, 1, 50, 52))
    arguments = {"data_range": 1.0, "k1": 0.0, "betas": (0.5, 0.5)}
    ours = evaluate(msssim, preds.to(device), target.to(device), **arguments)
    exact = evaluate(reference, preds.double(), target.double(), **arguments)
    for key, value in exact.items():
        assert error(ours[key], value) <= 2 * torch.finfo(torch.float16).eps, key
