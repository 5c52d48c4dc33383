"""fused-ssim: ``fused_ssim`` and ``fused_ssim3d``, of images of range 1, with zeros beyond their edges.

What differs: any device and dtype; integers have the range of their type.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ssim_fused.compat import arguments, windows

_NAMES = ("img1", "img2")
_RANGE = arguments.DefaultRange(1.0)


@arguments.speaks_of(preds="img1", target="img2")
def fused_ssim(img1: Tensor, img2: Tensor, padding: Literal["same", "valid"] = "same", train: bool = True) -> Tensor:
    """SSIM of two batches ``[B, C, H, W]`` of range 1: a scalar, their mean.

    Args:
        img1: the images that the gradient is for.
        img2: the images to compare with; no gradient flows to them.
        padding: ``"same"``, zeros, or ``"valid"``, none.
        train: whether a gradient will be asked for.

    Raises:
        TypeError: something is no tensor.
        ValueError: shapes differ or have other dimensions, an image without padding is smaller than 11 pixels, or
            another ``padding``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.fused_ssim import fused_ssim
        >>> photograph = torch.rand(1, 3, 64, 64)
        >>> rendered = (0.9 * photograph).requires_grad_()
        >>> (1 - fused_ssim(rendered, photograph)).backward()

    """
    return _mean(img1, img2, padding, train, arguments.IMAGES)


@arguments.speaks_of(preds="img1", target="img2")
def fused_ssim3d(img1: Tensor, img2: Tensor, padding: Literal["same", "valid"] = "same", train: bool = True) -> Tensor:
    """As :func:`fused_ssim`, of volumes ``[B, C, D, H, W]``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.fused_ssim import fused_ssim3d
        >>> volume = torch.rand(1, 1, 16, 24, 24)
        >>> fused_ssim3d(volume, volume, train=False)
        tensor(1.)

    """
    return _mean(img1, img2, padding, train, arguments.VOLUMES)


def _mean(img1: Tensor, img2: Tensor, padding: str, train: bool, shapes: dict[int, str]) -> Tensor:
    arguments.check_choice("padding", padding, ("same", "valid"))
    arguments.check_images(img1, img2, _NAMES, shapes)
    try:
        number = arguments.check_range("data_range", _RANGE, img1, img2, _NAMES)
    except ValueError as error:  # there is no such argument here
        raise ValueError(
            f"`img1` is of {img1.dtype} and `img2` of {img2.dtype}: convert both to floats of range 1, for instance by "
            "`.float() / 255`."
        ) from error
    axes = img1.ndim - 2
    least = 1 if padding == "same" else 11
    arguments.check_room("img1", img1.shape, (least,) * axes, f"the window of 11 taps with `padding` {padding!r}")
    window = windows.gaussian_window(
        (11,) * axes, (1.5,) * axes, (number, 0.01, 0.03), "zero" if padding == "same" else "valid"
    )
    with torch.set_grad_enabled(bool(train) and torch.is_grad_enabled()):
        return windows.evaluate(img1, img2.detach(), window, reduction="mean")[0]
