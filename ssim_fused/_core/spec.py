"""The spec of a call: all arguments except the tensors, and how the operators or PyTorch operations compute it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ssim_fused._core import _ops, composite
from ssim_fused._core.window import Window

MaskMode = Literal["window", "map"]
PixelTerm = Literal["l1", "l2", "charbonnier"]
PIXEL_TERMS: tuple[str, ...] = get_args(PixelTerm)


class Reduction(IntEnum):
    """The reduction over the batch, with the numbers that the operators and PyTorch use."""

    NONE = 0
    MEAN = 1
    SUM = 2


# Names of the reductions. The functions accept those of the reference; losses also accept PyTorch's "mean".
REDUCTIONS: dict[str | None, Reduction] = {
    "none": Reduction.NONE,
    None: Reduction.NONE,
    "elementwise_mean": Reduction.MEAN,
    "sum": Reduction.SUM,
}
LOSS_REDUCTIONS = REDUCTIONS | {"mean": Reduction.MEAN}


class Spec(NamedTuple):
    """A call of SSIM, or of MS-SSIM if ``betas`` is not empty, without its tensors."""

    window: Window
    reduction: int = Reduction.MEAN
    as_distance: bool = False
    want_contrast: bool = False
    want_map: bool = False
    betas: tuple[float, ...] = ()
    normalize: str = "relu"
    mask_mode: str = "window"
    # The pixel term (``csrc/math/pixel_term.h``): "none" or one of `PIXEL_TERMS`. With a term the value is a distance.
    pixel_term: str = "none"
    ssim_weight: float = 1.0
    pixel_eps: float = 1e-3
    want_terms: bool = False

    def keywords(self) -> dict[str, Any]:
        """Returns the keyword-only arguments that all operators share (``csrc/api/arguments.h``)."""
        window = self.window
        return {
            "sigma": window.sigma,
            "kernel_size": window.kernel_size,
            "taps": window.taps,
            "padding": window.padding,
            "data_range": window.data_range,
            "k1": window.k1,
            "k2": window.k2,
            "mask_mode": self.mask_mode,
            "reduction": int(self.reduction),
            "distance": self.as_distance,
        }

    def pixel_keywords(self) -> dict[str, Any]:
        """Returns the keyword-only arguments of the pixel term."""
        return {
            "pixel_term": self.pixel_term,
            "ssim_weight": self.ssim_weight,
            "pixel_eps": self.pixel_eps,
            "want_terms": self.want_terms,
        }

    def pyramid_keywords(self) -> dict[str, Any]:
        """Returns the keyword-only arguments of MS-SSIM."""
        return {"betas": self.betas, "normalize": self.normalize}

    @property
    def results(self) -> int:
        """The number of outputs before the gradients: value, terms ``[B, 2]``, contrast sensitivity and map."""
        return 1 + self.want_terms + self.want_contrast + self.want_map

    def outputs(
        self,
        preds: Tensor,
        target: Tensor,
        constants: Tensor | None,
        wanted: Sequence[bool],
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """Calls the operator; returns its outputs, then the gradients that the flags in ``wanted`` request.

        ``wanted`` has a flag each for the gradients with respect to preds, target and constants.
        """
        keywords = {**self.keywords(), **self.pixel_keywords(), **gradient_keywords(wanted)}
        if self.betas:
            return _ops.multiscale(preds, target, constants, mask, **keywords, **self.pyramid_keywords())
        return _ops.similarity(
            preds, target, constants, mask, **keywords, want_contrast=self.want_contrast, want_map=self.want_map
        )

    def stores_gradients(self, preds: Tensor, constants: Tensor | None, mask: Tensor | None = None) -> bool:
        """Returns whether the forward can store gradients: only the value has one, and its scale is known."""
        return not (self.want_contrast or self.want_map) and self.knows_scale(preds, constants, mask)

    def knows_scale(self, preds: Tensor, constants: Tensor | None, mask: Tensor | None = None) -> bool:
        """Returns whether a bound on the gradient is known, with which float16 can store it (``stored_scale``)."""
        if preds.dtype != torch.float16:
            return True
        # The scale is that of SSIM. The slopes of a pixel term fit float16 if the range of the images is a usual one.
        least, most = (0.0, math.inf) if self.pixel_term == "none" else (1e-6, 16.0)
        return constants is None and mask is None and least < min(self.window.constants) < most

    def composite(
        self, preds: Tensor, target: Tensor, constants: Tensor | None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Returns the same outputs, without gradients, computed with differentiable PyTorch operations."""
        masked = composite.Masked.of(mask, self.mask_mode, preds)
        if self.betas:
            value = composite.multiscale(preds, target, constants, self.window, self.betas, self.normalize, masked)
            if self.pixel_term != "none":
                return self.with_pixels(self._pixel_mean(preds, target, masked), 1 - value)
            return (self.reduced(1 - value if self.as_distance else value),)
        loss, contrast_loss, image = composite.similarity(preds, target, constants, self.window, masked, self.want_map)
        if self.pixel_term != "none":
            return self.with_pixels(self._pixel_mean(preds, target, masked), loss)
        outputs = [self.reduced(loss if self.as_distance else 1 - loss)]
        if self.want_contrast:
            outputs.append(contrast_loss if self.as_distance else 1 - contrast_loss)
        if self.want_map:
            outputs.append(image)
        return tuple(outputs)

    # ty takes `composite` for the method above, but annotations are not evaluated.
    def _pixel_mean(self, preds: Tensor, target: Tensor, masked: composite.Masked | None) -> Tensor:  # ty: ignore[missing-attribute]
        return composite.pixel_mean(preds, target, self.pixel_term, self.pixel_eps, masked)

    def with_pixels(self, mean: Tensor, distance: Tensor) -> tuple[Tensor, ...]:
        """Returns the weighted sum of the pixel term's mean and of SSIM's distance, both ``[B]``.

        If ``want_terms``, the two follow as a detached tensor ``[B, 2]``.
        """
        value = self.reduced((1 - self.ssim_weight) * mean + self.ssim_weight * distance)
        return (value, torch.stack((mean, distance), -1).detach()) if self.want_terms else (value,)

    def reduced(self, values: Tensor) -> Tensor:
        """Reduces values over the batch."""
        if self.reduction == Reduction.MEAN:
            return values.mean()
        return values.sum() if self.reduction == Reduction.SUM else values

    def multiplied(self, gradient: Tensor, upstream: Tensor, in_place: bool = False) -> Tensor:
        """Multiplies the stored gradient of an image by the upstream gradient of the value."""
        window = self.window
        keywords = {
            "factor": 1.0 if self.as_distance else -1.0,
            "data_range": window.data_range,
            "k1": window.k1,
            "k2": window.k2,
        }
        if not in_place:
            return _ops.multiply_gradient(gradient, upstream, **keywords)
        _ops.multiply_gradient_(gradient, upstream, **keywords)
        return gradient

    def of_constants(self, stored: Tensor, upstream: Tensor, constants: Tensor) -> Tensor:
        """Returns derivatives with respect to ``constants``, ``[2]`` or ``[B, 2]``, from stored ones, ``[B, 2]``."""
        found = stored * (upstream if self.as_distance else -upstream).reshape(-1, 1)
        return found if constants.ndim == 2 else found.sum(0)

    def gradients(
        self,
        upstream: Sequence[Tensor | None],
        preds: Tensor,
        target: Tensor,
        constants: Tensor | None,
        wanted: Sequence[bool],
        mask: Tensor | None = None,
    ) -> list[Tensor | None]:
        """Computes the requested gradients with respect to preds, target and constants in a second pass."""
        if self.betas or self.pixel_term != "none":
            stored = self.outputs(preds, target, constants, wanted, mask)[self.results :]
            return self.from_stored(stored, upstream[0], constants, wanted)  # ty: ignore[invalid-argument-type]
        by_output = iter(upstream)
        of_value = next(by_output)
        of_contrast = next(by_output) if self.want_contrast else None
        of_map = next(by_output) if self.want_map else None
        keywords = {**self.keywords(), **gradient_keywords(wanted)}
        found = iter(
            _ops.similarity_backward(preds, target, constants, mask, of_value, of_contrast, of_map, **keywords)
        )
        by_images = [next(found) if want else None for want in wanted[:2]]
        if not wanted[2]:
            return [*by_images, None]
        by_constants = next(found)
        return [*by_images, by_constants if constants.ndim == 2 else by_constants.sum(0)]  # ty: ignore[missing-union-attribute]

    def from_stored(
        self, stored: Sequence[Tensor], upstream: Tensor, constants: Tensor | None, wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """Returns the requested gradients, made from those that the forward stored."""
        kept = iter(stored)
        by_images = [self.multiplied(next(kept), upstream) if want else None for want in wanted[:2]]
        return [*by_images, self.of_constants(next(kept), upstream, constants) if wanted[2] else None]  # ty: ignore[invalid-argument-type]


def gradient_keywords(wanted: Sequence[bool]) -> dict[str, bool]:
    """Returns the flags of the operators that request gradients with respect to preds, target and constants."""
    return {"want_grad_preds": wanted[0], "want_grad_target": wanted[1], "want_grad_constants": wanted[2]}
