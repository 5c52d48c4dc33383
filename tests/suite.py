"""The exactness suite: named pairs of images and volumes, each with a different numerical difficulty.

Images are made in float64 from a fixed seed. Each test rounds them to the dtype that it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Pair:
    """Two images `[B, C, H, W]` or volumes `[B, C, D, H, W]`, float64, and the `data_range` to compare them with."""

    name: str
    preds: Tensor
    target: Tensor
    data_range: float | tuple[float, float] | None = 1.0

    def fits(self, radius: int) -> bool:
        """Whether reflection padding permits a window of this radius."""
        return min(self.preds.shape[2:]) > radius

    @property
    def is_volume(self) -> bool:
        return self.preds.ndim == 5


def waves(*shape: int) -> Tensor:
    """A smooth image in [0, 1] that differs between planes."""
    batch, channels, *depth, height, width = shape
    plane = torch.arange(batch * channels, dtype=torch.float64).view(batch, channels, *[1] * (len(shape) - 2))
    y = torch.linspace(0, 5, height, dtype=torch.float64).view(-1, 1)
    x = torch.linspace(0, 7, width, dtype=torch.float64)
    if depth:
        y = y + torch.linspace(0, 3, *depth, dtype=torch.float64).view(-1, 1, 1)
    return 0.5 + 0.25 * torch.sin(y + plane) + 0.25 * torch.cos(x - 0.5 * y + 2 * plane)


@cache
def suite() -> dict[str, Pair]:
    """All pairs by name. The volume of the same kind as images `NAME` is `volume_NAME`."""
    volumes = {f"volume_{name}": replace(pair, name=f"volume_{name}") for name, pair in _pairs(is_volume=True).items()}
    return _pairs(is_volume=False) | volumes


def _pairs(is_volume: bool) -> dict[str, Pair]:
    """The pairs of images or of volumes. Volumes are small: the reference needs 1000 times our time per voxel."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def levels(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=generator).double()

    def noisy(clean: Tensor, amount: float) -> Tensor:
        return clean + amount * normal(*clean.shape)

    def size(*image: int, volume: tuple[int, ...]) -> tuple[int, ...]:
        return volume if is_volume else image

    random, bright = size(3, 2, 25, 29, volume=(2, 1, 11, 12, 8)), size(1, 2, 27, 31, volume=(1, 1, 11, 12, 10))
    picture = noisy(waves(*random), 0.05)
    hills = waves(*size(1, 1, 33, 40, volume=(1, 1, 12, 11, 13)))
    squares = size(1, 2, 33, 29, volume=(1, 1, 11, 12, 10))
    cells = sum(torch.meshgrid(*map(torch.arange, squares[2:]), indexing="ij"))
    checkerboard = cells.double().remainder(2).expand(squares)
    radiance = torch.exp(3 * normal(*size(1, 3, 30, 31, volume=(1, 1, 12, 11, 10)))).clamp(max=1e4)
    saturated = (1.5 * uniform(*size(3, 1, 24, 30, volume=(2, 1, 9, 11, 12))) - 0.25).clamp(0, 1)
    constant = torch.full(size(1, 2, 15, 17, volume=(1, 1, 11, 12, 13)), 0.25, dtype=torch.float64)
    photograph = size(3, 1, 32, 34, volume=(2, 1, 11, 8, 12))
    signed, clamped = size(1, 2, 24, 33, volume=(1, 1, 12, 11, 13)), size(1, 2, 31, 23, volume=(1, 1, 13, 9, 11))
    tiny, cropped = size(3, 2, 6, 6, volume=(2, 2, 6, 6, 6)), size(3, 2, 11, 11, volume=(1, 1, 11, 11, 11))
    faint = size(1, 1, 20, 23, volume=(1, 1, 12, 11, 9))
    wide, tall = size(1, 1, 7, 3000, volume=(1, 1, 6, 6, 260)), size(1, 1, 3000, 7, volume=(1, 1, 6, 60, 7))
    channels = size(1, 8, 14, 16, volume=(1, 5, 7, 6, 8))

    pairs = [
        Pair("random", uniform(*random), uniform(*random)),
        Pair("noisy", noisy(picture, 0.1), picture, None),
        Pair("smooth", hills, hills.flip(-1) * 0.8),
        Pair("constant", constant, 3 * constant),
        Pair("identical", picture, picture),
        Pair("near_identical", noisy(picture, 1e-3), picture),
        Pair("offset", 1000 + uniform(*bright), 1000 + uniform(*bright)),
        Pair("hdr", radiance, radiance * torch.exp(0.2 * normal(*radiance.shape)), None),
        Pair("bytes", levels(*photograph), levels(*photograph), 255),
        Pair("signed", normal(*signed), normal(*signed), None),
        # Many pixels tie for the maximum and the minimum, and share the gradient of the data range.
        Pair("saturated", saturated, saturated.roll(1, -1), None),
        Pair("clamped", 2 * normal(*clamped), normal(*clamped), (-1.0, 0.5)),
        Pair("checkerboard", checkerboard, 0.25 + 0.5 * checkerboard.roll(1, -1)),
        # The smallest images that can be padded for 11 taps, then the smallest whose cropped map is not empty.
        Pair("tiny_image", uniform(*tiny), uniform(*tiny)),
        Pair("one_pixel_cropped", uniform(*cropped), uniform(*cropped)),
        Pair("tiny_values", 1e-6 * uniform(*faint), 1e-6 * uniform(*faint), 1e-6),
        Pair("wide", uniform(*wide), uniform(*wide)),
        Pair("tall", uniform(*tall), uniform(*tall)),
        Pair("channels", uniform(*channels), uniform(*channels)),
    ]
    if is_volume:
        pairs.append(Pair("deep", uniform(1, 1, 60, 7, 6), uniform(1, 1, 60, 7, 6)))
    # Steps in brightness within windows. A step of 1000 data ranges cancels all digits in half of the windows, whatever
    # is subtracted first; a step of 30 does so in some.
    for name, height in (("step", 1000), ("low_step", 30)):
        stepped = uniform(*photograph)
        stepped[..., photograph[-1] // 2 :] += height
        pairs.append(Pair(name, blurred(stepped), stepped))
    return {pair.name: pair for pair in pairs}


def blurred(images: Tensor) -> Tensor:
    """Means of 3x3 pixels or 3x3x3 voxels."""
    axes = images.ndim - 2
    padded = functional.pad(images, (1, 1) * axes, mode="replicate")
    return {2: functional.avg_pool2d, 3: functional.avg_pool3d}[axes](padded, 3, 1)
