"""Drop-in for kornia 0.9.0: the maps ``ssim`` and ``ssim3d``, the losses ``(1 - SSIM) / 2``, and a module for each.

As in kornia, ``eps`` is added to the denominator of the map, so that at a range of 1 a black image differs from itself
by 1e-5. The operators have no such term. If it can change the result in the precision of its dtype, at ranges below 10
or so, four maps are computed instead of one. With ``corrected=True``, ``eps`` is not added.

Differences: the loss is computed directly, not as one minus the map, unless ``eps`` has an effect; and ``max_val`` can
be an int. ``kornia.losses.MS_SSIMLoss`` is not MS-SSIM but combines five Gaussians on the full-size image with an L1
term; it is not included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.arguments import DefaultRange
from ssim_fused.compat.windows import Window

_IMAGES, _VOLUMES = {4: "[B, C, H, W]"}, {5: "[B, C, D, H, W]"}
_PADDINGS = {"same": "reflect", "valid": "valid"}
_REDUCTIONS = ("mean", "sum", "none")
_RANGE = DefaultRange(1.0)
_NAMES = ("img1", "img2")
_TRANSLATED = {"preds": "img1", "target": "img2", "data_range": "max_val", "kernel_size": "window_size"}


@arguments.speaks_of(**_TRANSLATED)
def ssim(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes the SSIM map of two batches of images, as ``kornia.metrics.ssim`` does.

    Args:
        img1: Images ``[B, C, H, W]``.
        img2: Images of the same shape.
        window_size: Number of taps of the Gaussian, odd. Its standard deviation is 1.5 pixels.
        max_val: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 1 for
            floats.
        eps: The number added to the denominator, >= 0.
        padding: ``"same"`` for reflection, or ``"valid"`` for no padding.
        corrected: If True, leave out ``eps``; the constants already keep every denominator above zero.

    Returns:
        The map in the shape of the images. With ``"valid"``, each axis is shorter by ``window_size - 1``; an axis with
        one pixel less than the window becomes empty, as in kornia.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ or do not have four dimensions, ``window_size`` is even or too large for the
            images, ``eps`` is negative, or ``padding`` is unknown.
        NotImplementedError: A dtype is not supported.

    References:
        kornia, https://github.com/kornia/kornia.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> ssim(0.9 * target, target, window_size=11).shape
        torch.Size([2, 3, 64, 64])

    """
    return _map(_prepared(img1, img2, _IMAGES, window_size, max_val, eps, padding, corrected))


