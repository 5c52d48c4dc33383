"""Wang's MATLAB functions: ``ssim`` (``ssim.m``, which downsamples large images) and ``ssim_index`` (which does not).

As there, images are gray, of range 255, computed in float64, without padding; of colour images the luma is compared,
as Wang's page advises: ``rgb2gray``. What differs: batches; a window that is not separable is refused; so are constants
of zero, where the kernels' formula has no value. Integers of 16 bits have the range of their type.
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
_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)  # MATLAB's rgb2gray: of NTSC, in double


def rgb2gray(images: Tensor) -> Tensor:
    """The luma ``[B, 1, H, W]`` of images ``[B, 3, H, W]``, in float64; as MATLAB does, uint8 is rounded to uint8.

    Args:
        images: in any dtype; float images of any range.

    Raises:
        ValueError: images of another shape.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import rgb2gray
        >>> rgb2gray(torch.tensor([255, 128, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)).item()
        151.0

    """
    if not isinstance(images, Tensor):
        raise TypeError(f"`images` is a {type(images).__name__}, expected a torch.Tensor.")
    if images.is_complex():
        raise NotImplementedError(f"`images` has the dtype {images.dtype}, expected real numbers.")
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
    """Mean SSIM, of images that are first reduced to about 256 pixels where their smaller side exceeds 384.

    Args:
        img1: gray images ``[H, W]`` or ``[B, 1, H, W]``, or colour images ``[B, 3, H, W]``, of which the luma is taken.
        img2: images of the same shape.
        K: the constants k1 and k2, > 0.
        window: taps of a window, ``[n]``, or ``[h, w]`` where it is a product of rows and columns; divided by its sum.
            By default a Gaussian of 11 taps and standard deviation 1.5.
        L: the images' range; by default 255, of integers that of their type.
        full: whether to return the map, too, as MATLAB's second output.

    Returns:
        A scalar, or ``[B]``, in float64.

    Raises:
        TypeError: something is no tensor, or no number.
        ValueError: other shapes, a window that is larger than the image or not separable, constants of zero.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import ssim
        >>> picture = torch.randint(0, 256, (480, 640), dtype=torch.uint8)
        >>> value, of_pixels = ssim(picture // 2, picture, full=True)
        >>> of_pixels.shape  # of 240 x 320 pixels, less what the window needs
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
    """Mean SSIM of images as they are; arguments, result and errors as of :func:`ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.matlab import ssim_index
        >>> picture = torch.randint(0, 256, (480, 640), dtype=torch.uint8)
        >>> value = ssim_index(picture // 2, picture)

    """
    return _ssim(img1, img2, K, window, L, full, is_reduced=False)


def _rounded(value: float) -> int:
    """As MATLAB rounds positive numbers."""
    return int(value + 0.5)


def _gray(image: Tensor) -> Tensor:
    image = image[None, None] if image.ndim == 2 else image
    return rgb2gray(image) if image.shape[1] == 3 else image.double()


def _ssim(
    img1: Tensor, img2: Tensor, k: Sequence[float], window: Any, data_range: float, full: bool, is_reduced: bool
) -> Tensor | tuple[Tensor, Tensor]:
    shapes = {2: "[H, W]", 4: "[B, 1, H, W] or, in colour, [B, 3, H, W]"}
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
    # A side of n pixels has ceil(n / factor) after it.
    least = [(size - 1) * factor + 1 for size in described.kernel_size]
    arguments.check_room("img1", img1.shape, least, f"the `window` of {described.kernel_size} taps{reduced}")
    if factor > 1:
        # `imfilter` by a mean of factor x factor, centred at (factor + 1) / 2 rounded down, then every factor-th pixel.
        before, after = (factor - 1) // 2, factor // 2
        x, y = (F.avg_pool2d(windows.pad_symmetric(i, ((before, after),) * 2), factor) for i in (x, y))
    results = windows.evaluate(x, y, described, want_map=full)
    if img1.ndim == 2:
        results = [results[0][0], *(picture[0, 0] for picture in results[1:])]
    return (results[0], results[1]) if full else results[0]


def _separated(window: Any) -> tuple[list[float], list[float]]:
    """Column and row whose product the window is, each summing to one."""
    taps = torch.as_tensor(window, dtype=torch.float64, device="cpu")
    total = taps.sum()
    if taps.ndim == 1 and total > 0:
        taps, total = torch.outer(taps, taps), total**2
    if taps.ndim != 2 or not total > 0:
        raise ValueError(
            f"`window` has the shape {tuple(taps.shape)} and the sum {total.item()}, expected [n] or [h, w], > 0."
        )
    taps = taps / total
    column, row = taps.sum(1), taps.sum(0)
    if not torch.allclose(torch.outer(column, row), taps, rtol=1e-9, atol=1e-12):
        raise ValueError("`window` is not the product of a column and a row, which the kernels need.")
    return column.tolist(), row.tolist()
