"""The losses against float64 composites: values and gradients, in every mode of PyTorch's differentiation."""

from __future__ import annotations

import copy
import doctest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as reference_msssim,
)
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import losses
from ssim_fused.losses import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss

SIZES = {"image": (2, 3, 37, 41), "wide": (2, 1, 33, 700), "volume": (2, 2, 13, 17, 19)}
PAIR = torch.rand(2, 1, 20, 20), torch.rand(2, 1, 20, 20)
PHI: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": torch.abs,
    "l2": torch.square,
    "charbonnier": lambda d: (d**2 + 1e-6).sqrt(),
}


def images(shape: tuple[int, ...], device: str = "cpu", dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    preds = (target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    preds.flatten()[:5] = target.flatten()[:5]  # where |d| has no derivative
    return preds.to(device, dtype), target.to(device, dtype)


def small(**arguments: Any) -> dict[str, Any]:
    """A window that fits in small volumes."""
    return {"sigma": 0.8, "kernel_size": 7} | arguments


def expected(
    preds: Tensor, target: Tensor, pixel: str = "", w: float = 1.0, betas: tuple = (), **window: Any
) -> Tensor:
    """Each image's loss by the reference in float64."""
    arguments = {"data_range": 1.0, "reduction": "none"} | window
    distance = 1 - (
        reference_msssim(preds, target, betas=betas, **arguments) if betas else reference(preds, target, **arguments)
    )
    if not pixel:
        return distance
    return (1 - w) * PHI[pixel](preds - target).flatten(1).mean(1) + w * distance


def gradients(loss: Callable[[Tensor, Tensor], Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    return (value.detach(), *torch.autograd.grad(value.sum(), leaves))


def check_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], tolerance: float) -> None:
    for ours_of, theirs_of in zip(ours, theirs, strict=True):
        error = (ours_of.double().cpu() - theirs_of.double().cpu()).abs().max()
        assert error <= tolerance * theirs_of.double().abs().max(), error


# float32: as TOLERANCE of test_simt.py, a few dozen roundings at 6e-8.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 4e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("pixel", PHI)
@pytest.mark.parametrize("kind", SIZES)
def test_both_terms_in_one_pass_are_those_of_float64(device: str, kind: str, pixel: str, reduction: str) -> None:
    preds, target = images(SIZES[kind], device)
    loss = PixelSSIMLoss(pixel, 0.3, reduction=reduction, **small())
    each = gradients(lambda x, y: expected(x, y, pixel, 0.3, **small()), preds, target)
    scale = 1 / len(preds) if reduction == "mean" else 1.0
    value = each[0] if reduction == "none" else each[0].sum().reshape(()) * scale
    check_same(gradients(loss, preds, target), (value, each[1] * scale, each[2] * scale), 1e-10)
    terms = loss.terms
    assert not terms.pixel.requires_grad
    check_same((0.7 * terms.pixel + 0.3 * terms.ssim,), (value,), 1e-12)
    check_same((loss(preds, target),), (value,), 1e-12)  # a value without gradient takes another path


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("pixel", PHI)
@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("wanted", ["preds", "target", "both"])
def test_dtypes_and_requested_gradients(
    device: str, dtype: torch.dtype, pixel: str, multiscale: bool, wanted: str
) -> None:
    preds, target = images((2, 3, 49, 54), device, dtype)
    betas = (0.4, 0.6) if multiscale else ()
    loss = PixelSSIMLoss(pixel, 0.4, multiscale=multiscale, betas=(0.4, 0.6))
    exact = gradients(
        lambda x, y: expected(x, y, pixel, 0.4, betas).mean(), preds.cpu().double(), target.cpu().double()
    )
    value = loss(preds.requires_grad_(wanted != "target"), target.requires_grad_(wanted != "preds"))
    value.backward()
    assert value.dtype == dtype
    found = (value.detach(), preds.grad, target.grad)
    tolerance = 1e-9 if multiscale and dtype == torch.float64 else TOLERANCE[dtype]  # the reference's own rounding
    for ours, theirs in zip(found, exact, strict=True):
        if ours is not None:
            check_same((ours,), (theirs,), tolerance)
    assert (preds.grad is None) == (wanted == "target")


@pytest.mark.parametrize("kind", ["image", "volume"])
@pytest.mark.parametrize("pixel", ["", *PHI])
def test_multiscale(device: str, kind: str, pixel: str) -> None:
    preds, target = images({"image": (2, 3, 50, 53), "volume": (1, 2, 26, 29, 28)}[kind], device)
    betas, window = (0.4, 0.6), small()
    loss = (
        PixelSSIMLoss(pixel, 0.3, multiscale=True, betas=betas, **window)
        if pixel
        else MultiScaleSSIMLoss(betas, **window)
    )
    exact = gradients(lambda x, y: expected(x, y, pixel, 0.3, betas, **window).mean(), preds, target)
    check_same(gradients(loss, preds, target), exact, 1e-9)


@pytest.mark.parametrize("data_range", [None, (0.1, 0.9), torch.tensor(2.0)], ids=str)
@pytest.mark.parametrize("multiscale", [False, True])
def test_ranges_that_depend_on_the_images(device: str, data_range: Any, multiscale: bool) -> None:
    preds, target = images((2, 3, 50, 53), device)
    loss = PixelSSIMLoss("l2", 0.3, multiscale=multiscale, betas=(0.4, 0.6), data_range=data_range)
    betas = (0.4, 0.6) if multiscale else ()

    def exact(x: Tensor, y: Tensor) -> Tensor:
        number = data_range.item() if isinstance(data_range, Tensor) else data_range
        distance = expected(x, y, betas=betas, data_range=number)
        clamped = [image.clamp(*number) for image in (x, y)] if isinstance(number, tuple) else [x, y]
        return (0.7 * (clamped[0] - clamped[1]).square().flatten(1).mean(1) + 0.3 * distance).mean()

    if data_range is None:  # the reference's range has no gradient
        with torch.no_grad():
            check_same((loss(preds, target),), (exact(preds, target),), 1e-10)
    else:
        check_same(gradients(loss, preds, target), gradients(exact, preds, target), 1e-9)


@pytest.mark.parametrize("reduction", ["mean", "elementwise_mean", "sum", "none", None])
@pytest.mark.parametrize("make", [SSIMLoss, L1SSIMLoss, lambda **a: MultiScaleSSIMLoss((0.4, 0.6), **a)])
def test_weights_of_images(device: str, make: Callable[..., Any], reduction: str | None) -> None:
    preds, target = images((3, 1, 48, 50), device)
    weight = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64, device=device)
    each = gradients(make(reduction="none"), preds, target)
    loss = make(reduction=reduction)
    value, by_preds, by_target = gradients(lambda x, y: loss(x, y, weight), preds, target)
    scale = 1 / 3 if "mean" in str(reduction) else 1.0
    weighed = each[0] * weight
    expected_value = weighed if reduction in ("none", None) else weighed.sum() * scale
    shaped = (weight * scale).view(3, 1, 1, 1)
    check_same((value, by_preds, by_target), (expected_value, each[1] * shaped, each[2] * shaped), 1e-12)
    if isinstance(loss, PixelSSIMLoss):
        check_same((0.8 * loss.terms.pixel + 0.2 * loss.terms.ssim,), (value,), 1e-12)


@pytest.mark.parametrize("mode", ["window", "map"])
@pytest.mark.parametrize("kind", ["image", "multiscale", "volume"])
@pytest.mark.parametrize("pixel", PHI)
def test_masks_weigh_both_terms(device: str, pixel: str, kind: str, mode: Any) -> None:
    preds, target = images({"volume": SIZES["volume"]}.get(kind, (2, 3, 50, 53)), device)
    generator = torch.Generator().manual_seed(7)
    mask = (2 * torch.rand(2, 1, *preds.shape[2:], generator=generator) - 0.7).clamp(0, 1).double().to(device)
    if mode == "window":
        preds = torch.where(mask > 0, preds, torch.nan)  # must not affect any result
    arguments = {"betas": (0.4, 0.6)} if kind == "multiscale" else {}
    ssim = MultiScaleSSIMLoss(**arguments, **small()) if arguments else SSIMLoss(**small())
    loss = PixelSSIMLoss(pixel, 0.3, multiscale=bool(arguments), **arguments, **small())

    def apart(x: Tensor, y: Tensor) -> Tensor:
        phi = torch.where(mask > 0, PHI[pixel](torch.where(mask > 0, x - y, 0.0)) * mask, 0.0)
        means = phi.flatten(1).sum(1) / (mask.flatten(1).sum(1) * x.shape[1])
        return 0.7 * means.mean() + 0.3 * ssim(x, y, mask=mask, mask_mode=mode)

    ours = gradients(lambda x, y: loss(x, y, mask=mask, mask_mode=mode), preds, target)
    check_same(ours, gradients(apart, preds, target), 1e-10)
    assert ours[1].isfinite().all()
    check_same((0.7 * loss.terms.pixel + 0.3 * loss.terms.ssim,), ours[:1], 1e-12)


@pytest.mark.parametrize("padding", ["reflect", "zero", "valid"])
def test_padding_changes_ssim_but_not_the_pixel_term(device: str, padding: str) -> None:
    preds, target = images((2, 3, 30, 31), device)
    loss = L1SSIMLoss(padding=padding)
    value = loss(preds, target)
    check_same((loss.terms.pixel,), ((preds - target).abs().mean(),), 1e-12)
    check_same((loss.terms.ssim,), (SSIMLoss(padding=padding)(preds, target),), 1e-12)
    check_same((value,), (0.8 * loss.terms.pixel + 0.2 * loss.terms.ssim,), 1e-12)


def test_a_small_distance_has_digits() -> None:
    target = images((1, 1, 40, 40))[1].float()
    preds = target + 1e-5 * (target - 0.5)
    value = SSIMLoss()(preds, target)
    exact = expected(preds.double(), target.double())
    assert 0 < exact.item() < 1e-8
    check_same((value,), (exact.mean(),), 1e-3)  # 1 - SSIM in float32 would have no correct digit


@pytest.mark.parametrize("count", [1, 3])
def test_no_result_depends_on_the_number_of_threads(count: int) -> None:
    # Enough rows for several tasks.
    preds, target = images((1, 1, 300, 400), dtype=torch.float32)
    once = gradients(L1SSIMLoss(), preds, target)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        again = gradients(L1SSIMLoss(), preds, target)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("multiscale", [False, True])
def test_nothing_is_allocated_for_the_pixel_term(multiscale: bool) -> None:
    preds, target = images((1, 3, 200, 220), dtype=torch.float32)
    preds.requires_grad_()
    arguments: dict[str, Any] = {"betas": (0.4, 0.6)} if multiscale else {}
    plain = MultiScaleSSIMLoss(**arguments) if multiscale else SSIMLoss()
    peaks = []
    for loss in (plain, PixelSSIMLoss(multiscale=multiscale, **arguments)):
        with torch.profiler.profile(profile_memory=True) as profile:
            loss(preds, target)
        peaks.append(sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages()))
    assert peaks[0] >= 4 * preds.numel()  # the gradient
    assert peaks[1] - peaks[0] <= 1024  # the terms per image


