"""8- and 16-bit integers go to the kernels as they are: the results are those of the same pixels in floating point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import L1SSIMLoss, SSIMLoss, ms_ssim, ssim
from ssim_fused._core import composite
from ssim_fused._core.window import Window

RANGES = {torch.uint8: 255, torch.uint16: 65535, torch.int8: 255, torch.int16: 65535}
REFUSED = [torch.int32, torch.int64, torch.bool]
SIDES = {"image": (52, 57), "volume": (18, 25, 31)}
PREDS_TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def pictures(dtype: torch.dtype, device: str, *sides: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(2, 3, *sides, generator=generator, dtype=torch.float64)
    preds = (target + 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    preds[0, 0, 0], target[0, 0, 0] = 0, 1  # the ends of the range
    least = torch.iinfo(dtype).min
    return tuple((RANGES[dtype] * image + least).round().to(dtype).to(device) for image in (preds, target))


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped", "odd"])
@pytest.mark.parametrize("window", [{}, {"sigma": 0.8}, {"sigma": 2.2}], ids=str)
@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_results_are_those_of_the_same_pixels_in_float32(
    device: str, dtype: torch.dtype, kind: str, window: dict[str, float], layout: str
) -> None:
    window = {"sigma": 0.8} if kind == "volume" and "sigma" not in window else window
    preds, target = pictures(dtype, device, *SIDES[kind])
    if layout == "channels_last":
        preds, target = (x.movedim(1, -1).contiguous().movedim(-1, 1) for x in (preds, target))
    elif layout == "cropped":
        preds, target = preds[..., 3:-2], target[..., 1:-4]
    elif layout == "odd":  # each row starts at another byte of a word
        preds, target = preds[..., :-1].contiguous(), target[..., 1:].contiguous()
    span = float(RANGES[dtype])
    for function, arguments in (
        (ssim, {"reduction": "none"}),
        (ssim, {"return_full_image": True}),
        (ssim, {"return_contrast_sensitivity": True}),
        (ms_ssim, {"betas": (0.4, 0.6), "kernel_size": 3}),
    ):
        if function is ms_ssim and kind == "volume":
            arguments = arguments | {"sigma": 0.4}
        found = as_tuple(function(preds, target, **(window | arguments)))
        plain = as_tuple(function(preds.float(), target.float(), data_range=span, **(window | arguments)))
        for ours, floats in zip(found, plain, strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, floats)


@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_an_explicit_range(device: str, dtype: torch.dtype) -> None:
    preds, target = pictures(dtype, device, 30, 31)
    exact = reference(preds.cpu().double(), target.cpu().double(), data_range=1000.0)
    assert abs(ssim(preds, target, data_range=1000.0).item() - exact.item()) < 1e-6
    plain = ssim(preds.float(), target.float(), data_range=torch.tensor(1000.0))
    assert torch.equal(ssim(preds, target, data_range=torch.tensor(1000.0)), plain)


@pytest.mark.parametrize("dtype", RANGES, ids=str)
@pytest.mark.parametrize("bounds", [(10.0, 200.0), (10, 200), (-1000.0, 1000.0), (-0.5, 90.5)], ids=str)
def test_a_tuple_clamps_as_in_float32(device: str, dtype: torch.dtype, bounds: tuple[float, float]) -> None:
    """The bounds may lie beyond the dtype's values or between them, because integers are converted before clamping."""
    preds, target = pictures(dtype, device, 52, 57)
    span = float(bounds[1] - bounds[0])
    x, y = (image.float().clamp(*bounds) for image in (preds, target))
    pyramid = {"betas": (0.4, 0.6)}
    for ours, floats in (
        (ssim(preds, target, data_range=bounds), ssim(x, y, data_range=span)),
        (SSIMLoss(data_range=bounds)(preds, target), SSIMLoss(data_range=span)(x, y)),
        (L1SSIMLoss(data_range=bounds)(preds, target), L1SSIMLoss(data_range=span)(x, y)),
        (
            ms_ssim(preds, target, data_range=bounds, **pyramid),
            ms_ssim(preds.float(), target.float(), data_range=bounds, **pyramid),
        ),
    ):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, floats)
    exact = reference(preds.cpu().double(), target.cpu().double(), data_range=bounds).item()
    assert abs(ssim(preds, target, data_range=bounds).item() - exact) < 1e-6


