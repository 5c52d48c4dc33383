"""Metrics: subclasses of the two SSIM metrics of torchmetrics that compute with the kernels of this package.

The extra ``[metrics]`` installs torchmetrics. Arguments, states and results are those of torchmetrics, so that
``MetricCollection``, ``forward``, synchronization between processes, checkpoints and ``plot`` work. Differences:

- The states keep no graph of past batches. Their size is constant, unless ``reduction="none"``, the map or the
  contrast sensitivity is requested (torchmetrics #2597).
- Without reduction, the values of all processes are gathered, even if their numbers differ (torchmetrics #3159).
- The metrics also have the arguments ``padding`` and ``per_channel``, and accept a mask in ``update`` and ``forward``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    raise ImportError(
        "torchmetrics is not installed, and ssim_fused.metrics needs it: run `pip install 'ssim_fused[metrics]'`."
    ) from error


class _Fused(Metric):
    """The common part of both metrics. It precedes the class of torchmetrics in the method resolution order."""

    if TYPE_CHECKING:  # attributes that the classes of torchmetrics set
        gaussian_kernel: bool
        sigma: float | Sequence[float]
        kernel_size: int | Sequence[int]
        data_range: functional.DataRange
        k1: float
        k2: float
        reduction: str | None
        similarity: Any  # a tensor, or a list of tensors without reduction
        total: Tensor
        image_return: list[Tensor]

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
            # torchmetrics passes None, with which processes with different numbers of batches cannot be gathered.
            self.add_state("similarity", default=[], dist_reduce_fx="cat")

    def _options(self, mask: Tensor | None) -> dict[str, Any]:
        """Returns the keyword arguments that both functions share, without reduction over the batch."""
        names = ("gaussian_kernel", "sigma", "kernel_size", "data_range", "k1", "k2", "padding", "per_channel")
        masked = {} if mask is None else {"mask": mask, "mask_mode": self.mask_mode}
        return {name: getattr(self, name) for name in names} | {"reduction": "none"} | masked

    def _add(self, similarity: Tensor) -> None:
        """Adds the values of a batch to the states."""
        self.total += similarity.numel()
        if self.reduction in ("none", None):
            self.similarity.append(similarity)
        else:
            # Not in place: a value that `forward` has returned must keep its graph.
            self.similarity = self.similarity + similarity.sum().to(self.similarity.dtype)

    def _result(self) -> Tensor:
        if self.reduction in ("none", None):
            return dim_zero_cat(self.similarity)
        return self.similarity / self.total if self.reduction == "elementwise_mean" else self.similarity

    @torch.jit.unused  # as in torchmetrics: TorchScript has no variable arguments
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Updates the states and returns the result of this batch, which is differentiable."""
        result = super().forward(*args, **kwargs)
        for name in self._defaults:  # otherwise the states would keep the graph of every batch
            state = getattr(self, name)
            setattr(self, name, [s.detach() for s in state] if isinstance(state, list) else state.detach())
        return result


# torchmetrics' Metric and torch's Module disagree on the signatures of `double`, `float`, `half` and `type`.
class StructuralSimilarityIndexMeasure(_Fused, image.StructuralSimilarityIndexMeasure):  # ty: ignore[incompatible-method-override]
    """SSIM over all images since the last reset.

    Args:
        *args: The arguments of ``torchmetrics.image.StructuralSimilarityIndexMeasure`` 1.9.0.
        padding: How images continue beyond their edges: ``"reflect"``, ``"zero"``, or ``"valid"`` for no padding.
        per_channel: If True, score each channel: ``compute()`` returns ``[N, C]`` without reduction, otherwise the mean
            or sum over all channels.
        mask_mode: What the masks passed to ``update`` and ``forward`` mean, ``"window"`` or ``"map"``, as for
            :func:`~ssim_fused.structural_similarity_index_measure`.
        **kwargs: The keyword arguments of the same class of torchmetrics.

    Raises:
        ValueError, TypeError, OverflowError, IndexError: An argument is not valid, as for
            :func:`~ssim_fused.structural_similarity_index_measure`.

    References:
        Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity,
        IEEE Transactions on Image Processing 13(4), 2004.

    Example:
        >>> import torch
        >>> from ssim_fused.metrics import StructuralSimilarityIndexMeasure
        >>> metric = StructuralSimilarityIndexMeasure(data_range=1.0)
        >>> target = torch.rand(3, 3, 64, 64)
        >>> metric.update(0.75 * target, target)
        >>> score = metric.compute()

    """

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Adds a batch to the states.

        Args:
            preds: Images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.
            target: Images of the same shape.
            mask: The pixels that count, ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: As for
                :func:`~ssim_fused.structural_similarity_index_measure`.

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
        """Returns SSIM over all batches, and with it the maps or contrast sensitivities if they are requested."""
        if self.return_contrast_sensitivity or self.return_full_image:
            return self._result(), dim_zero_cat(self.image_return)
        return self._result()


class MultiScaleStructuralSimilarityIndexMeasure(_Fused, image.MultiScaleStructuralSimilarityIndexMeasure):  # ty: ignore[incompatible-method-override]
    """MS-SSIM over all images since the last reset.

    Args:
        *args: The arguments of ``torchmetrics.image.MultiScaleStructuralSimilarityIndexMeasure`` 1.9.0.
        padding: How images continue beyond their edges: ``"reflect"``, ``"zero"``, or ``"valid"`` for no padding.
        per_channel: If True, score each channel, as :class:`StructuralSimilarityIndexMeasure` does.
        mask_mode: What the masks passed to ``update`` and ``forward`` mean, ``"window"`` or ``"map"``.
        **kwargs: The keyword arguments of the same class of torchmetrics.

    Raises:
        ValueError, TypeError, OverflowError, IndexError: An argument is not valid, as for
            :func:`~ssim_fused.multiscale_structural_similarity_index_measure`.

    References:
        Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, Asilomar
        Conference on Signals, Systems and Computers, 2003.

    Example:
        >>> import torch
        >>> from ssim_fused.metrics import MultiScaleStructuralSimilarityIndexMeasure
        >>> metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)
        >>> target = torch.rand(3, 3, 192, 192)
        >>> metric.update(0.75 * target, target)
        >>> score = metric.compute()

    """

    def update(self, preds: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Adds a batch to the states.

        Args:
            preds: Images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.
            target: Images of the same shape.
            mask: The pixels that count, ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: As for
                :func:`~ssim_fused.multiscale_structural_similarity_index_measure`.

        """
        self._add(
            functional.multiscale_structural_similarity_index_measure(
                preds, target, betas=self.betas, normalize=self.normalize, **self._options(mask)
            )
        )

    def compute(self) -> Tensor:
        """Returns MS-SSIM over all batches."""
        return self._result()