def test_layouts(device: str) -> None:
    preds, target = images((2, 3, 37, 41), device, torch.float32)
    plain = gradients(L1SSIMLoss(), preds, target)
    last = gradients(
        L1SSIMLoss(), preds.to(memory_format=torch.channels_last), target.flip(3).flip(3).mT.contiguous().mT
    )
    check_same(last, plain, 1e-6)


def test_nan_propagates(device: str) -> None:
    preds, target = images((2, 1, 30, 31), device, torch.float32)
    preds[0, 0, 3, 4] = float("nan")
    value = L1SSIMLoss(reduction="none")(preds, target)
    assert value[0].isnan()
    assert value[1].isfinite()


def test_an_empty_batch(device: str) -> None:
    empty = torch.empty(0, 3, 30, 31, device=device)
    assert L1SSIMLoss()(empty, empty).isnan()
    assert L1SSIMLoss(reduction="sum")(empty, empty) == 0


def test_identical_images_have_no_gradient(device: str) -> None:
    target = images((1, 3, 30, 31), device, torch.float32)[1]
    value, by_preds, by_target = gradients(L1SSIMLoss(), target, target)
    assert value == 0
    assert not by_preds.any()
    assert not by_target.any()


@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("pixel", ["l2", "charbonnier"])
def test_second_derivatives(pixel: str, multiscale: bool) -> None:
    preds, target = (image.requires_grad_() for image in images((1, 1, 8, 9)))
    loss = PixelSSIMLoss(pixel, 0.4, multiscale=multiscale, betas=(0.4, 0.6), sigma=0.4, kernel_size=3, eps=0.1)
    assert torch.autograd.gradcheck(loss, (preds, target))
    assert torch.autograd.gradgradcheck(loss, (preds, target))


