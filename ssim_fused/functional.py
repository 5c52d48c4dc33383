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


# The overloads differ in the two `return_` arguments and in the type of the result.
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
    r"""Computes the structural similarity (SSIM) of two batches of images or volumes, as a metric or a loss.

    The signature and the results are those of ``torchmetrics.functional.image.structural_similarity_index_measure``
    1.9.0 ("the reference" below). One fused kernel computes the value and, in the same pass over the pixels, the
    gradients. The arguments after ``*`` are not in the reference.

    Args:
        preds: Images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]`` with any strides. The dtype is float32, float64,
            float16, bfloat16, uint8, uint16, int8 or int16. The 8- and 16-bit types are computed in float32, without
            a float32 copy of the images.
        target: Images of the same shape. If its dtype differs from that of a floating-point ``preds``, ``target`` is
            cast to it and not rescaled. If ``preds`` has an integer dtype, ``target`` must have the same one.
        gaussian_kernel: If True, the window is a Gaussian; otherwise it is uniform.
        sigma: Standard deviation of the Gaussian in pixels, > 0: one number, or a sequence for (H, W) or (D, H, W).
            The window has ``2 int(3.5 sigma + 0.5) + 1`` taps per axis.
        kernel_size: Number of taps of the uniform window, odd: one number, or a sequence for (H, W) or (D, H, W). A
            Gaussian window ignores it, except that it must still be valid and that it sets the padding of the width of
            volumes to ``(kernel_size - 1) // 2``, as in the reference. If the Gaussian has another size, the map is
            wider or narrower than the volume.
        reduction: ``"elementwise_mean"`` or ``"sum"`` over the batch, or ``"none"`` or None for one value per image.
        data_range: The range L of the pixel values, finite and > 0. One of:

            - a number of any real type;
            - a tensor with one element, or ``[B]`` with a range for each image. Its values are not checked, and it
              can require a gradient;
            - a tuple ``(low, high)``, to which both images are clamped; L is ``high - low``;
            - None. For integer images L is the range of their dtype. For floating-point images it is the larger of
              ``preds.max() - preds.min()`` and ``target.max() - target.min()``, through which gradients flow.

            An integer ``target`` is not rescaled to floating-point ``preds``, so a number below 255 or a tuple
            within [-1, 1] is then refused.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        return_full_image: If True, also return the SSIM map, which has the shape of ``preds`` (for exceptions see
            ``kernel_size`` and ``padding``).
        return_contrast_sensitivity: If True, also return the mean contrast sensitivity ``[B]`` over the pixels whose
            windows lie inside the image. It excludes ``return_full_image``.
        padding: How images continue beyond their edges: ``"reflect"``, as in the reference; ``"zero"``; or ``"valid"``
            for no padding. With ``"valid"`` each axis of the map is shorter by the number of taps minus one, and the
            contrast sensitivity is averaged over the whole map. With padding other than ``"reflect"``,
            ``kernel_size`` does not affect the map of a Gaussian window.
        per_channel: If True, return one value per channel, ``[B, C]`` instead of ``[B]``, also for the contrast
            sensitivity. The reduction is then over batch and channels.
            Several images in channels_last layout are copied if they need a gradient, are smaller than 512x512x3, or
            are not on the CPU.
        mask: The pixels that count: ``[B, 1 or C, H, W]`` or ``[B, 1 or C, D, H, W]``, bool, or weights in [0, 1] of a
            floating-point dtype (weights that are not positive count as 0). It must not require a gradient. An image
            with an empty mask has SSIM 1 and a gradient of 0. See ``docs/masks.md``.
        mask_mode: What the mask means. With ``"window"``, each window averages over unmasked pixels only and is
            normalized by their weight. Masked pixels, even NaN, affect no value and no gradient. The map is 1 where
            a window contains no unmasked pixel. With ``"map"``, windows ignore the mask, which instead weights the
            pixels of the map in the means.

    Returns:
        SSIM in the dtype of ``preds`` (float32 for integers): a scalar, or ``[B]`` without reduction (``[B, C]`` with
        ``per_channel``). With one of the ``return_`` arguments, a tuple of SSIM and the map or the contrast
        sensitivity, neither of which is reduced over the batch.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The images do not have four or five dimensions; ``sigma`` or ``kernel_size`` has the wrong length or
            is not positive, or ``kernel_size`` is even; ``data_range`` is not finite and above zero, is a tensor of the
            wrong shape, or cannot be the range of both images; ``reduction`` or ``padding`` is unknown; or both
            ``return_`` arguments are True.
        RuntimeError: Shapes or devices differ; a side of the images is not larger than the padding (half the window),
            or is smaller than the window if there is no padding; the images are on CUDA and the package was built
            without CUDA; or the CPU runs out of memory.
        NotImplementedError: A dtype is not supported. Convert int32, int64 and bool first.
        OverflowError: ``sigma`` or ``kernel_size`` is infinite, or a number is too large for a float.
        IndexError: ``data_range`` is a tuple of one element.
        torch.OutOfMemoryError: The GPU runs out of memory.

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
            "`return_full_image` and `return_contrast_sensitivity` are both True, expected at most one: set one of "
            "them to False, or call the function twice."
        )
    if mask is not None or mask_mode != "window":
        checks.check_mask(preds, target, mask, mask_mode)

    def compute(preds: Tensor, target: Tensor, sigma: Sequence[float], kernel_size: Sequence[int]) -> Sequence[Tensor]:
        each_range = call.range_of(preds, target, data_range)
        numbers = checked_constants(k1, k2)
        preds, target, dtype = call.prepare_images(preds, target)
        images = (preds, target, each_range, mask)
        batches = call.as_batches(*images) if per_channel else [images]
        parts = []
        for x, y, of_batch, weights in batches:
            x, y, number, constants = apply_range(x, y, of_batch, *numbers, weights)
            spec = Spec(
                Window(sigma, kernel_size, None, padding, number, *numbers),
                REDUCTIONS[reduction],
                want_contrast=return_contrast_sensitivity,
                want_map=return_full_image,
                mask_mode=mask_mode,
            )
            unreduced = spec if len(batches) == 1 else spec._replace(reduction=REDUCTIONS["none"])
            parts.append(evaluate(unreduced, x, y, constants, weights))
        if may_prepare:
            prepared.remember(key, spec)
        results = parts[0] if len(batches) == 1 else call.joined(parts, spec)
        return call.in_dtype(call.by_channel(results, preds.shape) if per_channel else results, dtype)

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
    r"""Computes the multi-scale structural similarity (MS-SSIM) of two batches of images or volumes.

    MS-SSIM is the product over the levels of the mean contrast sensitivity (at the coarsest level: of the mean SSIM),
    each raised to its exponent in ``betas``. Each level halves the images of the previous one by averaging blocks of
    2x2 pixels or 2x2x2 voxels. The signature and the results are those of
    ``torchmetrics.functional.image.multiscale_structural_similarity_index_measure`` 1.9.0 ("the reference" below). The
    arguments after ``*`` are not in the reference.

    Args:
        preds: Images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``, with the dtypes that
            :func:`structural_similarity_index_measure` accepts.
        target: Images of the same shape, with the same rules for the dtype.
        gaussian_kernel: If True, the window is a Gaussian; otherwise it is uniform.
        sigma: Standard deviation of the Gaussian in pixels, > 0. It is the same at every level.
        kernel_size: Number of taps of the uniform window, odd. Also for a Gaussian window it sets the least height and
            width of the images (for volumes through its first two elements, as in the reference).
        reduction: ``"elementwise_mean"`` or ``"sum"`` over the batch, or ``"none"`` or None for one value per image.
        data_range: The range of the pixel values, as for :func:`structural_similarity_index_measure`. A tuple ``(low,
            high)`` clamps the images of each level; the levels are made from unclamped images. None takes the range of
            floating-point images again at each level.
        k1: Luminance constant, ``c1 = (k1 L)^2``.
        k2: Contrast constant, ``c2 = (k2 L)^2``.
        betas: Exponents of the levels, a tuple of floats, the finest level first.
        normalize: ``"relu"`` clamps the means at 0, where value and gradient are then 0. ``"simple"`` maps them to
            ``(mean + 1) / 2``. None leaves them unchanged, so that a negative mean gives NaN, as in the reference.
        padding: How the images of every level continue beyond their edges: ``"reflect"``, ``"zero"`` or ``"valid"``.
        per_channel: If True, return one value per channel, ``[B, C]`` instead of ``[B]``: the product of the means of
            that channel.
        mask: The pixels that count, as for :func:`structural_similarity_index_measure`. The mask of each level is the
            average of blocks of 2x2 pixels or 2x2x2 voxels of the previous one.
        mask_mode: What the mask means, as for :func:`structural_similarity_index_measure`. With ``"window"``, the mask
            also weights the pixels in the averages that make the images of the next level.

    Returns:
        MS-SSIM in the dtype of ``preds`` (float32 for integers): a scalar, or ``[B]`` without reduction (``[B, C]``
        with ``per_channel``).

    Raises:
        ValueError: As for :func:`structural_similarity_index_measure`; also if ``betas`` is not a tuple of floats, if
            ``normalize`` is unknown, or if a side of the images is smaller than ``2 ** len(betas)`` or than
            ``kernel_size * max(1, len(betas) - 1) ** 2``.
        RuntimeError: As for :func:`structural_similarity_index_measure`, at any level.
        TypeError, NotImplementedError, OverflowError, IndexError, torch.OutOfMemoryError: As for
            :func:`structural_similarity_index_measure`.

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
