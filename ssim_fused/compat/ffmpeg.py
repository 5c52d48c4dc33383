"""Drop-in for FFmpeg's filter ``ssim``: uniform windows of 8x8 pixels at every fourth row and column of each plane.

The constants are those of FFmpeg's source. Variances are sample variances of 64 pixels. c1 is ``(k1 L)^2 / 64``, 64
times smaller than in the paper, so that differences in dark regions count for more. FFmpeg works on sums over the
window, and rounds both constants to integers on that scale.

Difference: FFmpeg's x86 assembly (5.1.9) counts one window of every row as 1 if ``width // 4 % 4 == 2``. This module
computes what ``ffmpeg -cpuflags 0`` prints.
"""

from __future__ import annotations

import math

from torch import Tensor

from ssim_fused.compat import arguments, windows

_SIZE, _STRIDE = 8, 4
_RANGE = arguments.DefaultRange(255)


@arguments.speaks_of(preds="main", target="reference")
def ssim(main: Tensor, reference: Tensor, data_range: float = _RANGE) -> Tensor:
    """Computes SSIM of each plane as FFmpeg's filter ``ssim`` does.

    Args:
        main: Frames ``[B, C, H, W]`` whose planes have the same size: integers, or floats with the values of an integer
            format.
        reference: Frames of the same shape.
        data_range: The largest value of the format, >= 255: 255 for 8 bits, 1023 for 10 bits. The default is the range
            of the dtype for integers, and 255 for floats.

    Returns:
        SSIM ``[B, C]``. FFmpeg prints these values as "Y", "U" and "V"; its "All" is their mean, weighted by the number
        of pixels of each plane.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ or do not have four dimensions, a plane is smaller than 8x8 pixels, or the range
            is below 255.
        NotImplementedError: A dtype is not supported.

    References:
        FFmpeg, ``libavfilter/vf_ssim.c``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.ffmpeg import ssim
        >>> luma = torch.randint(0, 256, (8, 1, 72, 128), dtype=torch.uint8)
        >>> ssim(luma // 2, luma).shape
        torch.Size([8, 1])

    """
    return similarity(main, reference, data_range)[..., ::_STRIDE, ::_STRIDE].mean((2, 3))


@arguments.speaks_of(preds="main", target="reference")
def similarity(main: Tensor, reference: Tensor, data_range: float = _RANGE) -> Tensor:
    """Computes SSIM of every window of 8x8 pixels; :func:`ssim` averages every fourth row and column of this map.

    Args:
        main: Frames ``[B, C, H, W]``, as for :func:`ssim`.
        reference: Frames of the same shape.
        data_range: The largest value of the format, as for :func:`ssim`.

    Returns:
        The map ``[B, C, H - 7, W - 7]``.

    Raises:
        TypeError, ValueError, NotImplementedError: As for :func:`ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.ffmpeg import similarity
        >>> luma = torch.randint(0, 256, (1, 1, 72, 128), dtype=torch.uint8)
        >>> similarity(luma, luma).shape
        torch.Size([1, 1, 65, 121])

    """
    names = ("main", "reference")
    arguments.check_images(main, reference, names)
    data_range = arguments.check_range("data_range", data_range, main, reference, names, takes_wide_integers=True)
    if data_range < 255:
        raise ValueError(
            f"`data_range` is {data_range}, expected 255 or more, because FFmpeg's formats have at least 8 bits: scale "
            "the frames to the range of such a format."
        )
    arguments.check_room("main", main.shape, (_SIZE, _SIZE), "windows of 8x8 pixels")
    pixels = _SIZE**2
    # FFmpeg's constants belong to sums over the window; (sum x)^2 is pixels^2 times the square of the mean.
    c1 = math.floor((0.01 * data_range) ** 2 * pixels + 0.5) / pixels**2
    c2 = math.floor((0.03 * data_range) ** 2 * pixels * (pixels - 1) + 0.5) / pixels**2
    window = windows.uniform_window((_SIZE, _SIZE), (1.0, math.sqrt(c1), math.sqrt(c2)))
    return windows.evaluate(main, reference, window, want_map=True)[1]
