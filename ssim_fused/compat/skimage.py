"""scikit-image 0.26's ``structural_similarity``: of arrays, with sample covariance, the whole map and the gradient.

Unbiased variances are ``NP / (NP - 1)`` times the biased ones, NP being the window's pixels; with that factor taken out
of numerator and denominator they are the biased ones with a smaller c2, so that the kernels' formula is exact.

As in the package, the ``gradient`` with sample covariance is not the derivative of the map's mean: the factor is left
out where variances are differentiated. With ``corrected=True`` it is the derivative. What differs: images have one to
three axes next to that of the channels, ``im2`` may not be complex, and unknown arguments are refused.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssim_fused._core import _ops
from ssim_fused.compat import arguments, windows

Array = NDArray[Any]
# Dtypes that the operators read.
_INTEGERS = [torch.empty(0, dtype=dtype).numpy().dtype for dtype in _ops.TYPE_RANGES]


class SampleCovarianceError(ValueError, ZeroDivisionError):
    """A window of one pixel has no sample covariance; the package divides by zero."""


@arguments.speaks_of(preds="im1", target="im2", kernel_size="win_size")
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
    corrected: bool = False,
) -> Any:
    """Mean SSIM of two arrays.

    Args:
        im1: an image of one to three axes, next to that of the channels.
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
        corrected: whether the ``gradient`` is the derivative with sample covariance, too; the package's leaves a factor
            out.

    Returns:
        The mean over the pixels whose windows lie inside, a float64, with ``channel_axis`` in the dtype of ``im1``;
        then, if requested, gradient and map, of the images' shape in that dtype (integers: float64).

    Raises:
        TypeError: a number is none.
        ValueError: shapes differ, images are complex, a window is even or larger than the image, a constant is
            negative, or floating-point images come without ``data_range``; also, as a ZeroDivisionError, sample
            covariance of a window of one pixel.
        IndexError: the images have no axis ``channel_axis``.

    Example:
        >>> import numpy as np
        >>> from ssim_fused.compat.skimage import structural_similarity
        >>> picture = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
        >>> float(structural_similarity(picture, picture, channel_axis=2))
        1.0

    """
    im1, im2 = np.asarray(im1), np.asarray(im2)
    arguments.check_same(im1.shape, im2.shape, ("im1", "im2"))
    for name, image in (("im1", im1), ("im2", im2)):
        if image.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` has the dtype {image.dtype}, expected real numbers: take `.real` and `.imag`.")
    float_type = np.float32 if im1.dtype in (np.float16, np.float32) else np.float64
    planes = [_planes(image, channel_axis) for image in (im1, im2)]
    axes = planes[0].ndim - 1
    K1, K2, sigma = arguments.check_constants(K1=K1, K2=K2, sigma=sigma)  # noqa: N806
    size = 2 * int(3.5 * sigma + 0.5) + 1
    if win_size is None:
        win_size = size if gaussian_weights else 7
    _check_window(im1, planes[0].shape[1:], win_size, channel_axis)
    if not gaussian_weights:
        size = win_size
    number = (
        _range_of(im1.dtype, im2.dtype) if data_range is None else arguments.check_positive("data_range", data_range)
    )
    unbiased = 1.0
    if use_sample_covariance:
        pixels = win_size**axes
        if pixels == 1:
            raise SampleCovarianceError(
                "`win_size` is 1, of which there is no sample covariance: pass `use_sample_covariance=False`."
            )
        unbiased = pixels / (pixels - 1)
    # Of one axis, an image of one row.
    sizes = (*[1] * (2 - axes), *[size] * axes)
    constants = (number, K1, K2 / math.sqrt(unbiased))
    if not gaussian_weights:
        window = windows.uniform_window(sizes, constants)
    elif sigma == 0:
        window = windows.uniform_window((1,) * len(sizes), constants)
    else:
        # A narrow one along the added row: of one tap.
        window = windows.gaussian_window(sizes, (*[0.1] * (2 - axes), *[sigma] * axes), constants)

    border = (win_size - 1) // 2
    of_channels = np.float64 if channel_axis is None else float_type
    # The operators read integers; the gradient is that of floating-point images.
    reads_integers = not gradient and im1.dtype == im2.dtype and im1.dtype in _INTEGERS
    evaluate = windows.evaluate_in_float64 if reads_integers else windows.evaluate
    dtype = im1.dtype if reads_integers else np.dtype(np.float64)
    if not full and not gradient and border == size // 2:
        x, y = (_as_batch(of_image, dtype) for of_image in planes)
        return of_channels(evaluate(x, y, window)[0].mean().item())
    widths = [(0, 0), *[(size // 2, size // 2)] * axes]
    if gradient:
        x, y = (_as_batch(of_image, dtype) for of_image in planes)
        y.requires_grad_()
        with torch.enable_grad():
            padded = [windows.pad_symmetric(image, [(n // 2, n // 2) for n in sizes]) for image in (x, y)]
            picture = windows.evaluate(*padded, window, want_map=True)[1]
    else:
        x, y = (_as_batch(np.pad(of_image, widths, mode="symmetric"), dtype) for of_image in planes)
        picture = evaluate(x, y, window, want_map=True)[1]
    inside = picture.detach().double()
    for dim, n in zip(range(picture.ndim - axes, picture.ndim), picture.shape[-axes:], strict=True):
        inside = inside.narrow(dim, border, n - 2 * border)
    results: list[Any] = [of_channels(inside.flatten(1).mean(1).mean().item())]
    if gradient:
        with torch.enable_grad():
            total = picture.sum()
            if unbiased != 1 and not corrected:
                luminance, contrast = (
                    windows.evaluate(*padded, alone(window), want_map=True)[1]
                    for alone in (windows.luminance_alone, windows.contrast_alone)
                )
                # In the derivative of the contrast the package leaves the factor out, in that of the luminance it has
                # none.
                total = total / unbiased + (1 - 1 / unbiased) * (luminance * contrast.detach()).sum()
            (by_y,) = torch.autograd.grad(total / picture[0].numel(), y)
        results.append(_as_array(by_y, im1.shape, channel_axis).astype(float_type))
    if full:
        results.append(_as_array(picture.detach(), im1.shape, channel_axis).astype(float_type))
    return tuple(results) if len(results) > 1 else results[0]


def _planes(image: Array, channel_axis: int | None) -> Array:
    """A view ``[channels, *axes]``."""
    if channel_axis is None:
        planes = image[np.newaxis]
    else:
        if not isinstance(channel_axis, int | np.integer) or isinstance(channel_axis, bool):
            raise TypeError(f"`channel_axis` is {channel_axis!r}, expected an integer or None.")
        if not -image.ndim <= channel_axis < image.ndim:
            raise IndexError(f"`channel_axis` is {channel_axis}, and `im1` has the shape {image.shape}.")
        planes = np.moveaxis(image, channel_axis, 0)
    if not 2 <= planes.ndim <= 4 or len(planes) == 0:
        which = "" if channel_axis is None else f" and `channel_axis` is {channel_axis}"
        raise ValueError(
            f"`im1` has the shape {image.shape}{which}, expected one to three axes, and at least one channel."
        )
    return planes


def _as_batch(planes: Array, dtype: np.dtype) -> Tensor:
    """``[channels, 1, *axes]``, one axis as an image of one row: the array itself if PyTorch can read it."""
    planes = planes.astype(dtype.newbyteorder("="), copy=False)
    if any(step < 0 or step % planes.itemsize for step in planes.strides):
        planes = planes.copy()
    if not planes.flags.writeable:
        planes = _Writable(planes).view()
    batch = torch.from_numpy(planes).unsqueeze(1)
    return batch.unsqueeze(2) if planes.ndim == 2 else batch


class _Writable:
    """A read-only array that NumPy takes for a writable one: `torch.from_numpy` warns of others. Nobody writes."""

    def __init__(self, array: Array) -> None:
        self._array = array  # lives as long as its view
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = array.__array_interface__ | {"data": (address, False)}

    def view(self) -> Array:
        return np.asarray(self)


def _as_array(picture: Tensor, shape: tuple[int, ...], channel_axis: int | None) -> Array:
    if channel_axis is None:
        return picture.reshape(shape).numpy()
    moved = list(shape)
    channels = moved.pop(channel_axis)
    return np.moveaxis(picture.reshape(channels, *moved).numpy(), 0, channel_axis)


def _check_window(image: Array, sides: tuple[int, ...], win_size: Any, channel_axis: int | None) -> None:
    arguments.check_size("win_size", win_size, odd=False)
    if min(sides) < win_size:
        hint = "; if the image has channels, pass `channel_axis`" if channel_axis is None else ""
        raise ValueError(
            f"`win_size` {win_size} exceeds `im1` of the shape {image.shape}: pass a smaller odd one{hint}."
        )
    arguments.check_size("win_size", win_size)


def _range_of(first: np.dtype, second: np.dtype) -> float:
    if "f" in (first.kind, second.kind):
        raise ValueError(
            f"`data_range` is None, and `im1` of {first} and `im2` of {second} do not tell it: pass a number, such as "
            "the largest value that a pixel can have minus the least."
        )
    if first != second:
        warnings.warn(
            f"`im1` is of {first} and `im2` of {second}: Setting data_range based on im1.dtype. Pass `data_range`.",
            stacklevel=4,
        )
    if first.kind == "b":
        return 1.0
    limits = np.iinfo(first)
    if first != np.uint8:
        warnings.warn(  # in the package's words, for those who filter them
            f"Setting data_range based on im1.dtype. data_range = {float(limits.max) - float(limits.min):.0f}, that of "
            f"{first}. Pass `data_range` to avoid mistakes.",
            stacklevel=4,
        )
    return float(limits.max) - float(limits.min)
