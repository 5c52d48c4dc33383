"""Random calls of functions, losses and metrics return the float64 result or raise a documented exception.

Each argument is drawn together with whether it is valid. So refusing a valid call fails, and so does serving an invalid
one. The reference is torchmetrics in float64, one image at a time. For masks, which torchmetrics does not have, it is
the composite.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as reference_msssim
from torchmetrics.functional.image import structural_similarity_index_measure as reference_ssim

from ssim_fused import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss, metrics, ms_ssim, ssim
from ssim_fused._core import _ops, multiscale
from ssim_fused._core.spec import Reduction, Spec
from ssim_fused._core.window import Window

CASES = 60  # per API and seed
DOCUMENTED = (ValueError, TypeError, RuntimeError, NotImplementedError, OverflowError, IndexError)
UNSET = object()
INF, NAN = float("inf"), float("nan")
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TYPE_RANGES = {torch.uint8: 255.0, torch.int8: 255.0, torch.uint16: 65535.0, torch.int16: 65535.0}
SMALL_FLOATS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
OTHERS = [torch.int32, torch.int64, torch.bool, torch.uint32, torch.uint64, torch.complex64, torch.complex128]
# Tolerances of values, and of gradients relative to the largest.
TOLERANCES = {torch.float64: (1e-8, 1e-6), torch.float32: (5e-5, 2e-3), torch.float16: (2e-3, 3e-2)}
TOLERANCES[torch.bfloat16] = (2e-2, 6e-2)
BETAS = (0.4, 0.6)


class Api(NamedTuple):
    """A callable whose arguments besides the images are given at the call or at construction."""

    make: Callable[..., Any]
    kind: str  # "function", "loss" or "metric"
    is_multiscale: bool = False
    pixel: str = ""


APIS = {
    "ssim": Api(ssim, "function"),
    "ms_ssim": Api(ms_ssim, "function", is_multiscale=True),
    "SSIMLoss": Api(SSIMLoss, "loss"),
    "MultiScaleSSIMLoss": Api(MultiScaleSSIMLoss, "loss", is_multiscale=True),
    "L1SSIMLoss": Api(L1SSIMLoss, "loss", pixel="l1"),
    "PixelSSIMLoss": Api(PixelSSIMLoss, "loss", pixel="l2"),
    "metric": Api(metrics.StructuralSimilarityIndexMeasure, "metric"),
    "multiscale metric": Api(metrics.MultiScaleStructuralSimilarityIndexMeasure, "metric", is_multiscale=True),
}


class Case(NamedTuple):
    """One call with drawn arguments."""

    api: Api
    preds: Any
    target: Any
    data_range: Any
    arguments: dict[str, Any]
    mask: Any
    mask_mode: Any
    is_valid: bool

    def __repr__(self) -> str:
        shown = [f"{name} {getattr(image, 'dtype', type(image))} {tuple(getattr(image, 'shape', ()))}"
                 for name, image in (("preds", self.preds), ("target", self.target), ("mask", self.mask))]  # fmt: skip
        given = "not given" if self.data_range is UNSET else repr(self.data_range)
        return f"{', '.join(shown)}, data_range {given}, {self.arguments}, {self.mask_mode}, valid: {self.is_valid}"


# ----------------------------------------------------------------------------------------------------------------------
# What is drawn


def wrong_ranges(batch: int) -> list[Any]:
    return [
        0, 0.0, -1, -0.5, NAN, INF, -INF, False, 10**400, np.float32(-1), np.float64("nan"), Fraction(-1, 2), "1",
        b"1", "", [], [0, 1], [1.0], {}, 1j, object(), np.ones(batch + 1), np.ones((1, 1)), np.array("1"),
        torch.ones(batch + 1), torch.ones(batch, 2), torch.ones(0), torch.tensor(True), torch.tensor(1j),
        torch.ones(batch, dtype=torch.complex64) if batch > 1 else torch.tensor([1j]),
        (), (1.0,), (1.0, 0.0), (0.5, 0.5), (0, 1, 2), ("a", "b"), (NAN, 1.0), (0.0, INF), (None, 1.0), (1j, 2),
    ]  # fmt: skip


def drawn_range(rng: random.Random, batch: int, axes: int, scale: float) -> Any:
    """A valid data range of images whose pixels lie between 0 and about `scale`."""
    whole = max(1, int(scale))
    each = torch.tensor([scale * rng.uniform(0.5, 2.0) for _ in range(batch)], dtype=torch.float64)
    return rng.choice([
        scale, scale, whole, np.float32(scale), np.float64(scale), np.float16(whole) if whole < 60000 else scale,
        np.int64(whole), np.int32(whole), Fraction(whole), Fraction(whole * 3, 2), np.array(scale), np.array(whole),
        torch.tensor(scale), torch.tensor([scale]), torch.tensor([[whole]]), torch.tensor(scale, dtype=torch.float64),
        each, each, each.float(), each.reshape(-1, *[1] * (axes + 1)), torch.arange(whole, whole + batch),
        (0.125 * scale, 0.5 * scale), (0, whole), (np.float32(0), np.float32(scale)), (Fraction(0), Fraction(whole)),
        None, None, UNSET, UNSET, UNSET,
    ])  # fmt: skip


def pixels(rng: random.Random, shape: tuple[int, ...], dtype: torch.dtype, scale: float) -> Tensor:
    values = scale * torch.rand(shape, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    if dtype in TYPE_RANGES:
        values = values * TYPE_RANGES[dtype] / scale + torch.iinfo(dtype).min
    return values.to(torch.int64 if dtype in (torch.uint16, torch.uint32, torch.uint64) else dtype).to(dtype)


def drawn_types(rng: random.Random) -> tuple[torch.dtype, torch.dtype, bool]:
    """The dtypes of preds and target, and whether the library accepts the pair."""
    kinds = [*FLOATS, *TYPE_RANGES]
    preds = rng.choice([*FLOATS * 3, *TYPE_RANGES, *TYPE_RANGES, rng.choice([*OTHERS, *SMALL_FLOATS])])
    target = preds if rng.random() < 0.7 else rng.choice([*kinds, rng.choice([*OTHERS, *SMALL_FLOATS])])
    if preds in FLOATS:  # the target is cast to a floating-point preds
        return preds, target, target not in OTHERS
    return preds, target, preds == target and preds in _ops.TYPE_RANGES


def drawn_shape(rng: random.Random, is_multiscale: bool) -> tuple[int, ...]:
    batch, channels = rng.randint(1, 3), rng.randint(1, 3)
    if rng.random() < 0.25:
        return batch, channels, *(rng.randint(8, 11) for _ in range(3))
    least = 10 if is_multiscale else 7
    return batch, channels, rng.randint(least, 16), rng.randint(least, 18)


def deformed(rng: random.Random, image: Tensor) -> Any:
    """A value that is not an image of this shape."""
    return rng.choice([
        image[0], image[0, 0], image[None], image[:, :0], image[..., :-1], image[:, :, :2],
        image.movedim(1, -1)[:, :, :3],
        image.tolist(), None, 1.0, "x", image.numpy() if image.dtype in (torch.float32, torch.uint8) else image[0],
    ])  # fmt: skip


def drawn_mask(rng: random.Random, shape: tuple[int, ...]) -> tuple[Any, Any, bool]:
    """A mask, its mode, and whether both are valid."""
    if rng.random() < 0.6:
        return None, "window", True
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    one, all_ = (shape[0], 1, *shape[2:]), shape
    weights = [torch.rand(s, generator=generator) for s in (one, all_)]
    valid = [weights[0] > 0.3, weights[1] > 0.3, weights[0], weights[1].double(), weights[0].half()]
    if rng.random() < 0.8:
        return rng.choice(valid), rng.choice(["window", "map"]), True
    wrong = [weights[0][:, 0] > 0.3, weights[0][0, 0], (9 * weights[0]).int(), weights[0].tolist(), "mask", True]
    # With one channel, [1, H, W] of a single image could broadcast, but it lacks an axis and is refused.
    if rng.random() < 0.8:
        return rng.choice(wrong), "window", False
    return rng.choice(valid), rng.choice(["x", None, 1, []]), False


def drawn(api: Api, rng: random.Random) -> Case:
    preds_type, target_type, is_valid = drawn_types(rng)
    if preds_type == torch.float16 and target_type in TYPE_RANGES:  # their values or squares overflow float16
        target_type = preds_type if api.pixel == "l2" else torch.uint8
    if preds_type == torch.bfloat16 and target_type in (torch.uint16, torch.int16):
        target_type = torch.int8
    shape = drawn_shape(rng, api.is_multiscale)
    axes, is_mixed = len(shape) - 2, preds_type in FLOATS and target_type in TYPE_RANGES
    scale = 1.0 if target_type in SMALL_FLOATS else rng.choice([1.0, 1.0, 255.0, 3.0])
    if preds_type in TYPE_RANGES or is_mixed:
        scale = TYPE_RANGES.get(target_type, 1.0)
    preds, target = pixels(rng, shape, preds_type, scale), pixels(rng, shape, target_type, scale)
    data_range = drawn_range(rng, shape[0], axes, scale)
    if is_mixed and rng.random() < 0.3:  # preds in [0, 1], which is not the target's range
        preds, data_range = (preds / scale).to(preds_type), rng.choice([1.0, 1, (0.0, 1.0), np.float32(1)])
        is_valid = False
    if is_mixed and data_range is UNSET and api.kind == "loss":
        is_valid = False
    if rng.random() < 0.15:
        data_range, is_valid = rng.choice(wrong_ranges(shape[0])), False
    arguments: dict[str, Any] = {"sigma": 0.5, "kernel_size": 5} if axes == 3 or api.is_multiscale else {"sigma": 0.8}
    arguments["reduction"] = rng.choice(
        ["elementwise_mean", "sum", "none", None] + (["mean"] if api.kind == "loss" else [])
    )
    if api.is_multiscale:
        arguments["betas"] = BETAS
    if api.kind != "loss" and rng.random() < 0.3:
        arguments["per_channel"] = True
    if rng.random() < 0.1:
        name, values = rng.choice([
            ("reduction", ["average", 1, [], {}, b"sum"]), ("gaussian_kernel", [1, 1.0, "uniform", None]),
            ("sigma", [0.0, "x", None, NAN, 10**400]), ("k1", ["x", None, 1j]), ("padding", ["same", None, 1]),
            *([("per_channel", ["x", 1, None])] if api.kind != "loss" else []),
        ])  # fmt: skip
        arguments[name], is_valid = rng.choice(values), False
    mask, mode, mask_is_valid = drawn_mask(rng, shape)
    if api.is_multiscale and (data_range is None or data_range is UNSET or isinstance(data_range, tuple)):
        mask, mode, mask_is_valid = None, "window", True
    is_valid = is_valid and mask_is_valid
    if rng.random() < 0.1:
        which = rng.random() < 0.5
        preds, target, is_valid = (
            (deformed(rng, preds), target, False) if which else (preds, deformed(rng, target), False)
        )
    return Case(api, preds, target, data_range, arguments, mask, mode, is_valid)


# ----------------------------------------------------------------------------------------------------------------------
# What is expected


def resolved(case: Case) -> Any:
    """The range of a valid case: a number, a list of one number per image, a tuple, or None for the images' own."""
    data_range = case.data_range
    if data_range is UNSET:
        data_range = 1.0 if case.api.kind == "loss" and case.preds.dtype in FLOATS else None
    if data_range is None:
        return TYPE_RANGES.get(case.preds.dtype)
    if isinstance(data_range, Tensor):
        return [float(v) for v in data_range.flatten()] if data_range.numel() > 1 else data_range.item()
    if isinstance(data_range, tuple):
        return tuple(map(float, data_range))
    return float(data_range)


