"""How far values and gradients are from float64, of this and of other libraries: `python -m benchmarks.accuracy`.

Writes benchmarks/results/accuracy.csv, docs/figures/accuracy.png and the table of docs/accuracy.md. The exact result is
torchmetrics' in float64, of the images as rounded to the type; of a library without padding, that map's inside.
An error is in units of the type's eps: a value's is absolute; a gradient's largest is relative to the largest exact
element, and where that is zero, to one over the number of pixels and the range.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as reference

from ssim_fused import ssim

from .marks import rewrite
from .plot import OURS_COLOR

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from suite import Pair, suite, waves  # noqa: E402

RESULTS = ROOT / "benchmarks/results/accuracy.csv"
PAGE, FIGURE = ROOT / "docs/accuracy.md", ROOT / "docs/figures/accuracy.png"
RADIUS = 5  # of the window of eleven taps that all libraries have
UPSTREAM = 1024.0  # keeps gradients of float16 above its smallest number, as a loss scaler does
DTYPES = {"float32": torch.float32, "float16": torch.float16}
OURS = "ssim_fused"
SAME = 4.0  # units of eps, which the tests allow for rounding: of results that close none is better

# By case, and value or gradient.
CANCELS = "`d - delta^2` cancels where x - y varies smoothly ([numerics](numerics.md#what-is-left)); not taken apart"
REASONS: dict[tuple[str, str], str] = {
    (case, "gradient"): CANCELS for case in ("smooth", "noisy_and_brighter", "anti_correlated")
}

Mean = Callable[[Tensor, Tensor, float], Any]  # a tensor, of functions that may return two


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
    """Images of the exactness suite, and three that are about correlation and brightness."""
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
    """Those that are installed: an import that fails ends the measurement, since the table names them all."""
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
    """Value and gradient by the first image, in float64."""
    x = x.clone().requires_grad_()
    value = mean(x, y, data_range)
    (gradient,) = torch.autograd.grad(value, x, torch.full_like(value, UPSTREAM))
    return value.detach().double(), gradient.double() / UPSTREAM


def measure(pair: Pair, dtype: str, library: Library) -> list[Error]:
    """Of one library: the errors of value and gradient."""
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
    except RuntimeError as error:  # no kernel of this type on this device
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
    """Two digits."""
    return (
        "fails"
        if error is None
        else f"{error:.2g}"
        if error < 100
        else f"{error:.0f}"
        if error < 1e5
        else f"{error:.0e}"
    )


def table(errors: list[Error], dtype: str, of: str, names: list[str]) -> str:
    """A row for each case, and why another library of the same convention is closer where one is."""
    lines = [["", *names, "ours is not the lowest"], ["---", *["---:"] * len(names), "---"]]
    for case in dict.fromkeys(error.case for error in errors):
        found = {e.library: e.eps for e in errors if (e.case, e.dtype, e.of) == (case, dtype, of)}
        lines.append([case, *(text(found[name]) for name in names), why_not(case, of, found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def is_closer(error: float | None, than: float | None) -> bool:
    """Whether one error is lower by more than rounding; who failed is not."""
    return error is not None and (than is None or than > error + SAME)


def why_not(case: str, of: str, found: dict[str, float | None]) -> str:
    """Why another library is closer, where one is by more than a rounding."""
    half = len(found) // 2
    closer = []
    for ours, *others in (list(found)[:half], list(found)[half:]):
        best = found[ours]
        closer += [name for name in others if is_closer(found[name], best)]
    reason = REASONS.get((case, of), "not explained yet")
    return f"{', '.join(closer)}: {reason}" if closer else ""


def draw(errors: list[Error], names: list[str]) -> None:
    """A point for each library in each case; four panels."""
    labels = list(dict.fromkeys(error.case for error in errors))
    figure, panels = plt.subplots(2, 2, figsize=(12, 10), sharey=True, layout="constrained")
    markers = dict(zip(names, "osDosD", strict=True))
    colors = dict(zip(names, [OURS_COLOR, "#1864ab", "#2b8a3e", OURS_COLOR, "#74c0fc", "#862e9c"], strict=True))
    for row, dtype in zip(panels, DTYPES, strict=True):
        for axes, of in zip(row, ("value", "gradient"), strict=True):
            for name in names:
                own = name.startswith(OURS)
                points = [e for e in errors if (e.dtype, e.of, e.library) == (dtype, of, name) and e.eps is not None]
                axes.plot(
                    [max(e.eps or 0, 1e-2) for e in points],
                    [labels.index(e.case) for e in points],
                    markers[name],
                    color=colors[name],
                    fillstyle="none" if name.endswith("valid") or not own else "full",
                    label=name,
                )
            axes.axvline(1, color="#adb5bd", linewidth=0.8)
            axes.set(xscale="log", xlabel=f"error, eps of {dtype}", title=f"{of}, {dtype}")
            axes.set_yticks(range(len(labels)), [label.replace("_", " ") for label in labels])
            axes.grid(axis="y", color="#f1f3f5")
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def main() -> None:
    """Measure, and rewrite CSV, figure and page."""
    measured = libraries()
    errors = [e for pair in cases() for dtype in DTYPES for library in measured for e in measure(pair, dtype, library)]
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "dtype", "of", "library", "eps", "torch"])
        writer.writerows(
            [e.case, e.dtype, e.of, e.library, "" if e.eps is None else f"{e.eps:.4g}", torch.__version__]
            for e in errors
        )
    names = [library.name for library in measured]
    draw(errors, names)
    content = "".join(
        f"## {of.capitalize()}, {dtype}\n\n{table(errors, dtype, of, names)}\n"
        for dtype in DTYPES
        for of in ("value", "gradient")
    )
    rewrite(PAGE, f"\n{content}")


if __name__ == "__main__":
    main()
