"""Drop-in for pytorch-msssim 1.0.0: ``ssim``, ``ms_ssim``, ``SSIM`` and ``MS_SSIM``.

Images are not padded, and MS-SSIM multiplies the levels of each channel. As in pytorch-msssim, the window is rounded to
float32, so that its sum is not 1; levels with odd sides are padded by zeros that enter the averages; and an axis
shorter than the window is not filtered. With ``corrected=True`` the window is exact, and levels are made of whole
blocks of 2x2 pixels.

Differences: float16 and bfloat16 are computed in float32, with an exact window. In float32 the rounding of the window
changes the value by about 1e-6; its effect on the gradient, which is below the rounding error of float32, is left out.
The gradient of a level that is clamped at 0 is 0, not NaN. With fewer than five weights, smaller images are accepted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.arguments import DefaultRange
from ssim_fused.compat.filters import Filter, check_window, filters_of
from ssim_fused.compat.windows import BETAS

_RANGE = DefaultRange(255)
_SHAPES = arguments.IMAGES | arguments.VOLUMES
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
_NAMES = {"preds": "X", "target": "Y", "betas": "weights", "kernel_size": "win_size", "sigma": "win_sigma"}


@arguments.speaks_of(**_NAMES)
def ssim(
    X: Tensor,  # noqa: N803
    Y: Tensor,  # noqa: N803
    data_range: float = _RANGE,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    nonnegative_ssim: bool = False,
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes SSIM of two batches of images or volumes, as ``pytorch_msssim.ssim``.

    Args:
        X: Images ``[N, C, H, W]`` or volumes ``[N, C, D, H, W]``. Axes of one pixel are dropped.
        Y: Images of the same shape.
        data_range: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 255 for
            floats.
        size_average: If True, return the mean over the batch instead of one value per image.
        win_size: Number of taps of the Gaussian, odd. An axis that is shorter is not filtered, with a warning.
        win_sigma: Standard deviation of the Gaussian in pixels, > 0.
        win: A custom window ``[C, 1, ..., 1, taps]`` instead of the Gaussian.
        K: The constants k1 and k2, >= 0.
        nonnegative_ssim: If True, a negative value of a channel counts as 0.
        corrected: If True, use an exact window that sums to 1. By default it is rounded to float32, as in
            pytorch-msssim. The windows of the operators sum to 1, so the default takes four more passes over the
            images, which enter the gradient in float64 only.

    Returns:
        A scalar, or ``[N]`` if ``size_average`` is False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ or do not have four or five dimensions, the window is even, or a number is out of
            its range.
        NotImplementedError: A dtype is not supported: neither floating point nor an 8- or 16-bit integer.

    References:
        pytorch-msssim, https://github.com/VainF/pytorch-msssim.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import ssim
        >>> target = 255 * torch.rand(2, 3, 64, 64)
        >>> of_images = ssim(0.9 * target, target, data_range=255, size_average=False)
        >>> of_images.shape
        torch.Size([2])

    """
    x, y, constants = _prepared(X, Y, data_range, K)
    filters = filters_of(x, win_size, win_sigma, win, corrected)
    x, y, dtype = _for_window(x, y, filters)
    _warn_of_short_axes(X, x.shape, filters[0].size)
    reduction = "mean" if size_average else "none"
    if len(filters) == 1 and not nonnegative_ssim:
        return _level(x, y, filters[0], constants, reduction=reduction, per_channel=False).to(dtype)
    of_channels = _of_channels(x, y, filters, constants)
    of_channels = of_channels.relu() if nonnegative_ssim else of_channels
    return (of_channels.mean() if size_average else of_channels.mean(1)).to(dtype)


