"""The public functions: what they mean, and their way to the operators.

The operators check what they are given; once one of them has refused, :mod:`ssim_fused.checks` explains why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from ssim_fused import _ops, checks, multiscale
from ssim_fused.autograd import evaluate
from ssim_fused.checks import Call
from ssim_fused.score import Score
from ssim_fused.window import DataRange, Window, apply_range

Reduction = Literal["elementwise_mean", "sum", "none"] | None
Padding = Literal["reflect", "zero", "valid"]
MaskMode = Literal["window", "map"]


# What differs between the overloads is the last two of the reference's arguments, and the result.
# fmt: off
@overload
def structural_similarity_index_measure(
    preds: Tensor, target: Tensor, gaussian_kernel: bool = ..., sigma: float | Sequence[float] = ...,
    kernel_size: int | Sequence[int] = ..., reduction: Reduction = ..., data_range: DataRange = ..., k1: float = ...,
    k2: float = ..., return_full_image: Literal[False] = ..., return_contrast_sensitivity: Literal[False] = ...,
    *, padding: Padding = ..., per_channel: bool = ..., mask: Tensor | None = ..., mask_mode: MaskMode = ...,
) -> Tensor: ...
@overload
def structural_similarity_index_measure(
    preds: Tensor, target: Tensor, gaussian_kernel: bool = ..., sigma: float | Sequence[float] = ...,
    kernel_size: int | Sequence[int] = ..., reduction: Reduction = ..., data_range: DataRange = ..., k1: float = ...,
    k2: float = ..., return_full_image: bool = ..., return_contrast_sensitivity: bool = ...,
    *, padding: Padding = ..., per_channel: bool = ..., mask: Tensor | None = ..., mask_mode: MaskMode = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
# fmt: on
def structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: Reduction = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
    *,
    padding: Padding = "reflect",
    per_channel: bool = False,
    mask: Tensor | None = None,
    mask_mode: MaskMode = "window",
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Structural similarity (SSIM) of two batches of images or volumes, as a metric or a loss.

    Signature and numbers are those of ``torchmetrics.functional.image.structural_similarity_index_measure``
    (1.9.0); one fused kernel computes the value and, in the same pass over the pixels, the gradients.

    Args:
        preds: images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``, of float32, float64, float16, bfloat16, uint8
            or uint16, of any strides. The arithmetic of the 8- and 16-bit types is float32; nothing is copied.
        target: images of the same shape; cast to the dtype of ``preds``, not scaled. Beside integers, of the same
            dtype.
        gaussian_kernel: whether the window is a Gaussian (else uniform).
        sigma: standard deviation of the Gaussian, > 0; for each of (H, W) or (D, H, W) where a sequence. The window
            has ``2 int(3.5 sigma + 0.5) + 1`` taps.
        kernel_size: size of the uniform window, odd; for each of (H, W) or (D, H, W) where a sequence. Must be valid
            also where the window is a Gaussian. That does not use it, but for the width of volumes, which is padded
            by ``(kernel_size - 1) // 2`` as in the reference: where the Gaussian has another size, the map is wider
            or narrower than the volume.
        reduction: ``"elementwise_mean"`` or ``"sum"`` over the batch, or ``"none"`` or None: one value an image.
        data_range: the images' range L. A number, or a tensor of one; or a tuple ``(low, high)``, to which the
            images are clamped; or None: of uint8 and uint16 ``preds`` 255 or 65535, of others the larger of both
            tensors' max - min, through which gradients flow.
        k1: luminance constant, ``c1 = (k1 L)^2``.
        k2: contrast constant, ``c2 = (k2 L)^2``.
        return_full_image: return also the SSIM map, of the shape of ``preds`` (but see ``kernel_size``).
        return_contrast_sensitivity: return also the mean contrast sensitivity ``[B]``, over the pixels whose
            windows lie inside the image. Excludes ``return_full_image``.
        padding: how the images continue beyond their edges: ``"reflect"``, as in the reference; ``"zero"``; or
            ``"valid"``, not at all: the map is smaller by the window's size minus one, and the contrast
            sensitivity is averaged over all of it. But for "reflect", the map of volumes does not depend on the
            ``kernel_size`` of another window.
        per_channel: whether a value is that of a channel, not of an image: ``[B, C]`` in place of ``[B]``, of the
            contrast sensitivity, too; ``reduction`` is then over all of them. Images in channels_last are copied.
        mask: which pixels count: ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``, bool, or weights in [0, 1] of any
            float dtype (what is not positive weighs nothing). It has no gradient. An image whose mask is empty scores
            one, with a gradient of zero. See ``docs/masks.md``.
        mask_mode: ``"window"``: windows see only what is not masked, and are normalised by what they see; nothing that
            lies under the mask, a NaN neither, reaches a value or a gradient. The map is one where a window sees
            nothing. ``"map"``: windows as without a mask; it weighs the map's pixels in the means.

    Returns:
        SSIM, a scalar, or ``[B]`` (``[B, C]`` per channel) without reduction, in the dtype of ``preds``, of integers in
        float32; with one of the ``return_`` arguments a tuple of it and the map or the contrast sensitivity (never
        reduced).

    Raises:
        TypeError: something is no tensor, or no number where one is expected.
        RuntimeError: shapes or devices differ, an image is not larger than the padding (half the window), or
            without padding smaller than the window, or the images are on CUDA and the package was built without it.
        NotImplementedError: the dtype is not one of the six.
        ValueError: another number of dimensions; a ``sigma`` or ``kernel_size`` of the wrong length, even or not
            positive; a ``data_range`` of several elements; an unknown ``reduction`` or ``padding``; both ``return_``
            arguments.
        OverflowError: an infinite ``sigma`` or ``kernel_size``.
        IndexError: a ``data_range`` that is a tuple of one.
        torch.OutOfMemoryError: of CUDA; a RuntimeError where the CPU's memory does not suffice.

    References:
        Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural similarity,
        IEEE Transactions on Image Processing 13(4), 2004.

    Example:
        >>> import torch
        >>> from ssim_fused import structural_similarity_index_measure
        >>> target = torch.rand(3, 3, 64, 64)
        >>> preds = (0.75 * target).requires_grad_()
        >>> loss = 1 - structural_similarity_index_measure(preds, target, data_range=1.0)
        >>> loss.backward()

    """
    if return_full_image and return_contrast_sensitivity:
        raise ValueError(
            "Arguments `return_full_image` and `return_contrast_sensitivity` are both True and mutually "
            "exclusive: ask for one of them, or call twice."
        )

    def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], kernel_size: Sequence[int]) -> Sequence[Tensor]:
        preds, target, dtype = _prepare_images(preds, target)
        shape, each = preds.shape, mask
        if per_channel:
            preds, target, each = _as_batch(preds, target, mask)
        preds, target, number, constants = apply_range(preds, target, _range_of(preds, data_range), k1, k2, each)
        score = Score(
            Window(sigma, kernel_size, None, padding, number, k1, k2),
            _ops.REDUCTIONS[reduction],
            want_contrast=return_contrast_sensitivity,
            want_map=return_full_image,
            mask_mode=mask_mode,
        )
        results = evaluate(score, preds, target, constants, each)
        return _in_dtype(_by_channel(results, shape) if per_channel else results, dtype)

    if mask is not None or mask_mode != "window":
        checks.check_mask(preds, target, mask, mask_mode)
    call = Call(gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2, padding, per_channel)
    results = _explained(compute, preds, target, call)
    return results[0] if len(results) == 1 else (results[0], results[1])


