"""Measure the errors of this and other libraries against float64: `python -m benchmarks.accuracy`.

Writes benchmarks/results/accuracy.csv, docs/figures/accuracy_*.svg and the tables of docs/accuracy.md. The exact
result is torchmetrics' in float64, for the images as rounded to the type. For a library without padding, it is the
inside of that map. An error is in units of the type's eps. That of a value is absolute. That of a gradient is the
largest, relative to the largest exact element, or, if that is zero, to one over the number of pixels and the range.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import ssim

from .marks import rewrite
from .svg import WIDTH, Chart

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from suite import Pair, suite, waves  # noqa: E402

RESULTS = ROOT / "benchmarks/results/accuracy.csv"
PAGE, FIGURES = ROOT / "docs/accuracy.md", ROOT / "docs/figures"
RADIUS = 5  # of the window of eleven taps that all libraries use
UPSTREAM = 1024.0  # keeps gradients of float16 above its smallest number, as a loss scaler does
DTYPES = {"float32": torch.float32, "float16": torch.float16}
OURS = "ssim_fused"
SAME = 4.0  # units of eps, the tests' allowance for rounding: errors that differ by less count as equal

# Why another library is closer, by case and by value or gradient.
CANCELS = "`d - delta^2` cancels where x - y varies smoothly ([numerics](numerics.md#what-is-left)); not investigated"
REASONS: dict[tuple[str, str], str] = {
    (case, "gradient"): CANCELS for case in ("smooth", "noisy_and_brighter", "anti_correlated")
}

Mean = Callable[[Tensor, Tensor, float], Any]  # returns a tensor; Any, because some functions may return two


@dataclass(frozen=True)
class Library:
    """A mean SSIM `(preds, target, data_range) -> scalar`, and whether it pads."""

    name: str
    mean: Mean
    is_padded: bool = True


@dataclass(frozen=True)
class Error:
    """A row of the CSV."""

    case: str
    dtype: str
    of: str  # value or gradient
    library: str
    eps: float | None  # None: the library failed, or gave NaN


def cases() -> list[Pair]:
    """Images of the exactness suite, and three with special correlation or brightness."""
    picture = waves(1, 1, 33, 40)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    names = "random noisy smooth constant identical near_identical offset hdr bytes signed saturated checkerboard"
    return [
        *(suite()[name] for name in names.split()),
        Pair("anti_correlated", 1 - picture + 0.02 * noise, picture),
        Pair("brighter", picture + 0.2, picture),
        Pair("noisy_and_brighter", picture + 0.2 + 0.02 * noise, picture),
    ]


def libraries() -> list[Library]:
    """All libraries of the table. A failed import ends the measurement, because the table names them all."""
    import frame_analytics
    import kornia.metrics
    import pytorch_msssim

    frame_analytics.set_compile_enabled(False)
    return [
        Library(OURS, lambda x, y, r: ssim(x, y, data_range=r)),
        Library("torchmetrics", lambda x, y, r: reference(x, y, data_range=r)),
        Library("kornia", lambda x, y, r: kornia.metrics.ssim(x, y, 11, max_val=r).mean()),
        Library(f"{OURS}, valid", lambda x, y, r: ssim(x, y, data_range=r, padding="valid"), is_padded=False),
        Library("pytorch-msssim", lambda x, y, r: pytorch_msssim.ssim(x, y, data_range=r), is_padded=False),
        Library("frame-analytics", lambda x, y, r: frame_analytics.ssim(x, y, data_range=r), is_padded=False),
    ]


def exact_mean(is_padded: bool) -> Mean:
    """The reference's mean over the whole map, or over the windows that lie inside the image."""

    def mean(x: Tensor, y: Tensor, data_range: float) -> Tensor:
        _, similarity = reference(x, y, data_range=data_range, return_full_image=True)
        inside = slice(None) if is_padded else slice(RADIUS, -RADIUS)
        return similarity[..., inside, inside].mean()

    return mean


