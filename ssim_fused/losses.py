"""Losses: modules around one operator each, whose value is a distance, computed and not subtracted."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Literal, NamedTuple, NoReturn, ParamSpec

from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from ssim_fused._core import autograd, call, checks, multiscale, prepared, scripting
from ssim_fused._core.autograd import evaluate
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
# The attributes that a loss computes with.
_CONFIGURATION = frozenset(
    {"data_range", "gaussian_kernel", "sigma", "kernel_size", "k1", "k2", "padding", "reduction"}
    | {"betas", "normalize", "pixel", "ssim_weight", "eps"}
)


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


P = ParamSpec("P")


def _named(initialize: Callable[Concatenate[Any, P], None]) -> Callable[Concatenate[Any, P], None]:
    """Decorates an ``__init__`` with keywords only so that wrong arguments are told in the name of the loss."""
    own = frozenset(inspect.signature(initialize).parameters)

    @functools.wraps(initialize)
    def checked(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
        name = type(self).__name__
        if len(args) > 0:
            raise TypeError(f"{name}() takes keywords only, got {args[0]!r}: pass for instance `data_range=...`.")
        for unknown in kwargs.keys() - own:
            near = difflib.get_close_matches(unknown, _keywords_of(type(self)), 1)
            meant = f"; did you mean `{near[0]}`?" if near else "."
            raise TypeError(f"{name}() got an unexpected keyword argument `{unknown}`{meant}")
        initialize(self, *args, **kwargs)

    return checked


def _keywords_of(kind: type) -> list[str]:
    """The names of all arguments that a loss takes."""
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    signatures = [inspect.signature(base.__init__) for base in kind.__mro__ if issubclass(base, _Loss)]
    names = {p.name: None for signature in signatures for p in signature.parameters.values() if p.kind in kinds}
    return [name for name in names if name != "self"]


class _Loss(nn.Module):
    """What all losses share: arguments, their check, and the call."""

    _range_is_given = True
    betas: tuple[float, ...] = ()
    normalize: Literal["relu", "simple"] | None = "relu"
    _shown: tuple[str, ...] = ()
    _prepared: prepared.Prepared | None = None
    _accepted: bool = False  # whether the long way has accepted a call with these attributes

    @_named
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

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _CONFIGURATION:
            self._forget()
        if name == "data_range":
            self.__dict__["_range_is_given"] = True

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuses ``torch.jit.script``, also of modules that contain the loss."""
        scripting.refuse(type(self).__name__)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy: it prepares its calls anew, since their numbers are this process's."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_prepared", "_accepted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        """Discards what was prepared: the next calls go the long way."""
        self.__dict__.pop("_prepared", None)
        self.__dict__.pop("_accepted", None)

    def _spec(self, window: Window, reduction: Reduction) -> Spec:
        betas = multiscale.rounded(self.betas) if self.betas else ()
        return Spec(window, reduction, as_distance=True, betas=betas, normalize=self.normalize or "none")

    def _outputs(
        self, preds: Tensor, target: Tensor, weight: Tensor | None, mask: Tensor | None, mask_mode: MaskMode
    ) -> Sequence[Tensor]:
        """The reduced loss, and the terms if the loss has some."""
        if not is_dynamo_compiling() and weight is None and mask is None and mask_mode == "window":
            entry = self._prepared
            if entry is not None and (outputs := prepared.run(entry, preds, target)) is not None:
                return outputs
        return self._outputs_unprepared(preds, target, weight, mask, mask_mode)

    def _outputs_unprepared(
        self, preds: Tensor, target: Tensor, weight: Tensor | None, mask: Tensor | None, mask_mode: MaskMode
    ) -> Sequence[Tensor]:
        if weight is not None:
            _check_weight(preds, weight)
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
        """Prepares the calls of this loss, the second time that one was accepted.

        Only if all attributes that it computes with are plain values of the instance: a tensor can change in place, and
        a property of a subclass with every call.
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
        """Arguments, as they were given."""
        size = (
            f"sigma={self.sigma}" if self.gaussian_kernel else f"gaussian_kernel=False, kernel_size={self.kernel_size}"
        )
        shown = [f"{name}={getattr(self, name)!r}" for name in (*self._shown, "data_range")]
        return ", ".join([*shown, size, f"padding={self.padding!r}", f"reduction={self.reduction!r}"])


def _is_plain(value: Any) -> bool:
    """Whether a value cannot change in place."""
    if type(value) is tuple:
        return all(type(element) is float for element in value)
    return type(value) in (bool, int, float, str, type(None))


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
        data_range: the range L of the images. The default is 1.0 for floating-point images, which then lie in [0, 1],
            and the range of their type for integers. A fixed range makes the loss of an image independent of the
            others; None takes it from each batch, as the metric's default does. Otherwise as for
            :func:`~ssim_fused.structural_similarity_index_measure`. An integer ``target`` next to floating-point
            ``preds`` needs a range that is given.
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
        """The loss of two batches, as :meth:`SSIMLoss.forward`."""
        value, terms = self._outputs(preds, target, weight, mask, mask_mode)
        if not autograd.transforms_active():
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
        reduction = LOSS_REDUCTIONS[self.reduction]
        terms = terms.mean(0) if reduction == Reduction.MEAN else terms.sum(0) if reduction == Reduction.SUM else terms
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
        if "pixel" in arguments:
            raise TypeError(f"{type(self).__name__}() has no argument `pixel`: use PixelSSIMLoss.")
        super().__init__("l1", ssim_weight, **arguments)
