"""The windows of the reference: a Gaussian from ``sigma``, or a uniform one of ``kernel_size``."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch


class Window(NamedTuple):
    """What a call fixes for operators and composite alike: one window and padding per axis, and the constants.

    ``taps`` holds the axes' windows one after the other, of lengths ``sizes``. ``c1`` and ``c2`` are ignored
    where the caller passes a tensor of constants.
    """

    taps: tuple[float, ...]
    sizes: tuple[int, ...]
    pad: tuple[int, ...]
    padding_mode: str
    c1: float
    c2: float

    def per_axis(self, like: torch.Tensor) -> list[torch.Tensor]:
        """The windows as tensors with the dtype and device of ``like``."""
        return list(torch.tensor(self.taps, dtype=like.dtype, device=like.device).split(self.sizes))


@functools.lru_cache(maxsize=256)
def gaussian(sigma: float) -> tuple[float, ...]:
    """Gaussian taps of standard deviation ``sigma``, cut at 3.5 sigma as torchmetrics does, summing to one."""
    radius = int(3.5 * sigma + 0.5)
    weights = [math.exp(-((i / sigma) ** 2) / 2) for i in range(-radius, radius + 1)]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def uniform(size: int) -> tuple[float, ...]:
    """``size`` equal taps, summing to one."""
    return (1.0 / size,) * size
