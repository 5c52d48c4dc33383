"""Every drop-in function and module behind one call signature, for the tests of faults and the fuzz test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ssim_fused.compat import ffmpeg, fused_ssim, kornia, matlab, monai, piq, pytorch_msssim
from ssim_fused.compat.skimage import structural_similarity

TWO_LEVELS = torch.tensor([0.5, 0.5])


class DropIn(NamedTuple):
    """A function of two images, or a module: a class constructed from arguments, then called with two images."""

    target: Callable[..., Any]
    ranges: str | None = "data_range"  # name of its data range argument
    windows: str | None = "win_size"  # name of its window size argument
    defaults: dict[str, Any] = {}  # noqa: RUF012 - never written
    axes: int = 2
    is_of_arrays: bool = False

    @property
    def is_module(self) -> bool:
        return inspect.isclass(self.target)

    def __call__(self, x: Any, y: Any, **arguments: Any) -> Any:
        arguments = self.defaults | arguments
        if self.is_module:
            return self.target(**arguments)(x, y)
        return self.target(x, y, **arguments)

    @property
    def names(self) -> set[str]:
        """The argument names that an error may mention. For a module, those of the constructor and of the call."""
        functions = [self.target]
        if self.is_module:
            functions.append(getattr(self.target, "forward", None) or self.target.__call__)
        return {name for function in functions for name in inspect.signature(function).parameters} - {"self"}

    @property
    def images(self) -> tuple[str, str]:
        """The names of the two image arguments."""
        call = (getattr(self.target, "forward", None) or self.target.__call__) if self.is_module else self.target
        first, second = [name for name in inspect.signature(call).parameters if name != "self"][:2]
        return first, second


FIVE = {"win_size": 5}
DROP_INS = {
    "pytorch_msssim.ssim": DropIn(pytorch_msssim.ssim, defaults=FIVE),
    "pytorch_msssim.ms_ssim": DropIn(pytorch_msssim.ms_ssim, defaults=FIVE | {"weights": [0.5, 0.5]}),
    "pytorch_msssim.SSIM": DropIn(pytorch_msssim.SSIM, defaults=FIVE),
    "pytorch_msssim.MS_SSIM": DropIn(pytorch_msssim.MS_SSIM, defaults=FIVE | {"weights": [0.5, 0.5]}),
    "fused_ssim.fused_ssim": DropIn(fused_ssim.fused_ssim, None, None, {"padding": "valid"}),
    "fused_ssim.fused_ssim3d": DropIn(fused_ssim.fused_ssim3d, None, None, {"padding": "valid"}, axes=3),
    "piq.ssim": DropIn(piq.ssim, windows="kernel_size", defaults={"kernel_size": 5}),
    "piq.multi_scale_ssim": DropIn(
        piq.multi_scale_ssim, windows="kernel_size", defaults={"kernel_size": 5, "scale_weights": TWO_LEVELS}
    ),
    "piq.SSIMLoss": DropIn(piq.SSIMLoss, windows="kernel_size", defaults={"kernel_size": 5}),
    "piq.MultiScaleSSIMLoss": DropIn(
        piq.MultiScaleSSIMLoss, windows="kernel_size", defaults={"kernel_size": 5, "scale_weights": TWO_LEVELS}
    ),
    **{
        f"kornia.{name}": DropIn(
            getattr(kornia, name), "max_val", "window_size", {"window_size": 5, "padding": "valid"},
            axes=3 if "3d" in name.lower() else 2,
        )
        for name in ("ssim", "ssim3d", "ssim_loss", "ssim3d_loss", "SSIM", "SSIM3D", "SSIMLoss", "SSIM3DLoss")
    },
    "monai.SSIMLoss": DropIn(monai.SSIMLoss, defaults=FIVE | {"spatial_dims": 2}),
    "monai.SSIMMetric": DropIn(monai.SSIMMetric, defaults=FIVE | {"spatial_dims": 2}),
    "monai.MultiScaleSSIMMetric": DropIn(
        monai.MultiScaleSSIMMetric, windows="kernel_size",
        defaults={"kernel_size": 5, "weights": [0.5, 0.5], "spatial_dims": 2},
    ),
    "monai.compute_ssim_and_cs": DropIn(
        monai.compute_ssim_and_cs, windows="kernel_size",
        defaults={"kernel_size": (5, 5), "kernel_sigma": (1.5, 1.5), "spatial_dims": 2},
    ),
    "monai.compute_ms_ssim": DropIn(
        monai.compute_ms_ssim, windows="kernel_size",
        defaults={"kernel_size": 5, "weights": [0.5, 0.5], "spatial_dims": 3}, axes=3,
    ),
    "matlab.ssim": DropIn(matlab.ssim, "L", None),
    "matlab.ssim_index": DropIn(matlab.ssim_index, "L", None),
    "ffmpeg.ssim": DropIn(ffmpeg.ssim, windows=None),
    "skimage.structural_similarity": DropIn(structural_similarity, defaults={"win_size": 5}, is_of_arrays=True),
}  # fmt: skip


def pair(drop_in: DropIn, side: int = 20, seed: int = 0) -> tuple[Any, Any]:
    """Two float32 images in [0, 1] that `drop_in` accepts. If it takes arrays, they have no batch and channel axes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (side, side + 1) if drop_in.is_of_arrays else (2, 1, *range(side, side + drop_in.axes))
    target = torch.rand(shape, generator=generator)
    noisy = (0.8 * target + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)
    return (np.asarray(noisy), np.asarray(target)) if drop_in.is_of_arrays else (noisy, target)
