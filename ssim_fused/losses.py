"""Losses: modules around one operator each, whose value is a distance, computed and not subtracted."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssim_fused import autograd, checks, functional, multiscale
from ssim_fused.autograd import evaluate
from ssim_fused.score import Score
from ssim_fused.window import DataRange, Window, apply_range, check_bounds, check_range

Reduction = Literal["mean", "elementwise_mean", "sum", "none"] | None
_REDUCTIONS = {"mean": 1, "elementwise_mean": 1, "sum": 2, "none": 0, None: 0}
_PIXELS = ("l1", "l2", "charbonnier")


class Terms(NamedTuple):
    """What a loss consists of, detached and reduced as the loss is.

    Attributes:
        pixel: the mean of phi.
        ssim: ``1 - SSIM``.

    Example:
        >>> import torch
        >>> from ssim_fused.losses import PixelSSIMLoss
        >>> loss = PixelSSIMLoss("l2", ssim_weight=0.5)
        >>> target = torch.rand(2, 3, 64, 64)
        >>> value = loss(0.9 * target, target)
        >>> bool((value - 0.5 * (loss.terms.pixel + loss.terms.ssim)).abs() < 1e-6)
        True

    """

    pixel: Tensor
    ssim: Tensor


class _Loss(nn.Module):
    """What all losses share: arguments, their check, and the call."""

    betas: tuple[float, ...] = ()
    normalize: Literal["relu", "simple"] | None = "relu"
    _shown: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        data_range: DataRange = 1.0,
        gaussian_kernel: bool = True,
        sigma: float | Sequence[float] = 1.5,
        kernel_size: int | Sequence[int] = 11,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: Literal["reflect", "zero", "valid"] = "reflect",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(f"`reduction` is {reduction!r}, expected 'mean', 'sum', 'none' or None.")
        checks.check_padding(padding)
        if isinstance(data_range, tuple):
            check_bounds(data_range)
        elif not isinstance(data_range, numbers.Real | Tensor | None):
            check_range(torch.empty(0), data_range)
        axes = next((len(v) for v in (sigma, kernel_size) if isinstance(v, Sequence)), 2)
        checks.check_window(axes, gaussian_kernel, sigma, kernel_size)
        self.data_range = data_range
        self.gaussian_kernel, self.sigma, self.kernel_size = gaussian_kernel, sigma, kernel_size
        self.k1, self.k2, self.padding, self.reduction = k1, k2, padding, reduction

    def forward(
        self,
        preds: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        mask_mode: functional.MaskMode = "window",
    ) -> Tensor:
        """The loss of two batches.

        Args:
            preds: images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.
            target: images of the same shape.
            weight: ``[B]``, what each image's loss is multiplied by before the reduction; a mean is over B all the
                same, as in :class:`torch.nn.BCELoss`.
            mask: which pixels count, ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``, as for
                :func:`~ssim_fused.structural_similarity_index_measure`; an image whose mask is empty has the loss zero.
            mask_mode: ``"window"`` or ``"map"``, as there.

        Returns:
            A scalar, or ``[B]`` without reduction, in the dtype of ``preds``; under autocast in float32.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: as
                :func:`~ssim_fused.structural_similarity_index_measure`, and for a ``weight`` that is none of the batch.

        """
        return self._outputs(preds, target, weight, mask, mask_mode)[0]

    def _score(self, window: Window, reduction: int) -> Score:
        return Score(window, reduction, as_distance=True, betas=self._rounded(), normalize=self.normalize or "none")

    def _rounded(self) -> tuple[float, ...]:
        return multiscale.rounded(self.betas) if self.betas else ()

    def _outputs(
        self, preds: Tensor, target: Tensor, weight: Tensor | None, mask: Tensor | None, mask_mode: str
    ) -> Sequence[Tensor]:
        """The reduced loss, and what else the score returns."""
        if weight is not None:
            _check_weight(preds, weight)
        if mask is not None or mask_mode != "window":
            checks.check_mask(preds, target, mask, mask_mode)
        reduction = _REDUCTIONS[self.reduction]
        levels = len(self.betas)

        def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], size: Sequence[int]) -> Sequence[Tensor]:
            if levels:
                checks.check_pyramid(preds.shape, size, levels)
            preds, target, dtype = functional._prepare_images(preds, target)
            data_range = functional._range_of(preds, self.data_range)
            window = Window(sigma, size, None, self.padding, 1.0, self.k1, self.k2)
            score = self._score(window, reduction if weight is None else 0)._replace(mask_mode=mask_mode)
            if levels:
                value, *others = multiscale.evaluate(score, preds, target, data_range, mask)
            else:
                preds, target, number, constants = apply_range(preds, target, data_range, self.k1, self.k2, mask)
                score = score._replace(window=window._replace(data_range=number))
                value, *others = evaluate(score, preds, target, constants, mask)
            if weight is not None:
                value = score._replace(reduction=reduction).reduced(value * weight)
            return [value.to(dtype), *others]

        word = {0: "none", 1: "elementwise_mean", 2: "sum"}[reduction]
        call = checks.Call(
            self.gaussian_kernel, self.sigma, self.kernel_size, word, self.data_range, self.k1, self.k2, self.padding,
            levels=levels,
        )  # fmt: skip
        return functional._explained(compute, preds, target, call)

    def extra_repr(self) -> str:
        """Arguments, as they were given."""
        size = (
            f"sigma={self.sigma}" if self.gaussian_kernel else f"gaussian_kernel=False, kernel_size={self.kernel_size}"
        )
        shown = [f"{name}={getattr(self, name)!r}" for name in (*self._shown, "data_range")]
        return ", ".join([*shown, size, f"padding={self.padding!r}", f"reduction={self.reduction!r}"])


def _check_weight(preds: Tensor, weight: Tensor) -> None:
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"`weight` is {weight!r}, a {type(weight).__name__}; expected a tensor [B], one for each image."
        )
    if isinstance(preds, Tensor) and weight.shape != preds.shape[:1]:
        raise ValueError(
            f"`weight` has the shape {tuple(weight.shape)}, expected ({preds.shape[0]},): one for each image."
        )
    if isinstance(preds, Tensor) and weight.device != preds.device:
        raise RuntimeError(f"`weight` is on {weight.device} and `preds` on {preds.device}: move it by `.to(...)`.")


class SSIMLoss(_Loss):
    """``1 - SSIM``, computed as what SSIM lacks to one: a loss of 1e-9 has digits.

    Args:
        data_range: the range L of the images: 1.0, the default, for images in [0, 1]. A fixed range makes the loss
            of an image independent of the others; None takes it from each batch, as the metric's default does.
        gaussian_kernel: whether the window is a Gaussian (else uniform).
        sigma: standard deviation of the Gaussian, > 0, for all axes or for each.
        kernel_size: size of the uniform window, odd, for all axes or for each.
        k1: luminance constant.
        k2: contrast constant.
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``: no padding.
        reduction: ``"mean"`` (or ``"elementwise_mean"``) or ``"sum"`` over the batch, or ``"none"`` or None.

    Raises:
        ValueError, TypeError: an argument is not as above.

    References:
        Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity,
        IEEE Transactions on Image Processing 13(4), 2004.

    Example:
        >>> import torch
        >>> from ssim_fused.losses import SSIMLoss
        >>> loss = SSIMLoss()
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> loss(preds, target).backward()

    """


class MultiScaleSSIMLoss(_Loss):
    """``1 - MS-SSIM``.

    Args:
        betas: the levels' exponents, the finest level first.
        normalize: ``"relu"``, ``"simple"`` or None, as for
            :func:`ssim_fused.multiscale_structural_similarity_index_measure`.
        **arguments: as for :class:`SSIMLoss`.

    Raises:
        ValueError, TypeError: an argument is not as above; at the call, images too small for the levels.

    References:
        Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, Asilomar
        Conference on Signals, Systems and Computers, 2003.

    Example:
        >>> import torch
        >>> from ssim_fused.losses import MultiScaleSSIMLoss
        >>> loss = MultiScaleSSIMLoss(betas=(0.3, 0.7))
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> loss(preds, target).backward()

    """

    _shown = ("betas", "normalize")

    def __init__(
        self,
        betas: tuple[float, ...] = multiscale.BETAS,
        normalize: Literal["relu", "simple"] | None = "relu",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        checks.check_levels(betas, normalize)
        self.betas, self.normalize = betas, normalize


class PixelSSIMLoss(_Loss):
    r"""``(1 - ssim_weight) * mean phi(preds - target) + ssim_weight * (1 - SSIM)``, in one pass over the pixels.

    phi is ``|d|`` (``"l1"``), ``d^2`` (``"l2"``) or ``sqrt(d^2 + eps^2)`` (``"charbonnier"``). The slope of ``|d|`` at
    0 is 0, as in PyTorch. With the defaults it is the loss of Gaussian splatting.

    Args:
        pixel: phi.
        ssim_weight: from 0 to 1.
        eps: Charbonnier's constant, > 0.
        multiscale: MS-SSIM in SSIM's place; the pixels are those of the finest level.
        betas: MS-SSIM's exponents.
        normalize: as for :class:`MultiScaleSSIMLoss`.
        **arguments: as for :class:`SSIMLoss`. Where ``data_range`` is a tuple, phi is that of the clamped images.

    Raises:
        ValueError, TypeError: an argument is not as above.

    References:
        Zhao, Gallo, Frosio, Kautz: Loss functions for image restoration with neural networks, IEEE Transactions on
        Computational Imaging 3(1), 2017. Kerbl, Kopanas, Leimkuehler, Drettakis: 3D Gaussian splatting for real-time
        radiance field rendering, ACM Transactions on Graphics 42(4), 2023.

    Example:
        >>> import torch
        >>> from ssim_fused.losses import PixelSSIMLoss
        >>> loss = PixelSSIMLoss("charbonnier", ssim_weight=0.5)
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> loss(preds, target).backward()
        >>> pixel, ssim = loss.terms

    """

    _shown = ("pixel", "ssim_weight")

    def __init__(
        self,
        pixel: Literal["l1", "l2", "charbonnier"] = "l1",
        ssim_weight: float = 0.2,
        eps: float = 1e-3,
        multiscale: bool = False,
        betas: tuple[float, ...] = multiscale.BETAS,
        normalize: Literal["relu", "simple"] | None = "relu",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if pixel not in _PIXELS:
            raise ValueError(f"`pixel` is {pixel!r}, expected 'l1', 'l2' or 'charbonnier'.")
        if not isinstance(ssim_weight, numbers.Real) or not 0 <= ssim_weight <= 1:
            raise ValueError(f"`ssim_weight` is {ssim_weight!r}, expected a number from 0 to 1.")
        if not isinstance(eps, numbers.Real) or not 0 < eps < float("inf"):
            raise ValueError(f"`eps` is {eps!r}, expected a positive finite number.")
        checks.check_levels(betas, normalize)
        self.pixel, self.ssim_weight, self.eps, self.multiscale = pixel, float(ssim_weight), float(eps), multiscale
        self.betas, self.normalize = (betas if multiscale else ()), normalize
        if pixel == "charbonnier":
            self._shown = (*self._shown, "eps")
        if multiscale:
            self._shown = (*self._shown, "multiscale", "betas", "normalize")
        self._last: tuple[Tensor, Tensor | None] | None = None

    def _score(self, window: Window, reduction: int) -> Score:
        return (
            super()
            ._score(window, reduction)
            ._replace(pixel_term=self.pixel, ssim_weight=self.ssim_weight, pixel_eps=self.eps, want_terms=True)
        )

    def forward(
        self,
        preds: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        mask_mode: functional.MaskMode = "window",
    ) -> Tensor:
        """The loss of two batches, as :meth:`SSIMLoss.forward`."""
        value, terms = self._outputs(preds, target, weight, mask, mask_mode)
        if torch.compiler.is_compiling() or not autograd._transforms_active():
            self._last = terms.detach(), None if weight is None else weight.detach()
        else:  # a tensor of torch.func's means nothing outside of the transform
            self._last = None
        return value

    @property
    def terms(self) -> Terms:
        """The last call's two terms, reduced as the loss is; ``(1 - w) * pixel + w * ssim`` is the loss.

        Raises:
            RuntimeError: there was no call yet, or the last was within a transform of torch.func.

        """
        if self._last is None:
            raise RuntimeError(
                "`terms` are those of the last call, and there has been none outside of torch.func's transforms: call "
                "the loss first."
            )
        terms, weight = self._last
        if weight is not None:
            terms = terms * weight.unsqueeze(1)
        reduction = _REDUCTIONS[self.reduction]
        terms = terms.mean(0) if reduction == 1 else terms.sum(0) if reduction == 2 else terms
        return Terms(*terms.unbind(-1))


class L1SSIMLoss(PixelSSIMLoss):
    """:class:`PixelSSIMLoss` with L1: ``(1 - ssim_weight) * L1 + ssim_weight * (1 - SSIM)``.

    Args:
        ssim_weight: from 0 to 1.
        **arguments: as for :class:`PixelSSIMLoss`, but for ``pixel`` and ``eps``.

    Raises:
        ValueError, TypeError: an argument is not as there.

    References:
        Kerbl, Kopanas, Leimkuehler, Drettakis: 3D Gaussian splatting for real-time radiance field rendering, ACM
        Transactions on Graphics 42(4), 2023.

    Example:
        >>> import torch
        >>> from ssim_fused.losses import L1SSIMLoss
        >>> loss = L1SSIMLoss()
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> loss(preds, target).backward()

    """

    def __init__(self, ssim_weight: float = 0.2, **arguments: Any) -> None:
        super().__init__("l1", ssim_weight, **arguments)