@pytest.mark.parametrize("function", [ssim, ms_ssim])
@pytest.mark.parametrize("of_preds", PREDS_TYPES, ids=str)
@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_a_tuple_clamps_integers_next_to_floats(
    device: str, dtype: torch.dtype, of_preds: torch.dtype, function: Any
) -> None:
    target = pictures(dtype, device, 52, 57)[1]
    preds = pictures(dtype, device, 52, 57)[0].double().clamp(-900, 900).to(of_preds)
    arguments = {"betas": (0.4, 0.6)} if function is ms_ssim else {}
    results = []
    for y in (target, target.to(of_preds)):
        x = preds.clone().requires_grad_()
        value = function(x, y, data_range=(-100.0, 100.0), **arguments)
        results.append((value, *torch.autograd.grad(value, x)))
    for ours, cast in zip(*results, strict=True):
        assert ours.dtype == of_preds
        assert torch.equal(ours, cast)


@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_masks_and_the_composite(device: str, dtype: torch.dtype) -> None:
    """Every path over the pixels, against float64. The range is that of the dtype."""
    preds, target = pictures(dtype, device, 34, 37)
    mask = torch.rand(2, 1, 34, 37, generator=torch.Generator().manual_seed(2)).to(device) > 0.3
    x, y = preds.double(), target.double()
    for mode in ("window", "map"):
        of_masks = {"mask": mask, "mask_mode": mode}
        for function, arguments in ((ssim, {}), (ms_ssim, {"betas": (0.4, 0.6)})):
            exact = function(x, y, data_range=float(RANGES[dtype]), **arguments, **of_masks)
            assert abs(function(preds, target, **arguments, **of_masks).item() - exact.item()) < 1e-6
    window = Window((1.5,), (11,), data_range=float(RANGES[dtype]))
    found = composite.similarity(preds, target, None, window)
    exact = composite.similarity(x, y, None, window)
    assert found[2].dtype == torch.float32
    torch.testing.assert_close(found[0].double(), exact[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", RANGES, ids=str)
@pytest.mark.parametrize("multiscale", [False, True])
def test_losses_with_a_pixel_term(device: str, dtype: torch.dtype, multiscale: bool) -> None:
    preds, target = pictures(dtype, device, 52, 57)
    betas = {"betas": (0.4, 0.6)} if multiscale else {}
    of_range = L1SSIMLoss(data_range=float(RANGES[dtype]), multiscale=multiscale, **betas)
    assert torch.equal(of_range(preds, target), of_range(preds.float(), target.float()))
    x, y = preds.float().requires_grad_(), preds.float().requires_grad_()
    of_range(x, target).backward()
    of_range(y, target.float()).backward()
    assert torch.equal(x.grad, y.grad)


@pytest.mark.parametrize("function", [ssim, ms_ssim])
@pytest.mark.parametrize("of_preds", PREDS_TYPES, ids=str)
@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_next_to_floats_they_are_cast_and_not_scaled(
    device: str, dtype: torch.dtype, of_preds: torch.dtype, function: Any
) -> None:
    target = pictures(dtype, device, 52, 57)[1]
    preds = (pictures(dtype, device, 52, 57)[0].double() / (64 if dtype.itemsize == 2 else 1)).to(of_preds)
    arguments = {"data_range": 255.0} | ({"betas": (0.4, 0.6)} if function is ms_ssim else {})
    for data_range in (255.0, None):
        results = []
        for y in (target, target.to(of_preds)):
            x = preds.clone().requires_grad_()
            value = function(x, y, **(arguments | {"data_range": data_range}))
            (gradient,) = torch.autograd.grad(value, x)
            results.append((value, gradient))
        for ours, cast in zip(*results, strict=True):
            assert ours.dtype == of_preds
            torch.testing.assert_close(ours, cast, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", SIDES)
def test_nothing_is_copied(kind: str) -> None:
    """One pass over uint8: no allocation of the size of an image."""
    sides = {"image": (200, 300), "volume": (20, 60, 50)}[kind]
    preds, target = pictures(torch.uint8, "cpu", *sides)
    floats = preds.float().requires_grad_()
    calls = {
        0: lambda: ssim(preds, target, sigma=0.8),
        4 * preds.numel(): lambda: ssim(floats, target, data_range=255.0, sigma=0.8),  # the gradient
    }
    for allowed, call in calls.items():
        with torch.profiler.profile(profile_memory=True) as profile:
            call()
        allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.key_averages())
        assert allocated <= allowed + 4096, allocated


def test_second_derivatives_and_transforms_with_an_integer_target() -> None:
    target = pictures(torch.uint8, "cpu", 8, 9)[1][:1, :1]
    preds = (pictures(torch.uint8, "cpu", 8, 9)[0][:1, :1].double()).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return ssim(x, target, data_range=255.0, sigma=0.4, kernel_size=3)

    assert torch.autograd.gradcheck(loss, preds, eps=1e-3)
    assert torch.autograd.gradgradcheck(loss, preds, eps=1e-3)
    stacked = torch.stack([target, target.flip(-1)])
    mapped = torch.func.vmap(lambda y: ssim(preds.detach(), y, data_range=255.0, sigma=0.4))(stacked)
    each = torch.stack([ssim(preds.detach(), y, data_range=255.0, sigma=0.4) for y in stacked])
    torch.testing.assert_close(mapped, each)
    bytes_of_preds = preds.detach().to(torch.uint8)
    mapped = torch.func.vmap(lambda y: ssim(bytes_of_preds, y, sigma=0.4))(stacked)
    torch.testing.assert_close(mapped, each.float())
    tangent = torch.func.jvp(loss, (preds.detach(),), (torch.ones_like(preds),))[1]
    torch.testing.assert_close(tangent, torch.autograd.grad(loss(preds), preds)[0].sum())


@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_compiled(dtype: torch.dtype) -> None:
    preds, target = pictures(dtype, "cpu", 52, 57)
    for function, arguments in ((ssim, {"return_full_image": True}), (ms_ssim, {"betas": (0.4, 0.6)})):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        for ours, eager in zip(
            as_tuple(compiled(preds, target, **arguments)), as_tuple(function(preds, target, **arguments)), strict=True
        ):
            torch.testing.assert_close(ours, eager)
    floats = preds.float().requires_grad_()
    compiled = torch.compile(lambda x, y: ssim(x, y, data_range=255.0), fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(floats, target), floats)
    torch.testing.assert_close(found, torch.autograd.grad(ssim(floats, target, data_range=255.0), floats)[0])


def test_autocast(device: str) -> None:
    preds, target = pictures(torch.uint8, device, 30, 31)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(ssim(preds, target), ssim(preds.float(), target.float(), data_range=255.0))
        half = preds.to(torch.bfloat16)
        assert torch.equal(ssim(half, target, data_range=255.0), ssim(half.float(), target.float(), data_range=255.0))


def test_integer_preds_require_a_target_of_their_dtype() -> None:
    preds, target = pictures(torch.uint8, "cpu", 30, 31)
    for wrong in (target.float(), target.to(torch.uint16)):
        with pytest.raises(NotImplementedError, match=r"`target` has the dtype .* and `preds` torch.uint8"):
            ssim(preds, wrong)


@pytest.mark.parametrize("data_range", [None, 255.0, 255, (0, 255), (-1000.0, 1000.0), torch.tensor(255.0)], ids=str)
@pytest.mark.parametrize("dtype", REFUSED, ids=str)
def test_other_integers_are_refused_with_every_range(device: str, dtype: torch.dtype, data_range: Any) -> None:
    preds, target = (image.to(dtype) for image in pictures(torch.uint8, device, 30, 31))
    arguments = {"betas": (1.0,), "kernel_size": 3}
    for name, fix, images in (
        ("preds", r"preds\.float\(\)", (preds, target)),
        ("preds", r"preds\.float\(\)", (preds, target.float())),
        ("target", r"target\.to\(preds\.dtype\)", (preds.float(), target)),
    ):
        for call in (
            lambda x, y: ssim(x, y, data_range=data_range),
            lambda x, y: ms_ssim(x, y, data_range=data_range, **arguments),
            lambda x, y: SSIMLoss(data_range=data_range)(x, y),
            lambda x, y: L1SSIMLoss(data_range=data_range)(x, y),
        ):
            with pytest.raises(NotImplementedError, match=rf"`{name}` has the dtype {dtype}, .*`{fix}`"):
                call(*images)


def test_every_integer_is_read_with_its_sign() -> None:
    """All 16-bit values, in rows with a remainder of every length, against PyTorch's conversion."""
    for dtype in RANGES:
        bits = torch.iinfo(dtype)
        every = torch.arange(bits.min, bits.max + 1, dtype=torch.int32).to(dtype)
        for width in (1, 7, 16, 37, 250):
            rows = every[: every.numel() // width * width].reshape(1, 1, -1, width)
            shifted = every.int().roll(1)[: rows.numel()].reshape(rows.shape).to(dtype)
            for x, y in ((rows, shifted), (rows.mT, shifted.mT)):
                arguments = {"sigma": [], "kernel_size": [1], "padding": "valid", "data_range": 1e-3, "want_map": True}
                found = torch.ops.ssim_fused.similarity(x, y, **arguments)[1]
                assert torch.equal(found, torch.ops.ssim_fused.similarity(x.float(), y.float(), **arguments)[1])


def test_operators_have_no_gradient_of_integers() -> None:
    preds, target = pictures(torch.uint8, "cpu", 30, 31)
    with pytest.raises(RuntimeError, match="want_grad_preds to be false"):
        torch.ops.ssim_fused.similarity(preds, target, data_range=255.0, want_grad_preds=True)
