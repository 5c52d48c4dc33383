"""The drop-ins for kornia and MONAI return the packages' values and gradients for all their arguments."""

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
@pytest.mark.parametrize("shape", [(2, 3, 21, 24), (1, 2, 12, 11, 13)], ids=str)
def test_kornia(shape: tuple[int, ...], window_size: int, max_val: float, padding: str) -> None:
    metrics, losses = peer("kornia.metrics"), peer("kornia.losses")
    name = "ssim" if len(shape) == 4 else "ssim3d"
    x, y = pictures(*shape, data_range=max_val)
    arguments = {"window_size": window_size, "max_val": max_val, "padding": padding}
    ours, theirs = getattr(kornia, name), getattr(metrics, name)
    assert_same(lambda x, y: ours(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y, 1e-9)
    assert_same(getattr(kornia, name.upper())(**arguments), getattr(metrics, name.upper())(**arguments), x, y, 1e-9)
    ours, theirs = getattr(kornia, f"{name}_loss"), getattr(losses, f"{name}_loss")
    for reduction in ("mean", "sum", "none"):
        given = arguments | {"reduction": reduction}
        assert_same(lambda x, y, g=given: ours(x, y, **g), lambda x, y, g=given: theirs(x, y, **g), x, y, 1e-9)
    module = f"{name.upper()}Loss"
    assert_same(getattr(kornia, module)(**arguments), getattr(losses, module)(**arguments), x, y, 1e-9)


@pytest.mark.parametrize("eps", [1e-12, 1e-7, 0.0])
@pytest.mark.parametrize("brightness", [1.0, 0.01, 0.0])
def test_kornia_eps(brightness: float, eps: float) -> None:
    """Compares the values and gradients of dark images, where `eps` matters most, in float64 and float32."""
    theirs = peer("kornia.metrics").ssim
    x, y = (brightness * image for image in pictures(2, 2, 17, 18))
    assert_same(lambda x, y: kornia.ssim(x, y, 11, eps=eps), lambda x, y: theirs(x, y, 11, eps=eps), x, y, 1e-9)
    found, expected = kornia.ssim(x.float(), y.float(), 11, eps=eps), theirs(x, y, 11, eps=eps)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4e-6)


def test_kornia_black_images() -> None:
    black = torch.zeros(1, 1, 16, 16)
    theirs = peer("kornia.metrics").ssim(black, black, 11)
    torch.testing.assert_close(kornia.ssim(black, black, 11), theirs, rtol=0, atol=1e-7)
    assert (theirs < 0.99999).all()
    assert (kornia.ssim(black, black, 11, corrected=True) == 1).all()
    assert kornia.ssim_loss(black, black, 11, corrected=True) == 0
    assert kornia.SSIMLoss(11, corrected=True)(black, black) == 0


@pytest.mark.parametrize("n", [12, 11, 10, 9, 6, 5])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_kornia_of_small_images(n: int, padding: str) -> None:
    """The map has the size of the package's map, or both raise."""
    theirs = peer("kornia.metrics").ssim
    x, y = pictures(1, 2, n, 14)
    try:
        expected = theirs(x, y, 11, padding=padding)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"`img1` .* `window_size` 11"):
            kornia.ssim(x, y, 11, padding=padding)
        return
    torch.testing.assert_close(kornia.ssim(x, y, 11, padding=padding), expected, rtol=1e-9, atol=1e-12)


def test_kornia_dtypes_and_mistakes() -> None:
    x, y = pictures(1, 1, 16, 16)
    assert kornia.ssim(x.float(), y, 11).dtype == torch.float64
    assert kornia.ssim((255 * x).to(torch.uint8), (255 * y).to(torch.uint8), 11, 255.0).dtype == torch.float32
    with pytest.raises(ValueError, match="odd"):
        kornia.ssim(x, y, 4)
    with pytest.raises(ValueError, match="`padding`"):
        kornia.ssim(x, y, 5, padding="zero")
    with pytest.raises(ValueError, match=r"\[B, C, D, H, W\]"):
        kornia.ssim3d(x, y, 5)
    with pytest.raises(ValueError, match="`eps`"):
        kornia.ssim(x, y, 5, eps=-1.0)
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

    loss = monai.SSIMLoss(spatial_dims=axes, reduction="none", corrected=True, **arguments)
    assert_same(loss, expected, *pictures(*shape), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 45, 51), (1, 2, 23, 24, 25)], ids=str)
