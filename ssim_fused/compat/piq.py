"""Drop-in for piq 0.8.0: ``ssim``, ``multi_scale_ssim``, ``SSIMLoss`` and ``MultiScaleSSIMLoss``.

Images are not padded, and ``ssim`` downsamples large ones. As in piq:

- A level with an odd side repeats its first row and column before it is halved.
- ``SSIMLoss`` with ``reduction="sum"`` is one minus the sum of the scores.
- Pixels outside the range are refused. The check is one more pass over the images, and on an accelerator it waits for
  the result; ``python -O`` skips it.

With ``corrected=True``, levels are made of whole blocks of 2x2 pixels, the sum of losses is the sum over the images,
and pixels are not checked.

Differences: complex images are refused, and losses are computed directly, not as one minus the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import arguments, windows
from ssim_fused.compat.arguments import DefaultRange
from ssim_fused.compat.windows import BETAS, Window

Reduction = Literal["none", "mean", "sum"]
_REDUCTIONS = ("none", "mean", "sum")
_RANGE = DefaultRange(1.0)
_NAMES = ("x", "y")
_TRANSLATED = {"preds": "x", "target": "y", "betas": "scale_weights", "sigma": "kernel_sigma"}


@arguments.speaks_of(**_TRANSLATED)
def ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = _RANGE,
    reduction: Reduction = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
    *,
    corrected: bool = False,
) -> Tensor | list[Tensor]:
    """Computes SSIM of two batches of images, as ``piq.ssim``.

    Args:
        x: Images ``[N, C, H, W]`` with pixels in [0, ``data_range``].
        y: Images of the same shape.
        kernel_size: Number of taps of the Gaussian, odd.
        kernel_sigma: Standard deviation of the Gaussian in pixels, > 0.
        data_range: The range of the pixel values, > 0. The default is the range of the dtype for integers, and 1 for
            floats.
        reduction: ``"mean"`` or ``"sum"`` over the batch, or ``"none"``.
        full: If True, also return the contrast sensitivity, reduced in the same way.
        downsample: If True, images whose smaller side has 384 pixels or more are reduced by block averages, to about
            256 pixels.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        corrected: If True, do not check that pixels lie between 0 and the range.

    Returns:
        A scalar, or ``[N]`` without reduction. With ``full``, a list of it and the contrast sensitivity.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The shapes differ or do not have four dimensions, ``kernel_size`` is even or too large for the
            images, a pixel is outside the range, or ``reduction`` is unknown.
        NotImplementedError: A dtype is not supported.

    References:
        piq, https://github.com/photosynthesis-team/piq.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> value, contrast = ssim(0.9 * target, target, data_range=1.0, full=True)

    """
    x, y, window = _prepared(
        x, y, kernel_size, kernel_sigma, data_range, reduction, downsample, k1, k2, corrected=corrected
    )
    value, *others = windows.evaluate(x, y, window, reduction=reduction, want_contrast=full)
    return [value, *(_reduced(other, reduction) for other in others)] if full else value


@arguments.speaks_of(**_TRANSLATED)
def multi_scale_ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = _RANGE,
    reduction: Reduction = "mean",
    scale_weights: Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    *,
    corrected: bool = False,
) -> Tensor:
    """Computes MS-SSIM of two batches of images ``[N, C, H, W]``, as ``piq.multi_scale_ssim``.

    The score of an image is the mean over its channels of the product of the levels, whose means are clamped at 0.

    ``scale_weights`` is a tensor ``[levels]`` of exponents, which are divided by their sum; the default is the usual
    five exponents, undivided. The other arguments, the result and the errors are those of :func:`ssim`.

    Sides must be larger than ``(kernel_size - 1) 2^(levels - 1)``: 160 pixels for five levels and 11 taps. A level with
    an odd side repeats its first row and column before it is halved, which shifts the image. With ``corrected``, the
    last row or column is dropped instead, and the coarsest level must contain the window, which takes 176 pixels.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import multi_scale_ssim
        >>> target = torch.rand(2, 3, 64, 64)
        >>> score = multi_scale_ssim(0.9 * target, target, scale_weights=torch.tensor([0.3, 0.7]))

    """
    exponents = _exponents(scale_weights, x)
    x, y, window = _prepared(
        x, y, kernel_size, kernel_sigma, data_range, reduction, False, k1, k2, len(exponents), corrected
    )
    return _multi_scale(x, y, window, reduction, exponents, corrected)


class SSIMLoss(nn.Module):
    """The loss of one minus :func:`ssim`, with the same arguments.

    With ``reduction="sum"``, the loss is one minus the sum of the scores, or with ``corrected`` the sum of the losses.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import SSIMLoss
        >>> target = torch.rand(2, 3, 64, 64)
        >>> preds = (0.9 * target).requires_grad_()
        >>> SSIMLoss(data_range=1.0)(preds, target).backward()

    """

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: Reduction = "mean",
        data_range: float = _RANGE,
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        _check(kernel_size, kernel_sigma, k1, k2, reduction)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.downsample, self.reduction, self.data_range, self.corrected = downsample, reduction, data_range, corrected

    @arguments.speaks_of(**_TRANSLATED)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y, window = _prepared(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction, self.downsample, self.k1,
            self.k2, corrected=self.corrected,
        )  # fmt: skip
        loss = windows.evaluate(x, y, window, reduction=self.reduction, as_distance=True)[0]
        return _as_package_sums(loss, x, self.reduction, self.corrected)


class MultiScaleSSIMLoss(nn.Module):
    """The loss of one minus :func:`multi_scale_ssim`, with the same arguments.

    As in piq, the default exponents are also divided by their sum, and the exponents are a buffer ``scale_weights``, so
    that checkpoints are compatible.

    Example:
        >>> import torch
        >>> from ssim_fused.compat.piq import MultiScaleSSIMLoss
        >>> target = torch.rand(1, 3, 192, 192)
        >>> preds = (0.9 * target).requires_grad_()
        >>> MultiScaleSSIMLoss()(preds, target).backward()

    """

    scale_weights: Tensor

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: Tensor | None = None,
        reduction: Reduction = "mean",
        data_range: float = _RANGE,
        *,
        corrected: bool = False,
    ) -> None:
        super().__init__()
        _check(kernel_size, kernel_sigma, k1, k2, reduction)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.reduction, self.data_range, self.corrected = reduction, data_range, corrected
        weights = torch.tensor(BETAS) if scale_weights is None else scale_weights
        _exponents(weights, weights)  # only for its checks
        self.register_buffer("scale_weights", weights)
        self._known: tuple[Tensor, int, Sequence[float] | Tensor] | None = None
        self._update_exponents(self.scale_weights)

    def _update_exponents(self, of: Tensor) -> Sequence[float] | Tensor:
        """Returns the exponents. It reads the buffer only after a change, because reading may wait for a device."""
        known = self._known
        if known is None or (not torch.compiler.is_compiling() and (known[0] is not of or known[1] != of._version)):
            known = self._known = (of, of._version, _exponents(of, of))
        return known[2]

    @arguments.speaks_of(**_TRANSLATED)
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        exponents = self._update_exponents(self.scale_weights)
        x, y, window = _prepared(
            x, y, self.kernel_size, self.kernel_sigma, self.data_range, self.reduction, False, self.k1, self.k2,
            len(exponents), self.corrected,
        )  # fmt: skip
        loss = _multi_scale(x, y, window, self.reduction, exponents, self.corrected, as_distance=True)
        return _as_package_sums(loss, x, self.reduction, self.corrected)


def _as_package_sums(loss: Tensor, x: Tensor, reduction: str, corrected: bool) -> Tensor:
    """Turns a sum of losses into one minus the sum of the scores, as in piq, unless ``corrected``."""
    return loss if corrected or reduction != "sum" else loss - (x.shape[0] - 1)


def _check(kernel_size: Any, kernel_sigma: Any, k1: Any, k2: Any, reduction: Any) -> tuple[int, float, list[float]]:
    arguments.check_choice("reduction", reduction, _REDUCTIONS)
    size, sigma = (
        arguments.check_size("kernel_size", kernel_size),
        arguments.check_positive("kernel_sigma", kernel_sigma),
    )
    return size, sigma, arguments.check_constants(k1=k1, k2=k2)


def _prepared(
    x: Tensor, y: Tensor, kernel_size: int, kernel_sigma: float, data_range: float, reduction: str, downsample: bool,
    k1: float, k2: float, levels: int = 1, corrected: bool = False,
) -> tuple[Tensor, Tensor, Window]:  # fmt: skip
    """Checks the arguments; returns both images, downsampled if required, and the window."""
    size, sigma, (k1, k2) = _check(kernel_size, kernel_sigma, k1, k2, reduction)
    arguments.check_images(x, y, _NAMES)
    number = arguments.check_range("data_range", data_range, x, y, _NAMES, takes_wide_integers=True)
    if __debug__ and not corrected:
        _check_pixels(x, y, number)
    factor = max(1, round(min(x.shape[-2:]) / 256)) if downsample else 1
    least = size << levels - 1 if corrected else (size - 1 << levels - 1) + 1
    why = f"`kernel_size` {size}"
    if levels > 1:
        why += f" and {levels} `scale_weights`: use fewer of these, or a smaller `kernel_size`"
    elif factor > 1:
        why += f" after its reduction by {factor}: pass `downsample=False`"
    arguments.check_room("x", x.shape, (least * factor,) * 2, why)
    if factor > 1:
        x, y = (F.avg_pool2d(image, factor) for image in windows.in_floats(x, y))
    return x, y, windows.gaussian_window((size, size), (sigma, sigma), (number, k1, k2))


def _check_pixels(x: Tensor, y: Tensor, data_range: float) -> None:
    """Refuses pixels outside the range. It is skipped in traces, transforms and captures, which cannot read pixels."""
    if torch.compiler.is_compiling() or x.numel() == 0 or x.is_meta or torch._C._are_functorch_transforms_active():
        return
    if x.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    for name, image in zip(_NAMES, (x, y), strict=True):
        if image.dtype in (torch.uint8, torch.bool) and data_range >= 255:
            continue
        # PyTorch has no aminmax of uint16.
        low, high = torch.stack(
            torch.aminmax(image.detach().float() if image.dtype == torch.uint16 else image.detach())
        )
        if low < 0 or high > data_range:
            raise ValueError(
                f"`{name}` has pixels from {low.item():g} to {high.item():g}, expected 0 to the `data_range`, "
                f"{data_range:g}: pass the `data_range` of the images, or clamp them."
            )


def _exponents(weights: Tensor | None, like: Tensor) -> Sequence[float] | Tensor:
    """Returns the exponents of the levels, divided by their sum; a tensor if they require a gradient."""
    if weights is None:
        return BETAS
    if not isinstance(weights, Tensor):
        raise TypeError(f"`scale_weights` is a {type(weights).__name__}, expected a torch.Tensor or None.")
    if weights.ndim == 0 or weights.shape[0] != weights.numel() or weights.numel() == 0:
        raise ValueError(f"`scale_weights` has the shape {tuple(weights.shape)}, expected [levels].")
    if weights.is_complex():
        raise TypeError(f"`scale_weights` has the dtype {weights.dtype}, expected real numbers.")
    shares = weights.reshape(-1) / weights.sum()
    if weights.requires_grad and torch.is_grad_enabled():
        return shares.to(like.device)
    return tuple(shares.detach().double().tolist())


def _multi_scale(
    x: Tensor, y: Tensor, window: Window, reduction: str, exponents: Sequence[float] | Tensor, corrected: bool,
    as_distance: bool = False,
) -> Tensor:  # fmt: skip
    """Returns MS-SSIM, or with ``as_distance`` one minus it, reduced over the batch."""
    levels, is_mean = len(exponents), reduction == "mean"
    is_even = windows.halves_evenly(x.shape[2:], levels) and min(x.shape[2:]) >= window.kernel_size[0] << levels - 1
    if not isinstance(exponents, Tensor) and (corrected or is_even):
        of_channels = windows.evaluate(
            x, y, window, reduction="mean" if is_mean else "none", per_channel=True, betas=exponents,
            as_distance=as_distance,
        )[0]  # fmt: skip
        return of_channels if is_mean else _reduced(of_channels.mean(1), reduction)
    dtype = windows.readable(x, y)[2]
    contrast = windows.contrast_alone(window)

    def of_level(x: Tensor, y: Tensor, is_last: bool) -> Tensor:
        return windows.evaluate(x, y, window if is_last else contrast, per_channel=True)[0]

    pool = _halved_in_blocks if corrected else _halved
    of_channels = windows.multiscale(*windows.in_floats(x, y), exponents, pool, of_level)
    if as_distance:
        of_channels = 1 - of_channels
    return _reduced(of_channels.mean(1), reduction).to(dtype)


def _halved(image: Tensor) -> Tensor:
    """Averages blocks of 2x2 pixels. If a side is odd, the first row and the first column are repeated."""
    more = max(n % 2 for n in image.shape[2:])
    return F.avg_pool2d(F.pad(image, (more, 0, more, 0), mode="replicate"), 2)


def _halved_in_blocks(image: Tensor) -> Tensor:
    return F.avg_pool2d(image, 2)


def _reduced(values: Tensor, reduction: str) -> Tensor:
    return values.mean() if reduction == "mean" else values.sum() if reduction == "sum" else values
