"""Drop-in for ``structural_similarity`` of scikit-image 0.26: NumPy arrays, with sample covariance, map and gradient.

Sample variances are ``NP / (NP - 1)`` times the biased ones, where NP is the number of pixels of the window. This
factor cancels in the contrast term if c2 is divided by it, so that the formula of the kernels is exact.

As in scikit-image, the ``gradient`` with sample covariance is not the derivative of the mean of the map: it lacks that
factor where variances are differentiated. With ``corrected=True`` it is the derivative.

Differences: images have one to three axes besides the channel axis, ``im2`` cannot be complex, and unknown arguments
are refused.
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
    """Raised for sample covariance with a window of one pixel, which is undefined; scikit-image divides by zero."""


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
    """Computes the mean SSIM of two arrays, as ``skimage.metrics.structural_similarity``.

    Args:
        im1: An array with one to three axes besides the channel axis.
        im2: An array of the same shape.
        win_size: Number of pixels of the uniform window along each axis, odd; the default is 7. With
            ``gaussian_weights``, ``sigma`` determines the window, and ``win_size`` only sets the border that the mean
            leaves out, by default half the window.
        gradient: If True, also return the derivative of the mean of the whole map with respect to ``im2``; each channel
            has a map of its own.
        data_range: The range of the pixel values, > 0. The default is the range of an integer dtype; float arrays need
            a value.
        channel_axis: The axis of the channels, which are compared separately, or None.
        gaussian_weights: If True, the window is a Gaussian; otherwise it is uniform.
        full: If True, also return the map.
        K1: Luminance constant, ``c1 = (K1 L)^2``, >= 0.
        K2: Contrast constant, ``c2 = (K2 L)^2``, >= 0.
        sigma: Standard deviation of the Gaussian in pixels, >= 0.
        use_sample_covariance: If True, variances are divided by the number of pixels of the window minus one.
        corrected: If True, ``gradient`` is the exact derivative also with sample covariance; scikit-image's lacks a
            factor.

    Returns:
        The mean over the pixels whose windows lie inside the image, as float64, or with ``channel_axis`` as float32 for
        float16 and float32 arrays; then the gradient and the map if requested, in the shape of the arrays, with
        float32 for float16 and float32 arrays, otherwise float64.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ, an array is complex, the window is even or larger than the image, a constant is
            negative, or ``data_range`` is missing for float arrays. Sample covariance with a window of one pixel raises
            a subclass that is also a ZeroDivisionError.
        IndexError: The arrays have no axis ``channel_axis``.

    References:
        scikit-image, ``skimage.metrics.structural_similarity``. Wang, Bovik, Sheikh, Simoncelli: Image quality
        assessment: from error visibility to structural similarity, IEEE Transactions on Image Processing 13(4), 2004.

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
    float_type = np.float32 if im1.dtype.char in "ef" else np.float64  # float16 or float32 of any byte order
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
    # A signal with one axis is computed as an image with one row.
    sizes = (*[1] * (2 - axes), *[size] * axes)
    constants = (number, K1, K2 / math.sqrt(unbiased))
    if not gaussian_weights:
        window = windows.uniform_window(sizes, constants)
    elif sigma == 0:
        window = windows.uniform_window((1,) * len(sizes), constants)
    else:
        # Along the added axis, a narrow Gaussian of one tap.
        window = windows.gaussian_window(sizes, (*[0.1] * (2 - axes), *[sigma] * axes), constants)

    border = (win_size - 1) // 2
    of_channels = np.float64 if channel_axis is None else float_type
    # The operators read integers without a copy in float64. A gradient needs floating-point images.
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
                # scikit-image leaves the factor out of the derivative of the contrast term. The luminance term has no
                # such factor, so its part of the derivative is added back here.
                total = total / unbiased + (1 - 1 / unbiased) * (luminance * contrast.detach()).sum()
            (by_y,) = torch.autograd.grad(total / picture[0].numel(), y)
        results.append(_as_array(by_y, im1.shape, channel_axis).astype(float_type))
    if full:
        results.append(_as_array(picture.detach(), im1.shape, channel_axis).astype(float_type))
    return tuple(results) if len(results) > 1 else results[0]


def _planes(image: Array, channel_axis: int | None) -> Array:
    """Returns a view ``[channels, *axes]`` of the array."""
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
    """Returns planes as a tensor ``[channels, 1, *axes]``, a signal with one axis as an image with one row.

    Copies only what PyTorch cannot read: another dtype or byte order, and negative strides.
    """
    planes = planes.astype(dtype.newbyteorder("="), copy=False)
    if any(step < 0 or step % planes.itemsize for step in planes.strides):
        planes = planes.copy()
    if not planes.flags.writeable:
        planes = _Writable(planes).view()
    batch = torch.from_numpy(planes).unsqueeze(1)
    return batch.unsqueeze(2) if planes.ndim == 2 else batch


class _Writable:
    """Presents a read-only array as writable, because `torch.from_numpy` warns about read-only ones. Nothing writes."""

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
        warnings.warn(  # scikit-image's words, so that filters for its warnings match
            f"Setting data_range based on im1.dtype. data_range = {float(limits.max) - float(limits.min):.0f}, that of "
            f"{first}. Pass `data_range` to avoid mistakes.",
            stacklevel=4,
        )
    return float(limits.max) - float(limits.min)
