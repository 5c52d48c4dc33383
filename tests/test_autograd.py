"""Differentiation: first and second derivatives of every output, and the rules of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import CALLS, FLOAT64_TOLERANCE, as_tuple, error, reference, ssim, upstream
from torch import Tensor
from torch.autograd import forward_ad

# Radii 2 and 1, so that these small images have inner pixels and few pixels for gradcheck. One case has a map that is
# two voxels wider than its volume.
SMALL: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "image": ((6, 7), {"sigma": 0.6}),
    "volume": ((4, 3, 5), {"sigma": 0.4, "kernel_size": 5}),
}
RANGES: dict[str, Any] = {"number": 1.0, "none": None, "clamped": (0.1, 0.9)}
WANTED = {"preds": (True, False), "target": (False, True), "both": (True, True)}


def pictures(
    *shape: int, wanted: str = "both", device: str = "cpu", dtype: torch.dtype = torch.float64, seed: int = 2
) -> tuple[Tensor, Tensor]:
    """Random images. Those named in `wanted` require gradients."""
    generator = torch.Generator().manual_seed(seed)
    preds, target = (torch.rand(shape, generator=generator, dtype=torch.float64).to(device, dtype) for _ in range(2))
    for image, wants in zip((preds, target), WANTED[wanted], strict=True):
        image.requires_grad_(wants)
    return preds, target


def requiring(*images: Tensor) -> list[Tensor]:
    return [image for image in images if image.requires_grad]


# gradcheck compares with central differences of step 1e-6. Their truncation error is 1e-10 and their rounding error
# 1e-16 / 1e-6, both times the curvature that small constants cause. The default tolerances (1e-5, 1e-3) cover that.
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", [*CALLS, "elementwise_mean"])
@pytest.mark.parametrize("small", SMALL)
def test_gradcheck(device: str, small: str, call: str, data_range: str, wanted: str) -> None:
    sides, window = SMALL[small]
    images = pictures(2, 1, *sides, wanted=wanted, device=device)
    arguments = {**window, "data_range": RANGES[data_range], **CALLS.get(call, {"reduction": call})}
    # For volumes, check a random projection of the derivatives: their map has too many for all.
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, **arguments), images, fast_mode=len(sides) == 3)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sides", [(4, 5), (4, 3, 5)], ids=str)
def test_gradgradcheck(device: str, sides: tuple[int, ...], call: str, wanted: str) -> None:
    images = pictures(1, 1, *sides, wanted=wanted, device=device)
    # The default constants curve the score so much that differences of step 1e-6 include third derivatives.
    arguments = {"sigma": 0.4, "kernel_size": 3, "data_range": 1.0, "k1": 0.1, "k2": 0.3, **CALLS[call]}
    # On CUDA, PyTorch sums the gradient of reflection padding (in the composite) in an order that changes between runs.
    nondet_tol = 1e-12 if device == "cuda" else 0.0
    assert torch.autograd.gradgradcheck(
        lambda x, y: ssim(x, y, **arguments), images, fast_mode=len(sides) == 3, nondet_tol=nondet_tol
    )


def second_derivatives(function: Callable[..., Any], preds: Tensor, target: Tensor, **arguments: Any) -> list[Tensor]:
    """First gradients, then those of a penalty on them, under upstream gradients that require gradients too."""
    outputs = as_tuple(function(preds, target, **arguments))
    weights = [upstream(output, seed).requires_grad_() for seed, output in enumerate(outputs)]
    images = requiring(preds, target)
    first = torch.autograd.grad(outputs, images, weights, create_graph=True)
    penalty = sum(((gradient**2).sum() for gradient in first), torch.zeros((), device=preds.device))
    second = torch.autograd.grad(penalty, [preds, target, *weights], allow_unused=True)
    return [*first, *(torch.zeros(()) if gradient is None else gradient for gradient in second)]


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", CALLS)
def test_gradient_penalty(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, data_range: str, wanted: str
) -> None:
    preds, target = pictures(2, 1, *sides, device=device)
    arguments = {"data_range": RANGES[data_range], **window, **CALLS[call]}
    if wanted != "both":  # detach the other image, so that the penalty is on one gradient only
        preds, target = pictures(2, 1, *sides, wanted=wanted, device=device)

        def cut(function: Callable[..., Any]) -> list[Tensor]:
            outputs = as_tuple(function(preds, target, **arguments))
            (image,) = requiring(preds, target)
            weights = [upstream(output, seed) for seed, output in enumerate(outputs)]
            (first,) = torch.autograd.grad(outputs, image, weights, create_graph=True)
            return [first, *torch.autograd.grad((first**2).sum(), image)]

        ours, exact = cut(ssim), cut(reference)
    else:
        ours, exact = (second_derivatives(function, preds, target, **arguments) for function in (ssim, reference))
    for mine, theirs in zip(ours, exact, strict=True):
        assert error(mine.detach(), theirs.detach()) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("call", CALLS)
def test_gradient_that_can_be_differentiated_is_the_same_gradient(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device)
    outputs = as_tuple(ssim(preds, target, data_range=None, **window, **CALLS[call]))
    weights = [upstream(output) for output in outputs]
    plain = torch.autograd.grad(outputs, (preds, target), weights, retain_graph=True)
    differentiable = torch.autograd.grad(outputs, (preds, target), weights, create_graph=True)
    for one, other in zip(plain, differentiable, strict=True):
        assert not one.requires_grad
        assert other.requires_grad
        assert error(one, other.detach()) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", CALLS)
def test_only_requested_gradients(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, data_range: str, wanted: str
) -> None:
    results = []
    for function in (ssim, reference):
        preds, target = pictures(2, 2, *sides, wanted=wanted, device=device)
        outputs = as_tuple(function(preds, target, data_range=RANGES[data_range], **window, **CALLS[call]))
        torch.autograd.backward(outputs, [upstream(output) for output in outputs])
        results.append((preds.grad, target.grad))
    for ours, theirs in zip(*results, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert error(ours, theirs) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)], ids=str)
@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", ["map", "contrast"])
def test_any_subset_of_outputs(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, data_range: str, used: tuple[int, ...]
) -> None:
    results = []
    for function in (ssim, reference):
        preds, target = pictures(2, 2, *sides, device=device)
        outputs = function(preds, target, data_range=RANGES[data_range], **window, **CALLS[call])
        chosen = [outputs[i] for i in used]
        results.append(torch.autograd.grad(chosen, (preds, target), [upstream(output) for output in chosen]))
    for ours, theirs in zip(*results, strict=True):
        assert error(ours, theirs) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("call", CALLS)
def test_outputs_require_grad_if_an_input_does(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, wanted: str
) -> None:
    preds, target = pictures(1, 1, *sides, wanted=wanted, device=device)
    assert all(output.requires_grad for output in as_tuple(ssim(preds, target, **window, **CALLS[call])))
    preds, target = preds.detach(), target.detach()
    assert not any(output.requires_grad for output in as_tuple(ssim(preds, target, **window, **CALLS[call])))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(
    device: str, sides: tuple[int, ...], window: dict[str, Any], mode: Callable[[], Any], call: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device)
    expected = as_tuple(ssim(preds, target, **window, **CALLS[call]))
    with mode():
        outputs = as_tuple(ssim(preds, target, **window, **CALLS[call]))
    for output, same in zip(outputs, expected, strict=True):
        assert not output.requires_grad
        # With a gradient, the kernel may sum in another order than without.
        assert error(output.clone(), same.detach()) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("call", CALLS)
def test_a_second_backward_needs_the_graph_retained(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device)
    outputs = as_tuple(ssim(preds, target, **window, **CALLS[call]))
    total = sum(output.sum() for output in outputs)
    total.backward(retain_graph=True)
    once = preds.grad.clone(), target.grad.clone()
    total.backward()
    assert torch.equal(preds.grad, 2 * once[0])
    assert torch.equal(target.grad, 2 * once[1])
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", [*CALLS, "elementwise_mean", "sum"])
def test_callers_may_write_to_the_gradient(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, data_range: str
) -> None:
    # The gradient that the caller receives, and may write to, must not be what forward saved for backward.
    preds, target = pictures(1, 1, *sides, device=device)
    arguments = {"data_range": RANGES[data_range], **window, **CALLS.get(call, {"reduction": call})}
    outputs = as_tuple(ssim(preds, target, **arguments))
    ones = [torch.ones_like(output) for output in outputs]
    handed = torch.autograd.grad(outputs, (preds, target), ones, retain_graph=True)
    kept = [gradient.clone() for gradient in handed]
    for gradient in handed:
        gradient.zero_()
    for again, before in zip(torch.autograd.grad(outputs, (preds, target), ones), kept, strict=True):
        assert torch.equal(again, before)


@pytest.mark.parametrize("data_range", RANGES)
@pytest.mark.parametrize("call", CALLS)
def test_inputs_overwritten_before_backward(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str, data_range: str
) -> None:
    """Autograd either reports the change or does not need the inputs. It never returns a wrong gradient."""
    arguments = {"data_range": RANGES[data_range], **window, **CALLS[call]}
    preds, target = pictures(2, 2, *sides, device=device)
    overwritten = preds.clone()
    outputs = as_tuple(ssim(overwritten, target, **arguments))
    weights = [upstream(output) for output in outputs]
    with torch.no_grad():
        overwritten.mul_(3)
    expected = torch.autograd.grad(as_tuple(ssim(preds, target, **arguments)), (preds, target), weights)
    try:
        gradients = torch.autograd.grad(outputs, (preds, target), weights)
    except RuntimeError as raised:
        assert "modified by an inplace operation" in str(raised)  # noqa: PT017 - raising is one of two correct outcomes
    else:
        assert all(map(torch.equal, gradients, expected))


def test_intermediate_images(device: str) -> None:
    results = []
    for function in (ssim, reference):
        preds, target = pictures(2, 3, 13, 12, device=device)
        middle = preds.sigmoid()
        gray = middle[:, :1].expand(2, 3, 13, 12)
        flipped = target.transpose(-1, -2)[..., ::2, :].repeat_interleave(2, -2)[..., :12, :].transpose(-1, -2)
        score = function(gray, flipped, data_range=1.0)
        results.append(torch.autograd.grad(score, (gray, middle, preds, target)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        assert error(ours, theirs) <= FLOAT64_TOLERANCE


def test_one_image_depending_on_the_other(device: str, sides: tuple[int, ...]) -> None:
    results = []
    for function in (ssim, reference):
        preds, _ = pictures(2, 2, *sides, device=device)
        score = function(preds, preds**2 + 0.1 * preds.roll(1, -1), data_range=None)
        (first,) = torch.autograd.grad(score, preds, create_graph=True)
        results.append((first, *torch.autograd.grad((first**2).sum(), preds)))
    for ours, theirs in zip(*results, strict=True):
        assert error(ours.detach(), theirs.detach()) <= FLOAT64_TOLERANCE


def test_an_image_with_itself(device: str, sides: tuple[int, ...]) -> None:
    preds, _ = pictures(2, 2, *sides, device=device)
    score = ssim(preds, preds, data_range=1.0)
    (gradient,) = torch.autograd.grad(score, preds)
    assert score == 1
    assert (gradient == 0).all()


@pytest.mark.parametrize("call", CALLS)
def test_upstream_gradient_repeated_by_strides(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str
) -> None:
    # `.sum()` passes down one number with strides of zero.
    preds, target = pictures(2, 2, *sides, device=device)
    outputs = as_tuple(ssim(preds, target, data_range=1.0, **window, **CALLS[call]))
    summed = torch.autograd.grad(sum(output.sum() for output in outputs), (preds, target), retain_graph=True)
    dense = torch.autograd.grad(outputs, (preds, target), [torch.ones_like(output) for output in outputs])
    assert all(map(torch.equal, summed, dense))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_gradients_have_their_images_dtype(
    device: str, sides: tuple[int, ...], window: dict[str, Any], dtype: torch.dtype, call: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device, dtype=dtype)
    target = target.detach().double().requires_grad_()
    outputs = as_tuple(ssim(preds, target, data_range=1.0, **window, **CALLS[call]))
    for image, gradient in zip(
        (preds, target), torch.autograd.grad(outputs, (preds, target), list(map(upstream, outputs))), strict=True
    ):
        assert (gradient.dtype, gradient.shape) == (image.dtype, image.shape)
        assert gradient.isfinite().all()
        assert (gradient != 0).any()


@pytest.mark.parametrize("call", CALLS)
def test_forward_mode_is_right_or_refused(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str
) -> None:
    preds, target = (image.detach() for image in pictures(2, 2, *sides, device=device))
    arguments = {"data_range": 1.0, **window, **CALLS[call]}

    def tangents(function: Callable[..., Any]) -> list[Tensor | None]:
        with forward_ad.dual_level():
            outputs = as_tuple(function(forward_ad.make_dual(preds, target), target, **arguments))
            return [forward_ad.unpack_dual(output).tangent for output in outputs]

    try:
        ours = tangents(ssim)
    except NotImplementedError as raised:
        assert "forward" in str(raised)  # noqa: PT017 - refusing is one of two correct outcomes
    else:
        for mine, theirs in zip(ours, tangents(reference), strict=True):
            assert mine is not None, "a tangent is lost, which means a derivative of zero"
            assert error(mine, theirs) <= FLOAT64_TOLERANCE
