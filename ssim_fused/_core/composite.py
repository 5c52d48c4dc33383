"""SSIM and MS-SSIM in plain differentiable PyTorch, for devices without a kernel and for higher derivatives.

It follows the formulas of the kernels (``csrc/math/ssim.h``) term by term, at the cost of many passes and temporary
images.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ssim_fused._core._ops import compute_dtype, map_dtype
from ssim_fused._core.window import Window

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_PAD_MODES = {"reflect": "reflect", "zero": "constant", "valid": "constant"}
_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
LEAST_WEIGHT = 1e-15  # equals `kLeastWeight` in csrc/math/ssim.h


def without_autocast(like: Tensor) -> AbstractContextManager:
    """Returns a context in which convolutions keep the dtype of their inputs."""
    return torch.autocast(like.device.type, enabled=False)


class Masked(NamedTuple):
    """A mask as weights ``[B, 1 or C, *spatial]``, with 0 for values that are not positive.

    ``weighs_windows`` is True for ``mask_mode="window"`` and False for ``"map"``.
    """

    weights: Tensor
    weighs_windows: bool

    @classmethod
    def of(cls, mask: Tensor | None, mode: str, preds: Tensor) -> Masked | None:
        """Makes the weights from the arguments of a call; None without a mask."""
        if mask is None:
            return None
        weights = mask.to(compute_dtype(preds.dtype))
        return cls(torch.where(weights > 0, weights, 0.0), mode == "window")


def similarity(
    preds: Tensor,
    target: Tensor,
    constants: Tensor | None,
    window: Window,
    masked: Masked | None = None,
    want_map: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns one minus SSIM ``[B]``, one minus the contrast sensitivity ``[B]``, and the SSIM map ``[B, C, ...]``.

    Without ``want_map``, map pixels that enter no mean may have wrong values.
    """
    with without_autocast(preds):
        dtype = compute_dtype(preds.dtype)
        x, y = preds.to(dtype).contiguous(), target.to(dtype).contiguous()
        c1, c2 = window.constants if constants is None else constants.unbind(-1)
        if constants is not None and constants.ndim == 2:
            c1, c2 = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in (c1, c2))  # ty: ignore[missing-union-attribute]
        dims = tuple(range(2, x.ndim))
        window = window.reaching(x.shape[2:])
        sees_padding = window.sees_padding(x.shape[2:])

        x, y = _pad(x, window), _pad(y, window)
        seen = weights = None  # weights of input pixels; weights of outputs, taken from the pixel at their center
        if masked is not None:
            padded = _pad(masked.weights, window, outside=1.0)
            weights = _centres(padded, window)
            seen = padded if masked.weighs_windows else None if want_map else _within_reach(weights, window)
        if seen is not None:  # masked pixels are replaced, not multiplied by 0, because NaN * 0 is NaN
            x, y = torch.where(seen > 0, x, 0.0), torch.where(seen > 0, y, 0.0)
        pivot = y.detach().mean(dims, keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        pivot = torch.zeros_like(pivot) if sees_padding else pivot
        difference, x, y = x - y, x - pivot, y - pivot
        pixels = torch.stack((x, difference, x * y, difference**2))
        exists = None
        if masked is not None and masked.weighs_windows and seen is not None:
            n = _filter(seen.unsqueeze(0), window)
            exists = n >= LEAST_WEIGHT
            a, delta, p, d = _filter(seen * pixels, window) / torch.where(exists, n, 1.0)
        else:
            a, delta, p, d = _filter(pixels, window)

        delta_squared = delta**2
        variance = _at_least(d - delta_squared, 0.0)
        covariance = _at_least(p - a * (a - delta), -variance / 4)
        b1 = (a + pivot) ** 2 + (a - delta + pivot) ** 2 + c1
        b2 = 2 * covariance + (c2 + variance)
        luminance_loss = -_at_least(-delta_squared / b1, -2.0)
        contrast_loss = variance / b2
        if exists is not None:  # a window without an unmasked pixel has no output: its losses are 0
            luminance_loss = torch.where(exists[0], luminance_loss, 0.0)
            contrast_loss = torch.where(exists[0], contrast_loss, 0.0)
        loss = luminance_loss + (1 - luminance_loss) * contrast_loss
        return (
            _mean(loss, weights),
            _mean(*(_crop(t, window) for t in (contrast_loss, weights))),  # ty: ignore[invalid-argument-type]
            (1 - loss).to(map_dtype(preds.dtype)),
        )


def _at_least(value: Tensor, bound: Tensor | float) -> Tensor:
    """Returns the larger of the two with the slope of ``value``, as in ``csrc/math/ssim.h``. It propagates NaN.

    Only rounding errors push ``value`` below these bounds, so that its own slope is correct there too.
    """
    fixed = bound.detach() if isinstance(bound, Tensor) else bound
    return torch.where(value < fixed, fixed + (value - value.detach()), value)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Returns the weighted mean over each image, ``[B]``; 0 for an image whose mask is empty."""
    if weights is None or losses.numel() == 0:
        return losses.flatten(1).mean(1)
    weights = weights.expand_as(losses).flatten(1)
    sums, total = torch.where(weights > 0, weights * losses.flatten(1), 0.0).sum(1), weights.sum(1)
    return torch.where(total > 0, sums / torch.where(total > 0, total, 1.0), 0.0)


def _crop(outputs: Tensor | None, window: Window) -> Tensor | None:
    """Returns the outputs whose windows lie inside the image."""
    if outputs is None:
        return None
    for dim, pad in enumerate(window.pad(outputs.ndim - 2), start=2):
        outputs = outputs.narrow(dim, min(pad, outputs.shape[dim]), max(outputs.shape[dim] - 2 * pad, 0))
    return outputs


def _centres(padded: Tensor, window: Window) -> Tensor:
    """Returns the pixels of a padded image on which the outputs are centered."""
    for dim, size in enumerate(window.sizes(padded.ndim - 2), start=2):
        padded = padded.narrow(dim, size // 2, padded.shape[dim] - size + 1)
    return padded


def _within_reach(weights: Tensor, window: Window) -> Tensor:
    """Returns a padded image that is positive at pixels in the window of an output with a positive weight."""
    sizes = window.sizes(weights.ndim - 2)
    widths = [size - 1 for size in reversed(sizes) for _ in range(2)]
    return _MAX_POOL[len(sizes)](F.pad(weights, widths), sizes, stride=1)


def pixel_mean(preds: Tensor, target: Tensor, term: str, eps: float, masked: Masked | None = None) -> Tensor:
    """Returns the mean of a pixel term (``csrc/math/pixel_term.h``) over each image, ``[B]``."""
    dtype = compute_dtype(preds.dtype)
    x, y = preds.to(dtype), target.to(dtype)
    if masked is not None:
        seen = masked.weights > 0
        x, y = torch.where(seen, x, 0.0), torch.where(seen, y, 0.0)
    difference = x - y
    if term == "charbonnier":
        phi = (difference**2 + eps * eps).sqrt()
    else:
        phi = difference.abs() if term == "l1" else difference**2
    return _mean(phi, None if masked is None else masked.weights)


def multiscale(
    preds: Tensor,
    target: Tensor,
    constants: Tensor | None,
    window: Window,
    betas: tuple[float, ...],
    normalize: str,
    masked: Masked | None = None,
) -> Tensor:
    """Returns MS-SSIM ``[B]``."""
    levels = pyramid(preds, target, len(betas), masked)
    losses = [similarity(x, y, constants, window, of_level, False)[:2] for x, y, of_level in levels]
    # The product has the contrast sensitivity of every level but the last, and SSIM of the last.
    means = [1 - of_level[1] for of_level in losses[:-1]] + [1 - losses[-1][0]]
    return level_product(means, betas, normalize)


def pyramid(
    preds: Tensor, target: Tensor, levels: int, masked: Masked | None = None
) -> list[tuple[Tensor, Tensor, Masked | None]]:
    """Returns both images and the mask at every level.

    Each level averages blocks of 2x2 pixels or 2x2x2 voxels of the previous one. A mask that weights windows also
    weights the pixels in these averages.
    """
    dtype, pool = compute_dtype(preds.dtype), _POOL[preds.ndim - 2]
    images = [(preds, target, masked)]
    for _ in range(levels - 1):
        x, y, mask = images[-1]
        x, y = x.to(dtype), y.to(dtype)
        if mask is None:
            images.append((pool(x, 2), pool(y, 2), None))
            continue
        half = pool(mask.weights, 2)
        if mask.weighs_windows:
            seen, share = mask.weights > 0, torch.where(half > 0, half, 1.0)
            x, y = (pool(mask.weights * torch.where(seen, image, 0.0), 2) / share for image in (x, y))
        else:
            x, y = pool(x, 2), pool(y, 2)
        images.append((x, y, mask._replace(weights=half)))
    return images


def level_product(means: list[Tensor], betas: tuple[float, ...], normalize: str) -> Tensor:
    """Returns the product of the means of the levels, each raised to its exponent."""
    value = torch.ones((), dtype=means[0].dtype, device=means[0].device)
    for mean, beta in zip(means, betas, strict=True):
        value = value * _power(mean, beta, normalize)
    return value


def _power(mean: Tensor, beta: float, normalize: str) -> Tensor:
    if normalize == "simple":
        return ((mean + 1) / 2) ** beta
    if normalize == "none":
        return mean**beta
    # The power has an infinite slope at 0. A clamped mean gets the slope 0 instead.
    positive = mean > 0
    power = torch.where(positive, mean, 1.0) ** beta
    at_zero = torch.full_like(mean, 0.0) ** beta
    return torch.where(positive, power, torch.where(mean.isnan(), mean, at_zero))


def gradients(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor | None, ...],
    grads: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """Returns gradients of ``function`` with respect to its floating-point inputs; they can be differentiated again.

    ``grads`` has one upstream gradient or None per output. Other inputs get None.
    """
    tensors = [t for t in inputs if t is not None and t.is_floating_point()]

    def used(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        outputs = function(*(t if t is None or not t.is_floating_point() else next(given) for t in inputs))
        return tuple(output for output, grad in zip(outputs, grads, strict=True) if grad is not None)

    _, pull = torch.func.vjp(used, *tensors)  # ty: ignore[invalid-assignment] - three values only with `has_aux`
    found = iter(pull(tuple(grad for grad in grads if grad is not None)))
    return tuple(None if t is None or not t.is_floating_point() else next(found) for t in inputs)


def _pad(image: Tensor, window: Window, outside: float = 0.0) -> Tensor:
    widths = [width for pad in reversed(window.pad(image.ndim - 2)) for width in (pad, pad)]
    mode = _PAD_MODES[window.padding]
    return F.pad(image, widths, mode=mode, value=None if mode == "reflect" else outside)


def _filter(images: Tensor, window: Window) -> Tensor:
    """Convolves the spatial axes of ``[N, B, C, *spatial]`` with the window, one axis at a time."""
    result = images.flatten(0, 2).unsqueeze(1)
    spatial = result.ndim - 2
    for axis, taps in enumerate(window.per_axis(images, spatial)):
        shape = [1] * (2 + spatial)
        shape[2 + axis] = -1
        result = _CONV[spatial](result, taps.reshape(shape))
    return result.reshape(*images.shape[:3], *result.shape[2:])
