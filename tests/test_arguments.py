"""Every argument means what it means in torchmetrics, and layouts and threads do not change results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import CALLS, FLOAT64_TOLERANCE, as_tuple, assert_matches, error, evaluate, reference, ssim
from torch import Tensor


def pictures(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    preds, target = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return preds.to(device, dtype), (0.5 * target + 0.5 * preds.flip(-1)).to(device, dtype)


# Window sizes: 0.2 has 3 taps, 1.5 the precompiled 11, 1.6 is the first with 13, and 8 has 57.
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("sigma", [0.2, 0.5, 1, 1.5, 1.6, 2.5, 8, (0.5, 2.0), [3.0, 0.3], (1.5, 4)], ids=str)
def test_sigma(device: str, sigma: Any, call: str) -> None:
    assert_matches(*pictures(2, 1, 61, 67, device=device), sigma=sigma, data_range=1.0, **CALLS[call])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kernel_size", [3, 5, 7, 11, 15, (3, 9), [15, 3], (5, 17)], ids=str)
def test_uniform_window(device: str, kernel_size: Any, call: str) -> None:
    images = pictures(2, 2, 23, 21, device=device)
    assert_matches(*images, gaussian_kernel=False, kernel_size=kernel_size, data_range=1.0, **CALLS[call])


def test_kernel_size_is_ignored_by_a_gaussian(device: str) -> None:
    preds, target = pictures(1, 1, 16, 16, device=device)
    assert torch.equal(ssim(preds, target, kernel_size=3), ssim(preds, target))


def test_sigma_is_ignored_by_a_uniform_window(device: str, sides: tuple[int, ...]) -> None:
    preds, target = pictures(1, 1, *sides, device=device)
    assert torch.equal(ssim(preds, target, False, sigma=9.0), ssim(preds, target, False))


@pytest.mark.parametrize(
    ("window", "pad"),
    [
        ({"gaussian_kernel": False, "kernel_size": 1}, (0, 0)),
        ({"gaussian_kernel": False, "kernel_size": (1, 7)}, (0, 3)),
        ({"gaussian_kernel": False, "kernel_size": (5, 1)}, (2, 0)),
        ({"sigma": 0.1}, (0, 0)),
        ({"gaussian_kernel": False, "kernel_size": 1}, (0, 0, 0)),
        ({"gaussian_kernel": False, "kernel_size": (1, 3, 5)}, (0, 1, 2)),
        ({"gaussian_kernel": False, "kernel_size": (5, 1, 3)}, (2, 0, 1)),
        ({"sigma": (0.5, 0.3, 0.1), "kernel_size": 1}, (2, 1, 0)),
        # The last axis is padded by 5, from `kernel_size`, although the window is smaller.
        ({"sigma": 0.1}, (0, 0, 5)),
        ({"sigma": (0.5, 0.1, 0.8)}, (2, 0, 5)),
        # The last axis is not padded, although the window extends beyond it, and its map is not cropped either.
        ({"sigma": (0.5, 0.3, 0.8), "kernel_size": (1, 1, 1)}, (2, 1, 0)),
    ],
    ids=str,
)
def test_window_of_size_one(device: str, window: dict[str, Any], pad: tuple[int, ...]) -> None:
    """The only deliberate difference in values: the reference crops with `0:-0`, to nothing, and returns NaN for CS."""
    preds, target = pictures(2, 2, *((12, 13) if len(pad) == 2 else (6, 7, 8)), device=device)
    for call in ("similarity", "map"):
        assert_matches(preds, target, data_range=1.0, **window, **CALLS[call])

    _, theirs = reference(preds, target, data_range=1.0, **window, **CALLS["contrast"])
    assert theirs.isnan().all()
    score, contrast = ssim(preds, target, data_range=1.0, **window, **CALLS["contrast"])
    # A very large k1 makes the luminance 1 everywhere, so that the reference's SSIM map is its CS map.
    _, full = reference(preds, target, data_range=1.0, k1=1e12, **window, **CALLS["map"])
    for dim, (length, cropped) in enumerate(zip(full.shape[2:], pad, strict=True), start=2):
        full = full.narrow(dim, cropped, length - 2 * cropped)
    expected = full.flatten(1).mean(1)
    assert error(contrast, expected) <= FLOAT64_TOLERANCE
    assert torch.equal(score, ssim(preds, target, data_range=1.0, reduction="none", **window))


@pytest.mark.parametrize("reduction", ["elementwise_mean", "sum", "none", None])
@pytest.mark.parametrize("second", [{}, {"return_full_image": True}, {"return_contrast_sensitivity": True}], ids=str)
def test_reduction(
    device: str, sides: tuple[int, ...], window: dict[str, Any], reduction: str | None, second: dict[str, bool]
) -> None:
    assert_matches(*pictures(3, 2, *sides, device=device), reduction=reduction, data_range=1.0, **window, **second)


def test_reduction_defaults_to_the_mean(device: str, sides: tuple[int, ...]) -> None:
    preds, target = pictures(3, 1, *sides, device=device)
    assert torch.equal(ssim(preds, target), ssim(preds, target, reduction="elementwise_mean"))


def test_positional_arguments(device: str, sides: tuple[int, ...]) -> None:
    preds, target = pictures(2, 1, *sides, device=device)
    arguments = (False, 1.0, 5, "sum", (0.1, 0.9), 0.02, 0.05, True, False)
    for ours, theirs in zip(ssim(preds, target, *arguments), reference(preds, target, *arguments), strict=True):
        assert error(ours, theirs) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "data_range",
    [None, 1, 1.5, True, 255, (0, 1), (0.25, 0.75), (-1.0, 0.4), (2, 3)],
    ids=str,
)
def test_data_range(device: str, sides: tuple[int, ...], window: dict[str, Any], data_range: Any, call: str) -> None:
    assert_matches(*pictures(2, 2, *sides, device=device), data_range=data_range, **window, **CALLS[call])


@pytest.mark.parametrize("wider", ["preds", "target"])
def test_data_range_is_the_larger_of_both_images(
    device: str, sides: tuple[int, ...], window: dict[str, Any], wider: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device)
    preds, target = (4 * preds, target) if wider == "preds" else (preds, 4 * target)
    for call in CALLS.values():
        assert_matches(preds, target, **window, **call)


def test_data_range_as_a_tensor_passes_gradients(device: str, sides: tuple[int, ...]) -> None:
    results = []
    for function in (ssim, reference):
        preds, target = pictures(2, 1, *sides, device=device)
        data_range = target.detach().max().requires_grad_()
        score = function(preds, target, data_range=data_range)
        results.append((score, *torch.autograd.grad(score, data_range)))
    for ours, theirs in zip(*results, strict=True):
        assert error(ours.detach(), theirs.detach()) <= FLOAT64_TOLERANCE


@pytest.mark.parametrize("call", CALLS)
def test_clamped_pixels_have_no_gradient(
    device: str, sides: tuple[int, ...], window: dict[str, Any], call: str
) -> None:
    preds, target = pictures(2, 2, *sides, device=device)
    # Multiples of 1/4: many lie outside (0.25, 0.75), and many at its ends, which have a gradient before torch 2.14.
    bound = torch.full((), 0.25, requires_grad=True)
    passes = bool(torch.autograd.grad(bound.clamp(0.25, 0.75), bound)[0] != 0)
    preds, target = ((4 * image).round() / 4 for image in (preds, target))
    assert_matches(preds, target, data_range=(0.25, 0.75), **window, **CALLS[call])
    ours = evaluate(ssim, preds, target, data_range=(0.25, 0.75), **window, **CALLS[call])
    for name, image in (("grad_preds", preds), ("grad_target", target)):
        outside = ((image < 0.25) | (image > 0.75)).cpu()
        assert outside.any()
        assert (ours[name][outside] == 0).all()
        assert (ours[name][(image == 0.25).cpu()] != 0).any() == passes


@pytest.mark.parametrize("constants", [{"k1": 0.1}, {"k2": 0.2}, {"k1": 0.0, "k2": 1.0}, {"k1": -0.3}], ids=str)
def test_constants(device: str, sides: tuple[int, ...], window: dict[str, Any], constants: dict[str, float]) -> None:
    for data_range in (None, 2.0):
        for call in CALLS.values():
            assert_matches(*pictures(2, 1, *sides, device=device), data_range=data_range, **constants, **window, **call)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("call", CALLS)
def test_outputs_have_the_type_and_shape_of_the_reference(
    device: str, sides: tuple[int, ...], window: dict[str, Any], dtype: torch.dtype, call: str
) -> None:
    preds, target = pictures(2, 1, *sides, device=device, dtype=dtype)
    outputs = as_tuple(ssim(preds, target, data_range=1.0, **window, **CALLS[call]))
    expected = as_tuple(reference(preds, target, data_range=1.0, **window, **CALLS[call]))
    for ours, theirs in zip(outputs, expected, strict=True):
        assert (ours.dtype, ours.shape, ours.device) == (theirs.dtype, theirs.shape, theirs.device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8], ids=str)
def test_target_is_cast_to_the_type_of_preds(device: str, sides: tuple[int, ...], dtype: torch.dtype) -> None:
    preds, target = pictures(2, 1, *sides, device=device)
    target = (255 * target).to(dtype)
    assert torch.equal(ssim(preds, target), ssim(preds, target.double()))
    if dtype.is_floating_point:
        target.requires_grad_()
        (gradient,) = torch.autograd.grad(ssim(preds, target), target)
        assert gradient.dtype == dtype


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "batch_innermost": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "every_second_column": lambda x: torch.stack((x, -x), -1).flatten(-2)[..., ::2],
    "every_third_row": lambda x: torch.stack((x, -x, x + 1), -2).flatten(-3, -2)[..., ::3, :],
    "every_second_slice": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],  # every second row of an image
    "cropped": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4), value=9.0)[..., 1:-4, 3:-2],
    "unaligned": lambda x: torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape),
    "expanded_batch": lambda x: x[:1].expand_as(x),
    "expanded_channels": lambda x: x[:, :1].expand_as(x),
    "expanded_slices": lambda x: x[:, :, :1].expand_as(x),
    "expanded_rows": lambda x: x[..., :1, :].expand_as(x),
    "expanded_columns": lambda x: x[..., :1].expand_as(x),
    "overlapping": lambda x: x.flatten().as_strided(x.shape, (13, 11, 7, 5, 1)[-x.ndim :]),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout(device: str, sides: tuple[int, ...], window: dict[str, Any], layout: str, call: str) -> None:
    preds, target = pictures(2, 3, *sides, device=device)
    view = LAYOUTS[layout]
    assert_matches(view(preds), target, data_range=1.0, **window, **CALLS[call])
    assert_matches(preds, view(target), data_range=None, **window, **CALLS[call])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_upstream_map_in_any_layout(device: str, sides: tuple[int, ...], layout: str) -> None:
    preds, target = (image.requires_grad_() for image in pictures(2, 3, *sides, device=device))
    weights = LAYOUTS[layout](torch.rand_like(target) - 0.5)
    results = []
    for function in (ssim, reference):
        _, full = function(preds, target, return_full_image=True)
        results.append(torch.autograd.grad(full, (preds, target), weights))
    for ours, theirs in zip(*results, strict=True):
        assert error(ours, theirs) <= FLOAT64_TOLERANCE


def test_empty_batch(device: str, sides: tuple[int, ...]) -> None:
    """The reference fails here. An empty batch has no scores and no gradient, and the mean of no scores is NaN."""
    preds, target = (image.requires_grad_() for image in pictures(0, 3, *sides, device=device))
    score = ssim(preds, target, data_range=1.0, reduction="none")
    assert score.shape == (0,)
    (gradient,) = torch.autograd.grad(score.sum(), preds)
    assert gradient.shape == preds.shape
    _, full = ssim(preds, target, data_range=1.0, reduction="none", return_full_image=True)
    assert full.shape == preds.shape
    assert ssim(preds, target, data_range=1.0, reduction="sum") == 0
    assert ssim(preds, target, data_range=1.0).isnan()


# A plane of several strips and row ranges, several planes, and a window whose radius is known at run time only.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((1, 1, 300, 700), {}),
        ((3, 2, 40, 50), {}),
        ((1, 1, 90, 300), {"sigma": 3.0}),
        ((1, 1, 21, 25, 270), {}),
        ((1, 1, 11, 25, 500), {}),
        ((3, 2, 11, 13, 12), {}),
        ((1, 1, 13, 16, 40), {"sigma": (1.5, 2.0, 3.0)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", CALLS)
def test_results_repeat_bit_by_bit_on_any_number_of_threads(
    device: str, restore_threads: None, shape: tuple[int, ...], window: dict[str, float], dtype: torch.dtype, call: str
) -> None:
    preds, target = pictures(*shape, device=device, dtype=dtype)
    arguments = {"data_range": None, **window, **CALLS[call]}
    first = evaluate(ssim, preds, target, **arguments)
    for threads in (1, 1, 2, 3, 7):
        torch.set_num_threads(threads)
        again = evaluate(ssim, preds, target, **arguments)
        assert all(torch.equal(first[name], again[name]) for name in first), threads


@pytest.mark.parametrize("sides", [(40, 50), (9, 12, 10)], ids=str)
def test_an_image_scores_the_same_alone_and_in_a_batch(device: str, sides: tuple[int, ...]) -> None:
    preds, target = pictures(5, 2, *sides, device=device, dtype=torch.float32)
    batch = evaluate(ssim, preds, target, data_range=1.0, reduction="sum")
    for i in range(5):
        alone = evaluate(ssim, preds[i : i + 1], target[i : i + 1], data_range=1.0, reduction="sum")
        assert torch.equal(batch["grad_preds"][i : i + 1], alone["grad_preds"])


def test_inputs_are_left_as_they_were(device: str, sides: tuple[int, ...], window: dict[str, Any]) -> None:
    for data_range in (None, 1.0, (0.2, 0.8)):
        for call in CALLS.values():
            preds, target = pictures(2, 1, *sides, device=device)
            before = preds.clone(), target.clone()
            evaluate(ssim, preds, target, data_range=data_range, **window, **call)
            assert torch.equal(preds, before[0])
            assert torch.equal(target, before[1])