def test_transforms() -> None:
    preds, target = images((3, 2, 1, 20, 21))
    loss = L1SSIMLoss()
    found = torch.func.vmap(torch.func.grad(loss))(preds, target)
    each = torch.stack([gradients(loss, x, y)[1] for x, y in zip(preds, target, strict=True)])
    check_same((found,), (each,), 1e-12)
    torch.func.vmap(loss)(preds, target)
    with pytest.raises(RuntimeError, match="`terms` are those of the last call"):
        _ = loss.terms


@pytest.mark.parametrize("make", [SSIMLoss, L1SSIMLoss, lambda: PixelSSIMLoss(multiscale=True, betas=(0.4, 0.6))])
def test_compiles_as_one_graph(make: Callable[..., Any]) -> None:
    preds, target = images((2, 3, 48, 50), dtype=torch.float32)
    loss = make()
    plain = gradients(loss, preds, target)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    check_same(gradients(compiled, preds, target), plain, 1e-6)
    if isinstance(loss, PixelSSIMLoss):
        terms = loss.terms
        check_same((0.8 * terms.pixel + 0.2 * terms.ssim,), plain[:1], 1e-6)


def test_autocast_gives_float32(device: str) -> None:
    preds, target = images((2, 3, 30, 31), device, torch.bfloat16)
    with torch.autocast(device, dtype=torch.bfloat16):
        value = L1SSIMLoss()(preds, target)
    assert value.dtype == torch.float32
    check_same((value,), (expected(preds.double(), target.double(), "l1", 0.2).mean(),), 1e-5)


