"""Compares the drop-ins with their packages on random arguments: sizes, also odd or too small, windows, ranges, dtypes.

The package computes in float64. If it returns a number, the drop-in returns the same number. If it raises, the drop-in
raises a documented exception or returns a number, because some drop-ins accept more than their package.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import textbook
import torch
from compat_support import peer, pictures, with_gradients
from skimage.metrics import structural_similarity as skimage_ssim
from torch import Tensor

from ssim_fused.compat import fused_ssim, kornia, monai, piq, pytorch_msssim, skimage

DOCUMENTED = (ValueError, TypeError, NotImplementedError)
CASES = 50  # per package and seed
# Tolerances of values, and of gradients relative to the largest. For 16-bit images they cover that dtype's rounding.
TOLERANCES = {
    torch.float64: (1e-8, 1e-6),
    torch.float32: (2e-5, 2e-3),
    torch.float16: (2e-3, 2e-2),
    torch.bfloat16: (2e-2, 5e-2),
}
# Tolerances if the package computes in float32. Its variances are differences of squares, off by 6e-8 while c2 is 9e-4.
OF_FLOAT32 = (5e-4, 1e-2)
INTEGERS = {torch.uint8: 255, torch.uint16: 65535}


class Case(NamedTuple):
    """The same call of the drop-in and of the package, and the dtype of the images."""

    ours: Callable[[Tensor, Tensor], Any]
    theirs: Callable[[Tensor, Tensor], Any]
    shape: Sequence[int]
    data_range: float
    dtype: torch.dtype
    reference: torch.dtype | None = torch.float64  # the dtype in which the package computes; None: that of the images
    has_gradient: bool = True


def drawn_dtype(rng: random.Random) -> torch.dtype:
    return rng.choice([torch.float64] * 6 + [torch.float32] * 3 + [torch.float16, torch.uint8, torch.uint16])


def drawn_range(rng: random.Random, dtype: torch.dtype) -> float:
    return INTEGERS.get(dtype) or rng.choice([1.0, 1.0, 255.0, 2.0, 0.1])


def drawn_shape(rng: random.Random, axes: int, least: int, most: int) -> tuple[int, ...]:
    return (rng.randint(1, 2), rng.randint(1, 3), *(rng.randint(least, most) for _ in range(axes)))


def of_pytorch_msssim(rng: random.Random) -> Case:
    theirs = peer("pytorch_msssim")
    dtype, axes = drawn_dtype(rng), rng.choice([2, 2, 3])
    data_range, size = drawn_range(rng, dtype), rng.choice([1, 3, 3, 5, 11, 4])
    arguments: dict[str, Any] = {
        "size_average": rng.random() < 0.5,
        "win_size": size,
        "win_sigma": rng.choice([0.5, 1.5, 3.0]),
        "K": rng.choice([(0.01, 0.03), (0.05, 0.1)]),
    }
    if dtype not in INTEGERS or rng.random() < 0.5:
        arguments["data_range"] = data_range
    name = rng.choice(["ssim", "ms_ssim"])
    if name == "ssim":
        shape = drawn_shape(rng, axes, 1, 14)
        arguments["nonnegative_ssim"] = rng.random() < 0.3
    else:
        arguments["weights"] = rng.choice([None, [0.3, 0.7], [1.0], [0.2, 0.3, 0.5]])
        arguments["win_size"] = size = min(size, 3)
        shape = drawn_shape(rng, axes, 16 * (size - 1), 20 if size == 1 else 42 if axes == 2 else 36)
    if rng.random() < 0.2:
        taps = torch.tensor([rng.random() for _ in range(size)], dtype=torch.float64)
        shape = (shape[0], shape[1], *(max(n, 2) for n in shape[2:]))
        arguments["win"] = taps.expand(shape[1], *[1] * axes, size) * rng.choice([1.0, 2.0, 1 / float(taps.sum())])
    if dtype not in (torch.float64, torch.float32):
        arguments.pop("win", None)
    return Case(
        partial(getattr(pytorch_msssim, name), **arguments),
        partial(getattr(theirs, name), **{"data_range": data_range} | arguments), shape, data_range, dtype,
    )  # fmt: skip


def of_kornia(rng: random.Random) -> Case:
    dtype, axes = drawn_dtype(rng), rng.choice([2, 2, 2, 3])
    data_range, is_loss = float(drawn_range(rng, dtype)), rng.random() < 0.5
    name = ("ssim" if axes == 2 else "ssim3d") + ("_loss" if is_loss else "")
    theirs = getattr(peer("kornia.losses" if is_loss else "kornia.metrics"), name)
    arguments: dict[str, Any] = {
        "window_size": rng.choice([1, 3, 5, 7, 11, 4]),
        "padding": rng.choice(["same", "valid"]),
        "eps": rng.choice([1e-12, 1e-12, 0.0, 1e-7]),
    }
    if is_loss:
        arguments["reduction"] = rng.choice(["mean", "sum", "none"])
    if dtype not in INTEGERS or rng.random() < 0.5:
        arguments["max_val"] = data_range
    shape = drawn_shape(rng, axes, 1, 16 if axes == 2 else 10)
    return Case(
        partial(getattr(kornia, name), **arguments), partial(theirs, **{"max_val": data_range} | arguments), shape,
        data_range, dtype,
    )  # fmt: skip


def of_piq(rng: random.Random) -> Case:
    dtype = drawn_dtype(rng)
    data_range, is_loss = drawn_range(rng, dtype), rng.random() < 0.5
    module, names = rng.choice(
        [("ssim", ("ssim", "SSIMLoss")), ("ms_ssim", ("multi_scale_ssim", "MultiScaleSSIMLoss"))]
    )
    arguments: dict[str, Any] = {
        "kernel_size": rng.choice([1, 3, 3, 5, 11, 4]),
        "kernel_sigma": rng.choice([0.5, 1.5, 3.0]),
        "reduction": rng.choice(["mean", "sum", "none"]),
        "k2": rng.choice([0.03, 0.1]),
    }
    if dtype not in INTEGERS or rng.random() < 0.5:
        arguments["data_range"] = data_range
    if module == "ms_ssim":
        arguments["scale_weights"] = torch.tensor(rng.choice([[1.0], [0.5, 0.5], [0.2, 0.4, 0.6]]), dtype=torch.float64)
    shape = drawn_shape(rng, 2, 1, 26)

    def of(package: Any, given: dict[str, Any]) -> Callable[[Tensor, Tensor], Any]:
        return lambda x, y: (
            getattr(package, names[1])(**given)(x, y) if is_loss else getattr(package, names[0])(x, y, **given)
        )

    theirs = peer(f"piq.{module}")
    return Case(of(piq, arguments), of(theirs, {"data_range": data_range} | arguments), shape, data_range, dtype)


def of_monai(rng: random.Random) -> Case:
    """The package computes in float32."""
    dtype, axes = rng.choice([torch.float32, torch.float64, torch.uint8]), rng.choice([2, 2, 3])
    data_range = drawn_range(rng, dtype)
    arguments: dict[str, Any] = {
        "spatial_dims": axes,
        "kernel_type": rng.choice(["gaussian", "uniform"]),
        "kernel_sigma": tuple(rng.choice([0.5, 1.5, 2.5]) for _ in range(axes)),
    }
    sizes = tuple(rng.choice([1, 2, 3, 5, 6]) for _ in range(axes))
    if dtype not in INTEGERS or rng.random() < 0.5:
        arguments["data_range"] = data_range
    name = rng.choice(["SSIMLoss", "compute_ms_ssim", "compute_ssim_and_cs"])
    arguments["win_size" if name == "SSIMLoss" else "kernel_size"] = sizes
    if name == "SSIMLoss":
        arguments["reduction"] = rng.choice(["mean", "sum", "none"])
    if name == "compute_ms_ssim":
        arguments["weights"] = rng.choice([[1.0], [0.5, 0.5], [0.2, 0.3, 0.5]])
    theirs = getattr(peer("monai.losses.ssim_loss" if name == "SSIMLoss" else "monai.metrics.regression"), name)

    def of(function: Any, given: dict[str, Any]) -> Callable[[Tensor, Tensor], Any]:
        return lambda x, y: function(**given)(x, y) if name == "SSIMLoss" else function(x, y, **given)

    shape = drawn_shape(rng, axes, 3, 20 if axes == 2 else 13)
    return Case(
        of(getattr(monai, name), arguments), of(theirs, {"data_range": data_range} | arguments), shape, data_range,
        dtype, torch.float32,
    )  # fmt: skip


def of_fused_ssim(rng: random.Random) -> Case:
    """The package needs a GPU, so its formula stands in for it."""
    axes, padding = rng.choice([2, 2, 3]), rng.choice(["same", "valid"])
    windows = [textbook.gaussian(11, 1.5)] * axes
    dtype = drawn_dtype(rng)
    data_range = INTEGERS.get(dtype) or 1.0
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def expected(x: Tensor, y: Tensor) -> Tensor:
        return textbook.ssim_maps(x, y.detach(), windows, c1, c2, "zero" if padding == "same" else "valid")[0].mean()

    function = fused_ssim.fused_ssim if axes == 2 else fused_ssim.fused_ssim3d
    return Case(partial(function, padding=padding), expected, drawn_shape(rng, axes, 6, 16), data_range, dtype)


def of_skimage(rng: random.Random) -> Case:
    """Takes arrays. In float32, the package's variances round."""
    dtype = rng.choice([torch.float64, torch.float64, torch.uint8, torch.int16, torch.float32])
    axes = rng.choice([1, 2, 2, 3])
    shape = [rng.randint(5, 18) for _ in range(axes)]
    arguments: dict[str, Any] = {
        "win_size": rng.choice([None, 3, 5, 7, 1, 4]),
        "gaussian_weights": rng.random() < 0.5,
        "use_sample_covariance": rng.random() < 0.5,
        "sigma": rng.choice([0.5, 1.0, 1.5]),
        "K1": rng.choice([0.01, 0.05]),
        "full": rng.random() < 0.5,
        "gradient": rng.random() < 0.5,
    }
    if rng.random() < 0.4:
        arguments["channel_axis"] = rng.randint(-axes - 1, axes)
        shape.insert(arguments["channel_axis"] % (axes + 1), rng.randint(1, 3))
    if dtype.is_floating_point:
        arguments["data_range"] = 1.0

    def of(function: Any) -> Callable[[Tensor, Tensor], list[Tensor]]:
        def call(x: Tensor, y: Tensor) -> list[Tensor]:
            found = function(x.numpy(), y.numpy(), **arguments)
            return [torch.as_tensor(np.asarray(f)) for f in (found if isinstance(found, tuple) else (found,))]

        return call

    return Case(of(skimage.structural_similarity), of(skimage_ssim), shape, 1.0, dtype, None, False)


