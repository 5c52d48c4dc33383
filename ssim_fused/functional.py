"""SSIM and MS-SSIM as functions, with the signatures of torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ssim_fused._core import call, checks, multiscale, prepared
from ssim_fused._core.autograd import evaluate
from ssim_fused._core.multiscale import fitting_betas as fitting_betas
from ssim_fused._core.scripting import not_scriptable
from ssim_fused._core.spec import REDUCTIONS, MaskMode, Spec
from ssim_fused._core.window import DataRange, Padding, Window, apply_range, checked_constants

Reduction = Literal["elementwise_mean", "sum", "none"] | None


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
@not_scriptable
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
        data_range: the images' range L, above zero and finite. A number of any type; or a tensor of one element, or
            ``[B]``, a range of each image, whose numbers are not checked, and which has a gradient; or a tuple
            ``(low, high)``, to which the images are clamped; or None: of integers the range of their type, of floats
            the larger of both tensors' max - min, through which gradients flow. An integer ``target`` next to float
            ``preds`` is not scaled: a number below 255, or a tuple within [-1, 1], is refused.
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
            positive; a ``data_range`` that is not above zero, not finite, a tensor of another shape, or that cannot be
            the range of both images; an unknown ``reduction`` or ``padding``; both ``return_``
            arguments.
        OverflowError: an infinite ``sigma`` or ``kernel_size``; a number that is too large for a float.
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
    key, may_prepare = None, False
    is_value = return_full_image is False and return_contrast_sensitivity is False and per_channel is False
    if is_value and mask is None and not is_dynamo_compiling():
        key = (
            gaussian_kernel, sigma, kernel_size, data_range, k1, k2, reduction, padding, mask_mode,
            type(gaussian_kernel), type(sigma), type(kernel_size), type(data_range), type(k1), type(k2),
        )  # fmt: skip
        if (entry := prepared.find(key)) is not None and (outputs := prepared.run(entry, preds, target)) is not None:
            return outputs[0]
        may_prepare = prepared.may_prepare(gaussian_kernel, sigma, kernel_size, data_range, k1, k2)
    if not is_value:
        checks.check_flags(
            return_full_image=return_full_image, return_contrast_sensitivity=return_contrast_sensitivity,
            per_channel=per_channel,
        )  # fmt: skip
    if return_full_image and return_contrast_sensitivity:
        raise ValueError(
            "Arguments `return_full_image` and `return_contrast_sensitivity` are both True and mutually "
            "exclusive: ask for one of them, or call twice."
        )
    if mask is not None or mask_mode != "window":
        checks.check_mask(preds, target, mask, mask_mode)

    def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], kernel_size: Sequence[int]) -> Sequence[Tensor]:
        each_range = call.range_of(preds, target, data_range)
        numbers = checked_constants(k1, k2)
        preds, target, dtype = call.prepare_images(preds, target)
        shape, each = preds.shape, mask
        if per_channel:
            preds, target, each_range, each = call.as_batch(preds, target, each_range, mask)
        preds, target, number, constants = apply_range(preds, target, each_range, *numbers, each)
        spec = Spec(
            Window(sigma, kernel_size, None, padding, number, *numbers),
            REDUCTIONS[reduction],
            want_contrast=return_contrast_sensitivity,
            want_map=return_full_image,
            mask_mode=mask_mode,
        )
        results = evaluate(spec, preds, target, constants, each)
        if may_prepare:
            prepared.remember(key, spec)
        return call.in_dtype(call.by_channel(results, shape) if per_channel else results, dtype)

    arguments = call.Call(gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2, padding, per_channel)
    results = call.explained(compute, preds, target, arguments)
    return results[0] if len(results) == 1 else (results[0], results[1])


@not_scriptable
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
        data_range: the images' range, as there. A tuple ``(low, high)`` clamps each level's images (after the pooling
            of unclamped ones); None takes the range of floats from the images of each level.
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
    key, may_prepare = None, False
    if mask is None and type(betas) is tuple and per_channel is False and not is_dynamo_compiling():
        key = (
            gaussian_kernel, sigma, kernel_size, data_range, k1, k2, reduction, padding, mask_mode, betas, normalize,
            type(gaussian_kernel), type(sigma), type(kernel_size), type(data_range), type(k1), type(k2),
            *map(type, betas),
        )  # fmt: skip
        if (entry := prepared.find(key)) is not None and (outputs := prepared.run(entry, preds, target)) is not None:
            return outputs[0]
        may_prepare = prepared.may_prepare(gaussian_kernel, sigma, kernel_size, data_range, k1, k2)
    checks.check_flags(per_channel=per_channel)
    checks.check_levels(betas, normalize)
    if mask is not None or mask_mode != "window":
        checks.check_mask(preds, target, mask, mask_mode)

    def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], kernel_size: Sequence[int]) -> Sequence[Tensor]:
        checks.check_pyramid(preds.shape, kernel_size, len(betas))
        each_range = call.range_of(preds, target, data_range)
        numbers = checked_constants(k1, k2)
        preds, target, dtype = call.prepare_images(preds, target)
        shape, each = preds.shape, mask
        if per_channel:
            preds, target, each_range, each = call.as_batch(preds, target, each_range, mask)
        window = Window(sigma, kernel_size, None, padding, 1.0, *numbers)
        spec = Spec(
            window, REDUCTIONS[reduction], betas=multiscale.rounded(betas), normalize=normalize or "none",
            mask_mode=mask_mode,
        )  # fmt: skip
        results = multiscale.evaluate(spec, preds, target, each_range, each)
        if may_prepare and isinstance(each_range, float):
            prepared.remember(key, spec._replace(window=window._replace(data_range=each_range)))
        return call.in_dtype(call.by_channel(results, shape) if per_channel else results, dtype)

    arguments = call.Call(
        gaussian_kernel, sigma, kernel_size, reduction, data_range, k1, k2, padding, per_channel, len(betas)
    )
    return call.explained(compute, preds, target, arguments)[0]


ssim = structural_similarity_index_measure
ms_ssim = multiscale_structural_similarity_index_measure
