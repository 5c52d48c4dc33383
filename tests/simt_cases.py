"""Test cases for the CUDA kernels, and the oracle for their results: a few lines of differentiable PyTorch in float64
(`exact`), which test_simt.py compares with torchmetrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

K = 0.01, 0.03
SSIM_WEIGHT, PIXEL_EPS = 0.3, 0.1
# The pixel terms as functions of the difference and the constant eps.
PHI: dict[str, Callable[[Tensor, float], Tensor]] = {
    "l1": lambda d, _: d.abs(),
    "l2": lambda d, _: d**2,
    "charbonnier": lambda d, eps: (d**2 + eps**2).sqrt(),
}
C1, C2 = K[0] ** 2, K[1] ** 2

# The allowed error, relative to the largest exact magnitude. In float32 the sums of a window and its adjoint have a few
# dozen rounding errors of 6e-8. 16-bit results are also rounded themselves, by half an ulp: 2^-11 or 2^-8.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 4e-6,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}


INTEGERS = (torch.uint8, torch.uint16, torch.int8, torch.int16)  # integer types that the kernels read


def type_name(dtype: torch.dtype) -> str:
    """Return the name of a type in the programs of tests/simt."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Case:
    """One call of the kernels.

    The fields from `strip_columns` to `crossing` override the planner in the host programs, which use the narrowest
    compiled strips of at least `strip_columns` columns.
    """

    shape: tuple[int, ...] = (1, 1, 40, 44)
    sizes: tuple[int, ...] = (11, 11)
    pad: tuple[int, ...] | None = None  # None: "same"
    padding_mode: str = "reflect"
    dtype: torch.dtype = torch.float32
    gradients: str = "preds"  # any of: preds target constants
    want_map: bool = False
    objective: str = "similarity"
    upstream: str = ""  # any of: similarity contrast map; empty: gradients by the forward operator
    constants: int = 0  # c1 and c2 as a tensor: 1: shared by all images, 2: one pair per image
    as_distance: bool = False  # return 1 - mean
    types: tuple[torch.dtype, ...] = ()  # of preds and target, if one has integers; results are float32
    pixels: str = ""  # the name of a pixel term, or empty
    strip_columns: int = 64
    single_strip: bool = False  # use the variant in which one strip covers the image
    split_rows: int = 0
    crossing: bool = False  # blocks continue from one strip to the next
    symmetric: bool = False  # whether the window is symmetric
    edge: float = 0.0  # the weight of the first plus the last tap, for windows longer than the side
    sms: int = 4
    l2_bytes: int = 0
    layout: str = "contiguous"
    offset: float = 0.0
    seed: int = 0

    @property
    def padding(self) -> tuple[int, ...]:
        return self.pad if self.pad is not None else tuple(size // 2 for size in self.sizes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        inputs, sizes, pads = self.shape[2:], self.sizes, self.padding
        return self.shape[:2] + tuple(n + 2 * p - s + 1 for n, s, p in zip(inputs, sizes, pads, strict=True))

    def id(self) -> str:
        default = Case()
        changed = [
            f"{name}={value}".replace("torch.", "")
            for name, value in vars(self).items()
            if value != getattr(default, name)
        ]
        return " ".join(changed).replace(" ", "_") or "default"


def taps(size: int, uneven: bool = False) -> Tensor:
    """Return a Gaussian window, or an asymmetric one, for which the window differs from its adjoint."""
    position = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-0.5 * (position / max(size / 7, 0.4)) ** 2)
    if uneven:
        window = window * (1 + 0.3 * torch.sin(position))
    return window / window.sum()


