"""MONAI 1.6.1: ``SSIMLoss``, ``SSIMMetric``, ``MultiScaleSSIMMetric``, ``compute_ssim_and_cs`` and ``compute_ms_ssim``.

Without padding, with a window for each axis. As in the package, images of every dtype are computed in float32, and
halved in their own dtype; with ``corrected=True`` float64 images are computed in float64.

What differs: MS-SSIM takes all images whose coarsest level holds the window (the package's bound,
``size // (levels - 1)^2``, is too strict for four levels and too loose for two); the loss is computed, not subtracted
from one. The metrics have the interface of the package's, but not its base classes.
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
    """What a window is made of, as the caller gave it, checked as far as it can be without images."""

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
        """Both images, checked, and the window."""
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


def _converted(x: Tensor, y: Tensor, corrected: bool) -> tuple[Tensor, Tensor]:
    """In float32, unless 8- and 16-bit integers or float64 are read as they are."""
    if corrected or (x.dtype == y.dtype and not x.is_floating_point()):
        return windows.readable(x, y)[:2]
    return x.float(), y.float()


class SSIMLoss(nn.Module):
    """One minus SSIM of images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.

    Args:
        spatial_dims: 2 or 3.
        data_range: the images' range; by default 1, of integers that of their type.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        win_size: taps of the window, a number or one for each axis; even ones, too.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"``: ``[B, 1]``.
        corrected: whether float64 images are computed in float64, and results are of the images' dtype.

    Raises:
        TypeError: something is no tensor, or no number.
        ValueError: for unknown words and numbers out of their range; at the call for images of other dimensions, or
            smaller than the window.

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
        options = _Options(spatial_dims, data_range, kernel_type, win_size, kernel_sigma, k1, k2, "win_size")
        self.spatial_dims, self.data_range, self.kernel_type = spatial_dims, data_range, kernel_type
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = options.sizes, options.sigmas, k1, k2
        self.corrected = corrected

    @arguments.speaks_of(preds="input", kernel_size="win_size", sigma="kernel_sigma")
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        options = _Options(
            self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma, self.k1,
            self.k2, "win_size",
        )  # fmt: skip
        x, y, window = options.prepared(input, target, ("input", "target"), self.corrected)
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
    """The maps of SSIM and of the contrast sensitivity, ``[B, C, ...]``, less the pixels whose windows leave the image.

    Args:
        y_pred: images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.
        y: images of the same shape.
        spatial_dims: 2 or 3.
        kernel_size: taps of the window, for each axis.
        kernel_sigma: standard deviation of the Gaussian, for each axis.
        data_range: the images' range; by default 1, of integers that of their type.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        k1: luminance constant.
        k2: contrast constant.
        corrected: whether float64 images are computed in float64, and results are of the images' dtype.

    Raises:
        TypeError, ValueError: as :class:`SSIMLoss`.

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
    """MS-SSIM ``[B, 1]``, the levels' means clamped at zero.

    Args:
        y_pred: images ``[B, C, H, W]`` or volumes ``[B, C, H, W, D]``.
        y: images of the same shape.
        spatial_dims: 2 or 3.
        data_range: the images' range; by default 1, of integers that of their type.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        kernel_size: taps of the window, a number or one for each axis.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        weights: the levels' exponents, the finest level's first.
        corrected: whether float64 images are computed in float64, 16-bit ones are halved in float32, and results are of
            the images' dtype.

    Raises:
        TypeError, ValueError: as :class:`SSIMLoss`, also if the coarsest level does not hold the window.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import compute_ms_ssim
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> compute_ms_ssim(0.9 * scan, scan, spatial_dims=2, weights=(0.3, 0.7)).shape
        torch.Size([2, 1])

    """
    options = _Options(spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2, "kernel_size")
    exponents = _exponents(weights)
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
    """Means of 2x2 pixels in the images' dtype; those of 16-bit volumes, which PyTorch lacks on the CPU, in float32."""
    if image.ndim == 5 and image.dtype != torch.float64:
        image = image.float()
    return _POOL[image.ndim - 2](image, 2)


def _exponents(weights: Any) -> list[float]:
    if isinstance(weights, str) or not isinstance(weights, Sequence) or len(weights) == 0:
        raise ValueError(f"`weights` is {weights!r}, expected a sequence of numbers, one for each level.")
    return [arguments.check_number("weights", weight) for weight in weights]


class SSIMMetric(CumulativeMetric):
    """SSIM of one batch after another: ``[B, 1]`` at each call, the reduction of all at ``aggregate()``.

    Args:
        spatial_dims: 2 or 3.
        data_range: the images' range; by default 1, of integers that of their type.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        win_size: taps of the window, a number or one for each axis.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        reduction: of the scores that are not NaN: ``"mean"``, ``"sum"``, ``"mean_batch"``, ``"sum_batch"``,
            ``"mean_channel"``, ``"sum_channel"``, or ``"none"``.
        get_not_nans: whether ``aggregate()`` returns the number of those scores, too.
        corrected: whether float64 images are computed in float64.

    Raises:
        TypeError, ValueError: as :class:`SSIMLoss`.

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
        options = _Options(spatial_dims, data_range, kernel_type, win_size, kernel_sigma, k1, k2, "win_size")
        self.spatial_dims, self.data_range, self.kernel_type = spatial_dims, data_range, kernel_type
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = options.sizes, options.sigmas, k1, k2
        self.corrected = corrected

    @arguments.speaks_of(preds="y_pred", target="y", kernel_size="win_size", sigma="kernel_sigma")
    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        options = _Options(
            self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma, self.k1,
            self.k2, "win_size",
        )  # fmt: skip
        first, second, window = options.prepared(y_pred, y, ("y_pred", "y"), self.corrected)
        return windows.evaluate(first, second, window)[0].reshape(-1, 1)


class MultiScaleSSIMMetric(CumulativeMetric):
    """MS-SSIM of one batch after another: ``[B, 1]`` at each call, the reduction of all at ``aggregate()``.

    Args:
        spatial_dims: 2 or 3.
        data_range: the images' range; by default 1, of integers that of their type.
        kernel_type: ``"gaussian"`` or ``"uniform"``.
        kernel_size: taps of the window, a number or one for each axis.
        kernel_sigma: standard deviation of the Gaussian, a number or one for each axis.
        k1: luminance constant.
        k2: contrast constant.
        weights: the levels' exponents, the finest level's first.
        reduction: as of :class:`SSIMMetric`.
        get_not_nans: as of :class:`SSIMMetric`.
        corrected: as of :func:`compute_ms_ssim`.

    Raises:
        TypeError, ValueError: as :func:`compute_ms_ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.monai import MultiScaleSSIMMetric
        >>> metric = MultiScaleSSIMMetric(spatial_dims=2, weights=(0.3, 0.7))
        >>> scan = torch.rand(2, 1, 64, 64)
        >>> of_images = metric(0.9 * scan, scan)
        >>> score = metric.aggregate()

    """

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
        options = _Options(spatial_dims, data_range, kernel_type, kernel_size, kernel_sigma, k1, k2, "kernel_size")
        self.spatial_dims, self.data_range, self.kernel_type = spatial_dims, data_range, kernel_type
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = options.sizes, options.sigmas, k1, k2
        self.weights, self.corrected = _exponents(weights), corrected

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        return compute_ms_ssim(
            y_pred, y, self.spatial_dims, self.data_range, self.kernel_type, self.kernel_size, self.kernel_sigma,
            self.k1, self.k2, self.weights, corrected=self.corrected,
        )  # fmt: skip
