"""torchmetrics' two metrics, updated through this package's kernels; the extra ``[metrics]`` installs torchmetrics.

They are subclasses: the same arguments, states and results, so that a ``MetricCollection``, ``forward``, the
synchronisation of processes, checkpoints and ``plot`` work as ever. What differs:

- the states hold no graph of past batches, and their size does not grow but where ``reduction="none"``, the map or the
  contrast sensitivity ask for it (torchmetrics #2597);
- without reduction the values of all processes are gathered, whatever their number (torchmetrics #3159);
- the functions' own arguments: ``padding``, ``per_channel``, and a mask at ``update`` and ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssim_fused import functional
from ssim_fused._core import checks
from ssim_fused._core.window import checked_constants, checked_range

try:
    from torchmetrics import image
    from torchmetrics.metric import Metric
    from torchmetrics.utilities.data import dim_zero_cat
except ImportError as error:
    raise ImportError("ssim_fused.metrics needs torchmetrics: pip install 'ssim_fused[metrics]'.") from error


class _Fused(Metric):
    """What both metrics share; it stands before torchmetrics' class."""

    def __init__(
        self,
        *args: Any,
        padding: functional.Padding = "reflect",
        per_channel: bool = False,
        mask_mode: str = "window",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        checks.check_padding(padding)
        checks.check_mask_mode(mask_mode)
        returned = "return_full_image", "return_contrast_sensitivity"
        flags = {name: getattr(self, name) for name in returned if hasattr(self, name)}
        checks.check_flags(per_channel=per_channel, **flags)
        checked_range(self.data_range)
        checked_constants(self.k1, self.k2)
        axes = next((len(v) for v in (self.sigma, self.kernel_size) if isinstance(v, Sequence)), 2)
        checks.check_window(axes, self.gaussian_kernel, self.sigma, self.kernel_size)
        self.padding, self.per_channel, self.mask_mode = padding, per_channel, mask_mode
        if self.reduction in ("none", None):
            # With None in its place, processes with different numbers of batches cannot be gathered.
            self.add_state("similarity", default=[], dist_reduce_fx="cat")

    def _options(self, mask: Tensor | None) -> dict[str, Any]:
        """The arguments that both functions take by keyword; every value is that of one image."""
        names = ("gaussian_kernel", "sigma", "kernel_size", "data_range", "k1", "k2", "padding", "per_channel")
        masked = {} if mask is None else {"mask": mask, "mask_mode": self.mask_mode}
        return {name: getattr(self, name) for name in names} | {"reduction": "none"} | masked

    def _add(self, similarity: Tensor) -> None:
        """Takes the values of a batch into the states."""
        self.total += similarity.numel()
        if self.reduction in ("none", None):
            self.similarity.append(similarity)
        else:
            # A new tensor, of the state's type: what `forward` has returned must keep its own graph.
            self.similarity = self.similarity + similarity.sum().to(self.similarity.dtype)

    def _result(self) -> Tensor:
        if self.reduction in ("none", None):
            return dim_zero_cat(self.similarity)
        return self.similarity / self.total if self.reduction == "elementwise_mean" else self.similarity

    @torch.jit.unused  # as torchmetrics' own: TorchScript takes no variable arguments
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Updates the states, and returns the result of this batch, with gradient."""
        result = super().forward(*args, **kwargs)
        for name in self._defaults:  # they would keep every batch's graph
            state = getattr(self, name)
            setattr(self, name, [s.detach() for s in state] if isinstance(state, list) else state.detach())
        return result


class StructuralSimilarityIndexMeasure(_Fused, image.StructuralSimilarityIndexMeasure):
    """SSIM of all images so far.

    Args:
        *args: as ``torchmetrics.image.StructuralSimilarityIndexMeasure`` takes them (1.9.0).
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``, as
            :func:`~ssim_fused.structural_similarity_index_measure` takes it; so is the following.
        per_channel: whether a value is that of a channel: without reduction ``[N, C]``, else over all channels.
        mask_mode: what the masks mean that ``update`` and ``forward`` take.
        **kwargs: as torchmetrics' class takes them.

    Example:
        >>> import torch
        >>> from ssim_fused.metrics import StructuralSimilarityIndexMeasure
        >>> metric = StructuralSimilarityIndexMeasure(data_range=1.0)
        >>> target = torch.rand(3, 3, 64, 64)
        >>> metric.update(0.75 * target, target)
        >>> score = metric.compute()

    """

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Takes in a batch of images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.

        Args:
            preds: images, as :func:`~ssim_fused.structural_similarity_index_measure` takes them.
            target: images of the same shape.
            mask: which pixels count, as there.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: as there.

        """
        results = functional.structural_similarity_index_measure(
            preds,
            target,
            return_full_image=self.return_full_image,
            return_contrast_sensitivity=self.return_contrast_sensitivity,
            **self._options(mask),
        )
        if isinstance(results, Tensor):
            return self._add(results)
        similarity, picture = results
        self.image_return.append(picture)
        return self._add(similarity)

    def compute(self) -> Tensor | tuple[Tensor, Tensor]:
        """The result over all batches; with it, where asked for, the maps or contrast sensitivities."""
        if self.return_contrast_sensitivity or self.return_full_image:
            return self._result(), dim_zero_cat(self.image_return)
        return self._result()


class MultiScaleStructuralSimilarityIndexMeasure(_Fused, image.MultiScaleStructuralSimilarityIndexMeasure):
    """MS-SSIM of all images so far.

    Args:
        *args: as ``torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure`` takes them (1.9.0).
        padding: as :class:`StructuralSimilarityIndexMeasure` takes it; so are the following.
        per_channel: whether a value is that of a channel.
        mask_mode: what the masks mean.
        **kwargs: as torchmetrics' class takes them.

    Example:
        >>> import torch
        >>> from ssim_fused.metrics import MultiScaleStructuralSimilarityIndexMeasure
        >>> metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)
        >>> target = torch.rand(3, 3, 192, 192)
        >>> metric.update(0.75 * target, target)
        >>> score = metric.compute()

    """

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Takes in a batch of images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.

        Args:
            preds: images, as :func:`~ssim_fused.multiscale_structural_similarity_index_measure` takes them.
            target: images of the same shape.
            mask: which pixels count, as there.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: as there.

        """
        self._add(
            functional.multiscale_structural_similarity_index_measure(
                preds, target, betas=self.betas, normalize=self.normalize, **self._options(mask)
            )
        )

    def compute(self) -> Tensor:
        """The result over all batches."""
        return self._result()
