"""The drop-in modules for pytorch-msssim, fused-ssim and piq against the packages in float64, over their arguments."""

from __future__ import annotations

from typing import Any

import pytest
import textbook
import torch
from compat_support import assert_same, assert_signature, peer, pictures
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import fused_ssim, kornia, monai, piq, pytorch_msssim

FLOAT32_WINDOW = 1e-4  # where a package rounds its window to float32: relative to the largest gradient
BETAS = [0.2, 0.5, 0.3]


# ----------------------------------------------------------------------------------------------------------------------
# pytorch-msssim

WINDOWS: list[dict[str, Any]] = [
    {},
    {"win_size": 7, "win_sigma": 1.0},
    {"win_size": 5, "win_sigma": 2.5},
    {"K": (0.02, 0.1)},
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
    if given.pop("win", None) or set(given) & {"K", "size_average", "nonnegative_ssim", "data_range"}:
        # With a window of float64, the package is exact, too.
        axes = sum(n > 1 for n in shape[2:])
        given["win"] = textbook.gaussian(9, 1.7).expand(shape[1], *[1] * axes, 9)
    tolerance = 1e-10 if "win" in given else FLOAT32_WINDOW
    assert_same(lambda x, y: pytorch_msssim.ssim(x, y, **given), lambda x, y: theirs(x, y, **given), x, y, tolerance)


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
    with pytest.warns(UserWarning, match="shorter than the window"):
        assert_same(
            lambda x, y: pytorch_msssim.ssim(x, y, win=win, data_range=1.0),
            lambda x, y: theirs(x, y, win=win, data_range=1.0),
            x, y,
        )  # fmt: skip


@pytest.mark.parametrize("size_average", [True, False])
@pytest.mark.parametrize(
    ("shape", "weights"), [((2, 3, 176, 192), None), ((2, 2, 84, 88), BETAS), ((1, 2, 88, 84, 84), BETAS)], ids=str
)
def test_pytorch_msssim_multiscale(shape: tuple[int, ...], weights: Any, size_average: bool) -> None:
    """Sides that stay even: the package's pooling of odd ones is another."""
    theirs = peer("pytorch_msssim").ms_ssim
    size = 11 if weights is None else 5
    arguments = {
        "data_range": 1.0,
        "size_average": size_average,
        "weights": weights,
        "win": textbook.gaussian(size, 1.5).expand(shape[1], *[1] * (len(shape) - 2), size),
    }
    x, y = pictures(*shape)
    assert_same(lambda x, y: pytorch_msssim.ms_ssim(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y)


def test_pytorch_msssim_of_odd_sides_is_that_of_whole_blocks() -> None:
    x, y = pictures(1, 2, 181, 187)
    expected = textbook.ms_ssim(x, y, [textbook.gaussian(11, 1.5)] * 2, 1e-4, 9e-4, "valid", per_channel=True).mean()
    torch.testing.assert_close(pytorch_msssim.ms_ssim(x, y, data_range=1.0), expected, rtol=1e-10, atol=0)
    theirs = peer("pytorch_msssim").ms_ssim(x, y, data_range=1.0)
    assert 1e-5 < abs(theirs - expected) < 1e-2


@pytest.mark.parametrize("name", ["SSIM", "MS_SSIM"])
def test_pytorch_msssim_modules(name: str) -> None:
    theirs = getattr(peer("pytorch_msssim"), name)
    x, y = pictures(1, 3, 192, 176)
    for arguments in (
        {"data_range": 1.0},
        {"data_range": 2.0, "K": (0.02, 0.02), "size_average": False, "win_size": 9},
    ):
        ours = getattr(pytorch_msssim, name)(**arguments)
        assert_same(ours, theirs(**arguments), x, y, FLOAT32_WINDOW)
        assert "win_size" in repr(ours)


def test_pytorch_msssim_mistakes() -> None:
    x, y = pictures(1, 1, 16, 16)
    with pytest.raises(ValueError, match="same"):
        pytorch_msssim.ssim(x, y[..., 1:])
    with pytest.raises(ValueError, match="odd"):
        pytorch_msssim.ssim(x, y, win_size=4)
    with pytest.raises(ValueError, match="expected"):
        pytorch_msssim.ssim(x[0], y[0])
    with pytest.raises(RuntimeError, match=r"level 1 .*smaller than the window"):
        pytorch_msssim.ms_ssim(x, y)
    with pytest.raises(ValueError, match="differs between channels"):
        pytorch_msssim.ssim(x.expand(1, 2, 16, 16), y.expand(1, 2, 16, 16), win=torch.rand(2, 1, 1, 3))
    twice = 2 * textbook.gaussian(11, 1.5).expand(1, 1, 1, 11)
    torch.testing.assert_close(pytorch_msssim.ssim(x, y, win=twice), pytorch_msssim.ssim(x, y))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32], ids=str)
