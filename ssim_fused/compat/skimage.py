"""scikit-image 0.26's ``structural_similarity``: of arrays, with sample covariance, the whole map and the gradient.

Unbiased variances are ``NP / (NP - 1)`` times the biased ones, NP being the window's pixels; with that factor taken out
of numerator and denominator they are the biased ones with a smaller c2, so that the kernels' formula is exact.

What differs: the ``gradient`` is the derivative of the map's mean with sample covariance, too, where the package's
formula is off (by 1 / (NP - 1), relative to the contrast's part).
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssim_fused.compat import windows

Array = NDArray[Any]


def structural_similarity(
    im1: Array,
    im2: Array,
    *,
    win_size: int | None = None,
    gradient: bool = False,
    data_range: float | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    K1: float = 0.01,  # noqa: N803
    K2: float = 0.03,  # noqa: N803
    sigma: float = 1.5,
    use_sample_covariance: bool = True,
) -> Any:
    """Mean SSIM of two arrays.

    Args:
        im1: an image of one to three axes, beside that of the channels.
        im2: an image of the same shape.
        win_size: pixels along each axis of the uniform window, odd; 7 by default. With ``gaussian_weights`` the window
            is that of ``sigma``, and this says how much border the mean leaves out, by default half the window.
        gradient: whether to return the derivative of the whole map's mean by ``im2``; of each channel's own map.
        data_range: the images' range; by default that of an integer dtype.
        channel_axis: the axis of the channels, each compared by itself.
        gaussian_weights: whether the window is a Gaussian.
        full: whether to return the map.
        K1: luminance constant.
        K2: contrast constant.
        sigma: standard deviation of the Gaussian.
        use_sample_covariance: whether variances are divided by the window's pixels minus one.

    Returns:
        The mean over the pixels whose windows lie inside; then, where asked for, gradient and map, of the images' shape
        in their dtype (integers: float64).

    Raises:
        ValueError: shapes differ, a window is even or larger than the image, a constant is negative, or floating-point
            images come without ``data_range``.

    Example:
        >>> import numpy as np
        >>> from ssim_fused.compat.skimage import structural_similarity
        >>> picture = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
        >>> float(structural_similarity(picture, picture, channel_axis=2))
        1.0

    """
    im1, im2 = np.asarray(im1), np.asarray(im2)
    if im1.shape != im2.shape:
        raise ValueError(f"`im1` and `im2` have the shapes {im1.shape} and {im2.shape}, expected the same.")
    x, y = (_as_batch(image, channel_axis, _float_type(im1.dtype)) for image in (im1, im2))
    axes = x.ndim - 2
    if win_size is None:
        win_size = 2 * int(3.5 * sigma + 0.5) + 1 if gaussian_weights else 7
    _check(x.shape[2:], win_size, K1, K2, sigma)
    if data_range is None:
        data_range = _range_of(im1.dtype, im2.dtype)
    size = 2 * int(3.5 * sigma + 0.5) + 1 if gaussian_weights else win_size
    if use_sample_covariance:
        pixels = win_size**axes
        K2 = K2 * math.sqrt((pixels - 1) / pixels)  # noqa: N806
    # Of one axis, an image of one row.
    sizes = (*[1] * (2 - axes), *[size] * axes)
    x, y = (image.unsqueeze(2) if axes == 1 else image for image in (x, y))
    constants = (float(data_range), K1, K2)
    if gaussian_weights:
        # A narrow one along the added row: of one tap.
        window = windows.gaussian_window(sizes, (*[0.1] * (2 - axes), *[sigma] * axes), constants)
    else:
        window = windows.uniform_window(sizes, constants)

    border = (win_size - 1) // 2
    if not full and not gradient and border == size // 2:
        return _mean(windows.evaluate(x, y, window)[0])
    widths = [(n // 2, n // 2) for n in sizes]
    y.requires_grad_(gradient)
    with torch.enable_grad():
        picture = windows.evaluate(*(windows.pad_symmetric(image, widths) for image in (x, y)), window, want_map=True)[
            1
        ]
    inside = picture.detach().double()
    for dim, n in zip(range(picture.ndim - axes, picture.ndim), picture.shape[-axes:], strict=True):
        inside = inside.narrow(dim, border, n - 2 * border)
    results: list[Any] = [_mean(inside.flatten(1).mean(1))]
    if gradient:
        (by_y,) = torch.autograd.grad(picture.sum() / picture[0].numel(), y)
        results.append(_as_array(by_y, im1.shape, channel_axis))
    if full:
        results.append(_as_array(picture.detach(), im1.shape, channel_axis))
    return tuple(results) if len(results) > 1 else results[0]


def _float_type(dtype: np.dtype) -> type:
    return np.float32 if dtype in (np.float16, np.float32) else np.float64


def _as_batch(image: Array, channel_axis: int | None, dtype: type) -> Tensor:
    """``[channels, 1, *axes]``."""
    image = image[np.newaxis] if channel_axis is None else np.moveaxis(image, channel_axis, 0)
    if not 2 <= image.ndim <= 4:
        raise ValueError(f"The images have {image.ndim - 1} axes beside the channels, expected one to three.")
    return torch.from_numpy(np.ascontiguousarray(image, dtype=dtype).copy()).unsqueeze(1)


def _as_array(picture: Tensor, shape: tuple[int, ...], channel_axis: int | None) -> Array:
    if channel_axis is None:
        return picture.reshape(shape).numpy()
    moved = list(shape)
    channels = moved.pop(channel_axis)
    return np.moveaxis(picture.reshape(channels, *moved).numpy(), 0, channel_axis)


def _mean(values: Tensor) -> Any:
    return np.float64(values.double().mean().item())


def _check(sides: tuple[int, ...], win_size: int, k1: float, k2: float, sigma: float) -> None:
    for name, value in (("K1", k1), ("K2", k2), ("sigma", sigma)):
        if value < 0:
            raise ValueError(f"`{name}` is {value}, expected a positive number.")
    if win_size % 2 != 1:
        raise ValueError(f"`win_size` is {win_size}, expected an odd number.")
    if min(sides) < win_size:
        raise ValueError(
            f"`win_size` {win_size} exceeds an image of {' x '.join(map(str, sides))}: pass a smaller odd one; if the "
            "image has channels, `channel_axis`."
        )


def _range_of(first: np.dtype, second: np.dtype) -> float:
    if first.kind not in "iub" or second.kind not in "iub":
        raise ValueError(f"`data_range` is None: images of {first} and {second} do not tell it, so pass a number.")
    if first != second:
        warnings.warn(f"`im1` is of {first} and `im2` of {second}: the range is that of `im1`.", stacklevel=3)
    if first.kind == "b":
        return 1.0
    limits = np.iinfo(first)
    if first != np.uint8:
        warnings.warn(f"The range is {limits.max - limits.min}, that of {first}: pass `data_range`.", stacklevel=3)
    return float(limits.max) - float(limits.min)