def multiscale_structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: Reduction = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    normalize: Literal["relu", "simple"] | None = "relu",
    *,
    padding: Padding = "reflect",
    per_channel: bool = False,
    mask: Tensor | None = None,
    mask_mode: MaskMode = "window",
) -> Tensor:
    r"""Multi-scale structural similarity (MS-SSIM) of two batches of images or volumes, as a metric or a loss.

    The product of each level's mean contrast sensitivity, of the coarsest level's SSIM, to the powers ``betas``;
    each level has half the size of the one before, by the means of 2x2 pixels or 2x2x2 voxels. Signature and numbers
    are those of ``torchmetrics.functional.image.multiscale_structural_similarity_index_measure`` (1.9.0).

    Args:
        preds: images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``, as for
            :func:`structural_similarity_index_measure`.
        target: images of the same shape; cast to the dtype of ``preds``.
        gaussian_kernel: whether the window is a Gaussian (else uniform).
        sigma: standard deviation of the Gaussian, the same at every level.
        kernel_size: size of the uniform window, odd; it also sets the least height and width of the images (of
            volumes by its first two elements, as in the reference).
        reduction: ``"elementwise_mean"`` or ``"sum"`` over the batch, or ``"none"`` or None: one value an image.
        data_range: the images' range. A number; or a tuple ``(low, high)``, to which each level's images are
            clamped (after the pooling of unclamped ones); or None: taken from the images of each level.
        k1: luminance constant.
        k2: contrast constant.
        betas: the levels' exponents, a tuple of floats, the finest level first.
        normalize: ``"relu"`` clamps the means at zero, where value and gradient are then zero; ``"simple"`` maps
            them to ``(mean + 1) / 2``; None leaves them, and a negative mean gives NaN, as in the reference.
        padding: how the images of every level continue beyond their edges, as there.
        per_channel: whether a value is that of a channel, as there: means, powers and product are each channel's.
        mask: as for :func:`structural_similarity_index_measure`. A level's mask is the mean of 2x2 pixels or 2x2x2
            voxels of the mask before.
        mask_mode: as there; ``"window"`` also weighs the pixels in the means that make a level's images.

    Returns:
        MS-SSIM, a scalar, or ``[B]`` (``[B, C]`` per channel) without reduction, in the dtype of ``preds``.

    Raises:
        TypeError: as :func:`structural_similarity_index_measure`.
        RuntimeError: as there, at any level.
        NotImplementedError, OverflowError, IndexError, torch.OutOfMemoryError: as there.
        ValueError: as there; ``betas`` no tuple of floats; an unknown ``normalize``; images smaller than
            ``2 ** len(betas)`` or than ``kernel_size * max(1, len(betas) - 1) ** 2``.

    References:
        Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, Asilomar
        Conference on Signals, Systems and Computers, 2003.

    Example:
        >>> import torch
        >>> from ssim_fused import multiscale_structural_similarity_index_measure
        >>> target = torch.rand(3, 3, 256, 256)
        >>> preds = (0.75 * target).requires_grad_()
        >>> loss = 1 - multiscale_structural_similarity_index_measure(preds, target, data_range=1.0)
        >>> loss.backward()

    """
    checks.check_levels(betas, normalize)
    if mask is not None or mask_mode != "window":
        checks.check_mask(preds, target, mask, mask_mode)

    def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], kernel_size: Sequence[int]) -> Sequence[Tensor]:
        checks.check_pyramid(preds.shape, kernel_size, len(betas))
        preds, target, dtype = _prepare_images(preds, target)
        shape, each = preds.shape, mask
        if per_channel:
            preds, target, each = _as_batch(preds, target, mask)
        window = Window(sigma, kernel_size, None, padding, 1.0, k1, k2)
        score = Score(
            window, _ops.REDUCTIONS[reduction], betas=multiscale.rounded(betas), normalize=normalize or "none",
            mask_mode=mask_mode,
        )  # fmt: skip
        results = multiscale.evaluate(score, preds, target, _range_of(preds, data_range), each)
        return _in_dtype(_by_channel(results, shape) if per_channel else results, dtype)

    call = Call(gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2, padding, per_channel, len(betas))
    return _explained(compute, preds, target, call)[0]


