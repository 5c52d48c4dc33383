"""The exactness suite: named pairs of images, each hard in its own way, for every accuracy test.

Pictures are made in float64 from a fixed seed; a test rounds them to the type it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """Two pictures `[B, C, H, W]`, float64, and the `data_range` to compare them with."""

    name: str
    preds: Tensor
    target: Tensor
    data_range: float | tuple[float, float] | None = 1.0

    def fits(self, radius: int) -> bool:
        """Whether reflection padding permits a window of this radius."""
        return min(self.preds.shape[-2:]) > radius


def waves(*shape: int) -> Tensor:
    """A smooth picture in [0, 1] that differs between planes."""
    batch, channels, height, width = shape
    plane = torch.arange(batch * channels, dtype=torch.float64).view(batch, channels, 1, 1)
    y = torch.linspace(0, 5, height, dtype=torch.float64).view(-1, 1)
    x = torch.linspace(0, 7, width, dtype=torch.float64)
    return 0.5 + 0.25 * torch.sin(y + plane) + 0.25 * torch.cos(x - 0.5 * y + 2 * plane)


@cache
def suite() -> dict[str, Pair]:
    """All pairs by name."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def levels(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=generator).double()

    def noisy(clean: Tensor, amount: float) -> Tensor:
        return clean + amount * normal(*clean.shape)

    picture = noisy(waves(3, 2, 25, 29), 0.05)
    cells = (torch.arange(33).view(-1, 1) + torch.arange(29)).double().remainder(2)
    checkerboard = cells.expand(1, 2, 33, 29)
    radiance = torch.exp(3 * normal(1, 3, 30, 31)).clamp(max=1e4)
    saturated = (1.5 * uniform(3, 1, 24, 30) - 0.25).clamp(0, 1)
    constant = torch.full((1, 2, 15, 17), 0.25, dtype=torch.float64)

    pairs = [
        Pair("random", uniform(3, 2, 25, 29), uniform(3, 2, 25, 29)),
        Pair("noisy", noisy(picture, 0.1), picture, None),
        Pair("smooth", waves(1, 1, 33, 40), waves(1, 1, 33, 40).flip(-1) * 0.8),
        Pair("constant", constant, 3 * constant),
        Pair("identical", picture, picture),
        Pair("near_identical", noisy(picture, 1e-3), picture),
        Pair("offset", 1000 + uniform(1, 2, 27, 31), 1000 + uniform(1, 2, 27, 31)),
        Pair("hdr", radiance, radiance * torch.exp(0.2 * normal(1, 3, 30, 31)), None),
        Pair("bytes", levels(3, 1, 32, 34), levels(3, 1, 32, 34), 255),
        Pair("signed", normal(1, 2, 24, 33), normal(1, 2, 24, 33), None),
        # Many pixels tie for the largest and the smallest, which share the range's gradient.
        Pair("saturated", saturated, saturated.roll(1, -1), None),
        Pair("clamped", 2 * normal(1, 2, 31, 23), normal(1, 2, 31, 23), (-1.0, 0.5)),
        Pair("checkerboard", checkerboard, 0.25 + 0.5 * checkerboard.roll(1, -1)),
        # The smallest that 11 taps can be padded for, then the smallest with a cropped map.
        Pair("tiny_image", uniform(3, 2, 6, 6), uniform(3, 2, 6, 6)),
        Pair("one_pixel_cropped", uniform(3, 2, 11, 11), uniform(3, 2, 11, 11)),
        Pair("tiny_values", 1e-6 * uniform(1, 1, 20, 23), 1e-6 * uniform(1, 1, 20, 23), 1e-6),
        Pair("wide", uniform(1, 1, 7, 3000), uniform(1, 1, 7, 3000)),
        Pair("tall", uniform(1, 1, 3000, 7), uniform(1, 1, 3000, 7)),
        Pair("channels", uniform(1, 8, 14, 16), uniform(1, 8, 14, 16)),
    ]
    return {pair.name: pair for pair in pairs}
