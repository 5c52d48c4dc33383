"""The drop-in modules for kornia and MONAI against their packages, value and gradient, over their arguments."""

from __future__ import annotations

from typing import Any

import pytest
import textbook
import torch
from compat_support import assert_same, assert_signature, peer, pictures
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import kornia, monai

BETAS = [0.2, 0.5, 0.3]


# ----------------------------------------------------------------------------------------------------------------------
# kornia


@pytest.mark.parametrize("name", ["ssim", "ssim3d", "SSIM", "SSIM3D"])
def test_kornia_signatures(name: str) -> None:
    assert_signature(getattr(kornia, name), getattr(peer("kornia.metrics"), name))


@pytest.mark.parametrize("name", ["ssim_loss", "ssim3d_loss", "SSIMLoss", "SSIM3DLoss"])
def test_kornia_loss_signatures(name: str) -> None:
    assert_signature(getattr(kornia, name), getattr(peer("kornia.losses"), name))


@pytest.mark.parametrize("padding", ["same", "valid", "VALID"])
@pytest.mark.parametrize(("window_size", "max_val"), [(11, 1.0), (5, 255.0), (7, 2.0)])
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (2, 2, 13, 12, 14)], ids=str)
def test_kornia(shape: tuple[int, ...], window_size: int, max_val: float, padding: str) -> None:
    """Without the package's `eps` in the denominator."""
    metrics, losses = peer("kornia.metrics"), peer("kornia.losses")
    name = "ssim" if len(shape) == 4 else "ssim3d"
    x, y = pictures(*shape, data_range=max_val)
    arguments = {"window_size": window_size, "max_val": max_val, "eps": 0.0, "padding": padding}
    ours, theirs = getattr(kornia, name), getattr(metrics, name)
    assert_same(lambda x, y: ours(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y, 1e-9)
    assert_same(getattr(kornia, name.upper())(**arguments), getattr(metrics, name.upper())(**arguments), x, y, 1e-9)
    ours, theirs = getattr(kornia, f"{name}_loss"), getattr(losses, f"{name}_loss")
    for reduction in ("mean", "sum", "none"):
        given = arguments | {"reduction": reduction}
        assert_same(lambda x, y, g=given: ours(x, y, **g), lambda x, y, g=given: theirs(x, y, **g), x, y, 1e-9)
    module = f"{name.upper()}Loss"
    assert_same(getattr(kornia, module)(**arguments), getattr(losses, module)(**arguments), x, y, 1e-9)


def test_kornia_differences() -> None:
    black = torch.zeros(1, 1, 16, 16)
    assert (kornia.ssim(black, black, 11) == 1).all()
    assert kornia.ssim_loss(black, black, 11) == 0
    assert (peer("kornia.metrics").ssim(black, black, 11) < 1).all()
    x, y = pictures(1, 1, 16, 16)
    assert kornia.ssim(x.float(), y, 11).dtype == torch.float64
    assert kornia.ssim((255 * x).to(torch.uint8), (255 * y).to(torch.uint8), 11, 255.0).dtype == torch.float32
    with pytest.raises(ValueError, match="odd"):
        kornia.ssim(x, y, 4)
    with pytest.raises(ValueError, match="`padding`"):
        kornia.ssim(x, y, 5, padding="zero")
    with pytest.raises(ValueError, match=r"\[B, C, D, H, W\]"):
        kornia.ssim3d(x, y, 5)
    with pytest.raises(NotImplementedError, match="`reduction`"):
        kornia.ssim_loss(x, y, 5, reduction="batch")


# ----------------------------------------------------------------------------------------------------------------------
# MONAI

MONAI: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 21, 24), {}),
    ((2, 3, 21, 24), {"win_size": (7, 5), "kernel_sigma": (1.0, 2.0), "k1": 0.02, "k2": 0.05}),
    ((2, 1, 21, 24), {"win_size": (4, 6), "data_range": 2.0}),
    ((2, 1, 21, 24), {"win_size": (4, 7), "kernel_type": "uniform"}),
    ((2, 1, 21, 24), {"win_size": 7, "kernel_type": "uniform"}),
    ((2, 2, 13, 12, 14), {"win_size": (3, 8, 5), "kernel_sigma": (0.5, 1.0, 1.5)}),
    ((2, 2, 13, 12, 14), {"win_size": 5}),
]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("shape", "arguments"), MONAI, ids=str)
def test_monai_against_the_package(shape: tuple[int, ...], arguments: dict[str, Any], reduction: Any) -> None:
    """The package computes in float32."""
    theirs = peer("monai.losses.ssim_loss").SSIMLoss
    assert_signature(monai.SSIMLoss, theirs)
    x, y = (image.float() for image in pictures(*shape))
    given = arguments | {"spatial_dims": len(shape) - 2, "reduction": reduction}
    assert_same(monai.SSIMLoss(**given), theirs(**given), x, y, 2e-4)


