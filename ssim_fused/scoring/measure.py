"""Computes the scores of a batch of pairs of equal size, on the CPU or a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import ssim_fused
from ssim_fused._core.multiscale import BETAS
from ssim_fused.compat import ffmpeg
from ssim_fused.scoring.settings import Settings

# Values per block of squared differences. A block has fewer than 2^21 values, so that squares of 16-bit differences
# sum to less than 2^53 and float64 is exact.
BLOCK_VALUES = {"cpu": 1 << 15, "cuda": 1 << 20}


class Measure:
    """Computes the metrics of the settings for a batch of pairs.

    Args:
        settings: the metrics and their definition.
        device: the device to compute on.

    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._metrics, self._channels, self.device = settings.metric, settings.channels, device
        self._multiscale = ssim_fused.multiscale_structural_similarity_index_measure
        convention = settings.resolved()
        self._padded_pooling, self._blocks = convention.padded_pooling, convention.blocks
        self._arguments: dict[str, Any] = {
            "gaussian_kernel": convention.window == "gaussian",
            "sigma": convention.sigma,
            "kernel_size": convention.kernel_size,
            "k2": settings.k2(),
        }
        if convention.padding != "reflect":
            self._arguments["padding"] = convention.padding

    def __call__(
        self,
        reference: Sequence[Tensor],
        distorted: Sequence[Tensor],
        peak: float,
        masks: Sequence[Tensor] | None = None,
        channels: bool = False,
    ) -> list[dict[str, float]]:
        """Returns a dictionary of scores for each pair, by metric.

        Args:
            reference: pictures ``[C, H, W]`` of the same shape and dtype, in 0..peak.
            distorted: the distorted pictures, in the same number, shape and dtype.
            peak: the data range L.
            masks: weights ``[H, W]`` in 0..1, one for each pair, or None.
            channels: add the scores of each channel, such as ``"ssim/R"``, even if the settings do not request them.

        """
        return self._rows(reference, distorted, peak, masks, self._metrics, self._channels or channels)

    def _rows(
        self,
        reference: Sequence[Tensor],
        distorted: Sequence[Tensor],
        peak: float,
        masks: Sequence[Tensor] | None,
        metrics: Sequence[str],
        channels: bool,
    ) -> list[dict[str, float]]:
        x, y = self._batch(reference), self._batch(distorted)
        weights = None if masks is None else torch.stack(list(masks)).to(self.device)[:, None]
        columns: dict[str, list[float]] = {}
        for metric in metrics:
            if metric == "psnr":
                columns |= _psnr(x, y, peak, weights, channels)
            elif metric == "ms-ssim":
                columns[metric] = self._ms_ssim(x, y, peak, weights)
            else:
                columns |= self._ssim(x, y, peak, weights, channels)
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def planes(
        self,
        planes: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
        peak: float,
        masks: Sequence[Tensor] | None = None,
    ) -> list[dict[str, float]]:
        """Returns the scores of YUV frames: those of each plane, and their mean weighted by the planes' pixel counts.

        MS-SSIM is computed of luma only, as in VMAF. PSNR is computed from the weighted mean squared error, as in
        FFmpeg.

        Args:
            planes: for each of Y, U and V, the planes ``[1, H, W]`` of the reference and of the distorted frames.
            peak: the data range L.
            masks: weights ``[H, W]`` of luma in 0..1, one for each pair, or None. They are averaged down for chroma.

        """
        split = [metric for metric in self._metrics if metric != "ms-ssim"]
        rows = []
        for place, (x, y) in enumerate(planes):
            metrics = split if place else self._metrics
            if metrics:
                rows.append(self._rows(x, y, peak, _reduced(masks, x[0].shape[1:]), metrics, False))
        weights = [reference[0].numel() for reference, _ in planes]
        return [_weighted(frame, weights) for frame in zip(*rows, strict=True)]

    def map(self, reference: Tensor, distorted: Tensor, peak: float, mask: Tensor | None = None) -> Tensor:
        """Returns the SSIM of each pixel, averaged over channels: ``[H, W]``, or smaller with padding "valid"."""
        x, y = self._batch([reference]), self._batch([distorted])
        if self._blocks:
            return ffmpeg.similarity(y, x, peak)[0].mean(0).cpu()
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

    def _ssim(
        self, x: Tensor, y: Tensor, peak: float, weights: Tensor | None, channels: bool
    ) -> dict[str, list[float]]:
        ssim = ssim_fused.structural_similarity_index_measure
        if self._blocks:
            if weights is not None:
                raise ValueError("a mask is given, but convention ffmpeg does not support masks; remove the mask")
            single = ffmpeg.ssim(y, x, peak)
        elif channels:
            single = self._scores(ssim, x, y, peak, weights, per_channel=True)
        else:
            return {"ssim": self._score(ssim, x, y, peak, weights)}
        return {"ssim": _means(single)} | (_by_letter("ssim", single.T.tolist()) if channels else {})

    def _ms_ssim(self, x: Tensor, y: Tensor, peak: float, weights: Tensor | None) -> list[float]:
        if not self._padded_pooling:
            return self._score(self._multiscale, x, y, peak, weights)
        if weights is not None:
            raise ValueError(
                "a mask is given, but ms-ssim with convention pytorch-msssim does not support masks; remove the mask"
            )
        return _means(self._padded_ms_ssim(x, y, peak))

    def _padded_ms_ssim(self, x: Tensor, y: Tensor, peak: float) -> Tensor:
        """Returns ``[B, C]``, the product of the levels per channel. Odd sides are zero-padded before 2x2 averaging."""
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

    def _score(self, function: Any, x: Tensor, y: Tensor, peak: float, weights: Tensor | None) -> list[float]:
        return self._scores(function, x, y, peak, weights).reshape(-1).tolist()

    def _scores(
        self, function: Any, x: Tensor, y: Tensor, peak: float, weights: Tensor | None, **arguments: Any
    ) -> Tensor:
        """Returns ``[B]``, or ``[B, C]`` if ``arguments`` has ``per_channel``."""
        if weights is not None:
            arguments["mask"] = weights
        return function(y, x, data_range=float(peak), reduction="none", **self._arguments, **arguments)