@arguments.speaks_of(**_NAMES)
def ms_ssim(
    X: Tensor,  # noqa: N803
    Y: Tensor,  # noqa: N803
    data_range: float = _RANGE,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | None = None,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes MS-SSIM of two batches of images or volumes, as ``pytorch_msssim.ms_ssim``.

    The score of an image is the mean over its channels of the product of the levels, whose means are clamped at 0 and
    raised to the exponents ``weights``, the finest level first. The other arguments, the result and the errors are
    those of :func:`ssim`.

    The smaller side must be larger than ``16 (win_size - 1)``, as in pytorch-msssim; with fewer than five weights it is
    enough that the coarsest level contains the window. A level with an odd side is padded by zeros at both ends before
    it is halved, which darkens its border. With ``corrected``, the last row or column is dropped instead, and the
    coarsest level must contain the window, so that five levels and 11 taps need 176 pixels.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import ms_ssim
        >>> target = 255 * torch.rand(1, 3, 192, 192)
        >>> ms_ssim(target, target, data_range=255)
        tensor(1.)

    """
    x, y, constants = _prepared(X, Y, data_range, K)
    filters = filters_of(x, win_size, win_sigma, win, corrected)
    betas = BETAS if weights is None else _exponents(weights)
    levels, size = len(betas), filters[0].size
    _check_levels(X, x, size, levels, corrected)
    x, y, dtype = _for_window(x, y, filters)
    sides = x.shape[2:]
    is_even = windows.halves_evenly(sides, levels) and min(sides) >= size << levels - 1
    only = filters[0]
    if len(filters) == 1 and only.missing(len(sides)) == 0 and (corrected or is_even):
        reduction = "mean" if size_average else "none"
        window = only.window(sides, constants)
        value = windows.evaluate(x, y, window, reduction=reduction, per_channel=True, betas=betas)[0]
        return (value if size_average else value.mean(1)).to(dtype)

    def of_level(x: Tensor, y: Tensor, is_last: bool) -> Tensor:
        _warn_of_short_axes(X, x.shape, size)
        return _of_channels(x, y, filters, constants, is_contrast=not is_last)

    pool = _halved_in_blocks if corrected else _halved
    of_channels = windows.multiscale(*windows.in_floats(x, y), betas, pool, of_level)
    return (of_channels.mean() if size_average else of_channels.mean(1)).to(dtype)


class SSIM(nn.Module):
    """:func:`ssim` as a module. ``channel`` and ``spatial_dims`` are ignored, because the images determine them.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import SSIM
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = 1 - SSIM(data_range=1, channel=3)(0.9 * target, target)

    """

    def __init__(
        self,
        data_range: float = _RANGE,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),  # noqa: N803
        nonnegative_ssim: bool = False,
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        check_window(win_size, win_sigma)
        self.corrected = corrected
        self.data_range, self.size_average = data_range, size_average
        self.win_size, self.win_sigma, self.K, self.nonnegative_ssim = win_size, win_sigma, K, nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:  # noqa: N803
        return ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, None, self.K,
            self.nonnegative_ssim, corrected=self.corrected,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, win_size={self.win_size}, win_sigma={self.win_sigma}, K={self.K}"


class MS_SSIM(nn.Module):  # noqa: N801
    """:func:`ms_ssim` as a module. ``channel`` and ``spatial_dims`` are ignored, because the images determine them.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.pytorch_msssim import MS_SSIM
        >>> target = torch.rand(1, 3, 192, 192)
        >>> loss = 1 - MS_SSIM(data_range=1)(0.9 * target, target)

    """

    def __init__(
        self,
        data_range: float = _RANGE,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | None = None,
        K: Sequence[float] = (0.01, 0.03),  # noqa: N803
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        check_window(win_size, win_sigma)
        self.corrected = corrected
        self.data_range, self.size_average = data_range, size_average
        self.win_size, self.win_sigma, self.weights, self.K = win_size, win_sigma, weights, K

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:  # noqa: N803
        return ms_ssim(
            X, Y, self.data_range, self.size_average, self.win_size, self.win_sigma, None, self.weights, self.K,
            corrected=self.corrected,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"data_range={self.data_range}, win_size={self.win_size}, win_sigma={self.win_sigma}, K={self.K}"


def _prepared(x: Tensor, y: Tensor, data_range: float, k: Sequence[float]) -> tuple[Tensor, Tensor, windows.Constants]:
    """Checks the images; returns both without axes of one pixel, and the constants."""
    names = ("X", "Y")
    arguments.check_images(x, y, names, {n: " or ".join(_SHAPES.values()) for n in range(2, 12)})
    number = arguments.check_range("data_range", data_range, x, y, names)
    k1, k2 = arguments.check_pair("K", k)
    arguments.check_room("X", x.shape, (1,) * (x.ndim - 2), "a comparison", ("side",) * x.ndim)
    given = x
    for dim in range(x.ndim - 1, 1, -1):
        x, y = x.squeeze(dim), y.squeeze(dim)
    if x.ndim not in _SHAPES:
        hint = " without its axes of one pixel" if x.ndim < given.ndim else ""
        raise ValueError(f"`X` has the shape {tuple(given.shape)}{hint and ', ' + str(tuple(x.shape)) + hint}, "
                         f"expected {' or '.join(_SHAPES.values())}.")  # fmt: skip
    return x, y, (number, k1, k2)


def _for_window(x: Tensor, y: Tensor, filters: Sequence[Filter]) -> tuple[Tensor, Tensor, torch.dtype]:
    """Returns both images and the dtype of the results.

    The images are in float64 if the sum of a window differs from 1 by more than the rounding errors of float32.
    """
    dtype = windows.readable(x, y)[2]
    if any(abs(f.total - 1) > 1e-6 for f in filters):
        x, y = x.double(), y.double()
    return x, y, dtype


def _of_channels(
    x: Tensor, y: Tensor, filters: Sequence[Filter], constants: windows.Constants, is_contrast: bool = False
) -> Tensor:
    """Returns SSIM or the contrast sensitivity ``[N, C]``."""
    if len(filters) == 1:
        return _level(x, y, filters[0], constants, is_contrast)
    channels = [
        _level(x[:, i : i + 1], y[:, i : i + 1], channel, constants, is_contrast) for i, channel in enumerate(filters)
    ]
    return torch.cat(channels, 1)


def _level(
    x: Tensor,
    y: Tensor,
    of: Filter,
    constants: windows.Constants,
    is_contrast: bool = False,
    reduction: str = "none",
    per_channel: bool = True,
) -> Tensor:
    """Returns SSIM or the contrast sensitivity of one level, ``[N, C]`` or as ``reduction`` and ``per_channel`` say."""
    sides = x.shape[2:]
    window, missing = of.window(sides, constants), of.missing(sum(n >= of.size for n in sides))
    means_of = windows.contrast_alone(window) if is_contrast else window
    value = windows.evaluate(x, y, means_of, reduction=reduction, per_channel=per_channel)[0]
    if missing == 0:
        return value
    x, y = windows.in_floats(x, y)
    with torch.set_grad_enabled(torch.is_grad_enabled() and x.dtype == torch.float64):
        excess = windows.excess_of_sum(x, y, window, missing)[1 if is_contrast else 0]
        excess = excess.mean() if reduction == "mean" else excess.flatten(2 if per_channel else 1).mean(-1)
    return value + excess


def _halved(image: Tensor) -> Tensor:
    """Averages blocks of 2x2 pixels; an odd side is padded at both ends by zeros, which enter the averages."""
    return _POOL[image.ndim - 2](image, 2, padding=[n % 2 for n in image.shape[2:]])


def _halved_in_blocks(image: Tensor) -> Tensor:
    return _POOL[image.ndim - 2](image, 2)


def _exponents(weights: Sequence[float]) -> list[float]:
    return arguments.check_exponents("weights", weights.tolist() if isinstance(weights, Tensor) else weights)


def _check_levels(given: Tensor, x: Tensor, size: int, levels: int, corrected: bool) -> None:
    """Checks the size of the images: pytorch-msssim's bound for five levels, or that of the coarsest level.

    pytorch-msssim does not bound the depth, because it does not filter an axis that is too short. PyTorch however
    cannot halve an axis of one voxel.
    """
    why = f"{levels} `weights` and a window of {size} taps: use fewer `weights` or a smaller `win_size`"
    least = size << levels - 1 if corrected else min(16 * (size - 1) + 1, (size - 1 << levels - 1) + 1)
    voxels = (1 << levels - 2) + 1 if x.ndim == 5 and levels > 1 else 1
    depth = least if corrected else voxels
    needed = ([depth] * 3)[: x.ndim - 4] + [max(least, voxels)] * 2
    arguments.check_room("X", x.shape, needed, why, passed=given.shape)


def _warn_of_short_axes(given: Tensor, shape: Sequence[int], size: int) -> None:
    for n in shape[2:]:
        if n < size:
            warnings.warn(
                f"An axis of `X` {tuple(given.shape)} has {n} pixels, fewer than the {size} taps of the window: it is "
                "not filtered.",
                stacklevel=4,
            )