@pytest.mark.parametrize(("shape", "arguments"), MONAI, ids=str)
def test_monai_in_float64(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    axes = len(shape) - 2
    size, sigma = (
        (v if isinstance(v, tuple) else (v,) * axes)
        for v in (arguments.get("win_size", 11), arguments.get("kernel_sigma", 1.5))
    )
    windows = [
        textbook.uniform(n)
        if arguments.get("kernel_type") == "uniform"
        else (w := torch.exp(-(((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) / s) ** 2) / 2)) / w.sum()
        for n, s in zip(size, sigma, strict=True)
    ]
    data_range = arguments.get("data_range", 1.0)
    c1, c2 = (arguments.get("k1", 0.01) * data_range) ** 2, (arguments.get("k2", 0.03) * data_range) ** 2

    def expected(x: Tensor, y: Tensor) -> Tensor:
        return 1 - textbook.channel_means(x, y, windows, c1, c2, "valid")[0].mean(1, keepdim=True)

    loss = monai.SSIMLoss(spatial_dims=axes, reduction="none", **arguments)
    assert_same(loss, expected, *pictures(*shape), 1e-9)


@pytest.mark.parametrize("size", [5, 4])
def test_monai_multiscale(size: int) -> None:
    theirs = peer("monai.metrics.regression").compute_ms_ssim
    assert_signature(monai.compute_ms_ssim, theirs)
    x, y = (image.float() for image in pictures(2, 3, 45, 51))
    arguments = {"kernel_size": size, "weights": BETAS, "spatial_dims": 2}
    assert_same(
        lambda x, y: monai.compute_ms_ssim(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y, 2e-4
    )
    window = torch.exp(-(((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / 1.5) ** 2) / 2)
    windows = [window / window.sum()] * 2
    assert_same(
        lambda x, y: monai.compute_ms_ssim(x, y, **arguments)[:, 0],
        lambda x, y: textbook.ms_ssim(x, y, windows, 1e-4, 9e-4, "valid", betas=BETAS),
        x.double(), y.double(), 1e-9,
    )  # fmt: skip


def test_monai_mistakes() -> None:
    x, y = pictures(1, 1, 16, 16)
    for arguments, mistake in [
        ({"spatial_dims": 3}, "spatial_dims"),
        ({"spatial_dims": 2, "win_size": (3, 3, 3)}, "`win_size`"),
        ({"spatial_dims": 2, "kernel_type": "box"}, "`kernel_type`"),
        ({"spatial_dims": 2, "kernel_sigma": 0.0}, "standard deviation"),
    ]:
        with pytest.raises(ValueError, match=mistake):
            monai.SSIMLoss(**arguments)(x, y)
    with pytest.raises(ValueError, match="`reduction`"):
        monai.SSIMLoss(2, reduction="batch")
    with pytest.raises(RuntimeError, match="smaller than the window"):
        monai.SSIMLoss(2, win_size=18)(x, y)


def test_symmetric_padding_repeats_the_edge() -> None:
    from ssim_fused.compat.windows import pad_symmetric

    row = torch.arange(3.0)
    assert pad_symmetric(row, [(4, 5)]).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    x = torch.rand(1, 1, 5, 6)
    assert torch.equal(pad_symmetric(x, [(1, 1), (1, 1)]), F.pad(x, (1, 1, 1, 1), mode="replicate"))
