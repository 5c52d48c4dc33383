"""The public functions: check, fill defaults, dispatch, reduce."""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ssim_fused import _ops, autograd, composite, multiscale
from ssim_fused.window import Window, gaussian, uniform

Reduction = Literal["elementwise_mean", "sum", "none"] | None
DataRange = float | Tensor | tuple[float, float] | None


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
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Structural similarity (SSIM) of two batches of images or volumes, as a metric or a loss.

    Signature and numbers are those of ``torchmetrics.functional.image.structural_similarity_index_measure``
    (1.9.0); one fused kernel computes the value and, in the same pass over the pixels, the gradients.

    Args:
        preds: images ``[B, C, H, W]`` or volumes ``[B, C, D, H, W]``, of float32, float64, float16 or bfloat16, of
            any strides. The arithmetic of the 16-bit types is float32.
        target: images of the same shape; cast to the dtype of ``preds``.
        gaussian_kernel: whether the window is a Gaussian (else uniform).
        sigma: standard deviation of the Gaussian, > 0; for each of (H, W) or (D, H, W) where a sequence. The window
            has ``2 int(3.5 sigma + 0.5) + 1`` taps.
        kernel_size: size of the uniform window, odd; for each of (H, W) or (D, H, W) where a sequence. Must be valid
            also where the window is a Gaussian. That does not use it, but for the width of volumes, which is padded
            by ``(kernel_size - 1) // 2`` as in the reference: where the Gaussian has another size, the map is wider
            or narrower than the volume.
        reduction: ``"elementwise_mean"`` or ``"sum"`` over the batch, or ``"none"`` or None: one value an image.
        data_range: the images' range L. A number, or a tensor of one; or a tuple ``(low, high)``, to which the
            images are clamped; or None: the larger of both tensors' max - min, through which gradients flow.
        k1: luminance constant, ``c1 = (k1 L)^2``.
        k2: contrast constant, ``c2 = (k2 L)^2``.
        return_full_image: return also the SSIM map, of the shape of ``preds`` (but see ``kernel_size``).
        return_contrast_sensitivity: return also the mean contrast sensitivity ``[B]``, over the pixels whose
            windows lie inside the image. Excludes ``return_full_image``.

    Returns:
        SSIM in the dtype of ``preds``: a scalar, or ``[B]`` without reduction; with one of the ``return_``
        arguments a tuple of it and the map or the contrast sensitivity (never reduced).

    Raises:
        TypeError: something is no tensor, or no number where one is expected.
        RuntimeError: shapes or devices differ, an image is not larger than the padding (half the window), or the
            images are on CUDA and the package was built without it.
        NotImplementedError: the dtype is not one of the four.
        ValueError: another number of dimensions; a ``sigma`` or ``kernel_size`` of the wrong length, even or not
            positive; an unknown ``reduction``; both ``return_`` arguments.

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
    target = _check_images(preds, target)
    sigmas, sizes = _check_window(preds.ndim - 2, gaussian_kernel, sigma, kernel_size)
    _check_reduction(reduction)
    if return_full_image and return_contrast_sensitivity:
        raise ValueError(
            "Arguments `return_full_image` and `return_contrast_sensitivity` are both True and mutually "
            "exclusive: ask for one of them, or call twice."
        )
    preds, target, c1, c2, constants = _apply_range(preds, target, data_range, k1, k2)

    windows, pad = _windows(gaussian_kernel, sigmas, sizes)
    _check_room(preds.shape[2:], windows[1], pad, preds)
    window = Window(*windows, pad, "reflect", c1, c2)

    similarity, contrast, image = _similarity(
        preds, target, constants, window, return_contrast_sensitivity, return_full_image
    )
    reduced = _reduce(similarity, reduction).to(preds.dtype)
    if return_full_image:
        return reduced, image
    if return_contrast_sensitivity:
        return reduced, contrast.to(preds.dtype)
    return reduced


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

    Returns:
        MS-SSIM in the dtype of ``preds``: a scalar, or ``[B]`` without reduction.

    Raises:
        TypeError: as :func:`structural_similarity_index_measure`.
        RuntimeError: as there, at any level.
        NotImplementedError: as there.
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
    if not isinstance(betas, tuple) or not betas or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"`betas` is {betas!r}, expected a tuple of floats, one for each level.")
    if normalize and normalize not in ("relu", "simple"):
        raise ValueError(f"`normalize` is {normalize!r}, expected 'relu', 'simple' or None.")
    target = _check_images(preds, target)
    sigmas, sizes = _check_window(preds.ndim - 2, gaussian_kernel, sigma, kernel_size)
    _check_reduction(reduction)
    _check_pyramid(preds, sizes, len(betas))
    # The reference keeps its exponents in a tensor of the default dtype.
    betas = tuple(torch.tensor(betas, device="cpu").tolist())
    normalize = normalize or "none"
    windows, pad = _windows(gaussian_kernel, sigmas, sizes)
    for level in range(len(betas)):
        _check_room(tuple(n >> level for n in preds.shape[2:]), windows[1], pad, preds, level)

    def level_means(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y, c1, c2, constants = _apply_range(x, y, data_range, k1, k2)
        window = Window(*windows, pad, "reflect", c1, c2)
        return _similarity(x, y, constants, window, want_contrast=True, want_map=False)[:2]

    if isinstance(data_range, numbers.Real) and _kernels_serve(preds):
        *_, c1, c2, _ = _apply_range(preds, target, data_range, k1, k2)
        value = multiscale.fused(preds, target, Window(*windows, pad, "reflect", c1, c2), betas, normalize)
    else:  # the images of a level depend on its range: level by level
        value = multiscale.by_levels(preds, target, betas, normalize, level_means)
    return _reduce(value, reduction).to(preds.dtype)


def _similarity(
    preds: Tensor, target: Tensor, constants: Tensor | None, window: Window, want_contrast: bool, want_map: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if not _kernels_serve(preds):
        return composite.similarity(preds, target, constants, window)
    return autograd.similarity(preds, target, constants, window, want_contrast, want_map)


def _kernels_serve(preds: Tensor) -> bool:
    """Whether the kernels can; else the composite does, which also has forward-mode derivatives."""
    if not _ops.has_kernel(preds.device):
        if preds.device.type == "cuda":
            raise RuntimeError(
                f"`preds` is on {preds.device}, but {_ops.why_no_cuda}. Where nvcc is installed, build ssim_fused "
                "against the torch in use by `SSIM_FUSED_CUDA=1 pip install --no-build-isolation "
                "--force-reinstall --no-deps .`, or move the images to the CPU by `.cpu()`."
            )
        _warn_of_composite(preds.device.type)
        return False
    return forward_ad._current_level < 0


@functools.cache
def _warn_of_composite(device_type: str) -> None:
    warnings.warn(
        f"ssim_fused has no kernel for device '{device_type}' in this build (see ssim_fused.build_info()): "
        "computing with PyTorch's own operations, slower and with more memory.",
        stacklevel=5,
    )


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "elementwise_mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


# The checks raise what the reference raises for the same mistake.


class _NoTensorError(TypeError, AttributeError):
    """The reference fails on the first attribute it misses; what is wrong is the type."""


def _check_images(preds: Tensor, target: Tensor) -> Tensor:
    """Checks both images; returns ``target`` in the dtype of ``preds``."""
    for name, image in (("preds", preds), ("target", target)):
        if not isinstance(image, Tensor):
            raise _NoTensorError(f"`{name}` is expected to be a torch.Tensor, got {type(image).__name__}.")
    if preds.dtype != target.dtype:
        target = target.to(preds.dtype)
    if preds.shape != target.shape:
        raise RuntimeError(
            "`preds` and `target` are expected to have the same shape, "
            f"got {tuple(preds.shape)} and {tuple(target.shape)}."
        )
    if preds.ndim not in (4, 5):
        raise ValueError(
            "`preds` and `target` are expected to have the shape [B, C, H, W] or [B, C, D, H, W], "
            f"got {tuple(preds.shape)}."
        )
    if preds.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise NotImplementedError(
            f"`preds` has the dtype {preds.dtype}, expected float32, float64, float16 or bfloat16: convert it, "
            "for instance by `preds.float()`, and give the matching `data_range`."
        )
    if preds.device != target.device:
        raise RuntimeError(
            f"`preds` is on {preds.device} and `target` on {target.device}: move one of them by `.to(...)`."
        )
    return target


def _check_window(
    axes: int, gaussian_kernel: bool, sigma: float | Sequence[float], kernel_size: int | Sequence[int]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Checks both descriptions of the window; returns them per axis."""
    per_axis = []
    for name, value in (("kernel_size", kernel_size), ("sigma", sigma)):
        values = tuple(value) if isinstance(value, Sequence) else axes * (value,)
        if len(values) != axes:
            raise ValueError(
                f"`{name}` has {len(values)} elements, {value}, expected a number or a sequence of {axes}, "
                "one for each spatial dimension."
            )
        if not all(isinstance(v, numbers.Real) for v in values):
            raise TypeError(f"`{name}` is {value!r}, expected a number or a sequence of {axes} numbers.")
        per_axis.append(values)
    sizes, sigmas = per_axis
    if any(size % 2 == 0 or size <= 0 for size in sizes):
        raise ValueError(f"`kernel_size` is {kernel_size}, expected odd positive numbers.")
    if any(not s > 0 for s in sigmas):
        raise ValueError(f"`sigma` is {sigma}, expected positive numbers.")
    if any(math.isinf(s) for s in sigmas):
        raise OverflowError(f"`sigma` is {sigma}, expected finite numbers.")
    if not gaussian_kernel and not all(isinstance(size, numbers.Integral) for size in sizes):
        raise TypeError(f"`kernel_size` is {kernel_size}, expected integers: the window is uniform.")
    return tuple(float(s) for s in sigmas), tuple(int(size) for size in sizes)


def _check_reduction(reduction: Reduction) -> None:
    if reduction not in ("elementwise_mean", "sum", "none", None):
        raise ValueError(f"`reduction` is {reduction!r}, expected 'elementwise_mean', 'sum', 'none' or None.")


def _windows(
    gaussian_kernel: bool, sigmas: tuple[float, ...], sizes: tuple[int, ...]
) -> tuple[tuple[tuple[float, ...], tuple[int, ...]], tuple[int, ...]]:
    """The axes' taps, one after the other, with their lengths; and the padding of each axis."""
    windows = [gaussian(s) for s in sigmas] if gaussian_kernel else [uniform(size) for size in sizes]
    lengths = tuple(map(len, windows))
    pad = tuple(length // 2 for length in lengths)
    if len(sizes) == 3:  # the reference pads the last axis of a volume for `kernel_size`, whatever the window
        pad = (*pad[:2], sizes[2] // 2)
    return (sum(windows, ()), lengths), pad


_AXES = ("depth", "height", "width")


def _check_room(
    spatial: Sequence[int], lengths: tuple[int, ...], pad: tuple[int, ...], preds: Tensor, level: int = 0
) -> None:
    """Reflection needs every side to be larger than its padding; and with it, a window must fit in."""
    for name, n, length, p in zip(_AXES[-len(spatial) :], spatial, lengths, pad, strict=True):
        at = f" at level {level} of the pyramid" if level else ""
        fewer = " or fewer `betas`" if level else ""
        if n <= p:
            raise RuntimeError(
                f"`preds` has the shape {tuple(preds.shape)}: its {name} {n}{at} is too small for the window, whose "
                f"padding is {p}; it must be larger. Use a smaller `sigma` (or `kernel_size` of a uniform window)"
                f"{fewer}."
            )
        if n + 2 * p < length:
            raise RuntimeError(
                f"`preds` has the shape {tuple(preds.shape)}: its {name} {n}{at}, padded by {p} on either side for "
                f"`kernel_size`, is smaller than the Gaussian of {length} taps. Use a smaller `sigma` or a larger "
                f"`kernel_size`{fewer}."
            )


def _check_pyramid(preds: Tensor, sizes: tuple[int, ...], levels: int) -> None:
    """The reference's own bounds, which keep the coarsest level larger than a window of ``kernel_size``."""
    for name, n, size in zip(("height", "width"), preds.shape[-2:], sizes, strict=False):
        least = max(2**levels, size * max(1, levels - 1) ** 2)
        if n < least:
            raise ValueError(
                f"`preds` has the shape {tuple(preds.shape)}: for {levels} `betas` and `kernel_size` {size} its {name} "
                f"{n} must be at least {least}. Use fewer `betas`, a smaller `kernel_size`, or larger images."
            )


def _check_bounds(bounds: tuple[float, float]) -> None:
    expected = f"`data_range` is {bounds}, expected a tuple (low, high) of two numbers, low < high."
    if len(bounds) < 2:
        raise IndexError(expected)
    if not all(isinstance(bound, numbers.Real) for bound in bounds):
        raise TypeError(expected)
    if len(bounds) > 2 or not bounds[0] < bounds[1]:
        raise ValueError(expected)


def _apply_range(
    preds: Tensor, target: Tensor, data_range: DataRange, k1: float, k2: float
) -> tuple[Tensor, Tensor, float, float, Tensor | None]:
    """The images, clamped where asked, and c1 and c2: numbers, or the tensor [2] where they depend on data."""
    for name, k in (("k1", k1), ("k2", k2)):
        if not isinstance(k, numbers.Real):
            raise TypeError(f"`{name}` is {k!r}, a {type(k).__name__}; expected a number.")
    if isinstance(data_range, tuple):
        _check_bounds(data_range)
        low, high = data_range
        preds, target = preds.clamp(low, high), target.clamp(low, high)
        data_range = high - low
    elif data_range is None:
        dtype = _ops.compute_dtype(preds.dtype)
        spans = [image.max().to(dtype) - image.min().to(dtype) for image in (preds, target)]
        data_range = torch.where(spans[1] > spans[0], spans[1], spans[0])  # max() without a look from the host
    elif not isinstance(data_range, numbers.Real | Tensor):
        raise TypeError(
            f"`data_range` is {data_range!r}, a {type(data_range).__name__}; expected a number, a tuple "
            "(low, high) or None."
        )
    data_range = data_range + (data_range - data_range)  # of an infinite range nothing is known: NaN
    if isinstance(data_range, Tensor):
        constants = torch.stack([(k * data_range.to(preds.device)) ** 2 for k in (k1, k2)])
        return preds, target, 0.0, 0.0, constants.to(_ops.compute_dtype(preds.dtype)).reshape(2)
    return preds, target, float((k1 * data_range) ** 2), float((k2 * data_range) ** 2), None
