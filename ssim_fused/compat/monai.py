"""Drop-in for MONAI 1.6.1: ``SSIMLoss``, ``SSIMMetric``, ``MultiScaleSSIMMetric`` and the functions behind them.

Windows have one size per axis, and images are not padded. As in MONAI, images of every dtype are computed in float32,
and the levels of MS-SSIM are made in the dtype of the images. With ``corrected=True`` float64 images are computed in
float64.

Differences: MS-SSIM accepts all images whose coarsest level contains the window; MONAI's bound,
``size // (levels - 1)^2``, is too strict for four levels and too loose for two. The loss is computed directly, not as
one minus SSIM. The metrics have the interface of MONAI's, but not its base classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.arguments import DefaultRange
from ssim_fused.compat.cumulative import CumulativeMetric
from ssim_fused.compat.windows import BETAS, Window

_RANGE = DefaultRange(1.0)
_REDUCTIONS = ("mean", "sum", "none")
_KERNELS = ("gaussian", "uniform")
_SHAPES = {
    2: {4: "[B, C, H, W], as `spatial_dims` 2 says"},
    3: {5: "[B, C, H, W, D], as `spatial_dims` 3 says"},
}
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


class _Options:
    """The arguments that describe a window, checked as far as possible without images."""

    def __init__(
        self, spatial_dims: Any, data_range: Any, kernel_type: Any, size: Any, kernel_sigma: Any, k1: Any, k2: Any,
        size_name: str,
    ) -> None:  # fmt: skip
        if spatial_dims not in (2, 3) or isinstance(spatial_dims, bool):
            raise ValueError(f"`spatial_dims` is {spatial_dims!r}, expected 2 or 3.")
        self.axes = int(spatial_dims)
        self.kind = arguments.check_choice("kernel_type", kernel_type, _KERNELS)
        self.sizes = tuple(
            arguments.check_size(size_name, n, odd=False) for n in arguments.per_axis(size_name, size, self.axes)
        )
        self.sigmas = tuple(
            arguments.check_positive("kernel_sigma", n)
            for n in arguments.per_axis("kernel_sigma", kernel_sigma, self.axes)
        )
        self.k1, self.k2 = arguments.check_constants(k1=k1, k2=k2)
        arguments.check_positive("data_range", data_range)
        self.data_range, self.size_name = data_range, size_name

    def prepared(
        self, x: Any, y: Any, names: tuple[str, str], corrected: bool, levels: int = 1
    ) -> tuple[Tensor, Tensor, Window]:
        """Checks both images; returns them and the window. A single level is also converted to its dtype."""
        arguments.check_images(x, y, names, _SHAPES[self.axes])
        number = arguments.check_range("data_range", self.data_range, x, y, names, takes_wide_integers=True)
        why = f"`{self.size_name}` {self.sizes}"
        if levels > 1:
            why += f" and {levels} `weights`: use fewer of these, or a smaller `{self.size_name}`"
        least = [n << levels - 1 for n in self.sizes]
        arguments.check_room(names[0], x.shape, least, why, ("height", "width", "depth")[: self.axes])
        constants = (number, self.k1, self.k2)
        if self.kind == "uniform":
            window = windows.uniform_window(self.sizes, constants)
        else:
            window = windows.gaussian_window(self.sizes, self.sigmas, constants)
        if levels == 1:
            x, y = _converted(x, y, corrected)
        return x, y, window


class _Windowed:
    """A mixin for the loss and the metrics: stores the arguments that describe the window under MONAI's names."""

    _size_name = "win_size"  # the name of `kernel_size` in the signature

    def _store(
        self, spatial_dims: int, data_range: float, kernel_type: str, size: int | Sequence[int],
        kernel_sigma: float | Sequence[float], k1: float, k2: float, corrected: bool,
    ) -> None:  # fmt: skip
        options = _Options(spatial_dims, data_range, kernel_type, size, kernel_sigma, k1, k2, self._size_name)
        self.spatial_dims, self.data_range, self.kernel_type = spatial_dims, data_range, kernel_type
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = options.sizes, options.sigmas, k1, k2
        self.corrected = corrected

    def _options(self) -> _Options:
        """Returns the options of a call. They are made anew, because a caller may have changed an attribute."""
        return _Options(
            self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma, self.k1,
            self.k2, self._size_name,
        )  # fmt: skip


def _converted(x: Tensor, y: Tensor, corrected: bool) -> tuple[Tensor, Tensor]:
    """Converts images to float32; integers of the same dtype, and all images if ``corrected``, as in ``readable``."""
    if corrected or (x.dtype == y.dtype and not x.is_floating_point()):
        return windows.readable(x, y)[:2]
    return x.float(), y.float()


