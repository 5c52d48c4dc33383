"""MONAI 1.6.1: ``SSIMLoss`` and ``compute_ms_ssim``, without padding, with a window of its own for each axis.

What differs: float64 images are computed in float64 (the package converts them to float32); MS-SSIM takes all images
whose coarsest level holds the window (the package's bound is another); the loss is computed, not subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ssim_fused._core.multiscale import BETAS
from ssim_fused._core.window import Window
from ssim_fused.compat import windows


class SSIMLoss(nn.Module):
    """One minus SSIM of images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.

    Args:
        spatial_dims: 2 or 3.
        data_range: the images' range.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        win_size: taps of the window, a number or one for each axis; even ones, too.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"``: ``[B, 1]``.

    Raises:
        ValueError: at the call for images of other dimensions, and for unknown words.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import SSIMLoss
        >>> scan = torch.rand(2, 1, 24, 24, 16)
        >>> loss = SSIMLoss(spatial_dims=3, win_size=7)
        >>> loss((0.9 * scan).requires_grad_(), scan).backward()

    """

    def __init__(
        self,
        spatial_dims: int,
        data_range: float = 1.0,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: Literal["mean", "sum", "none"] = "mean",
    ) -> None:
        super().__init__()
        word = str(getattr(reduction, "value", reduction))  # the package's enumeration, or a string
        if word not in windows.REDUCTIONS:
            raise ValueError(f"`reduction` is {reduction!r}, expected 'mean', 'sum' or 'none'.")
        self.spatial_dims, self.data_range, self.kernel_type = spatial_dims, data_range, kernel_type
        self.win_size, self.kernel_sigma, self.k1, self.k2, self.reduction = win_size, kernel_sigma, k1, k2, word

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        window = _window(
            input, self.spatial_dims, self.data_range, self.kernel_type, self.win_size, self.kernel_sigma, self.k1,
            self.k2,
        )  # fmt: skip
        loss = windows.evaluate(input, target, window, reduction=self.reduction, as_distance=True)[0]
        return loss.reshape(-1, 1) if self.reduction == "none" else loss


def compute_ms_ssim(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    data_range: float = 1.0,
    kernel_type: str = "gaussian",
    kernel_size: int | Sequence[int] = 11,
    kernel_sigma: float | Sequence[float] = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    weights: Sequence[float] = BETAS,
) -> Tensor:
    """MS-SSIM ``[B, 1]``, the levels' means clamped at zero.

    Args:
        y_pred: images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.
        y: images of the same shape.
        spatial_dims: 2 or 3.
        data_range: the images' range.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        kernel_size: taps of the window, a number or one for each axis.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        weights: the levels' exponents, the finest level's first.

    Raises:
        ValueError: images of other dimensions, or an unknown ``kernel_type``.
        RuntimeError: the coarsest level does not hold the window.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import compute_ms_ssim
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> compute_ms_ssim(0.9 * scan, scan, spatial_dims=2, weights=(0.3, 0.7)).shape
        torch.Size([2, 1])

    """
    window = _window(y_pred, spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2)
    return windows.evaluate(y_pred, y, window, betas=weights)[0].reshape(-1, 1)


def _window(
    image: Tensor,
    axes: int,
    data_range: float,
    kind: str,
    size: int | Sequence[int],
    sigma: float | Sequence[float],
    k1: float,
    k2: float,
) -> Window:
    if axes not in (2, 3) or image.ndim != axes + 2:
        raise ValueError(
            f"The images have the shape {tuple(image.shape)}, expected [B, C] and {axes} axes, as `spatial_dims` says "
            "(2 or 3)."
        )
    sizes, sigmas = windows.per_axis("win_size", size, axes), windows.per_axis("kernel_sigma", sigma, axes)
    constants = (float(data_range), k1, k2)
    kind = str(getattr(kind, "value", kind))
    if kind == "uniform":
        return windows.uniform_window(sizes, constants)
    if kind != "gaussian":
        raise ValueError(f"`kernel_type` is {kind!r}, expected 'gaussian' or 'uniform'.")
    return windows.gaussian_window(sizes, sigmas, constants)
