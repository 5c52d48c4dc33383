"""uint8 and uint16 straight into the kernels: the numbers of the same pixels as floats, and their type's range."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import L1SSIMLoss, ms_ssim, ssim

LARGEST = {torch.uint8: 255, torch.uint16: 65535}
SIDES = {"image": (52, 57), "volume": (18, 25, 31)}
PREDS_TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def pictures(dtype: torch.dtype, device: str, *sides: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(2, 3, *sides, generator=generator, dtype=torch.float64)
    preds = (target + 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    preds[0, 0, 0], target[0, 0, 0] = 0, 1  # the ends of the range
    return tuple((LARGEST[dtype] * image).round().to(dtype).to(device) for image in (preds, target))


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "cropped", "odd"])
@pytest.mark.parametrize("window", [{}, {"sigma": 0.8}, {"sigma": 2.2}], ids=str)
@pytest.mark.parametrize("kind", SIDES)
@pytest.mark.parametrize("dtype", LARGEST, ids=str)
def test_results_are_those_of_the_same_pixels_in_float32(
    device: str, dtype: torch.dtype, kind: str, window: dict[str, float], layout: str
) -> None:
    window = {"sigma": 0.8} if kind == "volume" and "sigma" not in window else window
    preds, target = pictures(dtype, device, *SIDES[kind])
    if layout == "channels_last":
        preds, target = (x.movedim(1, -1).contiguous().movedim(-1, 1) for x in (preds, target))
    elif layout == "cropped":
        preds, target = preds[..., 3:-2], target[..., 1:-4]
    elif layout == "odd":  # every row begins at another byte of a word
        preds, target = preds[..., :-1].contiguous(), target[..., 1:].contiguous()
    largest = float(LARGEST[dtype])
    for function, arguments in (
        (ssim, {"reduction": "none"}),
        (ssim, {"return_full_image": True}),
        (ssim, {"return_contrast_sensitivity": True}),
        (ms_ssim, {"betas": (0.4, 0.6), "kernel_size": 3}),
    ):
        if function is ms_ssim and kind == "volume":
            arguments = arguments | {"sigma": 0.4}
        found = as_tuple(function(preds, target, **(window | arguments)))
        plain = as_tuple(function(preds.float(), target.float(), data_range=largest, **(window | arguments)))
        for ours, floats in zip(found, plain, strict=True):
            assert ours.dtype == torch.float32
            assert torch.equal(ours, floats)


@pytest.mark.parametrize("dtype", LARGEST, ids=str)
def test_a_range_of_ones_own(device: str, dtype: torch.dtype) -> None:
    preds, target = pictures(dtype, device, 30, 31)
    exact = reference(preds.cpu().double(), target.cpu().double(), data_range=1000.0)
    assert abs(ssim(preds, target, data_range=1000.0).item() - exact.item()) < 1e-6
    for data_range in (torch.tensor(1000.0), (10.0, 200.0)):
        plain = ssim(preds.float(), target.float(), data_range=data_range)
        assert torch.equal(ssim(preds, target, data_range=data_range), plain)


@pytest.mark.parametrize("function", [ssim, ms_ssim])
@pytest.mark.parametrize("of_preds", PREDS_TYPES, ids=str)
@pytest.mark.parametrize("dtype", LARGEST, ids=str)
def test_beside_floats_they_are_cast_and_not_scaled(
    device: str, dtype: torch.dtype, of_preds: torch.dtype, function: Any
) -> None:
    target = pictures(dtype, device, 52, 57)[1]
    preds = (pictures(dtype, device, 52, 57)[0].double() / (64 if dtype == torch.uint16 else 1)).to(of_preds)
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


def test_second_derivatives_and_transforms_beside_integers() -> None:
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


@pytest.mark.parametrize("dtype", LARGEST, ids=str)
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


def test_losses_take_them(device: str) -> None:
    preds, target = pictures(torch.uint8, device, 30, 31)
    loss = L1SSIMLoss(data_range=255.0)
    assert torch.equal(loss(preds, target), loss(preds.float(), target.float()))
    x, y = preds.float().requires_grad_(), preds.float().requires_grad_()
    loss(x, target).backward()
    loss(y, target.float()).backward()
    assert torch.equal(x.grad, y.grad)


def test_autocast(device: str) -> None:
    preds, target = pictures(torch.uint8, device, 30, 31)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert torch.equal(ssim(preds, target), ssim(preds.float(), target.float(), data_range=255.0))
        half = preds.to(torch.bfloat16)
        assert torch.equal(ssim(half, target, data_range=255.0), ssim(half.float(), target.float(), data_range=255.0))


def test_integer_preds_want_a_target_of_their_type() -> None:
    preds, target = pictures(torch.uint8, "cpu", 30, 31)
    for wrong in (target.float(), target.to(torch.uint16)):
        with pytest.raises(NotImplementedError, match=r"`target` has the dtype .* beside `preds` of torch.uint8"):
            ssim(preds, wrong)
    for dtype in (torch.int32, torch.int64, torch.int16, torch.int8, torch.bool):
        with pytest.raises(NotImplementedError, match="`preds` has the dtype"):
            ssim(preds.to(dtype), target.to(dtype), data_range=255.0)


def test_operators_have_no_gradient_of_integers() -> None:
    preds, target = pictures(torch.uint8, "cpu", 30, 31)
    with pytest.raises(RuntimeError, match="want_grad_preds to be false"):
        torch.ops.ssim_fused.similarity(preds, target, data_range=255.0, want_grad_preds=True)
