"""SSIM as in the paper, in a few lines of PyTorch: one convolution for each moment, nothing rearranged.

In float64 this is the reference for paddings and windows that torchmetrics does not have. It is accurate to 1e-13 if
the pixels are of the size of the data range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

CONV = {2: F.conv2d, 3: F.conv3d}
POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian(size: int, sigma: float) -> Tensor:
    taps = torch.tensor([math.exp(-((i - size // 2) ** 2) / (2 * sigma**2)) for i in range(size)], dtype=torch.float64)
    return taps / taps.sum()


def uniform(size: int) -> Tensor:
    return torch.full((size,), 1 / size, dtype=torch.float64)


def convolved(image: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Convolves each channel with the outer product of the windows, without padding."""
    axes, channels = len(windows), image.shape[1]
    window = windows[0]
    for other in windows[1:]:
        window = window.unsqueeze(-1) * other
    weight = window.to(image).expand(channels, 1, *window.shape)
    return CONV[axes](image, weight, groups=channels)


def ssim_maps(
    x: Tensor, y: Tensor, windows: Sequence[Tensor], c1: float, c2: float, padding: str = "reflect"
) -> tuple[Tensor, Tensor]:
    """The map of SSIM and that of contrast sensitivity, both of the padded image."""
    if padding != "valid":
        widths = [len(window) // 2 for window in reversed(windows) for _ in range(2)]
        mode = {"reflect": "reflect", "zero": "constant", "replicate": "replicate"}[padding]
        x, y = (F.pad(image, widths, mode=mode) for image in (x, y))
    mean_x, mean_y = convolved(x, windows), convolved(y, windows)
    variance_x = convolved(x * x, windows) - mean_x**2
    variance_y = convolved(y * y, windows) - mean_y**2
    covariance = convolved(x * y, windows) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * contrast, contrast


def cropped(image: Tensor, windows: Sequence[Tensor], padding: str) -> Tensor:
    """Crops the pixels whose windows extend beyond the image."""
    if padding == "valid":
        return image
    for dim, window in enumerate(windows, start=2):
        radius = len(window) // 2
        image = image.narrow(dim, radius, image.shape[dim] - 2 * radius)
    return image


def channel_means(
    x: Tensor, y: Tensor, windows: Sequence[Tensor], c1: float, c2: float, padding: str = "reflect"
) -> tuple[Tensor, Tensor]:
    """SSIM and contrast sensitivity ``[B, C]``; the latter is averaged over the cropped map."""
    similarity, contrast = ssim_maps(x, y, windows, c1, c2, padding)
    return similarity.flatten(2).mean(2), cropped(contrast, windows, padding).flatten(2).mean(2)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    windows: Sequence[Tensor],
    c1: float,
    c2: float,
    padding: str = "reflect",
    *,
    betas: Sequence[float] = BETAS,
    per_channel: bool = False,
    pool: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """MS-SSIM with means clamped at zero: ``[B]``, or ``[B, C]`` if every channel has its own product."""
    pool = pool or (lambda image: POOL[len(windows)](image, 2))
    value = torch.ones((), dtype=x.dtype)
    for level, beta in enumerate(betas):
        if level:
            x, y = pool(x), pool(y)
        similarity, contrast = channel_means(x, y, windows, c1, c2, padding)
        mean = similarity if level == len(betas) - 1 else contrast
        value = value * F.relu(mean if per_channel else mean.mean(1)) ** beta
    return value
