"""MS-SSIM: by one operator where c1 and c2 are the same at every level, else level by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssim_fused import _ops, autograd, composite
from ssim_fused.autograd import Score
from ssim_fused.window import DataRange, apply_range


def rounded(betas: tuple[float, ...]) -> tuple[float, ...]:
    """The exponents as the reference keeps them: in a tensor of the default dtype.

    To 24 bits in arithmetic that torch.compile can follow (Veltkamp's splitting).
    """
    if torch.get_default_dtype() == torch.float64:
        return betas
    return tuple((s := 536870913.0 * beta) - (s - beta) for beta in betas)


def evaluate(score: Score, preds: Tensor, target: Tensor, data_range: DataRange) -> Sequence[Tensor]:
    """MS-SSIM as ``score`` asks for it."""
    window = score.window
    if data_range is not None and not isinstance(data_range, tuple):
        *_, number, constants = apply_range(preds, target, data_range, window.k1, window.k2)
        return autograd.evaluate(score._replace(window=window._replace(data_range=number)), preds, target, constants)

    # The images of a level depend on its range.
    means = []
    for level, images in enumerate(composite.pyramid(preds, target, len(score.betas))):
        is_last = level == len(score.betas) - 1
        x, y, number, constants = apply_range(*images, data_range, window.k1, window.k2)
        of_level = Score(window._replace(data_range=number), _ops.REDUCTIONS["none"], want_contrast=not is_last)
        means.append(autograd.evaluate(of_level, x, y, constants)[0 if is_last else 1])
    value = composite.level_product(means, score.betas, score.normalize)
    if score.pixel_term != "none":
        images = apply_range(preds, target, data_range, window.k1, window.k2)[:2]
        return score.with_pixels(*images, 1 - value)
    return [score.reduced(1 - value if score.as_distance else value)]
