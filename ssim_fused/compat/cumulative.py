"""The interface of MONAI's cumulative metrics: called for each batch, then ``aggregate()`` and ``reset()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from ssim_fused.compat import arguments

_REDUCTIONS = ("none", "mean", "sum", "mean_batch", "sum_batch", "mean_channel", "sum_channel")


class CumulativeMetric:
    """Keeps the scores ``[B, 1]`` of each call, until :meth:`reset`, and reduces them, those of all processes.

    A subclass computes the scores of a batch in ``_compute_tensor``.
    """

    def __init__(self, reduction: str = "mean", get_not_nans: bool = False) -> None:
        self.reduction = arguments.check_choice("reduction", reduction, _REDUCTIONS)
        self.get_not_nans = get_not_nans
        self.reset()

    def __call__(self, y_pred: Tensor | Sequence[Tensor], y: Tensor | Sequence[Tensor] | None = None) -> Tensor:
        """The scores ``[B, 1]`` of a batch, or of a list of images without the batch's axis; they are kept."""
        if isinstance(y_pred, list | tuple) or isinstance(y, list | tuple):
            scores = self._compute_list(y_pred, y)
        elif isinstance(y_pred, Tensor) and isinstance(y, Tensor):
            scores = self._compute_tensor(y_pred.detach(), y.detach())
        else:
            name, images = ("y", y) if isinstance(y_pred, Tensor) else ("y_pred", y_pred)
            kind = type(images).__name__
            raise ValueError(f"`{name}` is a {kind}, expected a batch as a torch.Tensor, or a list of images.")
        self.extend(scores)
        return scores

    def __len__(self) -> int:
        buffer = self.get_buffer()
        return 0 if buffer is None else len(buffer)

    def __str__(self) -> str:
        return type(self).__name__

    def reset(self) -> None:
        """Forgets all scores."""
        self._scores: list[Tensor] = []
        self._gathered: Tensor | None = None

    def extend(self, *data: Tensor) -> None:
        """Keeps the scores of a batch."""
        for scores in data:
            self._scores.extend(scores.detach().unbind(0))
        self._gathered = None

    def append(self, *data: Tensor) -> None:
        """Keeps the score of an image."""
        self._scores.extend(torch.as_tensor(score).detach() for score in data)
        self._gathered = None

    def get_buffer(self) -> Tensor | None:
        """A copy of all scores ``[N, 1]``, those of all processes one after another; None if there are none."""
        if self._gathered is None:
            self._gathered = _gathered(torch.stack(self._scores) if self._scores else None)
        return None if self._gathered is None else self._gathered.clone()

    def aggregate(self, reduction: str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The reduction of the scores that are not NaN.

        Args:
            reduction: another one than the metric's.

        Returns:
            The reduced scores; with ``get_not_nans`` also how many of them were not NaN.

        Raises:
            ValueError: there are no scores, or the reduction is unknown.

        """
        word = arguments.check_choice("reduction", reduction or self.reduction, _REDUCTIONS)
        scores = self.get_buffer()
        if scores is None:
            raise ValueError("There are no scores to aggregate: call the metric for at least one batch of images.")
        value, count = _reduced(scores, word)
        return (value, count) if self.get_not_nans else value

    def _compute_list(self, y_pred: Any, y: Any) -> Tensor:
        for name, images in (("y_pred", y_pred), ("y", y)):
            if images is None or not all(isinstance(image, Tensor) for image in images):
                raise ValueError(f"`{name}` is {type(images).__name__}, expected a list of images as torch.Tensor.")
        if len(y_pred) != len(y) or len(y_pred) == 0:
            raise ValueError(f"`y_pred` has {len(y_pred)} images and `y` {len(y)}, expected as many, at least one.")
        pairs = zip(y_pred, y, strict=True)
        return torch.cat([self._compute_tensor(a.detach().unsqueeze(0), b.detach().unsqueeze(0)) for a, b in pairs])

    def _compute_tensor(self, y_pred: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError


def _reduced(scores: Tensor, reduction: str) -> tuple[Tensor, Tensor]:
    """What a reduction makes of ``[N, 1]`` scores, without those that are NaN, and their number."""
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
    """The mean over an axis of what is seen, zero where nothing is, and its number."""
    count = seen.sum(dim).float()
    none = torch.zeros(1, device=scores.device)  # with an axis, as the package has it
    return torch.where(count > 0, scores.sum(dim).float() / count, none), count


def _gathered(scores: Tensor | None) -> Tensor | None:
    """The scores of all processes; those of this one if there are no others."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return scores
    found: list[Tensor | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, None if scores is None else scores.cpu())
    present = [part for part in found if part is not None]
    if not present:
        return None
    return torch.cat(present).to("cpu" if scores is None else scores.device)