DRAWN = {
    "pytorch_msssim": of_pytorch_msssim,
    "kornia": of_kornia,
    "piq": of_piq,
    "monai": of_monai,
    "fused_ssim": of_fused_ssim,
    "skimage": of_skimage,
}


def images_of(case: Case, seed: int) -> tuple[Tensor, Tensor]:
    """Images within the range; whole numbers for integer dtypes."""
    x, y = (image.clamp(0, 1) for image in pictures(*case.shape, seed=seed))
    if case.dtype.is_floating_point:
        return (case.data_range * x).to(case.dtype), (case.data_range * y).to(case.dtype)
    largest = torch.iinfo(case.dtype).max
    return (largest * x).to(case.dtype), (largest * y).to(case.dtype)


def outputs(function: Callable[..., Any], x: Tensor, y: Tensor, has_gradient: bool) -> list[Tensor]:
    if not has_gradient:
        found = function(x, y)
        return list(found) if isinstance(found, tuple | list) else [found]
    return with_gradients(function, x, y, (0,))


def check(case: Case, seed: int) -> str:
    """Compares one case and returns its outcome: "same", "refused", or "more" if only the package raised."""
    x, y = images_of(case, seed)
    has_gradient = case.has_gradient and case.dtype.is_floating_point
    try:
        expected = outputs(case.theirs, x.to(case.reference or x.dtype), y.to(case.reference or y.dtype), has_gradient)
    except Exception:  # any type: the package's own
        expected = None
    try:
        found = outputs(case.ours, x, y, has_gradient)
    except DOCUMENTED as error:
        if expected is not None or "`" not in str(error):
            raise
        return "refused"
    if expected is None:
        assert all(bool(torch.isfinite(f).all()) for f in found)
        return "more"
    dtype = case.dtype if case.dtype.is_floating_point else torch.float32 if case.reference else torch.float64
    in_float32 = torch.float32 in (case.reference, case.reference or case.dtype)
    of_value, of_gradient = OF_FLOAT32 if in_float32 else TOLERANCES[dtype]
    values = len(found) - has_gradient
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        ours, theirs = ours.double(), theirs.double()
        scale = float(theirs.abs().max()) if theirs.numel() else 0.0
        tolerance = of_value * max(1.0, scale) if i < values and case.has_gradient else of_gradient * scale + 1e-12
        if dtype == torch.float16 and i >= values:
            tolerance += 1e-4  # for pixels below float16's normal numbers
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, equal_nan=True)
    return "same"


def run(package: str, seed: int) -> dict[str, int]:
    rng, counts = random.Random(f"{package} {seed}"), {"same": 0, "refused": 0, "more": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(CASES):
            case = DRAWN[package](rng)
            try:
                counts[check(case, i)] += 1
            except Exception as error:
                raise AssertionError(f"{package}, seed {seed}, case {i}: {describe(case)}") from error
    return counts


def describe(case: Case) -> str:
    given = getattr(case.ours, "keywords", None) or [cell.cell_contents for cell in case.ours.__closure__ or ()]
    return f"shape {tuple(case.shape)}, range {case.data_range}, {case.dtype}, {given}"


@pytest.mark.parametrize("package", DRAWN)
def test_random_calls_match_the_package_or_raise(package: str) -> None:
    counts = run(package, 0)
    assert counts["same"] >= CASES // 3, counts
    if package != "fused_ssim":
        assert counts["refused"] > 0, counts


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 41))
@pytest.mark.parametrize("package", DRAWN)
def test_many_random_calls_match_the_package_or_raise(package: str, seed: int) -> None:
    run(package, seed)