def evaluate(mean: Mean, x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Value and gradient with respect to the first image, in float64."""
    x = x.clone().requires_grad_()
    value = mean(x, y, data_range)
    (gradient,) = torch.autograd.grad(value, x, torch.full_like(value, UPSTREAM))
    return value.detach().double(), gradient.double() / UPSTREAM


def measure(pair: Pair, dtype: str, library: Library) -> list[Error]:
    """The errors of one library's value and gradient."""
    of_pair = pair.data_range
    if not isinstance(of_pair, int | float):
        of_pair = max(float(image.max() - image.min()) for image in (pair.preds, pair.target))
    of_pair = float(of_pair)
    x, y = pair.preds.to(DTYPES[dtype]), pair.target.to(DTYPES[dtype])
    exact, slope = evaluate(exact_mean(library.is_padded), x.double(), y.double(), of_pair)
    scale = float(slope.abs().max())
    scale = scale if pair.name != "identical" else 1 / (x.numel() * of_pair)
    eps = torch.finfo(DTYPES[dtype]).eps
    try:
        value, gradient = evaluate(library.mean, x, y, of_pair)
    except RuntimeError as error:  # no kernel for this type on this device
        print(f"{library.name}, {pair.name}, {dtype}: {error}", file=sys.stderr)
        found = {"value": None, "gradient": None}
    else:
        found = {
            "value": float((value - exact).abs()) / eps,
            "gradient": float((gradient - slope).abs().max()) / scale / eps,
        }
    known = {of: error if error is not None and error < float("inf") else None for of, error in found.items()}
    return [Error(pair.name, dtype, of, library.name, error) for of, error in known.items()]


def text(error: float | None) -> str:
    """An error with two digits, or "fails"."""
    return (
        "fails"
        if error is None
        else f"{error:.2g}"
        if error < 100
        else f"{error:.0f}"
        if error < 1e5
        else f"{error:.0e}"
    )


def ratio(ours: float | None, theirs: float | None) -> str:
    """How many times another error is ours, where an error within rounding counts as one unit."""
    if ours is None or theirs is None:
        return "fails" if theirs is None else ""
    return f"{text(max(theirs, 1.0) / max(ours, 1.0))}x"


def table(errors: list[Error], dtype: str, of: str, names: list[str]) -> str:
    """A row for each case; below it, why another library of the same convention is closer."""
    lines = [["", "torchmetrics / ours", *names], ["---", *["---:"] * (1 + len(names))]]
    notes = []
    for case in dict.fromkeys(error.case for error in errors):
        found = {e.library: e.eps for e in errors if (e.case, e.dtype, e.of) == (case, dtype, of)}
        against = ratio(found[OURS], found["torchmetrics"])
        lines.append([case.replace("_", " "), against, *(text(found[name]) for name in names)])
        if reason := why_not(case, of, found):
            notes.append(f"- {case.replace('_', ' ')}: {reason}")
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    return rows + ("\nNot the lowest error:\n\n" + "\n".join(notes) + "\n" if notes else "")


def is_closer(error: float | None, than: float | None) -> bool:
    """Whether an error is lower than another by more than rounding. A failure is never lower."""
    return error is not None and (than is None or than > error + SAME)


def why_not(case: str, of: str, found: dict[str, float | None]) -> str:
    """Why another library is closer, if one is by more than rounding."""
    half = len(found) // 2
    closer = []
    for ours, *others in (list(found)[:half], list(found)[half:]):
        best = found[ours]
        closer += [name for name in others if is_closer(found[name], best)]
    reason = REASONS.get((case, of), "not explained yet")
    return f"{', '.join(closer)}: {reason}" if closer else ""


def draw(errors: list[Error], names: list[str]) -> list[Path]:
    """A chart for each type, of values and of gradients, with a point for each library in each case."""
    labels = list(dict.fromkeys(error.case for error in errors))
    low, high = 1e-2, max(e.eps for e in errors if e.eps is not None)  # smaller errors are drawn at `low`
    left, right, row = 125, WIDTH - 8, 18

    def x(eps: float) -> float:
        position = (math.log(max(eps, low)) - math.log(low)) / (math.log(high) - math.log(low))
        return left + position * (right - left)

    paths = []
    for dtype in DTYPES:
        for of in ("value", "gradient"):
            chart = Chart(f"Errors of {of}s in {dtype}, a point for each library and case")
            chart.text(0, 18, f"{of.capitalize()}, {dtype}", "title")
            chart.text(0, 36, f"error in eps of {dtype}, logarithmic: further left is better", "small")
            dots = [f"dot{i} hollow" if name.endswith("valid") else f"dot{i}" for i, name in enumerate(names)]
            for i, (name, dot) in enumerate(zip(names, dots, strict=True)):
                place, y = 8 + (i % 3) * WIDTH / 3, 54 + 18 * (i // 3)
                chart.dot(place, y - 4, dot)
                chart.text(place + 8, y, name)
            top, bottom = 84, 84 + row * len(labels)
            for power in range(-2, math.floor(math.log10(high)) + 1, 2):
                chart.line(x(10.0**power), top, x(10.0**power), bottom)
                chart.text(x(10.0**power), bottom + 14, f"1e{power}" if power else "1", "small middle")
            chart.line(x(1), top, x(1), bottom, "bound")
            for i, case in enumerate(labels):
                y = top + row * (i + 0.5)
                chart.text(left - 8, y + 4, case.replace("_", " "), "end")
                for name, dot in reversed(list(zip(names, dots, strict=True))):  # ours on top
                    for e in errors:
                        if (e.case, e.dtype, e.of, e.library) == (case, dtype, of, name) and e.eps is not None:
                            chart.dot(x(e.eps), y, dot)
            paths.append(FIGURES / f"accuracy_{of}_{dtype}.svg")
            chart.write(paths[-1], bottom + 20)
    return paths


def read_errors() -> list[Error]:
    """The rows of the CSV."""
    with RESULTS.open(newline="") as file:
        return [
            Error(row["case"], row["dtype"], row["of"], row["library"], float(row["eps"]) if row["eps"] else None)
            for row in csv.DictReader(file)
        ]


def measure_all() -> None:
    """Measure, and write the CSV."""
    measured = libraries()
    errors = [e for pair in cases() for dtype in DTYPES for library in measured for e in measure(pair, dtype, library)]
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "dtype", "of", "library", "eps", "torch"])
        writer.writerows(
            [e.case, e.dtype, e.of, e.library, "" if e.eps is None else f"{e.eps:.4g}", torch.__version__]
            for e in errors
        )


def main() -> None:
    """Measure, and rewrite CSV, charts and page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="measure nothing, draw and write the page from the CSV")
    if not parser.parse_args().tables:
        measure_all()
    errors = read_errors()
    names = list(dict.fromkeys(error.library for error in errors))
    links = [f"![Errors of {path.stem.split('_', 1)[1].replace('_', ' in ')}](figures/{path.name})"
             for path in draw(errors, names)]  # fmt: skip
    content = " ".join(links) + "\n" + "".join(
        f"\n## {of.capitalize()}, {dtype}\n\n{table(errors, dtype, of, names)}"
        for dtype in DTYPES
        for of in ("value", "gradient")
    )  # fmt: skip
    rewrite(PAGE, f"\n{content}\n")


if __name__ == "__main__":
    main()