ssim = structural_similarity_index_measure
ms_ssim = multiscale_structural_similarity_index_measure


def _explained(compute: Callable[..., Sequence[Tensor]], preds: Tensor, target: Tensor, call: Call) -> Sequence[Tensor]:
    """What ``compute`` returns, or the reference's exception for what is wrong with the call."""
    given = _elements(call.sigma), _elements(call.kernel_size)
    # What a trace refuses is not tried again.
    if not call.gaussian_kernel or None in given or torch.compiler.is_compiling():
        return compute(preds, target, *checks.check_call(preds, target, call))
    try:
        return compute(preds, target, *given)
    except Exception as error:  # of any type: the parser of the operators' arguments, an operator, or Python refused
        if "CUDA out of memory" in str(error):  # torch's own type does not come through the C interface
            raise torch.OutOfMemoryError(str(error)) from error
        if "driver version is insufficient" in str(error):  # for the CUDA runtime in the library; torch's may be older
            raise RuntimeError(f"{error}\n{_ops.driver_is_too_old()}") from error
        meant = checks.check_call(preds, target, call)  # raises what is wrong; if nothing is, ours is the caller's
        if all(type(v) is type(w) for a, b in zip(given, meant, strict=True) for v, w in zip(a, b, strict=False)):
            raise
    return compute(preds, target, *meant)  # numbers of types that the operators do not take


def _elements(value: float | Sequence[float]) -> Sequence[float] | None:
    """As the operators take it; None where these would take for all axes, or for none, what the reference refuses."""
    if isinstance(value, tuple | list):
        return value if len(value) > 1 else None
    return (value,)


def _prepare_images(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.dtype]:
    """Both images as the operators take them, and the dtype of the results.

    That is the dtype of ``preds``, of integers and under autocast float32. Of two dtypes, target's is cast, but where
    the operators read it as it is.
    """
    dtype = preds.dtype
    if dtype is torch.float32 and target.dtype is torch.float32:
        return preds, target, dtype
    if target.is_complex():
        checks.check_images(preds, target)
    is_autocast = torch.is_autocast_enabled(preds.device.type) and dtype is not torch.float64
    of_results = torch.float32 if is_autocast else _ops.picture_dtype(dtype)
    if dtype == target.dtype or dtype in _ops.LARGEST or _ops.has_integers_of(preds, target):
        return preds, target, of_results
    if is_autocast:
        return preds.float(), target.float(), of_results
    return preds, target.to(dtype), of_results


def _range_of(preds: Tensor, data_range: DataRange) -> DataRange:
    """The range, by default that of the type where this has integers."""
    return _ops.LARGEST.get(preds.dtype) if data_range is None else data_range


def _as_batch(preds: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Each channel as an image of its own: a batch of ``B C`` with one channel."""
    checks.check_images(preds, target)  # before the shapes are hidden
    if mask is not None:
        mask = mask.expand(preds.shape).flatten(0, 1).unsqueeze(1)
    return preds.flatten(0, 1).unsqueeze(1), target.flatten(0, 1).unsqueeze(1), mask


def _by_channel(results: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
    """The results of such a batch for the images of that shape; what is reduced already stays."""
    return [result.reshape(*shape[:2], *result.shape[2:]) if result.ndim else result for result in results]


def _in_dtype(results: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    return results if results[-1].dtype is dtype and results[0].dtype is dtype else [r.to(dtype) for r in results]
