"""The drop-ins for pytorch-msssim, fused-ssim and piq return the packages' float64 results for all their arguments."""

from __future__ import annotations

from typing import Any

import pytest
import textbook
import torch
from compat_support import assert_same, assert_signature, peer, pictures
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import fused_ssim, piq, pytorch_msssim

BETAS = [0.2, 0.5, 0.3]


# ----------------------------------------------------------------------------------------------------------------------
# pytorch-msssim

WINDOWS: list[dict[str, Any]] = [
    {},
    {"win_size": 7, "win_sigma": 1.0},
    {"win_size": 5, "win_sigma": 2.5},
    {"K": (0.02, 0.1)},
    {"K": (0.02, 0.0)},
    {"K": (0.0, 0.03)},
    {"data_range": 1.0},
    {"size_average": False},
    {"nonnegative_ssim": True},
    {"win": True},
]


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "SSIM", "MS_SSIM"])
def test_pytorch_msssim_signatures(name: str) -> None:
    theirs = getattr(peer("pytorch_msssim"), name)
    assert_signature(getattr(pytorch_msssim, name), theirs)


@pytest.mark.parametrize("arguments", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (2, 2, 12, 13, 14), (1, 2, 1, 14, 15)], ids=str)
def test_pytorch_msssim(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    theirs = peer("pytorch_msssim").ssim
    x, y = pictures(*shape, data_range=arguments.get("data_range", 255))
    given = dict(arguments)
    if given.pop("win", None):
        given["win"] = textbook.gaussian(9, 1.7).expand(shape[1], *[1] * sum(n > 1 for n in shape[2:]), 9)
    assert_same(lambda x, y: pytorch_msssim.ssim(x, y, **given), lambda x, y: theirs(x, y, **given), x, y, 1e-10)


@pytest.mark.parametrize("kind", ["sums to another number", "differs between channels", "rounded to float32"])
def test_pytorch_msssim_takes_any_window(kind: str) -> None:
    theirs = peer("pytorch_msssim")
    x, y = pictures(2, 3, 21, 24)
    taps = torch.rand(3, 1, 1, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    if kind == "sums to another number":
        win = 2 * taps[:1].expand(3, 1, 1, 7)
    else:
        win = taps / taps.sum(-1, keepdim=True) if kind == "rounded to float32" else taps
        win = win.float() if kind == "rounded to float32" else win
    for name, more in (("ssim", {}), ("ms_ssim", {"weights": [1.0], "data_range": 2.0})):
        arguments = {"data_range": 1.0, "win": win, "size_average": False} | more
        ours, package = getattr(pytorch_msssim, name), getattr(theirs, name)
        if name == "ms_ssim":
            x, y = pictures(1, 3, 97, 103)
        assert_same(
            lambda x, y, f=ours, a=arguments: f(x, y, **a), lambda x, y, f=package, a=arguments: f(x, y, **a), x, y
        )


def test_pytorch_msssim_in_float32_differs_by_rounding() -> None:
    """On a photograph, the window's rounding matters twenty times as much as that of the package's arithmetic."""
    from skimage import data

    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].double()[..., :331, :257]
    noisy = (photograph + 25 * torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    for name in ("ssim", "ms_ssim"):
        ours, theirs = getattr(pytorch_msssim, name), getattr(peer("pytorch_msssim"), name)
        exact = theirs(noisy, photograph)
        assert abs(ours(noisy.float(), photograph.float()) - exact) < 3e-7
        assert abs(ours(noisy.float(), photograph.float(), corrected=True) - exact) > 1e-6


def test_pytorch_msssim_clamps_channels() -> None:
    theirs = peer("pytorch_msssim").ssim
    x, y = pictures(2, 3, 21, 24)
    y[:, 1] = 1 - x[:, 1]  # its SSIM is negative
    arguments = {
        "data_range": 1.0,
        "nonnegative_ssim": True,
        "win": textbook.gaussian(11, 1.5).expand(3, 1, 1, 11),
        "size_average": False,
    }
    assert (pytorch_msssim.ssim(x, y, **arguments | {"nonnegative_ssim": False}) < theirs(x, y, **arguments)).all()
    assert_same(lambda x, y: pytorch_msssim.ssim(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y)


def test_pytorch_msssim_does_not_filter_a_short_axis() -> None:
    theirs = peer("pytorch_msssim").ssim
    x, y = pictures(1, 2, 4, 16, 17)
    win = textbook.gaussian(11, 1.5).expand(2, 1, 1, 1, 11)
    with pytest.warns(UserWarning, match="not filtered"):
        assert_same(
            lambda x, y: pytorch_msssim.ssim(x, y, win=win, data_range=1.0),
            lambda x, y: theirs(x, y, win=win, data_range=1.0),
            x, y,
        )  # fmt: skip


# Sides that are even at every level, and odd at some, from the smallest that the package accepts.
PYRAMIDS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 176, 192), {}),
    ((1, 2, 161, 170), {}),
    ((1, 1, 181, 187), {"size_average": False}),
    ((2, 2, 84, 88), {"weights": BETAS, "win_size": 5}),
    ((2, 2, 67, 75), {"weights": BETAS, "win_size": 5, "K": (0.02, 0.05)}),
    ((1, 2, 70, 81), {"weights": [0.1] * 6, "win_size": 5}),  # the last level is shorter than the window
    ((1, 2, 88, 84, 84), {"weights": BETAS, "win_size": 5}),
    ((1, 1, 10, 70, 65), {"win_size": 5}),  # the depth too, from the second level on
]


