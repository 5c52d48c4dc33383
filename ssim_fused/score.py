"""What a call asks for: its outputs and gradients, by the operators, or by PyTorch's own operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssim_fused import _ops, composite
from ssim_fused.window import Window


class Score(NamedTuple):
    """What is computed of two batches, but for the images: SSIM, or MS-SSIM where there are ``betas``."""

    window: Window
    reduction: int = 1  # as `_ops.REDUCTIONS`
    as_distance: bool = False
    want_contrast: bool = False
    want_map: bool = False
    betas: tuple[float, ...] = ()
    normalize: str = "relu"
    mask_mode: str = "window"
    # A term of single pixels (``csrc/math/pixel_term.h``): none, l1, l2, charbonnier. With it the value is a distance.
    pixel_term: str = "none"
    ssim_weight: float = 1.0
    pixel_eps: float = 1e-3
    want_terms: bool = False

    @property
    def pixels(self) -> tuple[str, float, float, bool]:
        """As the operators take it."""
        return self.pixel_term, self.ssim_weight, self.pixel_eps, self.want_terms

    @property
    def results(self) -> int:
        """How many outputs there are: value, terms ``[B, 2]``, contrast sensitivity and map; then come gradients."""
        return 1 + self.want_terms + self.want_contrast + self.want_map

    def outputs(
        self,
        preds: Tensor,
        target: Tensor,
        constants: Tensor | None,
        wanted: Sequence[bool],
        mask: Tensor | None = None,
    ) -> list[Tensor]:
        """By the operators: the value, terms, contrast sensitivity ``[B]`` and map where wanted, stored gradients."""
        masked = mask, self.mask_mode
        if self.betas:
            return _ops.multiscale(
                preds, target, *self.window, constants, *masked, *self.pixels, self.betas, self.normalize,
                self.reduction, self.as_distance, *wanted,
            )  # fmt: skip
        return _ops.similarity(
            preds, target, *self.window, constants, *masked, *self.pixels, self.reduction, self.as_distance,
            self.want_contrast, self.want_map, *wanted,
        )  # fmt: skip

    def stores_gradients(self, preds: Tensor, constants: Tensor | None, mask: Tensor | None = None) -> bool:
        """Whether the forward can: there is one upstream gradient, of the value, and float16's scale is known."""
        return not (self.want_contrast or self.want_map) and self.knows_scale(preds, constants, mask)

    def knows_scale(self, preds: Tensor, constants: Tensor | None, mask: Tensor | None = None) -> bool:
        """Whether there is a bound on the gradient that tells how to store it in float16 (``stored_scale``)."""
        if preds.dtype != torch.float16:
            return True
        # The scale is SSIM's; slopes of a pixel term are in float16's range where the images' range is a usual one.
        least, most = (0.0, math.inf) if self.pixel_term == "none" else (1e-6, 16.0)
        return constants is None and mask is None and least < min(self.window.constants) < most

    def composite(
        self, preds: Tensor, target: Tensor, constants: Tensor | None, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The outputs by PyTorch's own operations."""
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

    def _pixel_mean(self, preds: Tensor, target: Tensor, masked: composite.Masked | None) -> Tensor:
        return composite.pixel_mean(preds, target, self.pixel_term, self.pixel_eps, masked)

    def with_pixels(self, mean: Tensor, distance: Tensor) -> tuple[Tensor, ...]:
        """The weighted sum of the pixel term's mean and SSIM's distance, both ``[B]``; and the two where wanted."""
        value = self.reduced((1 - self.ssim_weight) * mean + self.ssim_weight * distance)
        return (value, torch.stack((mean, distance), -1).detach()) if self.want_terms else (value,)

    def reduced(self, values: Tensor) -> Tensor:
        return values.mean() if self.reduction == 1 else values.sum() if self.reduction == 2 else values

    def multiplied(self, gradient: Tensor, upstream: Tensor, in_place: bool = False) -> Tensor:
        """A stored gradient of an image, times an upstream gradient of the value."""
        factor = 1.0 if self.as_distance else -1.0
        arguments = (gradient, upstream, factor, self.window.data_range, self.window.k1, self.window.k2)
        if not in_place:
            return _ops.multiply_gradient(*arguments)
        _ops.multiply_gradient_(*arguments)
        return gradient

    def of_constants(self, stored: Tensor, upstream: Tensor, constants: Tensor) -> Tensor:
        """Of stored derivatives by the constants, ``[B, 2]``, those by ``constants``, ``[2]`` or ``[B, 2]``."""
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
        """Gradients by preds, target and constants, where wanted, in a pass over the images of their own."""
        if self.betas or self.pixel_term != "none":
            stored = self.outputs(preds, target, constants, wanted, mask)[self.results :]
            return self.from_stored(stored, upstream[0], constants, wanted)
        by_output = iter(upstream)
        of_value = next(by_output)
        of_contrast = next(by_output) if self.want_contrast else None
        of_map = next(by_output) if self.want_map else None
        found = iter(
            _ops.similarity_backward(
                preds, target, *self.window, constants, mask, self.mask_mode, self.reduction, self.as_distance,
                of_value, of_contrast, of_map, *wanted,
            )
        )  # fmt: skip
        by_images = [next(found) if want else None for want in wanted[:2]]
        if not wanted[2]:
            return [*by_images, None]
        by_constants = next(found)
        return [*by_images, by_constants if constants.ndim == 2 else by_constants.sum(0)]

    def from_stored(
        self, stored: Sequence[Tensor], upstream: Tensor, constants: Tensor | None, wanted: Sequence[bool]
    ) -> list[Tensor | None]:
        """The same from what the forward stored."""
        kept = iter(stored)
        by_images = [self.multiplied(next(kept), upstream) if want else None for want in wanted[:2]]
        return [*by_images, self.of_constants(next(kept), upstream, constants) if wanted[2] else None]
