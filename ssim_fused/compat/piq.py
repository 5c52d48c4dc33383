"""piq 0.8.0: ``ssim``, ``multi_scale_ssim``, ``SSIMLoss`` and ``MultiScaleSSIMLoss``, without padding, downsampling.

What differs: the loss of ``reduction="sum"`` is the sum of one minus SSIM (the package's is one minus the sum); each
level of MS-SSIM is the mean of whole blocks of 2x2 pixels (the package repeats the first row and column of both axes
where either side is odd, which shifts the grid); losses are computed, not subtracted from one; that the pixels lie in
the range is not checked, which would take a pass and wait for the device; complex images are refused (the package's
covariance has its real and imaginary part exchanged).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ssim_fused._core.multiscale import BETAS
from ssim_fused._core.window import Window
from ssim_fused.compat import windows

Reduction = Literal["none", "mean", "sum"]


def ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor | list[Tensor]:
    """SSIM of two batches ``[N, C, H, W]``.

    Args:
        x: images.
        y: images of the same shape.
        kernel_size: taps of the Gaussian, odd.
        kernel_sigma: its standard deviation.
        data_range: the images' range.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.
        full: whether to return the contrast sensitivity, too, reduced likewise.
        downsample: whether images of more than 384 pixels are reduced by the means of blocks, to about 256.
        k1: luminance constant.
        k2: contrast constant.

    Returns:
        A scalar, or ``[N]`` without reduction; with ``full`` a list of it and the contrast sensitivity.

    Raises:
        ValueError: an even ``kernel_size``, another ``reduction`` or number of dimensions.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> value, contrast = ssim(0.9 * target, target, data_range=1.0, full=True)

    """
    x, y, window = _prepared(x, y, kernel_size, kernel_sigma, data_range, reduction, downsample, k1, k2)
    value, *others = windows.evaluate(x, y, window, reduction=reduction, want_contrast=full)
    return [value, *(_reduced(other, reduction) for other in others)] if full else value


def multi_scale_ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: Reduction = "mean",
    scale_weights: Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """MS-SSIM of two batches ``[N, C, H, W]``: the mean of each channel's product of levels, clamped at zero.

    Arguments, result and errors as of :func:`ssim`; ``scale_weights`` are the levels' exponents ``[levels]``, divided
    by their sum, by default the usual five as they are. Five levels of eleven taps need sides of at least 176 pixels.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import multi_scale_ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> score = multi_scale_ssim(0.9 * target, target, scale_weights=torch.tensor([0.3, 0.7]))

    """
    x, y, window = _prepared(x, y, kernel_size, kernel_sigma, data_range, reduction, False, k1, k2)
    return _multi_scale(x, y, window, reduction, _exponents(scale_weights), as_distance=False)


class SSIMLoss(nn.Module):
    """One minus :func:`ssim`, of the same arguments.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import SSIMLoss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> SSIMLoss(data_range=1.0)(preds, target).backward()

    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: Reduction = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check(kernel_size, reduction)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.downsample, self.reduction, self.data_range = downsample, reduction, data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y, window = _prepared(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction, self.downsample, self.k1,
            self.k2,
        )  # fmt: skip
        return windows.evaluate(x, y, window, reduction=self.reduction, as_distance=True)[0]


class MultiScaleSSIMLoss(nn.Module):
    """One minus :func:`multi_scale_ssim`; as in the package, the default exponents are divided by their sum, too.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import MultiScaleSSIMLoss
        >>> target = torch.rand(1, 3, 192, 192)
        >>> preds = (0.9 * target).requires_grad_()
        >>> MultiScaleSSIMLoss()(preds, target).backward()

    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: Tensor | None = None,
        reduction: Reduction = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check(kernel_size, reduction)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.reduction, self.data_range = reduction, data_range
        self.scale_weights = _exponents(
            torch.tensor(BETAS, dtype=torch.float64) if scale_weights is None else scale_weights
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y, window = _prepared(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction, False, self.k1, self.k2
        )
        return _multi_scale(x, y, window, self.reduction, self.scale_weights, as_distance=True)


def _check(kernel_size: int, reduction: str) -> None:
    if kernel_size % 2 != 1:
        raise ValueError(f"`kernel_size` is {kernel_size}, expected an odd number.")
    if reduction not in windows.REDUCTIONS:
        raise ValueError(f"`reduction` is {reduction!r}, expected 'none', 'mean' or 'sum'.")


def _prepared(
    x: Tensor, y: Tensor, size: int, sigma: float, data_range: float, reduction: str, downsample: bool, k1: float,
    k2: float,
) -> tuple[Tensor, Tensor, Window]:  # fmt: skip
    _check(size, reduction)
    if x.ndim != 4:
        raise ValueError(f"`x` has the shape {tuple(x.shape)}, expected [N, C, H, W]: real images.")
    factor = max(1, round(min(x.shape[-2:]) / 256)) if downsample else 1
    if factor > 1:
        x, y = (F.avg_pool2d(image if image.is_floating_point() else image.float(), factor) for image in (x, y))
    return x, y, windows.gaussian_window((size, size), (sigma, sigma), (float(data_range), k1, k2))


def _exponents(weights: Tensor | None) -> tuple[float, ...]:
    if weights is None:
        return BETAS
    if weights.ndim != 1:
        raise ValueError(f"`scale_weights` has the shape {tuple(weights.shape)}, expected [levels].")
    weights = weights.detach().double()
    return tuple((weights / weights.sum()).tolist())


def _multi_scale(
    x: Tensor, y: Tensor, window: Window, reduction: str, betas: tuple[float, ...], as_distance: bool
) -> Tensor:
    if reduction == "mean":
        return windows.evaluate(x, y, window, reduction="mean", per_channel=True, betas=betas, as_distance=as_distance)[
            0
        ]
    of_channels = windows.evaluate(x, y, window, per_channel=True, betas=betas, as_distance=as_distance)[0]
    return _reduced(of_channels.mean(1), reduction)


def _reduced(values: Tensor, reduction: str) -> Tensor:
    return values.mean() if reduction == "mean" else values.sum() if reduction == "sum" else values
