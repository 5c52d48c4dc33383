"""MS-SSIM: by one operator where c1 and c2 are the same at every level, else level by level."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from ssim_fused._core import autograd, checks, composite
from ssim_fused._core.spec import Reduction, Spec
from ssim_fused._core.window import DataRange, Window, apply_range

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang, Simoncelli and Bovik, 2003, the finest level first


def rounded(betas: tuple[float, ...]) -> tuple[float, ...]:
    """The exponents as the reference keeps them: in a tensor of the default dtype.

    To 24 bits in arithmetic that torch.compile can follow (Veltkamp's splitting).
    """
    if torch.get_default_dtype() == torch.float64:
        return betas
    return tuple((s := 536870913.0 * beta) - (s - beta) for beta in betas)


def evaluate(
    spec: Spec, preds: Tensor, target: Tensor, data_range: DataRange, mask: Tensor | None = None
) -> Sequence[Tensor]:
    """MS-SSIM as ``spec`` asks for it."""
    window = spec.window
    if data_range is not None and not isinstance(data_range, tuple):
        *_, number, constants = apply_range(preds, target, data_range, window.k1, window.k2)
        spec = spec._replace(window=window._replace(data_range=number))
        return autograd.evaluate(spec, preds, target, constants, mask)

    # The images of a level depend on its range.
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
    """The mean of the pixel term, ``[B]``, by the operator: PyTorch's own mean depends on the number of threads.

    SSIM has the weight zero, and a window of one pixel costs the least. Its constants are positive, so that it is
    finite for finite pixels.
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
    """The exponents ``betas`` of MS-SSIM for images that are too small for all five levels.

    Those of as many levels as :func:`~ssim_fused.multiscale_structural_similarity_index_measure` takes for images of
    these sides, divided by their sum. Scores with other levels are not comparable.

    Args:
        height: of the images.
        width: of the images.
        kernel_size: as it will be passed to the function; so are the following.
        depth: of volumes.
        gaussian_kernel: whether the window is a Gaussian.
        sigma: of the Gaussian.
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``.

    Returns:
        One to five exponents, the finest level's first; the usual five, as they are, where all fit.

    Raises:
        ValueError, RuntimeError: as the function does where not even one level fits.
        TypeError: a side is not an integer; or as the function does for ``kernel_size``, ``gaussian_kernel`` and
            ``sigma``.

    Warns:
        UserWarning: where fewer than five levels fit.

    Example:
        >>> import torch
        >>> from ssim_fused import fitting_betas, ms_ssim
        >>> preds, target = torch.rand(2, 4, 3, 100, 120)
        >>> spec = ms_ssim(preds, target, data_range=1.0, betas=fitting_betas(100, 120))  # of four levels

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
        f"Images of {' x '.join(map(str, sides))} carry {levels} of MS-SSIM's {len(BETAS)} levels: the score is not "
        "comparable with that of larger ones.",
        stacklevel=2,
    )
    return tuple(beta / sum(BETAS[:levels]) for beta in BETAS[:levels])
