"""Random shapes, windows, layouts, dtypes and ranges against the reference, generated and shrunk by hypothesis."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from conftest import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CALLS, FLOAT32_SLACK, FLOAT64_TOLERANCE, effort, errors, evaluate, reference, reference_noise, ssim
from torch import Tensor

SEQUENCES = (tuple, list)

# Two float32 results with errors of the same size differ by chance, and hypothesis finds the worst case.
FLOAT32_FACTOR = 2.0

# With a smaller sigma, the window is little more than one pixel, and both gradients are rounding errors of terms that
# cancel. Other tests cover such windows, on images where little cancels.
SMALLEST_SIGMA = 0.5


# Images around zero are in the suite. In noise of mean zero, hypothesis finds windows whose luminance is 0 / 0 except
# for c1; there, float32 results are rounding errors, the reference's too.
OFFSETS = {torch.float64: [0.0, -0.5, 3.0], torch.float32: [0.0, 0.0, 3.0]}


class Example(NamedTuple):
    preds: Tensor
    target: Tensor
    arguments: dict[str, Any]
    recipe: str

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Prints how to construct the images of a failing example instead of their pixels."""
        strides = f"strides {self.preds.stride()} and {self.target.stride()}"
        printer.text(f"{self.recipe}, {self.preds.dtype}, {strides}, {self.arguments}")


# Windows of volumes are smaller, because the reference convolves them with all taps at once.
LARGEST_SIGMA = {2: 3.5, 3: 1.0}
LARGEST_RADIUS = {2: 8, 3: 3}


@st.composite
def windows(draw: st.DrawFn, axes: int) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """Arguments, with the radii and padding that they imply. No size is 1, where our CS differs deliberately."""
    per_axis = draw(st.booleans())
    count = axes if per_axis else 1

    def argument(values: list[Any]) -> Any:
        return draw(st.sampled_from(SEQUENCES))(values) if per_axis else values[0]

    if draw(st.booleans()):
        sigmas = [draw(st.floats(SMALLEST_SIGMA, LARGEST_SIGMA[axes])) for _ in range(count)]
        radii = [int(3.5 * sigma + 0.5) for sigma in sigmas]
        arguments: dict[str, Any] = {"sigma": argument(sigmas)}
    else:
        radii = [draw(st.integers(1, LARGEST_RADIUS[axes])) for _ in range(count)]
        arguments = {"gaussian_kernel": False, "kernel_size": argument([2 * radius + 1 for radius in radii])}
    radii = tuple(radii) if per_axis else axes * (radii[0],)
    pad = radii
    if axes == 3 and "sigma" in arguments:  # the last axis is padded for `kernel_size`
        pad = (*radii[:2], draw(st.integers(1, 6)))
        arguments["kernel_size"] = 2 * pad[2] + 1
    return arguments, radii, pad


def laid_out(draw: st.DrawFn, image: Tensor) -> Tensor:
    """The same image with other strides: axes in another order in memory, and gaps between elements."""
    axes = range(image.ndim)
    order = draw(st.permutations(axes))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in axes]
    sizes = [image.shape[axis] * steps[axis] for axis in order]
    view = image.new_full(sizes, -7.0).permute([order.index(axis) for axis in axes])
    view = view[tuple(slice(None, None, step) for step in steps)]
    view.copy_(image)
    return view


