"""pytorch-msssim 1.0.0: ``ssim``, ``ms_ssim``, ``SSIM`` and ``MS_SSIM``, without padding, a power for each channel.

What differs: the window is exact (the package's is rounded to float32 and sums to 1 - 3e-8); a ``win`` is divided by
its sum; each level of MS-SSIM is the mean of whole blocks of 2x2 pixels (the package pads odd sides by zeros and counts
them, so that borders darken and the grid shifts); float16 and bfloat16 are computed in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssim_fused._core.multiscale import BETAS
from ssim_fused._core.window import Window
from ssim_fused.compat import windows


def ssim(
    X: Tensor,  # noqa: N803
    Y: Tensor,  # noqa: N803
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    nonnegative_ssim: bool = False,
) -> Tensor:
    """SSIM of two batches.

    Args:
        X: images ``[N, C, H, W]`` or volumes ``[N, C, D, H, W]``; axes of one pixel are dropped.
        Y: images of the same shape.
        data_range: the images' range.
        size_average: whether to return the mean of the batch, not a value for each image.
        win_size: taps of the Gaussian, odd. An axis that is shorter is not filtered, after a warning.
        win_sigma: its standard deviation.
        win: a window of one's own in its place, ``[C, 1, ..., 1, taps]``, the same for all channels.
        K: the constants k1 and k2.
        nonnegative_ssim: whether a channel's negative value counts as zero.

    Returns:
        A scalar, or ``[N]``.

    Raises:
        ValueError: shapes differ, or the window is even.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import ssim
        >>> target = 255 * torch.rand(2, 3, 64, 64)
        >>> of_images = ssim(0.9 * target, target, data_range=255, size_average=False)
        >>> of_images.shape
        torch.Size([2])

    """
    x, y = _squeezed(X, Y)
    window = _window(x, win_size, win_sigma, win, data_range, K)
    if not nonnegative_ssim:
        return windows.evaluate(x, y, window, reduction="mean" if size_average else "none")[0]
    of_channels = windows.evaluate(x, y, window, per_channel=True)[0].relu()
    return of_channels.mean() if size_average else of_channels.mean(1)


def ms_ssim(
    X: Tensor,  # noqa: N803
    Y: Tensor,  # noqa: N803
    data_range: float = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | None = None,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
) -> Tensor:
    """MS-SSIM of two batches: of each channel the product of its levels, clamped at zero, to the powers ``weights``.

    Arguments, result and errors as of :func:`ssim`; the coarsest level has to hold the window, so that five levels of
    eleven taps need sides of at least 176 pixels. ``weights`` are the levels' exponents, the finest level's first.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import ms_ssim
        >>> target = 255 * torch.rand(1, 3, 192, 192)
        >>> ms_ssim(target, target, data_range=255)
        tensor(1.)

    """
    x, y = _squeezed(X, Y)
    window = _window(x, win_size, win_sigma, win, data_range, K)
    betas = BETAS if weights is None else [float(weight) for weight in weights]
    if size_average:
        return windows.evaluate(x, y, window, reduction="mean", per_channel=True, betas=betas)[0]
    return windows.evaluate(x, y, window, per_channel=True, betas=betas)[0].mean(1)


class SSIM(nn.Module):
    """:func:`ssim` as a module. ``channel`` and ``spatial_dims`` are those of the images, and not needed.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import SSIM
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = 1 - SSIM(data_range=1, channel=3)(0.9 * target, target)

    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),  # noqa: N803
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        self.data_range, self.size_average = data_range, size_average
        self.win_size, self.win_sigma, self.K, self.nonnegative_ssim = win_size, win_sigma, K, nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:  # noqa: N803
        return ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, None, self.K,
            self.nonnegative_ssim,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, win_size={self.win_size}, win_sigma={self.win_sigma}, K={self.K}"


class MS_SSIM(nn.Module):  # noqa: N801
    """:func:`ms_ssim` as a module. ``channel`` and ``spatial_dims`` are those of the images, and not needed.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import MS_SSIM
        >>> target = torch.rand(1, 3, 192, 192)
        >>> loss = 1 - MS_SSIM(data_range=1)(0.9 * target, target)

    """

    def __init__(
        self,
        data_range: float = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    ) -> None:
        super().__init__()
        self.data_range, self.size_average = data_range, size_average
        self.win_size, self.win_sigma, self.weights, self.K = win_size, win_sigma, weights, K

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:  # noqa: N803
        return ms_ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, None, self.weights, self.K
        )

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, win_size={self.win_size}, win_sigma={self.win_sigma}, K={self.K}"


def _squeezed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape:
        raise ValueError(f"`X` and `Y` have the shapes {tuple(x.shape)} and {tuple(y.shape)}, expected the same.")
    for dim in range(x.ndim - 1, 1, -1):
        x, y = x.squeeze(dim), y.squeeze(dim)
    if x.ndim not in (4, 5):
        raise ValueError(f"`X` has the shape {tuple(x.shape)}, expected [N, C, H, W] or [N, C, D, H, W].")
    return x, y


def _window(
    x: Tensor, size: int, sigma: float, win: Tensor | None, data_range: float, constants: Sequence[float]
) -> Window:
    """The window, of one tap along each axis that is shorter."""
    if win is not None:
        size = win.shape[-1]
    if size % 2 != 1:
        raise ValueError(f"The window has {size} taps, expected an odd number.")
    numbers = (float(data_range), constants[0], constants[1])
    of_axes = [n >= size for n in x.shape[2:]]
    for dim, filtered in enumerate(of_axes, start=2):
        if not filtered:
            warnings.warn(f"Axis {dim} of {tuple(x.shape)} is shorter than the window: not filtered.", stacklevel=3)
    if win is None and all(of_axes):
        return windows.gaussian_window((size,) * len(of_axes), (sigma,) * len(of_axes), numbers)
    taps = windows.gaussian_taps(size, sigma) if win is None else _taps(win)
    return windows.own_window([taps if filtered else [1.0] for filtered in of_axes], numbers)


def _taps(win: Tensor) -> list[float]:
    rows = win.detach().to("cpu", torch.float64).reshape(-1, win.shape[-1])
    if (rows != rows[0]).any():
        raise ValueError("`win` differs between channels, expected the same window for all.")
    total = rows[0].sum()
    if not total > 0:
        raise ValueError(f"`win` sums to {total.item()}, expected a positive number.")
    return (rows[0] / total).tolist()