def test_float16_of_ranges_in_which_the_slopes_would_not_fit(device: str) -> None:
    # For pixels up to 4000, the derivatives of d^2 reach 8000. Times SSIM's scale, that exceeds 65504.
    preds, target = (4000 * image for image in images((1, 1, 30, 31), device))
    preds, target = preds.half(), target.half()
    exact = gradients(
        lambda x, y: expected(x, y, "l2", 0.2, data_range=4000.0).mean(), preds.double().cpu(), target.double().cpu()
    )
    found = gradients(PixelSSIMLoss("l2", data_range=4000.0, reduction="none"), preds, target)
    check_same(found[1:], exact[1:], TOLERANCE[torch.float16])


def test_modules_copy_and_show_themselves() -> None:
    loss = PixelSSIMLoss("charbonnier", 0.5, eps=1e-2, multiscale=True, betas=(0.4, 0.6))
    loss(*images((1, 1, 48, 50)))
    assert repr(copy.deepcopy(loss)) == (
        "PixelSSIMLoss(pixel='charbonnier', ssim_weight=0.5, eps=0.01, multiscale=True, betas=(0.4, 0.6), "
        "normalize='relu', data_range=1.0, sigma=1.5, padding='reflect', reduction='mean')"
    )
    assert repr(SSIMLoss(gaussian_kernel=False, kernel_size=7)) == (
        "SSIMLoss(data_range=1.0, gaussian_kernel=False, kernel_size=7, padding='reflect', reduction='mean')"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SSIMLoss(reduction="average"), ValueError, "`reduction` is 'average'"),
        (lambda: SSIMLoss(padding="same"), ValueError, "`padding` is 'same'"),
        (lambda: SSIMLoss(sigma=-1.0), ValueError, "`sigma` is -1.0"),
        (lambda: SSIMLoss(kernel_size=8), ValueError, "`kernel_size` is 8"),
        (lambda: SSIMLoss(data_range="1"), TypeError, "`data_range` is '1'"),
        (lambda: SSIMLoss(data_range=(1.0, 0.0)), ValueError, "`data_range` is (1.0, 0.0)"),
        (lambda: PixelSSIMLoss("tukey"), ValueError, "`pixel` is 'tukey'"),
        (lambda: PixelSSIMLoss(ssim_weight=2), ValueError, "`ssim_weight` is 2"),
        (lambda: PixelSSIMLoss("charbonnier", eps=0), ValueError, "`eps` is 0"),
        (lambda: MultiScaleSSIMLoss(betas=[0.5]), ValueError, "`betas` is [0.5]"),
        (lambda: SSIMLoss()(torch.rand(1, 1, 20, 20), torch.rand(1, 1, 20, 21)), RuntimeError, "the same shape"),
        (lambda: SSIMLoss()(*PAIR, weight=torch.ones(3)), ValueError, "`weight` has the shape (3,)"),
        (lambda: SSIMLoss()(*PAIR, weight=2.0), TypeError, "`weight` is 2.0"),
        (lambda: MultiScaleSSIMLoss()(*PAIR), ValueError, "Use fewer `betas`"),
        (lambda: L1SSIMLoss().terms, RuntimeError, "call the loss first"),
    ],
)  # fmt: skip
def test_faults_name_argument_value_and_fix(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        make()
    assert message in str(raised.value)


def test_examples_run() -> None:
    guide = Path(__file__).parent.parent / "docs" / "losses.md"
    for results in (doctest.testmod(losses), doctest.testfile(str(guide), module_relative=False)):
        assert results.attempted > 0
        assert results.failed == 0