@st.composite
def examples(draw: st.DrawFn, dtype: torch.dtype, axes: int = 2) -> Example:
    window, radii, pad = draw(windows(axes))
    # Mostly near the smallest side that can be padded and filtered, sometimes across a strip of 256 columns.
    least = [max(p, 2 * (radius - p)) for radius, p in zip(radii, pad, strict=True)]
    if axes == 2:
        more = draw(st.integers(1, 24)), draw(st.one_of(st.integers(1, 24), st.integers(240, 270)))
        planes = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    else:
        more = *(draw(st.integers(1, 8)) for _ in range(2)), draw(st.one_of(st.integers(1, 8), st.integers(250, 260)))
        planes = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    shape = *planes, *(n + m for n, m in zip(least, more, strict=True))

    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    scale = draw(st.sampled_from([1e-3, 1.0, 255.0]))
    offset = draw(st.sampled_from(OFFSETS[dtype])) * scale
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    noise = torch.rand(shape, generator=generator, dtype=torch.float64)
    distance = draw(st.sampled_from([1e-2, 0.3, 1.0]))
    images = [offset + scale * image for image in ((1 - distance) * target + distance * noise, target)]
    preds, target = (laid_out(draw, image.to(dtype)) for image in images)

    data_range = draw(
        st.sampled_from([None, scale, 2.5 * scale, (offset, offset + scale), (offset + 0.2 * scale, offset + scale)])
    )
    call = CALLS[draw(st.sampled_from(sorted(CALLS)))]
    constants = draw(st.sampled_from([{}, {}, {"k1": 0.03, "k2": 0.1}]))
    recipe = f"{shape=}, {seed=}, {scale=}, {offset=}, {distance=}"
    return Example(preds, target, {**window, **call, **constants, "data_range": data_range}, recipe)


def run(function: Any, example: Example, device: str = "cpu", dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    preds, target = (image.to(device, dtype) for image in (example.preds, example.target))
    return evaluate(function, preds, target, **example.arguments)


@settings(max_examples=effort(150))
@given(examples(torch.float64))
def test_float64(example: Example) -> None:
    assert_float64(example)


@settings(max_examples=effort(60))
@given(examples(torch.float64, axes=3))
def test_float64_of_volumes(example: Example) -> None:
    assert_float64(example)


def assert_float64(example: Example) -> None:
    exact = run(reference, example)
    tolerance = FLOAT64_TOLERANCE + reference_noise(example.preds, example.target, example.arguments)
    for device in DEVICES:
        for name, found in errors(run(ssim, example, device), exact).items():
            assert found <= tolerance, name


@settings(max_examples=effort(100))
@given(examples(torch.float32))
def test_float32(example: Example) -> None:
    assert_float32(example)


@settings(max_examples=effort(40))
@given(examples(torch.float32, axes=3))
def test_float32_of_volumes(example: Example) -> None:
    assert_float32(example)


@st.composite
def steps(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict[str, Any], str]:
    """Images with a step in brightness within windows, of up to 1000 data ranges, along either axis."""
    window, radii, _ = draw(windows(2))
    shape = 1, draw(st.integers(1, 2)), *(radius + draw(st.integers(2, 30)) for radius in radii)
    seed, height = draw(st.integers(0, 2**31)), draw(st.sampled_from([3.0, 30.0, 255.0, 1000.0]))
    axis, distance = draw(st.sampled_from([2, 3])), draw(st.sampled_from([1e-2, 0.3, 1.0]))
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    preds = (1 - distance) * target + distance * torch.rand(shape, generator=generator)
    place = draw(st.integers(1, shape[axis] - 1))
    for image in (preds, target):
        image.narrow(axis, place, shape[axis] - place).add_(height)
    return preds, target, window, f"{shape=}, {seed=}, {height=}, {axis=}, {place=}, {distance=}"


@settings(max_examples=effort(100))
@given(steps())
def test_steps_in_brightness(example: tuple[Tensor, Tensor, dict[str, Any], str]) -> None:
    """At single pixels either side may be exact by chance. Over a map, ours is closer, and no value exceeds 1."""
    preds, target, window, _ = example
    call = {"data_range": 1.0, "reduction": "none", "return_full_image": True, **window}
    exact = reference(preds.double(), target.double(), **call)[1]
    theirs = (reference(preds, target, **call)[1] - exact).square().mean().sqrt()
    for device in DEVICES:
        found = ssim(preds.to(device), target.to(device), **call)[1].cpu()
        assert found.abs().max() <= 1 + FLOAT32_SLACK
        if device == "cpu":
            assert (found - exact).square().mean().sqrt() <= FLOAT32_FACTOR * theirs + FLOAT32_SLACK


def assert_float32(example: Example) -> None:
    exact = run(reference, example, dtype=torch.float64)
    theirs = errors(run(reference, example), exact)
    for device in DEVICES:
        for name, found in errors(run(ssim, example, device), exact).items():
            assert found <= FLOAT32_FACTOR * theirs[name] + FLOAT32_SLACK, name