def pictures(case: Case) -> tuple[Tensor, Tensor]:
    """Return preds and target, rounded to the type of the case, in float64."""
    generator = torch.Generator().manual_seed(case.seed)
    target = torch.rand(case.shape, generator=generator, dtype=torch.float64)
    preds = target + 0.2 * torch.randn(case.shape, generator=generator, dtype=torch.float64)
    if case.types:  # exceeds the range of a byte for wider types; negative too if all types are signed
        is_signed = all(dtype.is_signed for dtype in case.types)
        offset = -10 if is_signed else 10 if torch.uint8 in case.types else 300
        scale = 200 if torch.int16 in case.types else 20
        return tuple(
            (scale * image + offset).round().clamp(min=-math.inf if is_signed else 0) for image in (preds, target)
        )
    return (preds + case.offset).to(case.dtype).double(), (target + case.offset).to(case.dtype).double()


def pad(picture: Tensor, padding: tuple[int, ...], mode: str) -> Tensor:
    widths = [width for p in reversed(padding) for width in (p, p)]
    return functional.pad(picture, widths, mode="reflect") if mode == "reflect" else functional.pad(picture, widths)


def windows(case: Case) -> list[Tensor]:
    """Return the window of each axis. With an `edge`, long ones are clipped as in the operators (csrc/api/checks.h)."""
    every = [taps(size, uneven=not case.symmetric) for size in case.sizes]
    for window, n in zip(every, case.shape[2:], strict=True):
        if case.edge and len(window) // 2 >= n:
            window[0] = window[-1] = 0
            window *= (1 - case.edge) / window.sum()
            window[0] = window[-1] = case.edge / 2
    return every


# No objective with the contrast sensitivity: with windows this long no output counts for it.
LONG: dict[str, Any] = {
    "padding_mode": "zero", "gradients": "preds target constants", "upstream": "similarity map", "want_map": True,
}  # fmt: skip