class SSIMLoss(_Windowed, nn.Module):
    """The loss ``1 - SSIM`` of images or volumes, as ``monai.losses.SSIMLoss``.

    The call is ``loss(input, target)`` with images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``. It returns a scalar
    in float32, or ``[B, 1]`` without reduction.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        data_range: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 1 for
            floats.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        win_size: Number of taps of the window: one number, or one per axis. Even numbers are allowed.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or one per axis.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        corrected: If True, compute float64 images in float64, and return results in the dtype of the images.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of its range or a word is unknown. The call raises it if the images have another
            number of dimensions or are smaller than the window.
        NotImplementedError: A dtype is not supported.

    References:
        MONAI, https://github.com/Project-MONAI/MONAI.

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
        data_range: float = _RANGE,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: Literal["mean", "sum", "none"] = "mean",
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        self.reduction = arguments.check_choice("reduction", reduction, _REDUCTIONS)
        self._store(spatial_dims, data_range, kernel_type, win_size, kernel_sigma, k1, k2, corrected)

    @arguments.speaks_of(preds="input", kernel_size="win_size", sigma="kernel_sigma")
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        x, y, window = self._options().prepared(input, target, ("input", "target"), self.corrected)
        loss = windows.evaluate(x, y, window, reduction=self.reduction, as_distance=True)[0]
        return loss.reshape(-1, 1) if self.reduction == "none" else loss


_TRANSLATED = {"preds": "y_pred", "target": "y", "betas": "weights", "sigma": "kernel_sigma"}


@arguments.speaks_of(**_TRANSLATED)
def compute_ssim_and_cs(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    kernel_size: Sequence[int],
    kernel_sigma: Sequence[float],
    data_range: float = _RANGE,
    kernel_type: str = "gaussian",
    k1: float = 0.01,
    k2: float = 0.03,
    *,
    corrected: bool = False,
) -> tuple[Tensor, Tensor]:
    """Computes the maps of SSIM and of the contrast sensitivity, as ``monai.metrics.compute_ssim_and_cs``.

    Args:
        y_pred: Images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.
        y: Images of the same shape.
        spatial_dims: 2 for images, 3 for volumes.
        kernel_size: Number of taps of the window, one per axis.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0, one per axis.
        data_range: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 1 for
            floats.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        corrected: If True, compute float64 images in float64, and return results in the dtype of the images.

    Returns:
        Two maps ``[B, C, ...]``, whose axes are shorter than those of the images by the number of taps minus one.

    Raises:
        TypeError, ValueError, NotImplementedError: As for :class:`SSIMLoss`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import compute_ssim_and_cs
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> of_pixels, contrast = compute_ssim_and_cs(0.9 * scan, scan, 2, (11, 11), (1.5, 1.5))

    """
    options = _Options(spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2, "kernel_size")
    x, y, window = options.prepared(y_pred, y, ("y_pred", "y"), corrected)
    kinds = (window, windows.contrast_alone(window))
    similarity, contrast = (windows.evaluate(x, y, kind, want_map=True)[1] for kind in kinds)
    return similarity, contrast


@arguments.speaks_of(**_TRANSLATED)
def compute_ms_ssim(
    y_pred: Tensor,
    y: Tensor,
    spatial_dims: int,
    data_range: float = _RANGE,
    kernel_type: str = "gaussian",
    kernel_size: int | Sequence[int] = 11,
    kernel_sigma: float | Sequence[float] = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    weights: Sequence[float] = BETAS,
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes MS-SSIM of each image, as ``monai.metrics.compute_ms_ssim``; the means of the levels are clamped at 0.

    Args:
        y_pred: Images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.
        y: Images of the same shape.
        spatial_dims: 2 for images, 3 for volumes.
        data_range: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 1 for
            floats.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        kernel_size: Number of taps of the window: one number, or one per axis. Even numbers are allowed.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or one per axis.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        weights: Exponents of the levels, the finest level first.
        corrected: If True, compute float64 images in float64, average 16-bit images in float32 to make the levels, and
            return results in the dtype of the images.

    Returns:
        MS-SSIM ``[B, 1]``.

    Raises:
        TypeError, ValueError, NotImplementedError: As for :class:`SSIMLoss`; also a ValueError if the coarsest level is
            smaller than the window.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import compute_ms_ssim
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> compute_ms_ssim(0.9 * scan, scan, spatial_dims=2, weights=(0.3, 0.7)).shape
        torch.Size([2, 1])

    """
    options = _Options(spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2, "kernel_size")
    exponents = arguments.check_exponents("weights", weights)
    x, y, window = options.prepared(y_pred, y, ("y_pred", "y"), corrected, len(exponents))
    if corrected or x.dtype == y.dtype == torch.float32 or not (x.is_floating_point() and y.is_floating_point()):
        value = windows.evaluate(*_converted(x, y, corrected), window, betas=exponents)[0]
    else:
        contrast = windows.contrast_alone(window)

        def of_level(x: Tensor, y: Tensor, is_last: bool) -> Tensor:
            return windows.evaluate(*_converted(x, y, False), window if is_last else contrast)[0]

        value = windows.multiscale(x, y, exponents, _halved, of_level)
    return value.reshape(-1, 1)


