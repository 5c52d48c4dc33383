"""The cases that are measured, their inputs, and what one step of a case is.

A step is the same for every library: the mean SSIM or MS-SSIM of a batch of images or volumes, without or with the
gradient of `1 - ssim` for `preds`. For a loss of two terms, a step computes 1 - loss instead of SSIM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

import torch
from torch import Tensor

VALUE = "value"
GRADIENT = "value+gradient"
SSIM = "ssim"
MS_SSIM = "ms_ssim"
UNIFORM = "ssim+uniform"  # under a uniform window of 7x7, scikit-image's default
L1_SSIM = "l1+ssim"  # 0.8 L1 + 0.2 (1 - SSIM)
MASKED = "ssim+mask"  # of the pixels selected by a mask, about two thirds

SSIMFunction = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """A row of the table: operator, shape (B, C, H, W) or (B, C, D, H, W), with or without the gradient."""

    op: str
    shape: tuple[int, ...]
    mode: str
    sigma: float = 1.5
    dtype: torch.dtype = torch.float32

    @property
    def taps(self) -> int:
        """The window size that the reference derives from sigma. Other libraries get it as an argument."""
        return 2 * int(3.5 * self.sigma + 0.5) + 1

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.shape) - 2

    @property
    def pixels(self) -> int:
        """The number of values in one input. A pixel of a three-channel image counts as three."""
        return math.prod(self.shape)

    @property
    def image_bytes(self) -> int:
        """The bytes of one input, the unit of the memory column."""
        return self.pixels * self.dtype.itemsize

    @property
    def shape_label(self) -> str:
        """The shape as in the CSV, `8x3x256x256`."""
        return "x".join(map(str, self.shape))

    @property
    def dtype_label(self) -> str:
        """The dtype as in the CSV, `float32`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def label(self) -> str:
        """A unique name, for the command line and messages."""
        sigma = "" if self.sigma == 1.5 else f"/sigma{self.sigma:g}"
        dtype = "" if self.dtype == torch.float32 else f"/{self.dtype_label}"
        return f"{self.op}/{self.shape_label}{sigma}{dtype}/{self.mode}"


def _both_modes(*shape: int, op: str = SSIM) -> list[Case]:
    return [Case(op, shape, GRADIENT), Case(op, shape, VALUE)]


_COMMON = [
    *_both_modes(8, 3, 256, 256),
    *_both_modes(1, 3, 1080, 1920),
    *_both_modes(8, 1, 64, 64),
    Case(SSIM, (8, 3, 256, 256), GRADIENT, sigma=3.1),
]
_MULTI_SCALE = [*_both_modes(4, 3, 256, 256, op=MS_SSIM), *_both_modes(1, 3, 1080, 1920, op=MS_SSIM)]
_VOLUMES = _both_modes(1, 1, 96, 96, 96)
_LOSSES = [Case(L1_SSIM, shape, GRADIENT) for shape in ((8, 3, 256, 256), (1, 3, 1080, 1920))]
_MASKED = [case for shape in ((8, 3, 256, 256), (1, 3, 1080, 1920)) for case in _both_modes(*shape, op=MASKED)]
_BYTES = [Case(SSIM, shape, VALUE, dtype=torch.uint8) for shape in ((8, 3, 256, 256), (1, 3, 1080, 1920))]
# Interleaved, as decoders deliver images.
_UNIFORM = [Case(UNIFORM, (1, channels, 1080, 1920), VALUE, dtype=torch.uint8) for channels in (3, 1)]
_LARGE_VOLUMES = [*_both_modes(2, 1, 128, 128, 128), *_both_modes(1, 1, 256, 256, 256)]
_LARGE = [*_both_modes(16, 3, 1080, 1920), *_both_modes(64, 3, 256, 256)]
# Windows of 7 and of 23 taps, on large and small images.
_WINDOWS = [
    Case(SSIM, shape, mode, sigma=sigma)
    for sigma in (0.9, 3.0)
    for shape in ((16, 3, 1080, 1920), (128, 3, 64, 64))
    for mode in (GRADIENT, VALUE)
]
_LARGE_MULTI_SCALE = [*_both_modes(8, 3, 1080, 1920, op=MS_SSIM), *_both_modes(16, 3, 512, 512, op=MS_SSIM)]

CASES = {
    "cpu": _COMMON + _MULTI_SCALE + _VOLUMES + _LOSSES + _MASKED + _BYTES + _UNIFORM,
    # The README's cases come first, because a run on a borrowed GPU may end early.
    "cuda": _LARGE + _COMMON + _LARGE_MULTI_SCALE + _WINDOWS + _LARGE_VOLUMES + _LOSSES + _MASKED + _BYTES,
}


def select(device: str, patterns: list[str], others: Sequence[Case] = ()) -> list[Case]:
    """The cases of a device, after `others`, whose label ends in one of the glob patterns. Without patterns, all cases.

    Raises ValueError if a pattern matches nothing.
    """
    cases = [*others, *CASES[device]]
    for pattern in patterns:
        if not any(fnmatch(case.label, f"*{pattern}") for case in cases):
            labels = "\n  ".join(case.label for case in cases)
            raise ValueError(f"no case on {device} matches {pattern!r}; the cases are\n  {labels}")
    return [c for c in cases if not patterns or any(fnmatch(c.label, f"*{p}") for p in patterns)]


def make_inputs(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """A noisy batch and its clean target in [0, 1], or bytes in [0, 255].

    `preds` requires a gradient if the case does.
    """
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(case.shape, generator=generator)
    noise = torch.randn(case.shape, generator=generator)
    preds = noise.mul_(0.1).add_(target).clamp_(0, 1)
    if case.dtype == torch.uint8:
        preds, target = (image.mul_(255).round_() for image in (preds, target))
    preds, target = (image.to(device, case.dtype) for image in (preds, target))
    if case.op == UNIFORM:
        preds, target = (image.contiguous(memory_format=torch.channels_last) for image in (preds, target))
    return preds.requires_grad_(case.mode == GRADIENT), target


def make_mask(case: Case, device: str) -> Tensor:
    """The mask of a case, shared by all channels."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(case.shape[0], 1, *case.shape[2:], generator=generator) > 1 / 3).to(device)


def make_step(case: Case, function: SSIMFunction, preds: Tensor, target: Tensor) -> Step:
    """The timed call, which returns the SSIM: a forward, or a forward and a backward into a new gradient."""

    def value() -> Tensor:
        with torch.no_grad():
            return function(preds, target)

    def value_and_gradient() -> Tensor:
        loss = 1 - function(preds, target)
        torch.autograd.grad(loss, preds)
        return 1 - loss.detach()

    return value if case.mode == VALUE else value_and_gradient
