"""FFmpeg's filter ``ssim``: the means of 8x8 pixels, every fourth row and column, of each plane of a frame.

Its constants, as its source has them: variances are those of a sample of 64 pixels, and c1 is 64 times smaller than the
paper's, ``(k1 L)^2 / 64``, both rounded as integers of sums; so differences of dark regions count for more.
What differs: FFmpeg's code for x86 (5.1.9) counts a window of every row as 1 where ``width // 4 % 4 == 2``; this is
what ``ffmpeg -cpuflags 0`` prints.
"""

from __future__ import annotations

import math

from torch import Tensor

from ssim_fused.compat import arguments, windows

_SIZE, _STRIDE = 8, 4
_RANGE = arguments.DefaultRange(255)


@arguments.speaks_of(preds="main", target="reference")
def ssim(main: Tensor, reference: Tensor, data_range: float = _RANGE) -> Tensor:
    """SSIM of each plane.

    Args:
        main: frames ``[B, C, H, W]``, their planes one size; integers, or floats of an integer format's values.
        reference: frames of the same shape.
        data_range: the largest value of the format: 255 for 8 bits, 1023 for 10; by default 255, of integers the range
            of their type.

    Returns:
        ``[B, C]``, as "Y", "U", "V" are printed; "All" is their mean, weighted by the planes' pixels.

    Raises:
        TypeError: something is no tensor, or no number.
        ValueError: shapes differ or have other dimensions, planes smaller than 8x8, or a range below 255.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.ffmpeg import ssim
        >>> luma = torch.randint(0, 256, (8, 1, 72, 128), dtype=torch.uint8)
        >>> ssim(luma // 2, luma).shape
        torch.Size([8, 1])

    """
    names = ("main", "reference")
    arguments.check_images(main, reference, names)
    data_range = arguments.check_range("data_range", data_range, main, reference, names, takes_wide_integers=True)
    if data_range < 255:
        raise ValueError(f"`data_range` is {data_range}, expected 255 or more: FFmpeg's formats have at least 8 bits.")
    arguments.check_room("main", main.shape, (_SIZE, _SIZE), "windows of 8x8 pixels")
    pixels = _SIZE**2
    # Of sums over the window: (sum x)^2 is pixels^2 times the mean's square.
    c1 = math.floor((0.01 * data_range) ** 2 * pixels + 0.5) / pixels**2
    c2 = math.floor((0.03 * data_range) ** 2 * pixels * (pixels - 1) + 0.5) / pixels**2
    window = windows.uniform_window((_SIZE, _SIZE), (1.0, math.sqrt(c1), math.sqrt(c2)))
    picture = windows.evaluate(main, reference, window, want_map=True)[1]
    return picture[..., ::_STRIDE, ::_STRIDE].mean((2, 3))