def terms(
    preds: Tensor, target: Tensor, window: list[Tensor], padding: tuple[int, ...], mode: str, constants: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the maps of similarity and contrast sensitivity by the textbook formula."""

    def convolve(picture: Tensor) -> Tensor:
        result = pad(picture, padding, mode)
        for dim, axis in enumerate(window, start=2):  # one axis after the other, moved to the last dim
            rows = result.movedim(dim, -1)
            filtered = functional.conv1d(rows.reshape(-1, 1, rows.shape[-1]), axis.view(1, 1, -1))
            result = filtered.view(*rows.shape[:-1], -1).movedim(-1, dim)
        return result

    # Subtract the mean, which changes nothing but cancels less.
    shift = target.mean().detach()
    x, y = preds - shift, target - shift
    if mode == "zero":  # zero padding must stay zero
        shift, x, y = torch.zeros(()), preds, target
    mean_x, mean_y = convolve(x), convolve(y)
    variance_x = convolve(x * x) - mean_x**2
    variance_y = convolve(y * y) - mean_y**2
    covariance = convolve(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + shift, mean_y + shift
    luminance = (2 * mean_x * mean_y + constants[0]) / (mean_x**2 + mean_y**2 + constants[0])
    contrast = (2 * covariance + constants[1]) / (variance_x + variance_y + constants[1])
    return luminance * contrast, contrast


def upstream(case: Case) -> dict[str, Tensor]:
    """Return the upstream gradients. That of the map is rounded to the type of the case."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    batch = case.shape[0]
    result = {}
    if "similarity" in case.upstream:
        result["grad_similarity"] = torch.randn(batch, generator=generator, dtype=torch.float64)
    if "contrast" in case.upstream:
        result["grad_contrast"] = torch.randn(batch, generator=generator, dtype=torch.float64)
    if "map" in case.upstream:
        picture = torch.randn(case.output_shape, generator=generator, dtype=torch.float64)
        result["grad_map"] = picture.to(case.dtype).double()
    return result


def exact(case: Case, preds: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the expected results of the kernels, in float64."""
    dtype = preds.dtype  # float64, except in textbook_error
    preds, target = preds.clone().requires_grad_(), target.clone().requires_grad_()
    batch = case.shape[0]
    # One pair of constants per image, so that each has its own gradient.
    constants = torch.tensor([[C1], [C2]], dtype=dtype).repeat(1, batch).requires_grad_()
    similarity, contrast = terms(
        preds,
        target,
        [window.to(dtype) for window in windows(case)],
        case.padding,
        case.padding_mode,
        constants.view(2, batch, *[1] * (preds.dim() - 1)),
    )
    cropped = contrast
    for dim, p in enumerate(case.padding, start=2):
        cropped = cropped.narrow(dim, p, max(cropped.shape[dim] - 2 * p, 0))
    means = similarity.flatten(1).mean(1), cropped.flatten(1).mean(1)
    if case.upstream:
        given = {name: value.to(dtype) for name, value in upstream(case).items()}
        objective = similarity.sum() * 0
        if "grad_similarity" in given:
            objective = objective + (means[0] * given["grad_similarity"]).sum()
        if "grad_contrast" in given:
            objective = objective + (means[1] * given["grad_contrast"]).sum()
        if "grad_map" in given:
            objective = objective + (similarity * given["grad_map"]).sum()
    else:
        objective = means[case.objective != "similarity"].sum()
    gradients = torch.autograd.grad(objective, (preds, target, constants), allow_unused=True)
    results = {"similarity": means[0], "contrast_sensitivity": means[1], "map": similarity}
    if case.pixels:
        difference = preds - target
        phi = PHI[case.pixels](difference, PIXEL_EPS)
        pixel_means, distance = phi.flatten(1).mean(1), 1 - means[0]
        value = (1 - SSIM_WEIGHT) * pixel_means + SSIM_WEIGHT * distance
        # With a pixel term, gradients are those of the value.
        by_pixels = torch.autograd.grad((1 - SSIM_WEIGHT) * pixel_means.sum(), (preds, target))
        gradients = [
            -SSIM_WEIGHT * g if added is None else -SSIM_WEIGHT * g + added
            for g, added in zip(gradients, (*by_pixels, None), strict=True)
        ]
        means = value, means[1]
        results |= {"similarity": value, "contrast_sensitivity": 1 - means[1]}
        results["pixel_terms"] = torch.stack((pixel_means, distance), 1)
    elif case.as_distance:
        results |= {"similarity": 1 - means[0], "contrast_sensitivity": 1 - means[1]}
    results["batch_similarity"] = results["similarity"].mean().view(1)
    results |= dict(zip(("grad_preds", "grad_target", "grad_constants"), gradients, strict=True))
    results["grad_constants"] = results["grad_constants"].T.contiguous()
    return {name: value.detach().double() for name, value in results.items()}


def textbook_error(case: Case, preds: Tensor, target: Tensor, expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the errors of the textbook formula in float32, which are allowed in addition to the tolerance."""
    if case.dtype == torch.float64:
        return {}
    results = exact(case, preds.float(), target.float())
    errors = {}
    for name, value in results.items():
        known = ~expected[name].isnan()
        largest = expected[name][known].abs().max().clamp(min=1e-30) if known.any() else 1
        errors[name] = ((value - expected[name]).nan_to_num().abs().max() / largest).item()
    return errors


def check(case: Case, results: dict[str, Tensor], preds: Tensor, target: Tensor) -> None:
    expected = exact(case, preds, target)
    textbook = textbook_error(case, preds, target, expected)
    for name, value in results.items():
        assert not value.isnan().any() or expected[name].isnan().any(), f"{name}: not every element was written"
        known = ~expected[name].isnan()
        assert torch.equal(known, ~value.isnan()), name
        if not known.any():
            continue
        scale = expected[name][known].abs().max().clamp(min=1e-30)
        error = ((value - expected[name])[known].abs().max() / scale).item()
        # Means are not rounded to the type of the images.
        type_of_result = case.dtype if value.dim() > 2 or case.dtype == torch.float64 else torch.float32
        allowed = TOLERANCE[type_of_result] + textbook.get(name, 0)
        assert error <= allowed, f"{name}: off by {error:.2e}, textbook {textbook.get(name, 0):.2e}"


FULL = {"gradients": "preds target constants", "upstream": "similarity contrast map"}