@pytest.mark.filterwarnings("ignore:.*not filtered", "ignore:Skipping")
@pytest.mark.parametrize("window", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "arguments"), PYRAMIDS, ids=str)
def test_pytorch_msssim_multiscale(shape: tuple[int, ...], arguments: dict[str, Any], window: str) -> None:
    theirs = peer("pytorch_msssim").ms_ssim
    given = {"data_range": 1.0} | arguments
    if window == "float64":
        size = given.pop("win_size", 11)
        given["win"] = textbook.gaussian(size, 1.5).expand(shape[1], *[1] * (len(shape) - 2), size)
    x, y = pictures(*shape)
    assert_same(lambda x, y: pytorch_msssim.ms_ssim(x, y, **given), lambda x, y: theirs(x, y, **given), x, y)


def test_pytorch_msssim_corrected_halves_whole_blocks() -> None:
    x, y = pictures(1, 2, 181, 187)
    expected = textbook.ms_ssim(x, y, [textbook.gaussian(11, 1.5)] * 2, 1e-4, 9e-4, "valid", per_channel=True).mean()
    found = pytorch_msssim.ms_ssim(x, y, data_range=1.0, corrected=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    found = pytorch_msssim.MS_SSIM(data_range=1.0, corrected=True)(x, y)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert 1e-5 < abs(pytorch_msssim.ms_ssim(x, y, data_range=1.0) - expected) < 1e-2
    expected = textbook.channel_means(x, y, [textbook.gaussian(11, 1.5)] * 2, 1e-4, 9e-4, "valid")[0].mean()
    found = pytorch_msssim.ssim(x, y, data_range=1.0, corrected=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert 1e-10 < abs(pytorch_msssim.ssim(x, y, data_range=1.0) - expected) < 1e-6


@pytest.mark.filterwarnings("ignore:.*not filtered", "ignore:Skipping")
def test_pytorch_msssim_of_other_shapes_and_strides() -> None:
    theirs = peer("pytorch_msssim")
    x, y = pictures(3, 2, 24, 31)
    for change in (
        lambda i: i[:0],
        lambda i: i.transpose(2, 3),
        lambda i: i[..., ::2],
        lambda i: i[:, :1],
        lambda i: i[..., :5],
    ):
        for average in (True, False):
            found = pytorch_msssim.ssim(change(x), change(y), data_range=1, size_average=average)
            expected = theirs.ssim(change(x), change(y), data_range=1, size_average=average)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
def test_pytorch_msssim_modules(name: str) -> None:
    theirs = getattr(peer("pytorch_msssim"), name)
    x, y = pictures(1, 3, 192, 176)
    for arguments in (
        {"data_range": 1.0},
        {"data_range": 2.0, "K": (0.02, 0.02), "size_average": False, "win_size": 9},
    ):
        ours = getattr(pytorch_msssim, name)(**arguments)
        assert_same(ours, theirs(**arguments), x, y)
        assert "win_size" in repr(ours)


def test_pytorch_msssim_mistakes() -> None:
    x, y = pictures(1, 1, 16, 16)
    with pytest.raises(ValueError, match="same"):
        pytorch_msssim.ssim(x, y[..., 1:])
    with pytest.raises(ValueError, match="odd"):
        pytorch_msssim.ssim(x, y, win_size=4)
    with pytest.raises(ValueError, match="expected"):
        pytorch_msssim.ssim(x[0], y[0])
    with pytest.raises(ValueError, match=r"`X` has the shape \(1, 1, 16, 16\): its height 16 must be at least 161"):
        pytorch_msssim.ms_ssim(x, y)
    for win, mistake in [
        (torch.rand(2, 1, 1, 3), "window for each of the 1 channels"),
        (torch.zeros(1, 1, 1, 3), "sums to 0"),
        (torch.ones(1, 1, 1, 3, dtype=torch.int64), "floating-point"),
        ("gaussian", "torch.Tensor"),
    ]:
        with pytest.raises((TypeError, ValueError), match=mistake):
            pytorch_msssim.ssim(x, y, win=win)
    twice = 2 * textbook.gaussian(11, 1.5).expand(1, 1, 1, 11)
    found, expected = (pytorch_msssim.ssim(x, y, win=win, corrected=True) for win in (twice, twice / 2))
    torch.testing.assert_close(found, expected)


# ----------------------------------------------------------------------------------------------------------------------
# fused-ssim


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (2, 2, 13, 12, 14)], ids=str)
def test_fused_ssim(shape: tuple[int, ...], padding: Any) -> None:
    """The package needs CUDA. It returns the mean of this map."""
    function = fused_ssim.fused_ssim if len(shape) == 4 else fused_ssim.fused_ssim3d
    windows = [textbook.gaussian(11, 1.5)] * (len(shape) - 2)

    def expected(x: Tensor, y: Tensor) -> Tensor:
        return textbook.ssim_maps(x, y, windows, 1e-4, 9e-4, "zero" if padding == "same" else "valid")[0].mean()

    x, y = pictures(*shape)
    assert_same(lambda x, y: function(x, y, padding), expected, x, y, which=(0,))
    y.requires_grad_()
    x.requires_grad_()
    value = function(x, y, padding=padding)
    assert torch.autograd.grad(value, y, allow_unused=True) == (None,)
    assert not function(x, y, padding, train=False).requires_grad
    with pytest.raises(ValueError, match="`padding`"):
        function(x, y, "reflect")


