"""Draws the plots of the report as SVG elements, in the font and text color of the page.

Each plot is drawn in two widths, because the text of the wide one would be too small on a phone. Legends are written
in HTML: names may be long, and matplotlib omits those that start with an underscore.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ssim_fused.scoring.errors import one_line

LINES = 8  # the largest number of sequences in a plot
NAMED = 10  # the largest number of points that are labeled with names
COLORS = ("#2f81d6", "#e0862a", "#3a9e5b", "#d1493f", "#8f6bc2", "#a0674b", "#d667a8", "#8a8f3c")

_INK = "#010203"  # replaced by currentColor in the SVG, so that axes and text follow dark mode
_SHAPES = {"wide": (8, 2.8), "narrow": (4.4, 2.9)}  # inches of 72 pixels


@dataclass
class Plot:
    """A plot of the report.

    Attributes:
        title: the heading above it.
        svgs: the SVG element by shape, ``"wide"`` and ``"narrow"``.
        legend: colors and names.

    """

    title: str
    svgs: dict[str, str]
    legend: list[tuple[str, str]]


def curves(lines: Sequence[tuple[str, list[int], list[float]]], metric: str, count: int) -> Plot:
    """Plots a score over frames.

    Args:
        lines: for each sequence its name, its frame numbers and its scores.
        metric: the name of the score.
        count: the number of all sequences, of which ``lines`` has the first.

    """

    def draw(axes: Any) -> None:
        for (_, numbers, values), color in zip(lines, COLORS, strict=False):
            axes.plot(numbers, values, linewidth=1.2, color=color)
        axes.set_xlabel("frame", color=_INK)
        axes.set_ylabel(metric, color=_INK)

    some = f", the first {len(lines)} of {count}" if count > len(lines) else ""
    legend = [(color, line[0]) for line, color in zip(lines, COLORS, strict=False)]
    return Plot(f"{metric} over frames{some}", _drawn(draw), legend if len(lines) > 1 else [])


def rate_distortion(points: dict[str, list[tuple[float, float, str]]], metric: str) -> Plot:
    """Plots score against bit rate: a line for each reference, a point ``(kbit/s, score, name)`` for each encode."""
    shown = list(points.items())[:LINES]
    total = sum(len(encodes) for _, encodes in shown)

    def draw(axes: Any) -> None:
        for (_, encodes), color in zip(shown, COLORS, strict=False):
            rates, scores = [point[0] for point in encodes], [point[1] for point in encodes]
            axes.plot(rates, scores, marker="o", markersize=4, linewidth=1.2, color=color)
            for rate, score, name in encodes if total <= NAMED else []:
                axes.annotate(_short(name), (rate, score), (4, -10), textcoords="offset points", color=_INK, fontsize=8)
        axes.set_xlabel("bit rate, kbit/s", color=_INK)
        axes.set_ylabel(metric, color=_INK)
        axes.set_xlim(left=0)
        axes.margins(y=0.15)  # leaves room for names
        axes.grid(alpha=0.25)

    some = f", the first {len(shown)} of {len(points)} references" if len(points) > len(shown) else ""
    legend = [(color, name) for (name, _), color in zip(shown, COLORS, strict=False)]
    return Plot(f"Rate and distortion: {metric} against bit rate{some}", _drawn(draw), legend if len(shown) > 1 else [])


def _short(path: str) -> str:
    name = one_line(os.path.basename(path))
    return name if len(name) <= 16 else f"{name[:15]}…"


def histogram(values: Sequence[float], metric: str, kind: str) -> Plot:
    """Plots the distribution of the scores of all frames or pictures."""
    import numpy as np

    finite = np.asarray(values)[np.isfinite(values)]

    def draw(axes: Any) -> None:
        axes.hist(finite, bins=min(60, max(10, len(finite) // 5)), color=COLORS[0])
        axes.set_xlabel(metric, color=_INK)
        axes.set_ylabel(kind, color=_INK)
        axes.yaxis.get_major_locator().set_params(integer=True)

    return Plot(f"Distribution of {metric}", _drawn(draw), [])


def _drawn(draw: Callable[[Any], None]) -> dict[str, str]:
    from matplotlib import style
    from matplotlib.figure import Figure

    ours = {"svg.fonttype": "none", "svg.hashsalt": "ssim_fused", "font.family": "sans-serif", "text.parse_math": False}
    svgs = {}
    with style.context(["default", ours]):  # overrides the user's matplotlibrc
        for name, size in _SHAPES.items():
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots()
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(colors=_INK)
            for spine in axes.spines.values():
                spine.set_color(_INK)
            draw(axes)
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
            text = file.getvalue()
            svgs[name] = text[text.index("<svg") :].replace(_INK, "currentColor")
    return svgs
