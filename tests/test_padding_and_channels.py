"""`padding` and `per_channel` of both functions, and `fitting_betas`, against the textbook's SSIM in float64."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import textbook
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.proxy_tensor import make_fx

from ssim_fused import (
    fitting_betas,
    ms_ssim,
    multiscale_structural_similarity_index_measure,
    ssim,
    structural_similarity_index_measure,
)
from ssim_fused._core import composite

PADDINGS = ["reflect", "zero", "valid"]
C1, C2 = 0.01**2, 0.03**2
PAIR = (0.4, 0.6)  # exponents of two levels


def pictures(*shape: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    preds = target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return preds.to(device), target.to(device)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=1e-9, atol=1e-12)


def with_gradients(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """The value, and both gradients under upstream gradients that differ between its elements."""
    x, y = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    value = function(x, y)
    upstream = torch.arange(1, value.numel() + 1, dtype=value.dtype, device=value.device).view_as(value) / 4
    return value.detach(), *torch.autograd.grad(value, (x, y), upstream)


def assert_same(
    ours: Callable[[Tensor, Tensor], Tensor], theirs: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> None:
    for found, expected in zip(with_gradients(ours, x, y), with_gradients(theirs, x, y), strict=True):
        close(found, expected)


WINDOWS: dict[str, tuple[dict[str, Any], Callable[[int], list[Tensor]]]] = {
    "default": ({}, lambda axes: [textbook.gaussian(11, 1.5)] * axes),
    "small": ({"sigma": 0.5, "kernel_size": 5}, lambda axes: [textbook.gaussian(5, 0.5)] * axes),
    "uniform": ({"gaussian_kernel": False, "kernel_size": 7}, lambda axes: [textbook.uniform(7)] * axes),
}


@pytest.fixture(params=WINDOWS)
def window(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[int], list[Tensor]]]:
    return WINDOWS[request.param]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (2, 2, 12, 13, 14)], ids=["images", "volumes"])
def test_ssim(device: str, shape: tuple[int, ...], padding: Any, per_channel: bool, window: Any) -> None:
    arguments, taps = window
    x, y = pictures(*shape, device=device)
    options = {"data_range": 1.0, "padding": padding, "per_channel": per_channel, **arguments}
    axes = len(shape) - 2

    def expected(x: Tensor, y: Tensor, which: int) -> Tensor:
        of_channels = textbook.channel_means(x, y, taps(axes), C1, C2, padding)[which]
        return of_channels if per_channel else of_channels.mean(1)

    for reduction, reduce in [("none", lambda v: v), ("elementwise_mean", torch.mean), ("sum", torch.sum)]:
        assert_same(
            lambda x, y, reduction=reduction: ssim(x, y, reduction=reduction, **options),
            lambda x, y, reduce=reduce: reduce(expected(x, y, 0)),
            x, y,
        )  # fmt: skip
    assert_same(
        lambda x, y: torch.cat(ssim(x, y, reduction="none", return_contrast_sensitivity=True, **options)),
        lambda x, y: torch.cat((expected(x, y, 0), expected(x, y, 1))),
        x, y,
    )  # fmt: skip
    assert_same(
        lambda x, y: ssim(x, y, return_full_image=True, **options)[1],
        lambda x, y: textbook.ssim_maps(x, y, taps(axes), C1, C2, padding)[0],
        x, y,
    )  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(2, 3, 26, 31), (1, 2, 22, 23, 24)], ids=["images", "volumes"])
def test_ms_ssim(device: str, shape: tuple[int, ...], padding: Any, per_channel: bool) -> None:
    x, y = pictures(*shape, device=device)
    windows = [textbook.gaussian(11, 1.5)] * (len(shape) - 2)
    for reduction, reduce in [("none", lambda v: v), ("elementwise_mean", torch.mean), ("sum", torch.sum)]:
        assert_same(
            lambda x, y, reduction=reduction: ms_ssim(
                x, y, data_range=1.0, betas=PAIR, reduction=reduction, padding=padding, per_channel=per_channel
            ),
            lambda x, y, reduce=reduce: reduce(
                textbook.ms_ssim(
                    x, y, windows, C1, C2, padding, betas=torch.tensor(PAIR).tolist(), per_channel=per_channel
                )
            ),
            x, y,
        )  # fmt: skip


@pytest.mark.parametrize("data_range", [None, (0.2, 0.9), 1], ids=str)
@pytest.mark.parametrize("function", [ssim, lambda *a, **k: ms_ssim(*a, betas=PAIR, **k)], ids=["ssim", "ms_ssim"])
def test_a_channel_scores_like_a_separate_image(device: str, function: Callable[..., Tensor], data_range: Any) -> None:
    """Only the data range is that of the whole batch."""
    x, y = pictures(2, 3, 24, 26, device=device)

    def one_by_one(x: Tensor, y: Tensor) -> Tensor:
        apart = [image.transpose(0, 1).reshape(6, 1, 24, 26) for image in (x, y)]
        return function(*apart, data_range=data_range, reduction="none").reshape(3, 2).T

    assert_same(
        lambda x, y: function(x, y, data_range=data_range, reduction="none", per_channel=True), one_by_one, x, y
    )


LAYOUTS: list[Callable[[Tensor], Tensor]] = [
    lambda image: image.to(memory_format=torch.channels_last),
    lambda image: image.mT.contiguous().mT,
    lambda image: torch.stack((image, 2 * image), -1)[..., 0],
]


def test_new_arguments_are_keyword_only_and_change_nothing(device: str) -> None:
    x, y = pictures(2, 3, 24, 26, device=device)
    assert ssim is structural_similarity_index_measure
    assert ms_ssim is multiscale_structural_similarity_index_measure
    assert torch.equal(ssim(x, y, padding="reflect", per_channel=False), ssim(x, y))
    with pytest.raises(TypeError, match="positional"):
        ssim(x, y, True, 1.5, 11, "elementwise_mean", 1.0, 0.01, 0.03, False, False, "zero")


@pytest.mark.parametrize("padding", PADDINGS)
def test_layouts_of_channels(device: str, padding: Any) -> None:
    x, y = pictures(2, 3, 24, 26, device=device)

    def of_channels(x: Tensor, y: Tensor) -> Tensor:
        return ssim(x, y, data_range=1.0, padding=padding, reduction="none", per_channel=True)

    expected = with_gradients(of_channels, x, y)
    for change in LAYOUTS:
        found = with_gradients(lambda x, y, change=change: of_channels(change(x), change(y)), x, y)
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs)
    assert ssim(x[:0], y[:0], data_range=1.0, reduction="none", per_channel=True).shape == (0, 3)


def test_a_composite_has_the_same_padding(device: str) -> None:
    """The composite serves devices without a kernel."""
    x, y = pictures(1, 2, 18, 17, device=device)
    assert composite._PAD_MODES.keys() == set(PADDINGS)
    for padding in PADDINGS:
        window = composite.Window((1.5,), (11,), padding=padding)
        close(
            1 - composite.similarity(x, y, None, window)[0],
            ssim(x, y, data_range=1.0, reduction="none", padding=padding),
        )


# ----------------------------------------------------------------------------------------------------------------------
# Modes of PyTorch

OPTIONS = [
    {"padding": "reflect", "per_channel": True},
    {"padding": "zero", "per_channel": False},
    {"padding": "valid", "per_channel": True},
]
MEASURES: dict[str, Callable[..., Tensor]] = {
    "value": lambda x, y, **o: ssim(x, y, data_range=1.0, reduction="none", **o).square().sum(),
    "map": lambda x, y, **o: ssim(x, y, data_range=1.0, return_full_image=True, **o)[1].square().mean(),
    "contrast": lambda x, y, **o: ssim(x, y, data_range=1.0, return_contrast_sensitivity=True, **o)[1].square().sum(),
    "range of the data": lambda x, y, **o: ssim(x, y, **o),
    "pyramid": lambda x, y, **o: ms_ssim(x, y, data_range=1.0, betas=PAIR, **o),
}


@pytest.fixture(params=MEASURES)
def measure(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    return MEASURES[request.param]


@pytest.fixture(params=OPTIONS, ids=lambda o: f"{o['padding']}{'-per_channel' if o['per_channel'] else ''}")
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_compiled(device: str, measure: Callable[..., Tensor], options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x, y: measure(x, y, **options), fullgraph=True, dynamic=True, backend=backend)
    for shape in ((2, 3, 24, 26), (3, 3, 27, 24)):
        assert_same(compiled, lambda x, y: measure(x, y, **options), *pictures(*shape, device=device))
    assert backend.frame_count <= 2


def test_mapped(device: str, measure: Callable[..., Tensor], options: dict[str, Any]) -> None:
    xs, ys = pictures(3, 2, 2, 23, 22, device=device)

    def loop(function: Callable[..., Tensor]) -> Tensor:
        return torch.stack([function(x, y, **options) for x, y in zip(xs, ys, strict=True)])

    close(torch.func.vmap(lambda x, y: measure(x, y, **options))(xs, ys), loop(measure))

    def by_image(x: Tensor, y: Tensor, **options: Any) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(measure(x, y, **options), x)[0]

    close(torch.func.vmap(torch.func.grad(lambda x, y: measure(x, y, **options)))(xs, ys), loop(by_image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_under_autocast(
    device: str, measure: Callable[..., Tensor], options: dict[str, Any], dtype: torch.dtype
) -> None:
    x, y = (image.to(dtype) for image in pictures(2, 3, 24, 26, device=device))
    with torch.autocast(device, dtype=dtype):
        value = measure(x, y, **options)
    assert value.dtype == torch.float32
    # The map has the pixels' dtype, and its square is rounded, too.
    rounded = 4 * torch.finfo(dtype).eps if measure is MEASURES["map"] else 1e-5
    torch.testing.assert_close(value.double(), measure(x.double(), y.double(), **options), rtol=rounded, atol=1e-6)


def test_second_derivatives(device: str, measure: Callable[..., Tensor], options: dict[str, Any]) -> None:
    x, y = pictures(1, 2, 22, 22, device=device)
    assert torch.autograd.gradgradcheck(
        lambda x, y: measure(x, y, **options), (x.requires_grad_(), y.requires_grad_()), fast_mode=True, atol=1e-6
    )


# ----------------------------------------------------------------------------------------------------------------------
# Mistakes


@pytest.mark.parametrize("function", [ssim, ms_ssim])
@pytest.mark.parametrize("padding", ["same", "REFLECT", None, 0, ["zero"], torch.tensor(1.0)], ids=str)
def test_unknown_padding(function: Callable[..., Tensor], padding: Any) -> None:
    x, y = pictures(1, 1, 180, 180)
    with pytest.raises(ValueError, match=rf"`padding` is {re.escape(repr(padding))}, expected 'reflect'"):
        function(x, y, data_range=1.0, padding=padding)


@pytest.mark.parametrize("per_channel", [False, True])
def test_sides_that_do_not_fit(device: str, per_channel: bool) -> None:
    x, y = pictures(1, 2, 10, 14, device=device)
    with pytest.raises(RuntimeError, match=r"height 10 is smaller than the window of 11 taps.*'valid'.*`sigma`"):
        ssim(x, y, padding="valid", per_channel=per_channel)
    assert ssim(x[..., :11, :], y[..., :11, :], kernel_size=11, sigma=0.5, padding="valid").isfinite()
    tiny = x[..., :1, :3], y[..., :1, :3]  # smaller than half the window
    expected = textbook.ssim_maps(*tiny, [textbook.gaussian(11, 1.5)] * 2, C1, C2, "zero")[0].mean()
    close(ssim(*tiny, data_range=1.0, padding="zero", per_channel=per_channel), expected)
    with pytest.raises(RuntimeError, match="height 0 must be at least 1"):
        ssim(x[..., :0, :], y[..., :0, :], data_range=1.0, padding="zero")
    with pytest.raises(RuntimeError, match=r"height 5 .*padding is 5"):
        ssim(x[..., :5, :], y[..., :5, :], per_channel=per_channel)
    x, y = pictures(1, 1, 21, 24, device=device)
    with pytest.raises(RuntimeError, match=r"height 10 at level 1 of the pyramid is smaller.*fewer `betas`"):
        ms_ssim(x, y, data_range=1.0, betas=PAIR, padding="valid", per_channel=per_channel)


def test_shapes_are_compared_before_channels_become_a_batch() -> None:
    x, y = pictures(2, 3, 16, 16)
    with pytest.raises(RuntimeError, match="same shape"):
        ssim(x, y.reshape(3, 2, 16, 16), per_channel=True)
    with pytest.raises(RuntimeError, match="at least one channel"):
        ssim(x[:, :0], y[:, :0], data_range=1.0, per_channel=True)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        ssim(x[0], y[0], per_channel=True)
    with pytest.raises(TypeError, match="`target`"):
        ssim(x, None, per_channel=True)  # ty: ignore[invalid-argument-type]


# ----------------------------------------------------------------------------------------------------------------------
# The number of levels that an image is large enough for


def fits(sides: tuple[int, ...], betas: tuple[float, ...], **arguments: Any) -> bool:
    x, y = (image.float() for image in pictures(1, 1, *sides))
    try:
        return ms_ssim(x, y, data_range=1.0, betas=betas, **arguments).isfinite().item()
    except (ValueError, RuntimeError):
        return False


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_size": 3},
        {"sigma": 3.0},
        {"gaussian_kernel": False, "kernel_size": 7},
        {"padding": "valid"},
        {"padding": "zero"},
    ],
    ids=str,
)
@pytest.mark.parametrize("height", [12, 15, 22, 23, 44, 45, 63, 99, 128, 175, 176])
def test_fitting_betas(height: int, arguments: dict[str, Any]) -> None:
    sides = (height, height + 40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            betas = fitting_betas(*sides, **arguments)
        except (ValueError, RuntimeError):
            assert not fits(sides, (1.0,), **arguments)
            return
    assert sum(betas) == pytest.approx(1, abs=2e-4)
    assert fits(sides, betas, **arguments)
    if len(betas) == 5:
        assert betas == textbook.BETAS
        assert not caught
        return
    assert not fits(sides, (*betas, 0.1), **arguments)
    assert sum(betas) == pytest.approx(1, abs=1e-15)
    assert betas == pytest.approx([beta / sum(textbook.BETAS[: len(betas)]) for beta in textbook.BETAS[: len(betas)]])
    assert re.search(rf"{height} x {height + 40} have room for {len(betas)} of", str(caught[0].message))
    assert caught[0].filename == __file__


def test_fitting_betas_of_volumes() -> None:
    with pytest.warns(UserWarning, match="20 x 50 x 60 have room for 2 of"):
        betas = fitting_betas(50, 60, depth=20)
    assert fits((20, 50, 60), betas)
    assert not fits((20, 50, 60), (*betas, 0.1))


def test_images_too_small_for_any_level() -> None:
    with pytest.raises(ValueError, match="height 9 must be at least 11"):
        fitting_betas(9, 30)
    with pytest.raises(ValueError, match="`padding`"):
        fitting_betas(90, 30, padding="same")


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
@pytest.mark.parametrize("arguments", [{}, {"gaussian_kernel": False, "kernel_size": 7}], ids=str)
@pytest.mark.parametrize("reduction", ["elementwise_mean", "sum", "none"])
def test_channels_of_interleaved_batches_are_not_copied(
    reduction: str, arguments: dict[str, Any], dtype: torch.dtype
) -> None:
    images = [(255 * torch.rand(2, 3, 520, 530)).to(dtype) for _ in range(2)]
    interleaved = [image.to(memory_format=torch.channels_last) for image in images]
    arguments = arguments | {"data_range": 255.0, "reduction": reduction, "per_channel": True}
    for more in ({}, {"return_full_image": True}, {"return_contrast_sensitivity": True}):
        expected = ssim(*images, **arguments, **more)
        with torch.profiler.profile() as profiled:
            found = ssim(*interleaved, **arguments, **more)
        names = {event.key for event in profiled.key_averages()}
        assert "ssim_fused::similarity" in names
        assert "aten::clone" not in names
        for ours, theirs in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, expected)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_channels_of_interleaved_batches_of_any_number_are_traced() -> None:
    """A trace must not record how many images the example had, whatever way eager code takes for them."""

    class Channels(torch.nn.Module):
        def forward(self, preds: Tensor, target: Tensor) -> Tensor:
            return ssim(preds, target, data_range=1.0, per_channel=True, reduction="none")

    def batch(size: int) -> tuple[Tensor, Tensor]:
        images = (torch.rand(size, 3, 512, 520) for _ in range(2))
        return tuple(image.contiguous(memory_format=torch.channels_last) for image in images)

    sizes = torch.export.Dim("size", min=2)
    exported = torch.export.export(Channels(), batch(3), dynamic_shapes=({0: sizes}, {0: sizes}), strict=False)
    traced = make_fx(Channels(), tracing_mode="symbolic")(*batch(3))
    more = batch(5)
    for program in (exported.module(), traced, torch.jit.trace(Channels(), batch(3), check_trace=False)):
        torch.testing.assert_close(program(*more), Channels()(*more), rtol=1e-6, atol=1e-6)