def test_integers(dtype: torch.dtype) -> None:
    """As floating-point images of the same values, by every module; also where the window is even."""
    x, y = (image.mul(255).round() for image in pictures(1, 2, 16, 20))
    calls = [
        pytorch_msssim.ssim,
        lambda x, y: fused_ssim.fused_ssim(x, y),
        lambda x, y: piq.ssim(x, y, data_range=255),
        lambda x, y: kornia.ssim(x, y, 5, 255.0),
        monai.SSIMLoss(2, 255, win_size=(4, 7)),
    ]
    for call in calls:
        found = call(x.to(dtype), y.to(dtype))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), call(x, y), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------------
# fused-ssim


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (2, 2, 13, 12, 14)], ids=str)
def test_fused_ssim(shape: tuple[int, ...], padding: Any) -> None:
    """The package needs CUDA; it is the mean of this map."""
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
    """The package refuses pixels outside of the range."""
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


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("arguments", [{}, {"kernel_size": 5, "k2": 0.1}, {"data_range": 255}], ids=str)
def test_piq_losses(arguments: dict[str, Any], reduction: str) -> None:
    given = arguments | {"reduction": reduction}
    x, y = within(2, 3, 176, 192, data_range=given.get("data_range", 1))
    assert_same(piq.SSIMLoss(**given), peer("piq.ssim").SSIMLoss(**given), x[..., :40, :45], y[..., :40, :45], 1e-9)
    theirs = peer("piq.ms_ssim").MultiScaleSSIMLoss(**given)
    assert_same(piq.MultiScaleSSIMLoss(**given), theirs.double(), x, y, 1e-6)  # their exponents are of float32
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


@pytest.mark.parametrize("side", [40, 385])
def test_piq_by_its_formula(side: int) -> None:
    """Where the package is not installed."""
    x, y = pictures(1, 2, side, side + 3)
    windows = [textbook.gaussian(7, 2.0)] * 2

    def expected(x: Tensor, y: Tensor) -> list[Tensor]:
        x, y = (F.avg_pool2d(image, 2) if side > 384 else image for image in (x, y))
        return [value.mean() for value in textbook.channel_means(x, y, windows, 1e-4, 9e-4, "valid")]

    assert_same(lambda x, y: piq.ssim(x, y, 7, 2.0, full=True), expected, x, y, 1e-9)


def test_piq_differences() -> None:
    x, y = within(3, 2, 181, 187)
    of_images = piq.SSIMLoss(reduction="none")(x, y)
    torch.testing.assert_close(piq.SSIMLoss(reduction="sum")(x, y), of_images.sum(), rtol=1e-12, atol=0)
    theirs = peer("piq.ssim").SSIMLoss(reduction="sum")(x, y)
    torch.testing.assert_close(theirs, 1 - (1 - of_images).sum(), rtol=1e-10, atol=0)
    expected = textbook.ms_ssim(x, y, [textbook.gaussian(11, 1.5)] * 2, 1e-4, 9e-4, "valid", per_channel=True).mean()
    torch.testing.assert_close(piq.multi_scale_ssim(x, y), expected, rtol=1e-10, atol=0)
    assert 1e-6 < abs(peer("piq.ms_ssim").multi_scale_ssim(x, y) - expected) < 1e-2
    for mistake, arguments in [("odd", {"kernel_size": 4}), ("reduction", {"reduction": "batch"})]:
        with pytest.raises(ValueError, match=mistake):
            piq.ssim(x, y, **arguments)
    with pytest.raises(ValueError, match="real images"):
        piq.ssim(x.unsqueeze(-1).expand(3, 2, 181, 187, 2), y.unsqueeze(-1).expand(3, 2, 181, 187, 2))
    with pytest.raises(ValueError, match="levels"):
        piq.multi_scale_ssim(x, y, scale_weights=torch.ones(1, 5))