def expected(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """The float64 result."""
    api, data_range, mask = case.api, resolved(case), case.mask
    window = {name: case.arguments[name] for name in ("sigma", "kernel_size") if name in case.arguments}
    channels = x.shape[1]
    if case.arguments.get("per_channel"):
        mask = None if mask is None else mask.expand(x.shape).flatten(0, 1).unsqueeze(1)
        x, y = x.flatten(0, 1).unsqueeze(1), y.flatten(0, 1).unsqueeze(1)
        if isinstance(data_range, list):
            data_range = [number for number in data_range for _ in range(channels)]
    if mask is not None and data_range is None:
        spans = [image[(mask > 0).expand(image.shape)] for image in (x, y)]
        data_range = max(float(span.max() - span.min()) for span in spans)
    function = reference_msssim if api.is_multiscale else reference_ssim
    window |= {"betas": BETAS} if api.is_multiscale else {}
    if data_range is None:
        values = function(x, y, reduction="none", **window).reshape(-1)
    else:
        each = data_range if isinstance(data_range, list) else [data_range] * len(x)
        values = torch.stack([of_one(case, function, window, x, y, mask, i, number) for i, number in enumerate(each)])
    if api.kind == "loss":
        values = 1 - values
    if api.pixel:
        if isinstance(data_range, tuple):
            x, y = x.clamp(*data_range), y.clamp(*data_range)
        phi = (x - y).abs() if api.pixel == "l1" else (x - y) ** 2
        weights = torch.ones_like(phi) if mask is None else mask.double().expand(phi.shape)
        values = 0.8 * (phi * weights).flatten(1).sum(1) / weights.flatten(1).sum(1) + 0.2 * values
    reduction = case.arguments["reduction"]
    if reduction in ("none", None):
        return values.reshape(-1, channels) if case.arguments.get("per_channel") else values
    return values.sum() if reduction == "sum" else values.mean()


def of_one(
    case: Case, function: Callable, window: dict[str, Any], x: Tensor, y: Tensor, mask: Any, i: int, number: Any
) -> Tensor:
    """The value of one image."""
    x, y = x[i : i + 1], y[i : i + 1]
    if mask is None:
        return function(x, y, data_range=number, reduction="elementwise_mean", **window)
    if isinstance(number, tuple):
        x, y, number = x.clamp(*number), y.clamp(*number), number[1] - number[0]
    described = Window((window["sigma"],), (window.get("kernel_size", 11),), data_range=number)
    betas = multiscale.rounded(window["betas"]) if "betas" in window else ()
    spec = Spec(described, Reduction.MEAN, betas=betas, mask_mode=case.mask_mode)
    return spec.composite(x, y, None, mask[i : i + 1])[0]


def called(case: Case, preds: Any, target: Any) -> Tensor:
    given = dict(case.arguments) | ({} if case.data_range is UNSET else {"data_range": case.data_range})
    masked = {} if case.mask is None else {"mask": case.mask}
    mode = {} if case.mask_mode == "window" else {"mask_mode": case.mask_mode}
    if case.api.kind == "function":
        return case.api.make(preds, target, **given, **masked, **mode)
    if case.api.kind == "loss":
        pixel = {"pixel": "l2"} if case.api.make is PixelSSIMLoss else {}
        return case.api.make(**pixel, **given)(preds, target, **masked, **mode)
    return case.api.make(**given, **mode)(preds, target, **masked)


def names_of(api: Api) -> set[str]:
    """The arguments of the call and of the constructor."""
    found = set(inspect.signature(ms_ssim).parameters) | set(inspect.signature(ssim).parameters)
    return found | {"weight"} if api.kind == "loss" else found


def check(case: Case) -> str:
    """Compares a case with the expected result. Returns "same" or "refused"."""
    tracks = case.api.kind != "metric" and isinstance(case.preds, Tensor) and case.preds.dtype in FLOATS
    preds = case.preds.clone().requires_grad_() if tracks else case.preds
    value, error = None, None
    try:
        value = called(case, preds, case.target)
    except DOCUMENTED as caught:
        error = caught
    if error is not None or value is None:
        assert not case.is_valid, error
        assert set(re.findall(r"`(\w+)", str(error))) & names_of(case.api), error
        assert "NoTensor" not in type(error).__name__
        assert "_Loss" not in str(error)
        return "refused"
    assert case.is_valid, value
    x = case.preds.double().requires_grad_(tracks)
    y = (case.target.to(case.preds.dtype) if case.preds.dtype in FLOATS else case.target).double()
    exact = expected(case, x, y)
    dtype = case.preds.dtype if case.preds.dtype in FLOATS else torch.float32
    of_value, of_gradient = TOLERANCES[dtype]
    if case.api.kind == "metric":  # a metric's states are float32, and it returns a scalar for one element
        value, exact = value.squeeze(), exact.squeeze()
        of_value = max(of_value, 1e-6)
    assert value.shape == exact.shape
    tolerance = of_value * max(1.0, float(exact.abs().max()))
    torch.testing.assert_close(value.detach().double(), exact.detach(), rtol=0, atol=tolerance)
    if tracks and resolved(case) is not None:  # the reference's own range has no gradient
        (found,) = torch.autograd.grad(value.sum(), preds)
        (slopes,) = torch.autograd.grad(exact.sum(), x)
        tolerance = of_gradient * float(slopes.abs().max()) + (1e-4 if dtype == torch.float16 else 1e-12)
        torch.testing.assert_close(found.double(), slopes, rtol=0, atol=tolerance)
    return "same"


def run(name: str, seed: int) -> dict[str, int]:
    rng, counts = random.Random(f"{name} {seed}"), {"same": 0, "refused": 0}
    for i in range(CASES):
        case = drawn(APIS[name], rng)
        try:
            counts[check(case)] += 1
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, case {i}: {case}") from error
    return counts


@pytest.mark.parametrize("name", APIS)
def test_the_number_of_float64_or_a_documented_error(name: str) -> None:
    counts = run(name, 0)
    assert counts["same"] >= CASES // 5, counts
    assert counts["refused"] >= CASES // 5, counts


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 31))
@pytest.mark.parametrize("name", APIS)
def test_many_random_calls_match_float64_or_raise(name: str, seed: int) -> None:
    run(name, seed)
