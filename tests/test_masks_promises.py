"""Guarantees for masks besides their values (test_masks.py): hidden pixels have no effect, in any mode of PyTorch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_oracle import MODES, assert_close, gradients, images, masks
from support import without_kernels
from torch import Tensor

from ssim_fused import multiscale_structural_similarity_index_measure as msssim
from ssim_fused import structural_similarity_index_measure as ssim
from ssim_fused._core import _ops
from ssim_fused.losses import MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 64, 80), (1, 1, 24, 24, 26)], ids=str)
@pytest.mark.parametrize("data_range", [1.0, None, (0.1, 0.9)])
def test_what_is_masked_reaches_no_number(
    device: str, shape: tuple[int, ...], pyramid: bool, value: float, data_range: Any
) -> None:
    """Bit for bit, the results are those of zeros under the mask, whatever is there, and its gradient is zero."""
    preds, target = (image.float().to(device) for image in images(*shape))
    mask = masks(preds.cpu())["holes"].to(device)
    hidden = ~mask.expand(shape)
    small = {"sigma": 0.5, "kernel_size": 5}

    def function(x: Tensor, y: Tensor) -> Tensor:
        if pyramid:
            return msssim(x, y, betas=(0.4, 0.6), data_range=data_range, mask=mask, **small)
        outputs = ssim(x, y, data_range=data_range, mask=mask, return_full_image=True, **small)
        return outputs[0] + outputs[1].sum()

    clean = gradients(function, preds.masked_fill(hidden, 0), target.masked_fill(hidden, 0))
    dirty = gradients(function, preds.masked_fill(hidden, value), target.masked_fill(hidden, value))
    for ours, theirs in zip(dirty, clean, strict=True):
        assert torch.equal(ours, theirs)
    for gradient in dirty[1:]:
        assert (gradient[hidden] == 0).all()


def test_a_map_mask_selects_outputs(device: str) -> None:
    """Windows ignore a map mask. A NaN that no averaged output sees affects neither the value nor the gradient."""
    preds, target = (image.float().to(device) for image in images(1, 1, 40, 40))
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool, device=device)
    mask[..., :20] = True
    far, near = preds.clone(), preds.clone()
    far[..., 5, 30], near[..., 5, 22] = float("nan"), float("nan")

    def function(x: Tensor, y: Tensor) -> Tensor:
        return ssim(x, y, data_range=1.0, mask=mask, mask_mode="map")

    value, by_preds, by_target = gradients(function, far, target)
    expected = gradients(function, preds, target)
    assert torch.equal(value, expected[0])
    for found, theirs in zip((by_preds, by_target), expected[1:], strict=True):
        assert not found.isnan().any()
        assert torch.equal(found[..., :24], theirs[..., :24])
    assert function(near, target).isnan()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(2, 2, 64, 80), (2, 1, 24, 24, 26)], ids=str)
def test_an_image_whose_mask_is_empty(device: str, shape: tuple[int, ...], mode: str) -> None:
    preds, target = (image.float().to(device) for image in images(*shape))
    mask = torch.ones(2, 1, *shape[2:], device=device)
    mask[0] = 0
    forms: list[Callable[..., Tensor]] = [
        lambda x, y: ssim(x, y, data_range=1.0, mask=mask, mask_mode=mode, reduction="none"),
        lambda x, y: ssim(x, y, mask=mask, mask_mode=mode, return_contrast_sensitivity=True)[1],
        lambda x, y: msssim(
            x, y, data_range=1.0, mask=mask, mask_mode=mode, betas=(0.4, 0.6), kernel_size=5, sigma=0.5, reduction=None
        ),
    ]
    for form in forms:
        value, *found = gradients(form, preds, target)
        assert value[0] == 1
        assert 0 < value[1] < 1
        for gradient in found:
            assert (gradient[0] == 0).all()
            assert (gradient[1] != 0).any()
    nothing = torch.zeros_like(mask)
    value, *found = gradients(lambda x, y: ssim(x, y, mask=nothing, mask_mode=mode), preds, target)
    assert value == 1
    assert all((gradient == 0).all() for gradient in found)


def test_the_map_is_one_where_a_window_sees_nothing(device: str) -> None:
    preds, target = (image.to(device) for image in images(1, 1, 40, 40))
    mask = torch.zeros(1, 1, 40, 40, device=device)
    mask[..., :10] = 1
    image = ssim(preds, target, data_range=1.0, mask=mask, return_full_image=True)[1]
    assert (image[..., 15:] == 1).all()
    assert (image[..., :15] != 1).all()


def test_the_data_range_is_that_of_visible_pixels(device: str) -> None:
    preds, target = (image.to(device) for image in images(2, 2, 40, 40))
    mask = masks(preds.cpu())["holes"].to(device)
    spans = [image[mask.expand_as(image)].max() - image[mask.expand_as(image)].min() for image in (preds, target)]
    wild = preds.masked_fill(~mask, 100.0)
    assert torch.equal(ssim(wild, target, mask=mask), ssim(preds, target, mask=mask, data_range=max(spans)))


def test_channels_are_independent(device: str) -> None:
    preds, target = (image.to(device) for image in images(2, 3, 33, 35))
    for mask in (masks(preds.cpu())["weights"].to(device), masks(preds.cpu())["holes"].to(device)):
        found = ssim(preds, target, data_range=1.0, mask=mask, per_channel=True, reduction="none")
        each = mask.expand_as(preds)
        for b, c in itertools.product(range(2), range(3)):
            one = [t[b : b + 1, c : c + 1] for t in (preds, target, each)]
            assert torch.equal(found[b, c], ssim(one[0], one[1], data_range=1.0, mask=one[2]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(3, 2, 150, 700), (2, 1, 33, 40, 45)], ids=str)
def test_threads_change_nothing(restore_threads: None, shape: tuple[int, ...], mode: str) -> None:
    preds, target = (image.float() for image in images(*shape))
    mask = masks(preds)["weights"]
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        value = ssim(preds, target, data_range=1.0, mask=mask, mask_mode=mode)
        of_step = gradients(lambda x, y: ssim(x, y, data_range=1.0, mask=mask, mask_mode=mode), preds, target)
        results.append([value, *of_step])
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(device: str, mode: str) -> None:
    preds, target = (image.to(device).requires_grad_() for image in images(2, 1, 14, 15))
    mask = masks(preds.detach().cpu())["weights"].to(device)
    small = {"data_range": 1.0, "mask": mask, "mask_mode": mode, "sigma": 0.5, "kernel_size": 5}
    for function in (
        lambda x, y: ssim(x, y, **small),
        lambda x, y: ssim(x, y, return_full_image=True, **small)[1],
        lambda x, y: msssim(x, y, betas=(0.4, 0.6), **small),
        lambda x, y: ssim(x, y, **{**small, "data_range": None}),
    ):
        assert torch.autograd.gradcheck(function, (preds, target), fast_mode=True)
        assert torch.autograd.gradgradcheck(function, (preds, target), fast_mode=True)


@pytest.mark.parametrize("mode", MODES)
def test_transforms(device: str, mode: str) -> None:
    preds, target = (image.to(device).reshape(3, 2, 1, 14, 15) for image in images(6, 1, 14, 15))
    each = masks(preds.cpu().flatten(0, 1))["weights"].to(device).reshape(preds.shape)

    def function(x: Tensor, y: Tensor, m: Tensor) -> Tensor:
        return ssim(x, y, data_range=1.0, mask=m, mask_mode=mode)

    expected = torch.stack([function(*of_image) for of_image in zip(preds, target, each, strict=True)])
    torch.testing.assert_close(torch.func.vmap(function)(preds, target, each), expected)
    shared = torch.stack([function(x, y, each[0]) for x, y in zip(preds, target, strict=True)])
    torch.testing.assert_close(torch.func.vmap(function, (0, 0, None))(preds, target, each[0]), shared)
    by_image = torch.func.vmap(torch.func.grad(function))(preds, target, each)
    for x, y, m, found in zip(preds, target, each, by_image, strict=True):
        torch.testing.assert_close(found, gradients(lambda x, y, m=m: function(x, y, m), x, y)[1] / upstream())
    tangent = torch.rand_like(preds[0])
    value, derivative = torch.func.jvp(lambda x: function(x, target[0], each[0]), (preds[0],), (tangent,))
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(derivative, (by_image[0] * tangent).sum())


def upstream() -> Tensor:
    """The upstream gradient of a scalar in `gradients`."""
    return torch.rand((), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_compiled(device: str, mode: str, pyramid: bool) -> None:
    torch._dynamo.reset()

    def function(x: Tensor, y: Tensor, m: Tensor) -> Tensor:
        if pyramid:
            return msssim(x, y, data_range=1.0, mask=m, mask_mode=mode, betas=(0.4, 0.6), kernel_size=5, sigma=0.5)
        return ssim(x, y, mask=m, mask_mode=mode)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((2, 3, 40, 44), (3, 3, 48, 46)):
        preds, target = (image.float().to(device) for image in images(*shape))
        mask = masks(preds.cpu())["holes"].to(device)
        found = gradients(lambda x, y, m=mask: compiled(x, y, m), preds, target)
        for ours, theirs in zip(found, gradients(lambda x, y, m=mask: function(x, y, m), preds, target), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pyramid", [False, True])
def test_16_bit(device: str, dtype: torch.dtype, pyramid: bool) -> None:
    """With only one visible pixel, its gradient is as large as usually those of all pixels together.

    It stays finite.
    """
    preds, target = (image.to(device, dtype) for image in images(1, 1, 64, 64))
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.bool, device=device)
    mask[..., 20:22, 20:22] = True

    def function(x: Tensor, y: Tensor) -> Tensor:
        if pyramid:
            return msssim(x, y, data_range=1.0, mask=mask, betas=(0.4, 0.6), kernel_size=5, sigma=0.5)
        return ssim(x, y, data_range=1.0, mask=mask)

    found = gradients(function, preds, target)
    expected = gradients(function, preds.double(), target.double())
    unit = torch.finfo(dtype).eps
    assert_close([t.cpu() for t in found], [t.cpu() for t in expected], 2 * unit)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert function(preds, target).dtype == torch.float32


def operator_calls(device: str) -> dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    preds, target = (image.float().to(device) for image in images(2, 3, 14, 17))
    holes, weights = (masks(preds.cpu())[kind].to(device) for kind in ("holes", "weights"))
    window = {"sigma": [1.0], "kernel_size": [7]}
    pyramid = {"sigma": [0.5], "kernel_size": [3], "padding": "zero", "betas": [0.4, 0.6]}
    every = {"want_grad_preds": True, "want_grad_target": True, "want_grad_constants": True}
    batch, constants = torch.rand(2, device=device), torch.tensor([1e-4, 9e-4], device=device)
    outputs = {"reduction": 0, "distance": True, "want_contrast": True, "want_map": True}
    return {
        "similarity": (_ops.similarity, (preds, target, None, holes), window | outputs | every),
        "backward": (
            _ops.similarity_backward, (preds, target, constants, weights, batch),
            window | every | {"mask_mode": "map", "reduction": 0, "distance": True},
        ),
        "multiscale": (_ops.multiscale, (preds, target, None, holes), pyramid | every | {"distance": True}),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["similarity", "backward", "multiscale"])
def test_opcheck(device: str, name: str) -> None:
    operator, tensors, keywords = operator_calls(device)[name]
    torch.library.opcheck(operator, tensors, keywords)
    requiring = [a.clone().requires_grad_() if i < 2 else a for i, a in enumerate(tensors)]
    torch.library.opcheck(operator, tuple(requiring), keywords)


REFUSED: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "`mask` is a list, expected a torch.Tensor or None", {"mask": [1]}),
    (
        ValueError,
        r"`mask` has the shape \(2, 2, 33, 35\), expected that of `preds`, \(2, 3, 33, 35\), or \(2, 1, 33",
        {"mask": torch.ones(2, 2, 33, 35)},
    ),
    (TypeError, "`mask` has the dtype torch.uint8, expected bool, or", {"mask": torch.ones(2, 1, 33, 35).byte()}),
    (RuntimeError, r"`mask` requires a gradient, .* pass `mask.detach\(\)`",
     {"mask": torch.ones(2, 1, 33, 35, requires_grad=True)}),
    (ValueError, "`mask_mode` is 'soft', expected 'window' or 'map'", {"mask_mode": "soft"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "arguments"), REFUSED)
@pytest.mark.parametrize("function", [ssim, msssim], ids=["ssim", "msssim"])
def test_errors_name_what_is_wrong(
    function: Callable[..., Tensor], kind: type[Exception], message: str, arguments: dict[str, Any]
) -> None:
    preds, target = (image.float() for image in images(2, 3, 33, 35))
    extra = {"betas": (0.4, 0.6), "kernel_size": 5} if function is msssim else {}
    with pytest.raises(kind, match=message):
        function(preds, target, data_range=1.0, **extra, **arguments)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (
            "mask has shape [2, 2, 14, 17], expected that of preds, [2, 3, 14, 17]",
            {"mask": torch.ones(2, 2, 14, 17)},
        ),
        ("mask has dtype Byte, expected bool or a float type", {"mask": torch.ones(2, 1, 14, 17).byte()}),
        ("mask_mode is 'soft', expected 'window' or 'map'", {"mask_mode": "soft"}),
    ],
)
def test_operators_check_their_arguments(message: str, wrong: dict[str, Any]) -> None:
    operator, (preds, target, *_), keywords = operator_calls("cpu")["similarity"]
    with pytest.raises(RuntimeError) as raised:
        operator(preds, target, **(keywords | wrong))
    assert message in str(raised.value)


@pytest.mark.parametrize("mode", MODES)
def test_a_device_without_a_kernel(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    preds, target = images(2, 2, 33, 35)
    mask = masks(preds)["half"]
    forms: list[Callable[..., Tensor]] = [
        lambda x, y: ssim(x, y, mask=mask, mask_mode=mode),
        lambda x, y: ssim(x, y, data_range=1.0, mask=mask, mask_mode=mode, return_full_image=True)[1],
        lambda x, y: msssim(x, y, data_range=1.0, mask=mask, mask_mode=mode, betas=(0.4, 0.6), kernel_size=5),
    ]
    fused = [gradients(form, preds, target) for form in forms]
    without_kernels(monkeypatch, "cpu")
    for ours, form in zip(fused, forms, strict=True):
        for found, expected in zip(ours, gradients(form, preds, target), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("multiscale", [False, True])
@pytest.mark.parametrize("pixel", ["l1", "l2", "charbonnier"])
@pytest.mark.parametrize("shape", [(2, 2, 33, 35), (2, 1, 14, 15, 16)], ids=str)
def test_losses_of_two_terms(device: str, shape: tuple[int, ...], pixel: str, multiscale: bool, mode: str) -> None:
    preds, target = (image.to(device) for image in images(*shape))
    arguments = {"sigma": 0.5, "kernel_size": 5, "reduction": "none", "multiscale": multiscale, "data_range": 1.0}
    loss = PixelSSIMLoss(pixel, ssim_weight=0.3, **arguments, **({"betas": (0.4, 0.6)} if multiscale else {}))
    distance = {True: MultiScaleSSIMLoss, False: SSIMLoss}[multiscale]
    more = {"betas": (0.4, 0.6)} if multiscale else {}
    alone = distance(sigma=0.5, kernel_size=5, reduction="none", data_range=1.0, **more)
    for kind in ("weights", "half"):
        mask = masks(preds.cpu())[kind].to(device)
        hidden = (mask == 0).expand(shape)
        spoilt = preds.masked_fill(hidden, float("nan")) if mode == "window" else preds

        def apart(x: Tensor, y: Tensor, mask: Tensor = mask, hidden: Tensor = hidden) -> Tensor:
            d = torch.where(hidden, 0.0, x - y)
            phi = {"l1": d.abs(), "l2": d**2, "charbonnier": (d**2 + 1e-6).sqrt()}[pixel]
            weights = mask.double().expand(shape).flatten(1)
            mean = (weights * phi.flatten(1)).sum(1) / weights.sum(1).clamp(min=1e-30)
            return 0.7 * mean + 0.3 * alone(x, y, mask=mask, mask_mode=mode)

        found = gradients(lambda x, y, mask=mask: loss(x, y, mask=mask, mask_mode=mode), spoilt, target)
        expected = gradients(apart, preds, target)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(loss(spoilt, target, mask=mask, mask_mode=mode), expected[0])


def test_the_example_of_the_docs_runs() -> None:
    text = (Path(__file__).parent.parent / "docs/masks.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(example, "docs/masks.md", "exec"), {})