@pytest.mark.parametrize("size", [5, 4])
def test_monai_multiscale(size: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    theirs = peer("monai.metrics.regression").compute_ms_ssim
    if len(shape) == 5 and dtype == torch.float16:
        pytest.skip("PyTorch does not halve volumes of float16 on the CPU")
    assert_signature(monai.compute_ms_ssim, theirs)
    x, y = (image.to(dtype) for image in pictures(*shape))
    arguments = {"kernel_size": size, "weights": [0.4, 0.6], "spatial_dims": len(shape) - 2}
    assert_same(
        lambda x, y: monai.compute_ms_ssim(x, y, **arguments), lambda x, y: theirs(x, y, **arguments), x, y,
        5e-3 if dtype == torch.float16 else 5e-4,
    )  # fmt: skip


@pytest.mark.parametrize("size", [5, 4])
def test_monai_multiscale_in_float64(size: int) -> None:
    x, y = pictures(2, 3, 45, 51)
    arguments = {"kernel_size": size, "weights": BETAS, "spatial_dims": 2, "corrected": True}
    window = torch.exp(-(((torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / 1.5) ** 2) / 2)
    windows = [window / window.sum()] * 2
    assert_same(
        lambda x, y: monai.compute_ms_ssim(x, y, **arguments)[:, 0],
        lambda x, y: textbook.ms_ssim(x, y, windows, 1e-4, 9e-4, "valid", betas=BETAS),
        x, y, 1e-9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 3, 21, 24), {"kernel_size": (11, 11), "kernel_sigma": (1.5, 1.5)}),
        ((2, 3, 21, 24), {"kernel_size": (4, 7), "kernel_sigma": (1.0, 2.0), "data_range": 2.0}),
        ((2, 2, 9, 10, 11), {"kernel_size": (3, 4, 5), "kernel_sigma": (1.0, 1.0, 1.0), "kernel_type": "uniform"}),
    ],
    ids=str,
)
def test_monai_maps(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    theirs = peer("monai.metrics.regression").compute_ssim_and_cs
    assert_signature(monai.compute_ssim_and_cs, theirs)
    x, y = (image.float() for image in pictures(*shape))
    given = arguments | {"spatial_dims": len(shape) - 2}
    assert_same(lambda x, y: monai.compute_ssim_and_cs(x, y, **given), lambda x, y: theirs(x, y, **given), x, y, 2e-4)


def test_monai_mistakes() -> None:
    x, y = pictures(1, 1, 16, 16)
    for arguments, mistake in [
        ({"spatial_dims": 3}, "spatial_dims"),
        ({"spatial_dims": 2, "win_size": (3, 3, 3)}, "`win_size`"),
        ({"spatial_dims": 2, "kernel_type": "box"}, "`kernel_type`"),
        ({"spatial_dims": 2, "kernel_sigma": 0.0}, "`kernel_sigma`"),
    ]:
        with pytest.raises(ValueError, match=mistake):
            monai.SSIMLoss(**arguments)(x, y)
    with pytest.raises(ValueError, match="`reduction`"):
        monai.SSIMLoss(2, reduction="batch")
    with pytest.raises(ValueError, match=r"`input` .* its height 16 must be at least 18 for `win_size`"):
        monai.SSIMLoss(2, win_size=18)(x, y)


def test_symmetric_padding_repeats_the_edge() -> None:
    from ssim_fused.compat.windows import pad_symmetric

    row = torch.arange(3.0)
    assert pad_symmetric(row, [(4, 5)]).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    x = torch.rand(1, 1, 5, 6)
    assert torch.equal(pad_symmetric(x, [(1, 1), (1, 1)]), F.pad(x, (1, 1, 1, 1), mode="replicate"))
