"""Loss modules. Each calls one operator that computes the distance itself instead of subtracting SSIM from 1."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from ssim_fused._core import autograd, call, checks, multiscale, prepared, scripting
from ssim_fused._core.autograd import evaluate
from ssim_fused._core.keywords import keywords_only
from ssim_fused._core.spec import LOSS_REDUCTIONS, PIXEL_TERMS, MaskMode, PixelTerm, Reduction, Spec
from ssim_fused._core.window import (
    DataRange,
    DefaultRange,
    Padding,
    Window,
    apply_range,
    checked_constants,
    checked_range,
)

ReductionName = Literal["mean", "elementwise_mean", "sum", "none"] | None
# The attributes that determine the result of a loss: assigning one discards the prepared call.
_CONFIGURATION = frozenset(
    {"data_range", "gaussian_kernel", "sigma", "kernel_size", "k1", "k2", "padding", "reduction"}
    | {"betas", "normalize", "pixel", "ssim_weight", "eps"}
)


class Terms(NamedTuple):
    """The two terms of a :class:`PixelSSIMLoss`, detached from the graph and reduced like the loss.

    Attributes:
        pixel: The mean of the pixel term phi.
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
    """The base class of all losses: common arguments, their checks, and the call."""

    _range_is_given = True
    betas: tuple[float, ...] = ()
    normalize: Literal["relu", "simple"] | None = "relu"
    _shown: tuple[str, ...] = ()  # further attributes for `extra_repr`
    _prepared: prepared.Prepared | None = None
    _accepted: bool = False  # whether the long path (see _core/prepared.py) has accepted a call with these attributes

    @keywords_only
    def __init__(
        self,
        *,
        data_range: DataRange = DefaultRange(1.0),  # noqa: B008 - a constant
        gaussian_kernel: bool = True,
        sigma: float | Sequence[float] = 1.5,
        kernel_size: int | Sequence[int] = 11,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: Padding = "reflect",
        reduction: ReductionName = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(reduction, str | None) or reduction not in LOSS_REDUCTIONS:
            raise ValueError(f"`reduction` is {reduction!r}, expected 'mean', 'sum', 'none' or None.")
        checks.check_padding(padding)
        checked_range(data_range)
        checked_constants(k1, k2)
        axes = next((len(v) for v in (sigma, kernel_size) if isinstance(v, Sequence)), 2)
        checks.check_window(axes, gaussian_kernel, sigma, kernel_size)
        self.data_range = 1.0 if isinstance(data_range, DefaultRange) else data_range
        self._range_is_given = not isinstance(data_range, DefaultRange)
        self.gaussian_kernel, self.sigma, self.kernel_size = gaussian_kernel, sigma, kernel_size
        self.k1, self.k2, self.padding, self.reduction = k1, k2, padding, reduction

    def forward(
        self,
        preds: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        mask_mode: MaskMode = "window",
    ) -> Tensor:
        """Computes the loss of two batches.

        Args:
            preds: Images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.
            target: Images of the same shape.
            weight: Factors ``[B]`` for the loss of each image before the reduction. A mean still divides by B, as in
                :class:`torch.nn.BCELoss`.
            mask: The pixels that count, ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``, as for
                :func:`~ssim_fused.structural_similarity_index_measure`. An image with an empty mask has a loss of 0.
            mask_mode: What the mask means, ``"window"`` or ``"map"``, as for
                :func:`~ssim_fused.structural_similarity_index_measure`.

        Returns:
            A scalar, or ``[B]`` without reduction, in the dtype of ``preds``, or in float32 under autocast and for
            integers.

        Raises:
            TypeError, ValueError, RuntimeError, NotImplementedError: As for
                :func:`~ssim_fused.structural_similarity_index_measure`; also if ``weight`` is not a tensor ``[B]`` on
                the device of ``preds``.

        """
        return self._outputs(preds, target, weight, mask, mask_mode)[0]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _CONFIGURATION:
            self._forget()
        if name == "data_range":
            self.__dict__["_range_is_given"] = True

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuses ``torch.jit.script`` of the loss and of modules that contain it."""
        scripting.refuse(type(self).__name__)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out the prepared call, because its number is valid in this process only."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_prepared", "_accepted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        """Discards the prepared call, so that the next calls take the long path (:mod:`ssim_fused._core.prepared`)."""
        self.__dict__.pop("_prepared", None)
        self.__dict__.pop("_accepted", None)

    def _spec(self, window: Window, reduction: Reduction) -> Spec:
        betas = multiscale.rounded(self.betas) if self.betas else ()
        return Spec(window, reduction, as_distance=True, betas=betas, normalize=self.normalize or "none")

    def _outputs(
        self, preds: Tensor, target: Tensor, weight: Tensor | None, mask: Tensor | None, mask_mode: MaskMode
    ) -> Sequence[Tensor]:
        """Returns the reduced loss, followed by the terms ``[B, 2]`` of a :class:`PixelSSIMLoss`."""
        if not is_dynamo_compiling() and weight is None and mask is None and mask_mode == "window":
            entry = self._prepared
            if entry is not None and (outputs := prepared.run(entry, preds, target)) is not None:
                return outputs
        return self._outputs_unprepared(preds, target, weight, mask, mask_mode)

    def _outputs_unprepared(
        self, preds: Tensor, target: Tensor, weight: Tensor | None, mask: Tensor | None, mask_mode: MaskMode
    ) -> Sequence[Tensor]:
        if weight is not None:
            checks.check_weight(preds, weight)
        if mask is not None or mask_mode != "window":
            checks.check_mask(preds, target, mask, mask_mode)
        reduction = LOSS_REDUCTIONS[self.reduction]
        levels = len(self.betas)

        def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], size: Sequence[int]) -> Sequence[Tensor]:
            if levels:
                checks.check_pyramid(preds.shape, size, levels)
            data_range = call.range_of(preds, target, self.data_range, self._range_is_given)
            k1, k2 = checked_constants(self.k1, self.k2)
            preds, target, dtype = call.prepare_images(preds, target)
            window = Window(sigma, size, None, self.padding, 1.0, k1, k2)
            spec = self._spec(window, reduction if weight is None else Reduction.NONE)._replace(mask_mode=mask_mode)
            if levels:
                value, *others = multiscale.evaluate(spec, preds, target, data_range, mask)
            else:
                preds, target, number, constants = apply_range(preds, target, data_range, k1, k2, mask)
                spec = spec._replace(window=window._replace(data_range=number))
                value, *others = evaluate(spec, preds, target, constants, mask)
            if weight is not None:
                value = spec._replace(reduction=reduction).reduced(value * weight)
            elif mask is None and not is_dynamo_compiling():
                self._prepare(spec)
            return [value.to(dtype), *others]

        arguments = call.Call(
            self.gaussian_kernel, self.sigma, self.kernel_size, "none", self.data_range, self.k1, self.k2, self.padding,
            levels=levels, range_is_given=self._range_is_given,
        )  # fmt: skip
        return call.explained(compute, preds, target, arguments)

    def _prepare(self, spec: Spec) -> None:
        """Prepares the calls of this loss after two of them were accepted.

        It does so only if all attributes in ``_CONFIGURATION`` are immutable values, not properties: a tensor can
        change in place, and a property of a subclass can return another value at each call.
        """
        for name in _CONFIGURATION:
            of_class = getattr(type(self), name, None)
            if hasattr(of_class, "__get__") or not _is_plain(self.__dict__.get(name, of_class)):
                return
        data_range = self.data_range
        numbers = self.sigma, self.kernel_size, data_range, self.k1, self.k2
        if not isinstance(data_range, float | int) or not prepared.may_prepare(self.gaussian_kernel, *numbers):
            return
        if not self._accepted:
            self.__dict__["_accepted"] = True
            return
        window = spec.window._replace(data_range=data_range)
        self.__dict__["_prepared"] = prepared.prepare(spec._replace(window=window))

    def extra_repr(self) -> str:
        """Returns the arguments of the loss for its ``repr``."""
        size = (
            f"sigma={self.sigma}" if self.gaussian_kernel else f"gaussian_kernel=False, kernel_size={self.kernel_size}"
        )
        shown = [f"{name}={getattr(self, name)!r}" for name in (*self._shown, "data_range")]
        return ", ".join([*shown, size, f"padding={self.padding!r}", f"reduction={self.reduction!r}"])


def _is_plain(value: Any) -> bool:
    """Returns whether a value is of a type that cannot change in place."""
    if type(value) is tuple:
        return all(type(element) is float for element in value)
    return type(value) in (bool, int, float, str, type(None))


class SSIMLoss(_Loss):
    """The loss ``1 - SSIM``, computed without the subtraction, so that losses as small as 1e-9 keep their precision.

    All arguments are keyword-only. The call is ``loss(preds, target, weight=None, mask=None, mask_mode="window")``.

    Args:
        data_range: The range L of the pixel values, as for :func:`~ssim_fused.structural_similarity_index_measure`.
            The default is 1.0 for floating-point images and the range of the dtype for integer images. With a fixed
            range the loss of an image is independent of the rest of the batch; None computes the range from each
            batch, as the metric does by default. An integer ``target`` with floating-point ``preds`` needs an explicit
            range.
        gaussian_kernel: If True, the window is a Gaussian; otherwise it is uniform.
        sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or one per axis.
        kernel_size: Number of taps of the uniform window, odd: one number, or one per axis.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        padding: How images continue beyond their edges: ``"reflect"``, ``"zero"``, or ``"valid"`` for no padding.
        reduction: ``"mean"`` (or ``"elementwise_mean"``) or ``"sum"`` over the batch, or ``"none"`` or None for one
            value per image.

    Raises:
        ValueError: The value of an argument is out of its range, or a word is unknown.
        TypeError: An argument has the wrong type, is unknown, or is passed by position.

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
    """The loss ``1 - MS-SSIM`` of images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``.

    Args:
        betas: Exponents of the levels, a tuple of floats, the finest level first. See
            :func:`~ssim_fused.fitting_betas` for small images.
        normalize: ``"relu"``, ``"simple"`` or None, as for
            :func:`~ssim_fused.multiscale_structural_similarity_index_measure`.
        **arguments: The arguments of :class:`SSIMLoss`.

    Raises:
        ValueError: The value of an argument is out of its range, or a word is unknown. The call raises it if the images
            are too small for the levels.
        TypeError: An argument has the wrong type or is unknown.

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
    r"""The loss ``(1 - ssim_weight) * mean phi(preds - target) + ssim_weight * (1 - SSIM)``, computed in one pass.

    The pixel term phi(d) is ``|d|`` (``"l1"``), ``d^2`` (``"l2"``) or ``sqrt(d^2 + eps^2)`` (``"charbonnier"``). The
    slope of ``|d|`` at 0 is 0, as in PyTorch. The defaults give the loss of Gaussian splatting. After a call,
    :attr:`terms` holds the two terms.

    Args:
        pixel: The pixel term: ``"l1"``, ``"l2"`` or ``"charbonnier"``.
        ssim_weight: Weight of the SSIM term, from 0 to 1.
        eps: The constant of ``"charbonnier"``, > 0, in units of the pixel values.
        multiscale: If True, use MS-SSIM instead of SSIM. The pixel term is still that of the full-size images.
        betas: Exponents of the levels of MS-SSIM, the finest level first.
        normalize: ``"relu"``, ``"simple"`` or None, as for :class:`MultiScaleSSIMLoss`.
        **arguments: The arguments of :class:`SSIMLoss`. If ``data_range`` is a tuple, the pixel term is that of the
            clamped images.

    Raises:
        ValueError: The value of an argument is out of its range, or a word is unknown.
        TypeError: An argument has the wrong type or is unknown.

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
        pixel: PixelTerm = "l1",
        ssim_weight: float = 0.2,
        eps: float = 1e-3,
        multiscale: bool = False,
        betas: tuple[float, ...] = multiscale.BETAS,
        normalize: Literal["relu", "simple"] | None = "relu",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        checks.check_flags(multiscale=multiscale)
        if not isinstance(pixel, str) or pixel not in PIXEL_TERMS:
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

    def _spec(self, window: Window, reduction: Reduction) -> Spec:
        return (
            super()
            ._spec(window, reduction)
            ._replace(pixel_term=self.pixel, ssim_weight=self.ssim_weight, pixel_eps=self.eps, want_terms=True)
        )

    def forward(
        self,
        preds: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        mask_mode: MaskMode = "window",
    ) -> Tensor:
        """Computes the loss of two batches; arguments, result and errors are those of :meth:`SSIMLoss.forward`."""
        value, terms = self._outputs(preds, target, weight, mask, mask_mode)
        if not autograd.transforms_active():
            self._last = terms.detach(), None if weight is None else weight.detach()
        else:  # a tensor of torch.func must not outlive the transform
            self._last = None
        return value

    @property
    def terms(self) -> Terms:
        """The two terms of the last call, reduced like the loss.

        With ``w = ssim_weight``, the loss is ``(1 - w) * terms.pixel + w * terms.ssim``.

        Raises:
            RuntimeError: There was no call yet, or the last call was inside a transform of torch.func.

        """
        if self._last is None:
            raise RuntimeError(
                "`terms` are those of the last call, and there was none, or it was inside a transform of torch.func: "
                "call the loss first, outside such a transform."
            )
        terms, weight = self._last
        if weight is not None:
            terms = terms * weight.unsqueeze(1)
        reduction = LOSS_REDUCTIONS[self.reduction]
        terms = terms.mean(0) if reduction == Reduction.MEAN else terms.sum(0) if reduction == Reduction.SUM else terms
        return Terms(*terms.unbind(-1))


class L1SSIMLoss(PixelSSIMLoss):
    """The loss ``(1 - ssim_weight) * L1 + ssim_weight * (1 - SSIM)``: :class:`PixelSSIMLoss` with the L1 term.

    Args:
        ssim_weight: Weight of the SSIM term, from 0 to 1.
        **arguments: The arguments of :class:`PixelSSIMLoss` except ``pixel`` and ``eps``.

    Raises:
        ValueError, TypeError: As for :class:`PixelSSIMLoss`; also a TypeError if ``pixel`` is passed.

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
        if "pixel" in arguments:
            raise TypeError(f"{type(self).__name__}() has no argument `pixel`: use PixelSSIMLoss instead.")
        super().__init__("l1", ssim_weight, **arguments)
