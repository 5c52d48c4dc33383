"""kornia 0.9.0: the maps ``ssim`` and ``ssim3d``, the losses of half their distance, and a module for each.

As in the package, ``eps`` is added to the map's denominator, so that black images differ from themselves by 1e-5 at a
range of 1. The operators have no such term: where it can change the result's dtype, at ranges below 10 or so, four maps
are computed in place of one. With ``corrected=True`` it is not added.

What differs: the loss is computed, not one minus the map, unless ``eps`` counts; ``max_val`` may be an int.
``kornia.losses.MS_SSIMLoss`` is another measure than MS-SSIM, five Gaussians on the full image with an L1 term, and is
not here.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.arguments import DefaultRange
from ssim_fused.compat.windows import Window

_IMAGES, _VOLUMES = {4: "[B, C, H, W]"}, {5: "[B, C, D, H, W]"}
_PADDINGS = {"same": "reflect", "valid": "valid"}
_REDUCTIONS = ("mean", "sum", "none")
_RANGE = DefaultRange(1.0)
_NAMES = ("img1", "img2")
_TRANSLATED = {"preds": "img1", "target": "img2", "data_range": "max_val", "kernel_size": "window_size"}


@arguments.speaks_of(**_TRANSLATED)
def ssim(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """The SSIM map of two batches ``[B, C, H, W]``.

    Args:
        img1: images.
        img2: images of the same shape.
        window_size: taps of the Gaussian of standard deviation 1.5, odd.
        max_val: the images' range; by default 1, of integers that of their type.
        eps: what is added to the denominator.
        padding: ``"same"``, by reflection, or ``"valid"``, none.
        corrected: whether ``eps`` is left out: the constants keep every denominator above zero.

    Returns:
        The map, of the images' shape; with "valid" without the pixels whose windows leave the image. An axis with one
        pixel less than the window has has none left, as in the package.

    Raises:
        TypeError: something is no tensor, or no number.
        ValueError: shapes differ or have other dimensions, an even ``window_size`` or one that the images do not hold,
            a negative ``eps``, or another ``padding``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> ssim(0.9 * target, target, window_size=11).shape
        torch.Size([2, 3, 64, 64])

    """
    return _map(_prepared(img1, img2, _IMAGES, window_size, max_val, eps, padding, corrected))


@arguments.speaks_of(**_TRANSLATED)
def ssim3d(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """As :func:`ssim`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> of_voxels = ssim3d(0.9 * target, target, window_size=7)

    """
    return _map(_prepared(img1, img2, _VOLUMES, window_size, max_val, eps, padding, corrected))


@arguments.speaks_of(**_TRANSLATED)
def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """``(1 - SSIM) / 2`` of two batches ``[B, C, H, W]``: the mean or sum over all pixels, or the map of it.

    Arguments and errors as of :func:`ssim`; NotImplementedError for another ``reduction``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = ssim_loss(0.9 * target, target, window_size=11)

    """
    given = _prepared(img1, img2, _IMAGES, window_size, max_val, eps, padding, corrected)
    return _loss(given, reduction)


@arguments.speaks_of(**_TRANSLATED)
def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """As :func:`ssim_loss`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d_loss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = ssim3d_loss(0.9 * target, target, window_size=7)

    """
    given = _prepared(img1, img2, _VOLUMES, window_size, max_val, eps, padding, corrected)
    return _loss(given, reduction)


class SSIM(nn.Module):
    """:func:`ssim` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM
        >>> target = torch.rand(2, 3, 64, 64)
        >>> of_pixels = SSIM(11)(0.9 * target, target)

    """

    _map = staticmethod(ssim)

    def __init__(
        self,
        window_size: int,
        max_val: float = _RANGE,
        eps: float = 1e-12,
        padding: str = "same",
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps, self.padding = window_size, max_val, eps, padding
        self.corrected = corrected

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return self._map(img1, img2, self.window_size, self.max_val, self.eps, self.padding, corrected=self.corrected)


class SSIM3D(SSIM):
    """:func:`ssim3d` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM3D
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> of_voxels = SSIM3D(7)(0.9 * target, target)

    """

    _map = staticmethod(ssim3d)


class SSIMLoss(nn.Module):
    """:func:`ssim_loss` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIMLoss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = SSIMLoss(11)(0.9 * target, target)

    """

    _loss = staticmethod(ssim_loss)

    def __init__(
        self,
        window_size: int,
        max_val: float = _RANGE,
        eps: float = 1e-12,
        reduction: Literal["mean", "sum", "none"] = "mean",
        padding: str = "same",
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps, self.corrected = window_size, max_val, eps, corrected
        self.reduction: Literal["mean", "sum", "none"] = reduction
        self.padding = padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return self._loss(
            img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding,
            corrected=self.corrected,
        )  # fmt: skip


class SSIM3DLoss(SSIMLoss):
    """:func:`ssim3d_loss` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM3DLoss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = SSIM3DLoss(7)(0.9 * target, target)

    """

    _loss = staticmethod(ssim3d_loss)


class _Given(NamedTuple):
    """What is computed of: images of floats, of a common dtype, that the window fits."""

    x: Tensor
    y: Tensor
    window: Window
    eps: float  # zero where it cannot be seen


def _prepared(
    img1: Any,
    img2: Any,
    shapes: dict[int, str],
    window_size: Any,
    max_val: Any,
    eps: Any,
    padding: Any,
    corrected: bool,
) -> _Given:
    arguments.check_images(img1, img2, _NAMES, shapes)
    size = arguments.check_size("window_size", window_size)
    mode = _PADDINGS[arguments.check_choice("padding", str(padding).lower(), tuple(_PADDINGS))]
    number = arguments.check_range("max_val", max_val, img1, img2, _NAMES, takes_wide_integers=True)
    (eps,) = arguments.check_constants(eps=eps)
    least, why = (
        (size // 2 + 1, "the reflection of") if mode == "reflect" else (size - size % 2, "`padding` 'valid' and")
    )
    arguments.check_room("img1", img1.shape, (least,) * (img1.ndim - 2), f"{why} `window_size` {size}")
    x, y = _promoted(img1, img2)
    axes = x.ndim - 2
    window = windows.gaussian_window((size,) * axes, (1.5,) * axes, (number, 0.01, 0.03), mode)
    c1, c2 = window.constants
    # The most that it takes from the map, in units of the last place of the result.
    seen = not corrected and eps / (c1 * c2) > torch.finfo(x.dtype).eps / 64
    return _Given(x, y, window, eps if seen else 0.0)


def _promoted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in float32, then both in the wider dtype."""
    x, y = (image if image.is_floating_point() else image.float() for image in (x, y))
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def _map(given: _Given) -> Tensor:
    """The map, in the images' dtype, of no pixels where none is left."""
    x, y, window, eps = given
    sides = window.output_sides(x.shape[2:])
    if 0 in sides:
        return (x + y)[(..., *(slice(n) for n in sides))]
    if eps == 0:
        return windows.evaluate(x, y, window, want_map=True)[1]
    c1, c2 = window.constants
    share = eps / (c1 * c2)
    # A large one multiplies the factors' rounding.
    x, y = windows.in_floats(x, y) if share < 1 else (x.double(), y.double())
    factors = windows.Factors.of(x, y, window)
    similarity = factors.luminance * factors.contrast
    return (similarity / (1 + share * factors.ratio_of_constants())).to(given.x.dtype)


def _loss(given: _Given, reduction: Any) -> Tensor:
    arguments.check_choice("reduction", reduction, _REDUCTIONS, NotImplementedError)
    x, y, window, eps = given
    sides = window.output_sides(x.shape[2:])
    if reduction == "none" or eps or 0 in sides:
        of_pixels = ((1 - _map(given)) / 2).clamp(0, 1)
        return of_pixels if reduction == "none" else of_pixels.mean() if reduction == "mean" else of_pixels.sum()
    # SSIM lies in [-1, 1], so that the package's clamp to [0, 1] acts on its roundings alone.
    loss = windows.evaluate(x, y, window, reduction=reduction, as_distance=True)[0] / 2
    if reduction == "mean":
        return loss
    pixels = x.shape[1]
    for n in sides:
        pixels = pixels * n
    return loss * pixels
