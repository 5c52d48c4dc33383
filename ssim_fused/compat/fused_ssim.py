"""Drop-in for fused-ssim: ``fused_ssim`` and ``fused_ssim3d``, for images with a range of 1 and zero padding.

Differences: every device and dtype of ssim_fused is supported, and integer images have the range of their dtype.
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
    """Computes the mean SSIM of two batches of images with a range of 1, as fused-ssim does.

    Args:
        img1: Images ``[B, C, H, W]`` with pixels in [0, 1], or integers. Only these get a gradient.
        img2: Images of the same shape.
        padding: ``"same"`` for zero padding, or ``"valid"`` for none.
        train: If False, the result does not require a gradient.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        TypeError: An image is not a tensor.
        ValueError: The shapes differ or do not have four dimensions, ``padding`` is unknown, or with
            ``padding="valid"`` a side is smaller than the window of 11 pixels.
        NotImplementedError: A dtype is not supported.

    References:
        fused-ssim, https://github.com/rahul-goel/fused-ssim.

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
    """Computes the mean SSIM of two batches of volumes ``[B, C, D, H, W]``.

    Arguments, result and errors are those of :func:`fused_ssim`.

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
    except ValueError as error:  # its message names `data_range`, an argument that this function lacks
        raise ValueError(
            f"`img1` has the dtype {img1.dtype} and `img2` {img2.dtype}, expected the same dtype: convert both to "
            "floats with a range of 1, for instance by `.float() / 255`."
        ) from error
    axes = img1.ndim - 2
    least = 1 if padding == "same" else 11
    arguments.check_room("img1", img1.shape, (least,) * axes, f"the window of 11 taps with `padding` {padding!r}")
    window = windows.gaussian_window(
        (11,) * axes, (1.5,) * axes, (number, 0.01, 0.03), "zero" if padding == "same" else "valid"
    )
    with torch.set_grad_enabled(bool(train) and torch.is_grad_enabled()):
        return windows.evaluate(img1, img2.detach(), window, reduction="mean")[0]
