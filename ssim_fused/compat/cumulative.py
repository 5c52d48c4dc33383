"""A base class with the interface of MONAI's cumulative metrics: call it per batch, then ``aggregate()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from ssim_fused.compat import arguments

_REDUCTIONS = ("none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel")


class CumulativeMetric:
    """Collects the scores ``[B, 1]`` of each call until :meth:`reset`, and reduces them over all processes.

    Subclasses implement ``_compute_tensor``, which returns the scores of a batch.
    """

    def __init__(self, reduction: str = "mean", get_not_nans: bool = False) -> None:
        self.reduction = arguments.check_choice("reduction", reduction, _REDUCTIONS)
        self.get_not_nans = get_not_nans
        self.reset()

    def __call__(self, y_pred: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """Scores a batch, or lists of images without a batch axis; returns the scores ``[B, 1]`` and keeps them."""
        if isinstance(y_pred, list | tuple) or isinstance(y, list | tuple):
            scores = self._compute_list(y_pred, y)
        elif isinstance(y_pred, Tensor) and isinstance(y, Tensor):
            scores = self._compute_tensor(y_pred.detach(), y.detach())
        else:
            name, images = ("y", y) if isinstance(y_pred, Tensor) else ("y_pred", y_pred)
            kind = type(images).__name__
            raise ValueError(f"`{name}` is a {kind}, expected a torch.Tensor with a batch, or a list of images.")
        self.extend(scores)
        return scores

    def __len__(self) -> int:
        buffer = self.get_buffer()
        return 0 if buffer is None else len(buffer)

    def __str__(self) -> str:
        return type(self).__name__

    def reset(self) -> None:
        """Discards all scores."""
        self._scores: list[Tensor] = []
        self._gathered: Tensor | None = None

    def extend(self, *data: Tensor) -> None:
        """Adds the scores of batches, tensors whose first axis is the batch."""
        for scores in data:
            self._scores.extend(scores.detach().unbind(0))
        self._gathered = None

    def append(self, *data: Tensor) -> None:
        """Adds the scores of single images."""
        self._scores.extend(torch.as_tensor(score).detach() for score in data)
        self._gathered = None

    def get_buffer(self) -> Tensor | None:
        """Returns a copy of the scores ``[N, 1]`` of all processes, concatenated by rank; None without scores."""
        if self._gathered is None:
            self._gathered = _gathered(torch.stack(self._scores) if self._scores else None)
        return None if self._gathered is None else self._gathered.clone()

    def aggregate(self, reduction: str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Reduces the scores that are not NaN.

        Args:
            reduction: The reduction to use instead of the one passed to the metric.

        Returns:
            The reduced scores; with ``get_not_nans``, a tuple of them and of the number of scores that are not NaN.

        Raises:
            ValueError: There are no scores, or the reduction is unknown.

        """
        word = arguments.check_choice("reduction", reduction or self.reduction, _REDUCTIONS)
        scores = self.get_buffer()
        if scores is None:
            raise ValueError("There are no scores to aggregate: call the metric with at least one batch of images.")
        value, count = _reduced(scores, word)
        return (value, count) if self.get_not_nans else value

    def _compute_list(self, y_pred: Any, y: Any) -> Tensor:
        for name, images in (("y_pred", y_pred), ("y", y)):
            if images is None or not all(isinstance(image, Tensor) for image in images):
                raise ValueError(f"`{name}` is a {type(images).__name__}, expected a list of images as torch.Tensor.")
        if len(y_pred) != len(y) or len(y_pred) == 0:
            raise ValueError(
                f"`y_pred` has {len(y_pred)} images and `y` {len(y)}, expected the same number, at least one."
            )
        pairs = zip(y_pred, y, strict=True)
        return torch.cat([self._compute_tensor(a.detach().unsqueeze(0), b.detach().unsqueeze(0)) for a, b in pairs])

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


def _reduced(scores: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """Reduces the scores ``[N, 1]`` that are not NaN; returns the result and the number of these scores."""
    seen = ~scores.isnan()
    if reduction == "none":
        return scores, seen.float()
    scores = torch.where(seen, scores, 0.0)
    if reduction == "sum":
        return scores.sum((0, 1)), seen.sum((0, 1)).float()
    if reduction == "mean":
        channels, count = _mean(scores, seen, 1)
        return _mean(channels, count > 0, 0)
    dim = 0 if reduction.endswith("batch") else 1
    if reduction.startswith("sum"):
        return scores.sum(dim).float(), seen.sum(dim).float()
    return _mean(scores, seen, dim)


def _mean(scores: Tensor, seen: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Returns the mean over an axis of the scores with ``seen`` (0 if there are none) and their number."""
    count = seen.sum(dim).float()
    none = torch.zeros(1, device=scores.device)  # one-dimensional, so that the result has MONAI's shape
    return torch.where(count > 0, scores.sum(dim).float() / count, none), count


def _gathered(scores: Tensor | None) -> Tensor | None:
    """Returns the scores of all processes, concatenated by rank, or the same tensor if there is only one process."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return scores
    found: list[Tensor | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, None if scores is None else scores.cpu())
    present = [part for part in found if part is not None]
    if not present:
        return None
    return torch.cat(present).to("cpu" if scores is None else scores.device)