def _means(channels: Tensor) -> list[float]:
    """Returns the mean over channels of ``[B, C]``, one image at a time, so that it does not depend on the batch."""
    return [math.fsum(row) / len(row) for row in channels.tolist()]


def _reduced(masks: Sequence[Tensor] | None, size: Sequence[int]) -> list[Tensor] | None:
    """Averages masks down to the size of a chroma plane."""
    if masks is None:
        return None
    return [interpolate(mask[None, None], tuple(size), mode="area")[0, 0] for mask in masks]


def _weighted(planes: Sequence[dict[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Returns the scores of a frame from those of its planes, weighted by their number of pixels."""
    scores: dict[str, float] = {}
    for metric in planes[0]:
        if "/" in metric:  # the score of a single channel, which the plane's own score repeats
            continue
        values = [plane[metric] for plane in planes if metric in plane]
        if metric == "psnr":
            errors = [w * 10 ** (-v / 10) for w, v in zip(weights, values, strict=True)]  # mean squared errors / L^2
            error = math.fsum(errors) / sum(weights)
            scores[metric] = math.inf if error == 0 else -10 * math.log10(error)
        elif metric == "ssim":
            scores[metric] = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        else:
            scores[metric] = values[0]
        if metric != "ms-ssim":
            scores |= {f"{metric}/{letter}": value for letter, value in zip("YUV", values, strict=True)}
    return scores


def _by_letter(metric: str, columns: Sequence[list[float]]) -> dict[str, list[float]]:
    """Returns the scores of each channel by name: Y for a single channel; R, G and B for three."""
    letters = "Y" if len(columns) == 1 else "RGB"
    return {f"{metric}/{letter}": column for letter, column in zip(letters, columns, strict=True)}


def _psnr(x: Tensor, y: Tensor, peak: float, weights: Tensor | None, channels: bool) -> dict[str, list[float]]:
    """Returns ``10 log10(peak^2 / MSE)`` in dB, infinite for identical images."""
    if weights is None and not x.is_floating_point():
        squares = [[_squares(*planes) for planes in zip(*image, strict=True)] for image in zip(x, y, strict=True)]
        count = x[0, 0].numel()
        errors = [[square / count for square in row] for row in squares]
        whole = [sum(row) / (count * len(row)) for row in squares]
    else:
        differences = (x.double() - y.double()).square_()
        mask = torch.ones_like(differences[:, :1]) if weights is None else weights.double()
        # One plane at a time, so that the order of summation does not depend on the batch.
        errors = [
            [float((plane * m[0]).sum() / m.sum()) for plane in image]
            for image, m in zip(differences, mask, strict=True)
        ]
        whole = [math.fsum(row) / len(row) for row in errors]
    each = [[_decibels(error, peak) for error in column] for column in zip(*errors, strict=True)]
    return {"psnr": [_decibels(error, peak) for error in whole]} | (_by_letter("psnr", each) if channels else {})


def _squares(x: Tensor, y: Tensor) -> int:
    """Returns the sum of squared differences of two integer planes ``[H, W]``, exactly, in any order of summation.

    Blocks that fit into the cache take an eighth of the time of the whole plane at once.
    """
    rows = max(1, BLOCK_VALUES[x.device.type] // x.shape[1])
    total = 0
    for a, b in zip(x.split(rows), y.split(rows), strict=True):
        difference = a.double().sub_(b).reshape(-1)
        total += int(torch.dot(difference, difference))  # below 2^53, so that every partial sum is exact in float64
    return total


def _decibels(error: float, peak: float) -> float:
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
