"""The windows of pytorch-msssim: a Gaussian rounded to float32, or the taps of the caller, with their sum."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.windows import Window


class Filter(NamedTuple):
    """The window of one axis, divided by its sum ``total``: its taps, or a Gaussian if ``taps`` is None."""

    size: int
    taps: list[float] | None
    sigma: float
    total: float

    def missing(self, axes: int) -> float:
        """Returns one minus the sum of the original window over that number of axes."""
        return 1.0 - self.total**axes

    def window(self, sides: Sequence[int], constants: windows.Constants) -> Window:
        """Returns the window for images with these sides, with constants adjusted to the division by its sum.

        An axis that is shorter than the window is not filtered.
        """
        filtered = [n >= self.size for n in sides]
        data_range, k1, k2 = constants
        total = self.total ** sum(filtered)
        constants = (data_range, k1 / total, k2 / total**0.5)
        if self.taps is None and all(filtered):
            return windows.gaussian_window((self.size,) * len(sides), (self.sigma,) * len(sides), constants)
        taps = windows.gaussian_taps(self.size, self.sigma) if self.taps is None else self.taps
        return windows.own_window([taps if is_filtered else [1.0] for is_filtered in filtered], constants)


def filters_of(x: Tensor, size: int, sigma: float, win: Tensor | None, corrected: bool) -> list[Filter]:
    """Returns the window that all channels share, or one window per channel."""
    if win is not None:
        rows = _rows_of(win, x)
        found = []
        for row in rows[:1] if all(row == rows[0] for row in rows) else rows:
            total = sum(row)
            if not total > 0:
                raise ValueError(f"`win` sums to {total}, expected a positive sum.")
            found.append(Filter(len(row), [tap / total for tap in row], 0.0, 1.0 if corrected else total))
        # A sum that differs from 1 by rounding only is set to 1.
        rounding = 1e-14 if x.dtype == torch.float64 else 1e-9
        return [f._replace(total=1.0) if abs(f.total - 1) < rounding else f for f in found]
    size, sigma = check_window(size, sigma)
    if size > max(x.shape[2:]):  # no axis is filtered
        return [Filter(size, [1.0], sigma, 1.0)]
    if corrected or x.dtype in (torch.float16, torch.bfloat16):
        return [Filter(size, None, sigma, 1.0)]
    taps = _float32_taps(size, sigma)
    total = sum(taps)
    if x.dtype == torch.float64:
        return [Filter(size, [tap / total for tap in taps], sigma, total)]
    return [Filter(size, None, sigma, total)]


def check_window(size: int, sigma: float) -> tuple[int, float]:
    """Checks the size and the standard deviation of a Gaussian."""
    return arguments.check_size("win_size", size), arguments.check_positive("win_sigma", sigma)


def _float32_taps(size: int, sigma: float) -> list[float]:
    """Returns the taps of the package's Gaussian, rounded to float32."""
    if not torch.compiler.is_compiling():
        return list(_rounded_taps(size, sigma))
    if sigma == 1.5:  # the comparison makes a symbolic `sigma` of a trace a constant
        return _constant_taps(size)
    # Operations that a trace can follow: Veltkamp's splitting rounds to 24 bits, each tap to 1e-7.
    return [(s := 536870913.0 * tap) - (s - tap) for tap in windows.gaussian_taps(size, sigma)]


@torch.compiler.assume_constant_result
def _constant_taps(size: int) -> list[float]:
    return list(_rounded_taps(size, 1.5))


@functools.cache
def _rounded_taps(size: int, sigma: float) -> tuple[float, ...]:
    distances = torch.arange(size, dtype=torch.float32, device="cpu") - size // 2
    taps = torch.exp(-(distances**2) / (2 * sigma**2))
    return tuple((taps / taps.sum()).tolist())


def _rows_of(win: Tensor, x: Tensor) -> list[list[float]]:
    """Checks a custom window; returns the taps of each channel's window, or of one window for all."""
    if not isinstance(win, Tensor):
        raise TypeError(f"`win` is a {type(win).__name__}, expected a torch.Tensor.")
    if not win.is_floating_point():
        raise TypeError(f"`win` has the dtype {win.dtype}, expected a floating-point dtype: convert it by `.float()`.")
    if (
        win.ndim < 2
        or win.numel() == 0
        or win.shape[0] not in (1, x.shape[1])
        or win.numel() != win.shape[0] * win.shape[-1]
    ):
        raise ValueError(
            f"`win` has the shape {tuple(win.shape)}, expected [C, 1, ..., 1, taps] with a window for each of the "
            f"{x.shape[1]} channels, or [1, 1, ..., 1, taps] with one window for all."
        )
    arguments.check_size("win", win.shape[-1])
    return win.detach().to("cpu", torch.float64).reshape(win.shape[0], win.shape[-1]).tolist()