def _halved(image: Tensor) -> Tensor:
    """Averages blocks of 2x2 pixels or 2x2x2 voxels in the dtype of the images.

    16-bit volumes are averaged in float32, because PyTorch does not support them on the CPU.
    """
    if image.ndim == 5 and image.dtype != torch.float64:
        image = image.float()
    return _POOL[image.ndim - 2](image, 2)


class SSIMMetric(_Windowed, CumulativeMetric):
    """SSIM as a cumulative metric: each call returns the scores ``[B, 1]`` of a batch, ``aggregate()`` reduces them.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        data_range: The range of the pixel values, as for :class:`SSIMLoss`; so are the following arguments up to
            ``k2``.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        win_size: Number of taps of the window: one number, or one per axis.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or one per axis.
        k1: Luminance constant.
        k2: Contrast constant.
        reduction: The reduction of the scores that are not NaN: ``"mean"``, ``"sum"``, ``"mean_batch"``,
            ``"sum_batch"``, ``"mean_channel"``, ``"sum_channel"`` or ``"none"``.
        get_not_nans: If True, ``aggregate()`` also returns the number of scores that are not NaN.
        corrected: If True, compute float64 images in float64.

    Raises:
        TypeError, ValueError, NotImplementedError: As for :class:`SSIMLoss`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import SSIMMetric
        >>> metric = SSIMMetric(spatial_dims=2)
        >>> for _ in range(3):
        ...     scan = torch.rand(2, 1, 64, 64)
        ...     of_images = metric(scan, scan)
        >>> metric.aggregate()
        tensor([1.])
        >>> metric.reset()

    """

    def __init__(
        self,
        spatial_dims: int,
        data_range: float = _RANGE,
        kernel_type: str = "gaussian",
        win_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: str = "mean",
        get_not_nans: bool = False,
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__(reduction, get_not_nans)
        self._store(spatial_dims, data_range, kernel_type, win_size, kernel_sigma, k1, k2, corrected)

    @arguments.speaks_of(preds="y_pred", target="y", kernel_size="win_size", sigma="kernel_sigma")
    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        first, second, window = self._options().prepared(y_pred, y, ("y_pred", "y"), self.corrected)
        return windows.evaluate(first, second, window)[0].reshape(-1, 1)


class MultiScaleSSIMMetric(_Windowed, CumulativeMetric):
    """MS-SSIM as a cumulative metric: each call returns the scores ``[B, 1]`` of a batch, ``aggregate()`` reduces them.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        data_range: The range of the pixel values, as for :func:`compute_ms_ssim`; so are the following arguments up to
            ``weights``.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        kernel_size: Number of taps of the window: one number, or one per axis.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or one per axis.
        k1: Luminance constant.
        k2: Contrast constant.
        weights: Exponents of the levels, the finest level first.
        reduction: The reduction of the scores, as for :class:`SSIMMetric`.
        get_not_nans: If True, ``aggregate()`` also returns the number of scores that are not NaN.
        corrected: As for :func:`compute_ms_ssim`.

    Raises:
        TypeError, ValueError, NotImplementedError: As for :func:`compute_ms_ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import MultiScaleSSIMMetric
        >>> metric = MultiScaleSSIMMetric(spatial_dims=2, weights=(0.3, 0.7))
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> of_images = metric(0.9 * scan, scan)
        >>> score = metric.aggregate()

    """

    _size_name = "kernel_size"

    def __init__(
        self,
        spatial_dims: int,
        data_range: float = _RANGE,
        kernel_type: str = "gaussian",
        kernel_size: int | Sequence[int] = 11,
        kernel_sigma: float | Sequence[float] = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        weights: Sequence[float] = BETAS,
        reduction: str = "mean",
        get_not_nans: bool = False,
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__(reduction, get_not_nans)
        self._store(spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2, corrected)
        self.weights = arguments.check_exponents("weights", weights)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return compute_ms_ssim(
            y_pred, y, self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma,
            self.k1, self.k2, self.weights, corrected=self.corrected,
        )  # fmt: skip
