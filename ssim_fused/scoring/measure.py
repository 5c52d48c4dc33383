"""The scores of a batch of equally large pairs, on the CPU or a GPU: from pixels to numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

import ssim_fused
from ssim_fused._core.multiscale import BETAS
from ssim_fused.scoring.settings import Settings


class Measure:
    """What the settings ask for, as one call for a batch.

    Args:
        settings: the metrics and their definition.
        device: where to compute.

    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._metrics, self._channels, self.device = settings.metric, settings.channels, device
        self._multiscale = ssim_fused.multiscale_structural_similarity_index_measure
        convention = settings.resolved()
        self._padded_pooling = convention.padded_pooling
        self._arguments: dict[str, Any] = {
            "gaussian_kernel": convention.window == "gaussian",
            "sigma": convention.sigma,
            "kernel_size": convention.kernel_size,
            "k2": settings.k2(),
        }
        if convention.padding != "reflect":
            self._arguments["padding"] = convention.padding

    def __call__(
        self, reference: Sequence[Tensor], distorted: Sequence[Tensor], peak: int, masks: Sequence[Tensor] | None = None
    ) -> list[dict[str, float]]:
        """One dictionary of scores for each pair, by the names of the metrics.

        Args:
            reference: pictures ``[C, H, W]`` of one size and type, in 0..peak.
            distorted: as many of the same.
            peak: the range L.
            masks: weights ``[H, W]`` in 0..1, one for each pair, or None.

        Where channels are asked for, ``"ssim/0"`` and so on are those of each.

        """
        x, y = self._batch(reference), self._batch(distorted)
        weights = None if masks is None else torch.stack(list(masks)).to(self.device)[:, None]
        columns: dict[str, list[float]] = {}
        for metric in self._metrics:
            if metric == "psnr":
                columns[metric] = _psnr(x, y, peak, weights)
            elif metric == "ms-ssim":
                columns[metric] = self._ms_ssim(x, y, peak, weights)
            else:
                columns |= self._ssim(x, y, peak, weights)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def map(self, reference: Tensor, distorted: Tensor, peak: int, mask: Tensor | None = None) -> Tensor:
        """The SSIM of each pixel ``[H, W]``, the mean over channels; smaller than the picture without padding."""
        x, y = self._batch([reference]), self._batch([distorted])
        arguments: dict[str, Any] = self._arguments | {"return_full_image": True}
        if mask is not None:
            arguments["mask"] = mask[None, None].to(self.device)
        _, pixels = ssim_fused.structural_similarity_index_measure(y, x, data_range=float(peak), **arguments)
        return pixels[0].mean(0).cpu()

    def _batch(self, pictures: Sequence[Tensor]) -> Tensor:
        batch = pictures[0][None] if len(pictures) == 1 else torch.stack(list(pictures))
        if self.device.type == "cpu":
            return batch
        return batch.contiguous().pin_memory().to(self.device, non_blocking=True)

    def _ssim(self, x: Tensor, y: Tensor, peak: int, weights: Tensor | None) -> dict[str, list[float]]:
        ssim = ssim_fused.structural_similarity_index_measure
        if not self._channels:
            return {"ssim": self._score(ssim, x, y, peak, weights)}
        single = self._scores(ssim, x, y, peak, weights, per_channel=True)
        return {"ssim": _means(single)} | {f"ssim/{c}": column for c, column in enumerate(single.T.tolist())}

    def _ms_ssim(self, x: Tensor, y: Tensor, peak: int, weights: Tensor | None) -> list[float]:
        if not self._padded_pooling:
            return self._score(self._multiscale, x, y, peak, weights)
        if weights is not None:
            raise ValueError("ms-ssim as pytorch-msssim has it takes no mask")
        return _means(self._padded_ms_ssim(x, y, peak))

    def _padded_ms_ssim(self, x: Tensor, y: Tensor, peak: int) -> Tensor:
        """``[B, C]``: each channel's product, with zeros beside odd sides that the means of 2x2 pixels count."""
        product = torch.ones(())
        for level, beta in enumerate(BETAS):
            last = level == len(BETAS) - 1
            scores = ssim_fused.structural_similarity_index_measure(
                y, x, data_range=float(peak), reduction="none", per_channel=True,
                return_contrast_sensitivity=not last, **self._arguments,
            )  # fmt: skip
            of_level = scores[1] if isinstance(scores, tuple) else scores
            product = product.to(x.device) * of_level.relu() ** beta
            if not last:
                odd = [side % 2 for side in x.shape[2:]]
                x, y = (avg_pool2d(p.float(), 2, padding=odd) for p in (x, y))
        return product

    def _score(self, function: Any, x: Tensor, y: Tensor, peak: int, weights: Tensor | None) -> list[float]:
        return self._scores(function, x, y, peak, weights).reshape(-1).tolist()

    def _scores(
        self, function: Any, x: Tensor, y: Tensor, peak: int, weights: Tensor | None, **arguments: Any
    ) -> Tensor:
        """``[B]``, or ``[B, C]`` where ``per_channel`` is among the arguments."""
        if weights is not None:
            arguments["mask"] = weights
        return function(y, x, data_range=float(peak), reduction="none", **self._arguments, **arguments)


def _means(channels: Tensor) -> list[float]:
    """Of ``[B, C]`` the means over channels, one image at a time, so that they do not depend on the batch."""
    return [math.fsum(row) / len(row) for row in channels.tolist()]


def _psnr(x: Tensor, y: Tensor, peak: int, weights: Tensor | None) -> list[float]:
    """``10 log10(peak^2 / MSE)`` in dB, infinite where nothing differs; sums of integers are exact in any order."""
    if weights is None and not x.is_floating_point():
        squares = (x.to(torch.int32) - y.to(torch.int32)).abs().to(torch.int64).square_()
        errors = (squares.sum((1, 2, 3)).double() / x[0].numel()).tolist()
    else:
        squares = (x.double() - y.double()).square_()
        mask = torch.ones_like(squares[:, :1]) if weights is None else weights.double()
        # One image at a time, so that the order of the sum is the same whatever the batch.
        errors = [float((s * m).sum() / (m.sum() * s.shape[0])) for s, m in zip(squares, mask, strict=True)]
    return [math.inf if error == 0 else 10 * math.log10(peak**2 / error) for error in errors]