@arguments.speaks_of(**_TRANSLATED)
def ssim3d(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes the SSIM map of two batches of volumes ``[B, C, D, H, W]``.

    Arguments, result and errors are those of :func:`ssim`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> of_voxels = ssim3d(0.9 * target, target, window_size=7)

    """
    return _map(_prepared(img1, img2, _VOLUMES, window_size, max_val, eps, padding, corrected))


@arguments.speaks_of(**_TRANSLATED)
def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes the loss ``(1 - SSIM) / 2`` of two batches of images ``[B, C, H, W]``.

    ``reduction`` is ``"mean"`` or ``"sum"`` over all pixels, or ``"none"`` for the map of the loss. The other arguments
    and the errors are those of :func:`ssim`; an unknown ``reduction`` raises NotImplementedError, as in kornia.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim_loss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = ssim_loss(0.9 * target, target, window_size=11)

    """
    given = _prepared(img1, img2, _IMAGES, window_size, max_val, eps, padding, corrected)
    return _loss(given, reduction)


@arguments.speaks_of(**_TRANSLATED)
def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = _RANGE,
    eps: float = 1e-12,
    reduction: Literal["mean", "sum", "none"] = "mean",
    padding: str = "same",
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes the loss ``(1 - SSIM) / 2`` of two batches of volumes ``[B, C, D, H, W]``.

    Arguments, result and errors are those of :func:`ssim_loss`.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import ssim3d_loss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = ssim3d_loss(0.9 * target, target, window_size=7)

    """
    given = _prepared(img1, img2, _VOLUMES, window_size, max_val, eps, padding, corrected)
    return _loss(given, reduction)


class _Module(nn.Module):
    """A module that stores the arguments of a function as attributes and calls it with them."""

    _function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._names = tuple(arguments)
        for name, value in arguments.items():
            setattr(self, name, value)

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return self._function(img1, img2, **{name: getattr(self, name) for name in self._names})


class SSIM(_Module):
    """:func:`ssim` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM
        >>> target = torch.rand(2, 3, 64, 64)
        >>> of_pixels = SSIM(11)(0.9 * target, target)

    """

    _function = staticmethod(ssim)

    def __init__(
        self,
        window_size: int,
        max_val: float = _RANGE,
        eps: float = 1e-12,
        padding: str = "same",
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__(window_size=window_size, max_val=max_val, eps=eps, padding=padding, corrected=corrected)


class SSIM3D(SSIM):
    """:func:`ssim3d` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM3D
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> of_voxels = SSIM3D(7)(0.9 * target, target)

    """

    _function = staticmethod(ssim3d)


class SSIMLoss(_Module):
    """:func:`ssim_loss` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIMLoss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> loss = SSIMLoss(11)(0.9 * target, target)

    """

    _function = staticmethod(ssim_loss)

    def __init__(
        self,
        window_size: int,
        max_val: float = _RANGE,
        eps: float = 1e-12,
        reduction: Literal["mean", "sum", "none"] = "mean",
        padding: str = "same",
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__(
            window_size=window_size, max_val=max_val, eps=eps, reduction=reduction, padding=padding,
            corrected=corrected,
        )  # fmt: skip


class SSIM3DLoss(SSIMLoss):
    """:func:`ssim3d_loss` as a module.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.kornia import SSIM3DLoss
        >>> target = torch.rand(1, 1, 16, 24, 24)
        >>> loss = SSIM3DLoss(7)(0.9 * target, target)

    """

    _function = staticmethod(ssim3d_loss)


class _Given(NamedTuple):
    """The checked arguments of a call: images in a dtype that the operators read, and a window that fits them."""

    x: Tensor
    y: Tensor
    dtype: torch.dtype  # of the result
    window: Window
    eps: float  # 0 if it has no effect


def _prepared(
    img1: Any,
    img2: Any,
    shapes: dict[int, str],
    window_size: Any,
    max_val: Any,
    eps: Any,
    padding: Any,
    corrected: bool,
) -> _Given:
    arguments.check_images(img1, img2, _NAMES, shapes)
    size = arguments.check_size("window_size", window_size)
    mode = _PADDINGS[arguments.check_choice("padding", str(padding).lower(), tuple(_PADDINGS))]
    number = arguments.check_range("max_val", max_val, img1, img2, _NAMES, takes_wide_integers=True)
    (eps,) = arguments.check_constants(eps=eps)
    least, why = (
        (size // 2 + 1, "the reflection of") if mode == "reflect" else (size - size % 2, "`padding` 'valid' and")
    )
    arguments.check_room("img1", img1.shape, (least,) * (img1.ndim - 2), f"{why} `window_size` {size}")
    x, y, dtype = windows.readable(img1, img2)
    axes = x.ndim - 2
    window = windows.gaussian_window((size,) * axes, (1.5,) * axes, (number, 0.01, 0.03), mode)
    c1, c2 = window.constants
    # eps / (c1 c2) bounds the relative change of the map.
    has_effect = not corrected and eps / (c1 * c2) > torch.finfo(dtype).eps / 64
    return _Given(x, y, dtype, window, eps if has_effect else 0.0)


def _map(given: _Given) -> Tensor:
    """Returns the map in the dtype of the result; it has no pixels if the window leaves none."""
    x, y, dtype, window, eps = given
    sides = window.output_sides(x.shape[2:])
    if 0 in sides:
        return (x + y)[(..., *(slice(n) for n in sides))].to(dtype)
    if eps == 0:
        return windows.evaluate(x, y, window, want_map=True)[1]
    c1, c2 = window.constants
    bound = eps / (c1 * c2)
    # A large bound multiplies the rounding errors of the factors, which float64 makes small.
    x, y = windows.in_floats(x, y) if bound < 1 else (x.double(), y.double())
    factors = windows.Factors.of(x, y, window)
    similarity = factors.luminance * factors.contrast
    return (similarity / (1 + bound * factors.ratio_of_constants())).to(dtype)


def _loss(given: _Given, reduction: Any) -> Tensor:
    """Returns the loss, reduced over all pixels."""
    arguments.check_choice("reduction", reduction, _REDUCTIONS, NotImplementedError)
    x, y, _, window, eps = given
    sides = window.output_sides(x.shape[2:])
    if reduction == "none" or eps or 0 in sides:
        of_pixels = ((1 - _map(given)) / 2).clamp(0, 1)
        return of_pixels if reduction == "none" else of_pixels.mean() if reduction == "mean" else of_pixels.sum()
    # kornia clamps the loss to [0, 1]. SSIM lies in [-1, 1], so that the clamp would only remove rounding errors.
    loss = windows.evaluate(x, y, window, reduction=reduction, as_distance=True)[0] / 2
    if reduction == "mean":
        return loss
    pixels = x.shape[1]  # the sum over the batch is one of means over channels and pixels
    for n in sides:
        pixels = pixels * n
    return loss * pixels
