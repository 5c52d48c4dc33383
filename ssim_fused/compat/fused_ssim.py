"""fused-ssim: ``fused_ssim`` and ``fused_ssim3d``, of images of range 1, with zeros beyond their edges.

What differs: any device and dtype; the third argument may be given by its name.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ssim_fused.compat import windows


def fused_ssim(img1: Tensor, img2: Tensor, padding: Literal["same", "valid"] = "same", train: bool = True) -> Tensor:
    """SSIM of two batches ``[B, C, H, W]`` of range 1: a scalar, their mean.

    Args:
        img1: the images that the gradient is for.
        img2: the images to compare with; no gradient flows to them.
        padding: ``"same"``, zeros, or ``"valid"``, none.
        train: whether a gradient will be asked for.

    Raises:
        ValueError: another ``padding``.
        RuntimeError: shapes differ, or an image is smaller than the window.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.fused_ssim import fused_ssim
        >>> photograph = torch.rand(1, 3, 64, 64)
        >>> rendered = (0.9 * photograph).requires_grad_()
        >>> (1 - fused_ssim(rendered, photograph)).backward()

    """
    if padding not in ("same", "valid"):
        raise ValueError(f"`padding` is {padding!r}, expected 'same' or 'valid'.")
    axes = img1.ndim - 2
    window = windows.gaussian_window((11,) * axes, (1.5,) * axes, padding="zero" if padding == "same" else "valid")
    with torch.set_grad_enabled(train and torch.is_grad_enabled()):
        return windows.evaluate(img1, img2.detach(), window, reduction="mean")[0]


def fused_ssim3d(img1: Tensor, img2: Tensor, padding: Literal["same", "valid"] = "same", train: bool = True) -> Tensor:
    """As :func:`fused_ssim`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.fused_ssim import fused_ssim3d
        >>> volume = torch.rand(1, 1, 16, 24, 24)
        >>> fused_ssim3d(volume, volume, train=False)
        tensor(1.)

    """
    return fused_ssim(img1, img2, padding, train)
