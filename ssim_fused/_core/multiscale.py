"""Computes MS-SSIM: by one operator if c1 and c2 are the same at every level, otherwise level by level."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ssim_fused._core import autograd, checks, composite
from ssim_fused._core.spec import Reduction, Spec
from ssim_fused._core.window import DataRange, Window, apply_range

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from Wang, Simoncelli and Bovik, 2003, the finest level first


def rounded(betas: tuple[float, ...]) -> tuple[float, ...]:
    """Rounds the exponents to the default dtype, in which the reference stores them.

    Rounding to the 24 bits of float32 uses Veltkamp's splitting, which torch.compile can trace.
    """
    if torch.get_default_dtype() == torch.float64:
        return betas
    return tuple((s := 536870913.0 * beta) - (s - beta) for beta in betas)


def evaluate(
    spec: Spec, preds: Tensor, target: Tensor, data_range: DataRange, mask: Tensor | None = None
) -> Sequence[Tensor]:
    """Returns MS-SSIM, or the loss made of it, as ``spec`` requests; then the terms if requested."""
    window = spec.window
    if data_range is not None and not isinstance(data_range, tuple):
        *_, number, constants = apply_range(preds, target, data_range, window.k1, window.k2)
        spec = spec._replace(window=window._replace(data_range=number))
        return autograd.evaluate(spec, preds, target, constants, mask)

    # The range is None or a tuple. Each level then has its own range or clamps its own images.
    means = []
    masked = composite.Masked.of(mask, spec.mask_mode, preds)
    for level, (x, y, of_level) in enumerate(composite.pyramid(preds, target, len(spec.betas), masked)):
        is_last = level == len(spec.betas) - 1
        weights = None if of_level is None else of_level.weights
        x, y, number, constants = apply_range(x, y, data_range, window.k1, window.k2, weights)
        of_means = Spec(
            window._replace(data_range=number), Reduction.NONE, want_contrast=not is_last,
            mask_mode=spec.mask_mode,
        )  # fmt: skip
        means.append(autograd.evaluate(of_means, x, y, constants, weights)[0 if is_last else 1])
    value = composite.level_product(means, spec.betas, spec.normalize)
    if spec.pixel_term != "none":
        images = apply_range(preds, target, data_range, window.k1, window.k2)[:2]
        return spec.with_pixels(_pixel_mean(spec, *images, mask), 1 - value)
    return [spec.reduced(1 - value if spec.as_distance else value)]


def _pixel_mean(spec: Spec, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Returns the mean of the pixel term ``[B]``, computed by the operator.

    PyTorch's own mean depends on the number of threads. In this call SSIM has the weight 0 and a window of one pixel,
    which costs the least. Its constants are positive, so that SSIM is finite for finite pixels.
    """
    one_pixel = Window((), (1,) * (preds.ndim - 2), padding="valid")
    of_pixels = Spec(
        one_pixel, Reduction.NONE, as_distance=True, mask_mode=spec.mask_mode, pixel_term=spec.pixel_term,
        ssim_weight=0.0, pixel_eps=spec.pixel_eps,
    )  # fmt: skip
    return autograd.evaluate(of_pixels, preds, target, mask=mask)[0]


def fitting_betas(
    height: int,
    width: int,
    kernel_size: int | Sequence[int] = 11,
    *,
    depth: int | None = None,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    padding: str = "reflect",
) -> tuple[float, ...]:
    """Returns exponents ``betas`` of MS-SSIM for images that may be too small for all five levels.

    If ``n`` levels fit, they are the first ``n`` of the usual five exponents, divided by their sum. Scores with
    different numbers of levels are not comparable.

    Args:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        kernel_size: The argument that will be passed to
            :func:`~ssim_fused.multiscale_structural_similarity_index_measure`; so are ``gaussian_kernel``, ``sigma``
            and ``padding``.
        depth: Depth of volumes in voxels, or None for images.
        gaussian_kernel: If True, the window is a Gaussian; otherwise it is uniform.
        sigma: Standard deviation of the Gaussian in pixels.
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``.

    Returns:
        One to five exponents, the finest level first. If all five levels fit, they are returned unchanged.

    Raises:
        ValueError, RuntimeError: Not even one level fits, or an argument is not valid, as for
            :func:`~ssim_fused.multiscale_structural_similarity_index_measure`.
        TypeError: A side is not an integer, or an argument has the wrong type.

    Warns:
        UserWarning: Fewer than five levels fit.

    References:
        Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, Asilomar
        Conference on Signals, Systems and Computers, 2003.

    Example:
        >>> import torch
        >>> from ssim_fused import fitting_betas, ms_ssim
        >>> preds, target = torch.rand(2, 4, 3, 100, 120)
        >>> score = ms_ssim(preds, target, data_range=1.0, betas=fitting_betas(100, 120))  # with four levels

    """
    for name, side in (("height", height), ("width", width), ("depth", depth)):
        if not isinstance(side, numbers.Integral) and (name != "depth" or side is not None):
            raise TypeError(f"`{name}` is {side!r}, a {type(side).__name__}; expected an integer.")
    sides = (height, width) if depth is None else (depth, height, width)
    sigmas, sizes = checks.check_window(len(sides), gaussian_kernel, sigma, kernel_size)
    checks.check_padding(padding)
    window = Window(sigmas if gaussian_kernel else (), sizes, padding=padding)
    levels = next((n for n in range(len(BETAS), 1, -1) if checks.fits((1, 1, *sides), window, n)), 1)
    checks.check_sides((1, 1, *sides), window, levels)
    if levels == len(BETAS):
        return BETAS
    warnings.warn(
        f"Images of {' x '.join(map(str, sides))} have room for {levels} of the {len(BETAS)} levels of MS-SSIM: the "
        "score is not comparable with that of larger images.",
        stacklevel=2,
    )
    return tuple(beta / sum(BETAS[:levels]) for beta in BETAS[:levels])
