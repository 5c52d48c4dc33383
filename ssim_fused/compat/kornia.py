"""kornia 0.9.0: the maps ``ssim`` and ``ssim3d``, the losses of half their distance, and a module for each.

What differs: ``eps`` is taken and not added (the package adds it to the denominator, so that black images differ from
themselves by 1e-5); the loss is computed, not one minus the map. ``kornia.losses.MS_SSIMLoss`` is another measure than
MS-SSIM, five Gaussians on the full image with an L1 term, and is not here.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssim_fused._core.window import Window
from ssim_fused.compat import windows

_PADDINGS = {"same": "reflect", "valid": "valid"}


def ssim(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
) -> Tensor:
    """The SSIM map of two batches ``[B, C, H, W]``.

    Args:
        img1: images.
        img2: images of the same shape.
        window_size: taps of the Gaussian of standard deviation 1.5, odd.
        max_val: the images' range.
        eps: not needed: the constants keep every denominator above zero.
        padding: ``"same"``, by reflection, or ``"valid"``, none.

    Returns:
        The map, of the images' shape; with "valid" without the pixels whose windows leave the image.

    Raises:
        ValueError: an even ``window_size``, another ``padding`` or number of dimensions.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> ssim(0.9 * target, target, window_size=11).shape
        torch.Size([2, 3, 64, 64])

    """
    window = _window(img1, 4, window_size, max_val, padding)
    return windows.evaluate(*_promoted(img1, img2), window, want_map=True)[1]


def ssim3d(
    img1: Tensor, img2: Tensor, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
) -> Tensor:
    """As :func:`ssim`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> of_voxels = ssim3d(0.9 * target, target, window_size=7)

    """
    window = _window(img1, 5, window_size, max_val, padding)
    return windows.evaluate(*_promoted(img1, img2), window, want_map=True)[1]


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
) -> Tensor:
    """``(1 - SSIM) / 2`` of two batches ``[B, C, H, W]``: the mean or sum over all pixels, or the map of it.

    Arguments and errors as of :func:`ssim`; NotImplementedError for another ``reduction``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = ssim_loss(0.9 * target, target, window_size=11)

    """
    return _loss(img1, img2, _window(img1, 4, window_size, max_val, padding), reduction)


def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
) -> Tensor:
    """As :func:`ssim_loss`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d_loss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = ssim3d_loss(0.9 * target, target, window_size=7)

    """
    return _loss(img1, img2, _window(img1, 5, window_size, max_val, padding), reduction)


class SSIM(nn.Module):
    """:func:`ssim` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM
        >>> target = torch.rand(2, 3, 64, 64)
        >>> of_pixels = SSIM(11)(0.9 * target, target)

    """

    _map = staticmethod(ssim)

    def __init__(self, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same") -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps, self.padding = window_size, max_val, eps, padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return self._map(img1, img2, self.window_size, self.max_val, self.eps, self.padding)


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
        max_val: float = 1.0,
        eps: float = 1e-12,
        reduction: Literal["mean", "sum", "none"] = "mean",
        padding: str = "same",
    ) -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps = window_size, max_val, eps
        self.reduction: Literal["mean", "sum", "none"] = reduction
        self.padding = padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return self._loss(img1, img2, self.window_size, self.max_val, self.eps, self.reduction, self.padding)


class SSIM3DLoss(SSIMLoss):
    """:func:`ssim3d_loss` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM3DLoss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = SSIM3DLoss(7)(0.9 * target, target)

    """

    _loss = staticmethod(ssim3d_loss)


def _window(image: Tensor, ndim: int, size: int, max_val: float, padding: str) -> Window:
    if image.ndim != ndim:
        expected = "[B, C, H, W]" if ndim == 4 else "[B, C, D, H, W]"
        raise ValueError(f"`img1` has the shape {tuple(image.shape)}, expected {expected}.")
    if size % 2 != 1:
        raise ValueError(f"`window_size` is {size}, expected an odd number.")
    if str(padding).lower() not in _PADDINGS:
        raise ValueError(f"`padding` is {padding!r}, expected 'same' or 'valid'.")
    axes = ndim - 2
    constants = (float(max_val), 0.01, 0.03)
    return windows.gaussian_window((size,) * axes, (1.5,) * axes, constants, _PADDINGS[str(padding).lower()])


def _promoted(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in float32, then both in the wider dtype."""
    x, y = (image if image.is_floating_point() else image.float() for image in (x, y))
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def _loss(x: Tensor, y: Tensor, window: Window, reduction: str) -> Tensor:
    # SSIM lies in [-1, 1], so that the package's clamp to [0, 1] acts on its roundings alone.
    x, y = _promoted(x, y)
    if reduction == "none":
        return (1 - windows.evaluate(x, y, window, want_map=True)[1]) / 2
    if reduction not in ("mean", "sum"):
        raise NotImplementedError(f"`reduction` is {reduction!r}, expected 'mean', 'sum' or 'none'.")
    loss = windows.evaluate(x, y, window, reduction=reduction, as_distance=True)[0] / 2
    if reduction == "mean":
        return loss
    pixels = x.shape[1]
    for n in window.output_sides(x.shape[2:]):
        pixels = pixels * n
    return loss * pixels