# ----------------------------------------------------------------------------------------------------------------------
# piq


def within(*shape: int, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    """The package refuses pixels outside the range."""
    x, y = pictures(*shape, data_range=data_range)
    return x.clamp(0, data_range), y.clamp(0, data_range)


@pytest.mark.parametrize(
    ("module", "name"),
    [("ssim", "ssim"), ("ssim", "SSIMLoss"), ("ms_ssim", "multi_scale_ssim"), ("ms_ssim", "MultiScaleSSIMLoss")],
)
def test_piq_signatures(module: str, name: str) -> None:
    assert_signature(getattr(piq, name), getattr(peer(f"piq.{module}"), name))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 3, 21, 24), {}),
        ((2, 3, 21, 24), {"kernel_size": 7, "kernel_sigma": 1.0, "k1": 0.02, "k2": 0.05}),
        ((2, 1, 33, 24), {"kernel_size": 5, "kernel_sigma": 3.0, "data_range": 255, "full": True}),
        ((1, 1, 390, 385), {}),
        ((1, 1, 390, 385), {"downsample": False}),
        ((1, 1, 643, 650), {"full": True}),
    ],
    ids=str,
)
def test_piq(shape: tuple[int, ...], arguments: dict[str, Any], reduction: Any) -> None:
    theirs = peer("piq.ssim").ssim
    x, y = within(*shape, data_range=arguments.get("data_range", 1))
    arguments = arguments | {"reduction": reduction}
    assert_same(lambda x, y: piq.ssim(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y, 1e-9)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("arguments", [{}, {"kernel_size": 5, "k2": 0.1}, {"data_range": 255}], ids=str)
def test_piq_losses(arguments: dict[str, Any], reduction: str) -> None:
    given = arguments | {"reduction": reduction}
    x, y = within(2, 1, 163, 176, data_range=given.get("data_range", 1))
    assert_same(piq.SSIMLoss(**given), peer("piq.ssim").SSIMLoss(**given), x[..., :40, :45], y[..., :40, :45], 1e-9)
    theirs = peer("piq.ms_ssim").MultiScaleSSIMLoss(**given)
    ours = piq.MultiScaleSSIMLoss(**given)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, x, y, 1e-6)  # 1 - score, and exponents in float32
    theirs = peer("piq.ms_ssim").multi_scale_ssim
    for weights in (None, torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)):
        options = given | {"scale_weights": weights}
        assert_same(
            lambda x, y, o=options: piq.multi_scale_ssim(x, y, **o),
            lambda x, y, o=options: theirs(x, y, **o),
            x,
            y,
            1e-9,
        )


