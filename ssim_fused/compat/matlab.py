"""Drop-in for Wang's MATLAB code: ``ssim`` (``ssim.m``, which downsamples large images) and ``ssim_index``.

As in MATLAB, images are grayscale with a range of 255, computed in float64 without padding. Color images are compared
by their luma (``rgb2gray``), as Wang's page advises.

Differences: batches are supported. A window that is not separable is refused, and so are constants of 0, for which the
formula of the kernels has no value. 16-bit integers have the range of their dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import arguments, windows

_RANGE = arguments.DefaultRange(255)
_NAMES = ("img1", "img2")
_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # NTSC luma as in MATLAB's rgb2gray, in double


def rgb2gray(images: Tensor) -> Tensor:
    """Computes the luma of color images as MATLAB's ``rgb2gray`` does.

    Args:
        images: RGB images ``[B, 3, H, W]`` of any real dtype and range.

    Returns:
        The luma ``[B, 1, H, W]`` in float64. For uint8 images it is rounded to integers, as in MATLAB.

    Raises:
        TypeError: ``images`` is not a tensor.
        ValueError: The shape is not ``[B, 3, H, W]``.
        NotImplementedError: The images are complex.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import rgb2gray
        >>> rgb2gray(torch.tensor([255, 128, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)).item()
        151.0

    """
    if not isinstance(images, Tensor):
        raise TypeError(f"`images` is a {type(images).__name__}, expected a torch.Tensor.")
    if images.is_complex():
        raise NotImplementedError(
            f"`images` has the dtype {images.dtype}, expected real numbers: pass `.real` and `.imag`, or `.abs()`."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"`images` has the shape {tuple(images.shape)}, expected [B, 3, H, W].")
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=images.device).reshape(1, 3, 1, 1)
    luma = (images.double() * weights).sum(1, keepdim=True)
    return (luma + 0.5).floor() if images.dtype == torch.uint8 else luma


@arguments.speaks_of(preds="img1", target="img2", data_range="L")
def ssim(
    img1: Tensor,
    img2: Tensor,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    window: Any = None,
    L: float = _RANGE,  # noqa: N803
    *,
    full: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Computes mean SSIM after reducing large images, as ``ssim.m`` does.

    If the smaller side has 384 pixels or more, the images are reduced by an integer factor, to about 256 pixels.

    Args:
        img1: Grayscale images ``[H, W]`` or ``[B, 1, H, W]``, or color images ``[B, 3, H, W]``, compared by their luma.
        img2: Images of the same shape.
        K: The constants k1 and k2, both > 0.
        window: Taps of a window: ``[n]`` for both axes, or ``[h, w]``, which must be the product of a column and a row.
            It is divided by its sum. The default is a Gaussian with 11 taps and a standard deviation of 1.5 pixels.
        L: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 255 for floats.
        full: If True, also return the map, which is MATLAB's second output.

    Returns:
        SSIM in float64: a scalar for ``[H, W]``, otherwise ``[B]``. With ``full``, a tuple of SSIM and the map.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ or are not among the above, the window is larger than the image or not separable,
            or a constant is not positive.
        NotImplementedError: A dtype is not supported.

    References:
        Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity,
        IEEE Transactions on Image Processing 13(4), 2004, and its MATLAB code ``ssim.m``.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import ssim
        >>> picture = torch.randint(0, 256, (480, 640), dtype=torch.uint8)
        >>> value, of_pixels = ssim(picture // 2, picture, full=True)
        >>> of_pixels.shape  # the reduced images have 240 x 320 pixels, and the window needs 10 of each axis
        torch.Size([230, 310])

    """
    return _ssim(img1, img2, K, window, L, full, is_reduced=True)


@arguments.speaks_of(preds="img1", target="img2", data_range="L")
def ssim_index(
    img1: Tensor,
    img2: Tensor,
    K: Sequence[float] = (0.01, 0.03),  # noqa: N803
    window: Any = None,
    L: float = _RANGE,  # noqa: N803
    *,
    full: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Computes mean SSIM of the images at their full size, as ``ssim_index.m`` does.

    Arguments, result and errors are those of :func:`ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import ssim_index
        >>> picture = torch.randint(0, 256, (480, 640), dtype=torch.uint8)
        >>> value = ssim_index(picture // 2, picture)

    """
    return _ssim(img1, img2, K, window, L, full, is_reduced=False)


def _rounded(value: float) -> int:
    """Rounds a positive number as MATLAB does: halves are rounded up."""
    return int(value + 0.5)


def _gray(image: Tensor) -> Tensor:
    image = image[None, None] if image.ndim == 2 else image
    return rgb2gray(image) if image.shape[1] == 3 else image.double()


def _ssim(
    img1: Tensor, img2: Tensor, k: Sequence[float], window: Any, data_range: float, full: bool, is_reduced: bool
) -> Tensor | tuple[Tensor, Tensor]:
    shapes = {2: "[H, W]", 4: "[B, 1, H, W] or, in color, [B, 3, H, W]"}
    arguments.check_images(img1, img2, _NAMES, shapes)
    if img1.ndim == 4 and img1.shape[1] not in (1, 3):
        raise ValueError(f"`img1` has the shape {tuple(img1.shape)}, expected {' or '.join(shapes.values())}.")
    number = arguments.check_range("L", data_range, img1, img2, _NAMES, takes_wide_integers=True)
    constants = arguments.check_pair("K", k)
    if not min(constants) > 0:
        raise ValueError(f"`K` is {k!r}, expected two positive numbers.")
    numbers = (number, *constants)
    if window is None:
        described = windows.gaussian_window((11, 11), (1.5, 1.5), numbers)
    else:
        described = windows.own_window(_separated(window), numbers)
    x, y = _gray(img1), _gray(img2)
    factor = max(1, _rounded(min(x.shape[-2:]) / 256)) if is_reduced else 1
    reduced = f" after its reduction by {factor}" if factor > 1 else ""
    # The reduction turns a side of n pixels into ceil(n / factor).
    least = [(size - 1) * factor + 1 for size in described.kernel_size]
    arguments.check_room("img1", img1.shape, least, f"the `window` of {described.kernel_size} taps{reduced}")
    if factor > 1:
        # MATLAB applies `imfilter` with a mean of factor x factor pixels, centered at (factor + 1) / 2 rounded down,
        # and keeps every factor-th pixel.
        before, after = (factor - 1) // 2, factor // 2
        x, y = (F.avg_pool2d(windows.pad_symmetric(i, ((before, after),) * 2), factor) for i in (x, y))
    results = windows.evaluate(x, y, described, want_map=full)
    if img1.ndim == 2:
        results = [results[0][0], *(picture[0, 0] for picture in results[1:])]
    return (results[0], results[1]) if full else results[0]


def _separated(window: Any) -> tuple[list[float], list[float]]:
    """Returns the column and the row whose product is the window, each summing to 1."""
    taps = torch.as_tensor(window, dtype=torch.float64, device="cpu")
    total = taps.sum()
    if taps.ndim == 1 and total > 0:
        taps, total = torch.outer(taps, taps), total**2
    if taps.ndim != 2 or not total > 0:
        raise ValueError(
            f"`window` has the shape {tuple(taps.shape)} and the sum {total.item()}, expected [n] or [h, w] and a "
            "positive sum."
        )
    taps = taps / total
    column, row = taps.sum(1), taps.sum(0)
    if not torch.allclose(torch.outer(column, row), taps, rtol=1e-9, atol=1e-12):
        raise ValueError(
            f"`window` has the shape {tuple(taps.shape)} and is not separable, expected the product of a column and a "
            "row."
        )
    return column.tolist(), row.tolist()
