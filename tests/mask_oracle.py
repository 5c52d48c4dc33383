"""Masked SSIM by the textbook formula in float64, with PyTorch's autograd: an oracle independent of our kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused._core.window import gaussian_taps

MODES = ["window", "map"]
C1, C2 = 0.01**2, 0.03**2
CONV, POOL = {2: F.conv2d, 3: F.conv3d}, {2: F.avg_pool2d, 3: F.avg_pool3d}


def pad(image: Tensor, radii: list[int], padding: str, outside: float) -> Tensor:
    widths = [r for radius in reversed(radii) for r in (radius, radius)]
    if padding == "valid":
        return image
    return F.pad(image, widths, mode="reflect") if padding == "reflect" else F.pad(image, widths, value=outside)


def convolved(image: Tensor, window: Tensor) -> Tensor:
    channels = image.shape[1]
    return CONV[window.ndim](image, window.expand(channels, 1, *window.shape), groups=channels)


def oracle(
    preds: Tensor, target: Tensor, mask: Tensor, sigma: float, mode: str, padding: str = "reflect"
) -> dict[str, Tensor]:
    """Value, contrast sensitivity and map, with one dense window. Masked pixels are zeroed first."""
    axes = preds.ndim - 2
    line = torch.tensor(gaussian_taps(sigma), dtype=torch.float64)
    window = torch.ones((), dtype=torch.float64)
    for _ in range(axes):
        window = window.unsqueeze(-1) * line
    radii = [len(line) // 2] * axes
    weights = mask.double().expand_as(preds)
    seen = weights if mode == "window" else torch.ones_like(weights)
    x, y = (pad(torch.where(seen > 0, image, 0.0), radii, padding, 0.0) for image in (preds, target))
    m = pad(seen, radii, padding, 1.0)
    n = convolved(m, window)
    exists = n > 0
    n = torch.where(exists, n, 1.0)

    def mean(values: Tensor) -> Tensor:
        return convolved(m * values, window) / n

    # Subtract a constant first: the result is the same, with less cancellation.
    shift = 0.5 if padding != "zero" else 0.0
    u, v = x - shift, y - shift
    mu, nu = mean(u), mean(v)
    variances = mean(u * u) - mu**2 + mean(v * v) - nu**2
    covariance = mean(u * v) - mu * nu
    mu, nu = mu + shift, nu + shift
    contrast = (2 * covariance + C2) / (variances + C2)
    similarity = (2 * mu * nu + C1) / (mu**2 + nu**2 + C1) * contrast
    similarity, contrast = (torch.where(exists, image, 1.0) for image in (similarity, contrast))

    inner = tuple(slice(r, -r) for r in radii)
    centred = weights if padding != "valid" else weights[(..., *inner)]
    crop = (..., *(inner if padding != "valid" else ()))

    def average(image: Tensor, by: Tensor) -> Tensor:
        total = by.flatten(1).sum(1)
        sums = torch.where(by > 0, by * image, 0.0).flatten(1).sum(1)
        return torch.where(total > 0, sums / torch.where(total > 0, total, 1.0), 1.0)

    return {
        "value": average(similarity, centred),
        "contrast": average(contrast[crop], centred[crop]),
        "map": similarity,
    }


def pyramid_oracle(
    preds: Tensor, target: Tensor, mask: Tensor, sigma: float, mode: str, betas: tuple[float, ...]
) -> Tensor:
    pool, weights = POOL[preds.ndim - 2], mask.double().expand_as(preds)
    value = torch.ones((), dtype=torch.float64)
    for level, beta in enumerate(betas):
        of_level = oracle(preds, target, weights, sigma, mode)
        mean = of_level["value" if level == len(betas) - 1 else "contrast"]
        value = value * mean.clamp(min=0) ** beta
        half = pool(weights, 2)
        if mode == "window":
            share = torch.where(half > 0, half, 1.0)
            preds, target = (
                pool(weights * torch.where(weights > 0, image, 0.0), 2) / share for image in (preds, target)
            )
        else:
            preds, target = pool(preds, 2), pool(target, 2)
        weights = half
    return value


def images(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    return target + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64), target


def masks(preds: Tensor, seed: int = 1) -> dict[str, Tensor]:
    """One mask of each kind: holes or weights, shared by the channels or not. The last image's mask is empty."""
    generator = torch.Generator().manual_seed(seed)
    shape = preds.shape
    holes = torch.rand(shape[0], 1, *shape[2:], generator=generator) > 0.4
    weights = torch.rand(shape, generator=generator, dtype=torch.float64)
    weights[weights < 0.3] = 0
    half = torch.zeros(shape[0], 1, *shape[2:], dtype=torch.bool)
    half[..., shape[-1] // 2 :] = True
    half[-1] = False
    return {"holes": holes, "weights": weights, "half": half}


KINDS = ["holes", "weights", "half"]
FORMS: dict[str, tuple[dict[str, Any], int | None]] = {
    "value": ({"reduction": "none"}, None),
    "map": ({"return_full_image": True}, 1),
    "contrast": ({"return_contrast_sensitivity": True}, 1),
}


def gradients(function: Callable[..., Tensor], preds: Tensor, target: Tensor) -> list[Tensor]:
    """The output, and both gradients under fixed upstream gradients."""
    preds, target = (t.detach().clone().requires_grad_() for t in (preds, target))
    output = function(preds, target)
    generator = torch.Generator().manual_seed(5)
    upstream = torch.rand(output.shape, generator=generator, dtype=torch.float64).to(output)
    return [output.detach(), *torch.autograd.grad(output, (preds, target), upstream)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert not ours.isnan().any()
        scale = max(theirs.abs().max().item(), 1e-30)
        assert (ours.double() - theirs).abs().max().item() <= tolerance * scale