def test_piq_differentiates_the_weights_of_levels() -> None:
    x, y = within(2, 2, 41, 47)
    found = []
    for function in (piq.multi_scale_ssim, peer("piq.ms_ssim").multi_scale_ssim):
        weights = torch.tensor([0.5, 0.2, 0.4], dtype=torch.float64, requires_grad=True)
        found.append(torch.autograd.grad(function(x, y, scale_weights=weights), weights)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_piq_loads_other_weights() -> None:
    """The weights are a buffer, as in the package: loading a state or writing to the buffer changes the result."""
    x, y = within(1, 1, 45, 46)
    loss = piq.MultiScaleSSIMLoss(scale_weights=torch.tensor([0.5, 0.5]))
    before = loss(x, y)
    loss.load_state_dict({"scale_weights": torch.tensor([0.9, 0.1])})
    after = loss(x, y)
    assert after != before
    loss.scale_weights.copy_(torch.tensor([0.5, 0.5]))
    assert loss(x, y) == before
    loss.double()
    torch.testing.assert_close(loss(x, y), before)


@pytest.mark.parametrize("side", [40, 385])
def test_piq_by_its_formula(side: int) -> None:
    """Also tests piq's formula if the package is not installed."""
    x, y = pictures(1, 2, side, side + 3)
    windows = [textbook.gaussian(7, 2.0)] * 2

    def expected(x: Tensor, y: Tensor) -> list[Tensor]:
        x, y = (F.avg_pool2d(image, 2) if side > 384 else image for image in (x, y))
        return [value.mean() for value in textbook.channel_means(x, y, windows, 1e-4, 9e-4, "valid")]

    assert_same(lambda x, y: piq.ssim(x, y, 7, 2.0, full=True), expected, x, y, 1e-9)


def first_row_and_column_twice(image: Tensor) -> Tensor:
    more = max(n % 2 for n in image.shape[2:])
    return F.avg_pool2d(F.pad(image, (more, 0, more, 0), mode="replicate"), 2)


@pytest.mark.parametrize("sides", [(161, 170), (171, 161), (181, 187), (176, 192), (164, 176)], ids=str)
def test_piq_multiscale_by_its_formula(sides: tuple[int, int]) -> None:
    """Also tests piq's formula if the package is not installed."""
    window = [textbook.gaussian(11, 1.5)] * 2

    def expected(x: Tensor, y: Tensor) -> Tensor:
        pool = first_row_and_column_twice
        return textbook.ms_ssim(x, y, window, 1e-4, 9e-4, "valid", per_channel=True, pool=pool).mean(1)

    x, y = within(2, 2, *sides)
    assert_same(lambda x, y: piq.multi_scale_ssim(x, y, reduction="none"), expected, x, y, 1e-9)


def test_piq_corrected() -> None:
    x, y = within(3, 2, 181, 187)
    of_images = piq.SSIMLoss(reduction="none")(x, y)
    found = piq.SSIMLoss(reduction="sum", corrected=True)(x, y)
    torch.testing.assert_close(found, of_images.sum(), rtol=1e-12, atol=0)
    torch.testing.assert_close(piq.SSIMLoss(reduction="sum")(x, y), 1 - (1 - of_images).sum(), rtol=1e-10, atol=0)
    expected = textbook.ms_ssim(x, y, [textbook.gaussian(11, 1.5)] * 2, 1e-4, 9e-4, "valid", per_channel=True).mean()
    torch.testing.assert_close(piq.multi_scale_ssim(x, y, corrected=True), expected, rtol=1e-10, atol=0)
    assert 1e-6 < abs(piq.multi_scale_ssim(x, y) - expected) < 1e-2
    assert piq.ssim(x + 1, y, corrected=True) < 1  # outside the range


def test_piq_mistakes() -> None:
    x, y = within(1, 2, 21, 27)
    for mistake, arguments in [("odd", {"kernel_size": 4}), ("reduction", {"reduction": "batch"})]:
        with pytest.raises(ValueError, match=mistake):
            piq.ssim(x, y, **arguments)
    with pytest.raises(ValueError, match=r"expected \[N, C, H, W\]"):
        piq.ssim(x.unsqueeze(-1).expand(1, 2, 21, 27, 2), y.unsqueeze(-1).expand(1, 2, 21, 27, 2))
    with pytest.raises(ValueError, match="levels"):
        piq.multi_scale_ssim(x, y, scale_weights=torch.ones(1, 5))
    for images in ((x, y + 1), (x - 1, y), (255 * x, 255 * y)):
        with pytest.raises(ValueError, match=r"`[xy]` has pixels from .* expected 0 to the `data_range`"):
            piq.ssim(*images)
        with pytest.raises(AssertionError):
            peer("piq.ssim").ssim(*images)
