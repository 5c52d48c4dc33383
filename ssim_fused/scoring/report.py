"""The report: one HTML file that needs no network, with a summary, a plot, the pairs and the worst of them."""

from __future__ import annotations

import base64
import heapq
import io
from collections.abc import Sequence
from typing import Any

from ssim_fused import __version__
from ssim_fused.scoring.output import Rows, opened
from ssim_fused.scoring.results import PairResult, Totals
from ssim_fused.scoring.settings import Settings

ROWS = 1000  # pairs in the table, the worst; a page of more is slow to open
EXHIBITS = 12  # pairs to look at
LINES = 8  # sequences in the plot
FAILURES = 200  # pairs named that were not scored
IMAGES = ("reference", "distorted", "map")
SUMMARY = ("mean", "min", "p1", "p5", "median", "max")

_INK = "#010203"  # drawn in this color, then in that of the page's text, which is dark or light
_LINE = "#2f81d6"


class Report:
    """Takes the results, and writes the page.

    Args:
        path: of the HTML file.
        settings: what was computed.
        rows: how results are shown.

    """

    def __init__(self, path: str, settings: Settings, rows: Rows) -> None:
        import jinja2  # so that it is missed before the work, not after

        loader = jinja2.PackageLoader("ssim_fused.scoring", "templates")
        environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self._template = environment.get_template("report.html.j2")
        self._path, self._settings, self._rows = path, settings, rows
        self._metric = settings.metric[0]
        self._worst: list[tuple[float, int, dict[str, Any]]] = []  # negated scores
        self._exhibits: list[tuple[float, int, dict[str, Any]]] = []
        self._lines: list[tuple[str, list[int], list[float]]] = []
        self._failures: list[PairResult] = []

    def pair(self, result: PairResult) -> None:
        if result.error:
            self._failures += [result] if len(self._failures) < FAILURES else []
            return
        scores = self._rows.scores(result)
        row = {"number": result.number, "reference": result.reference, "distorted": result.distorted, "scores": scores}
        order = (-self._score(row), -result.number)
        _keep(self._worst, (*order, row), ROWS)
        if result.sequence and len(self._lines) < LINES:
            self._lines.append((result.distorted, result.numbers, [s[self._metric] for s in result.scores]))
        if result.exhibit:
            shown = {
                "frame": result.exhibit.frame if result.sequence else None,
                "images": {name: _embedded(getattr(result.exhibit, name)) for name in IMAGES},
            }
            _keep(self._exhibits, (-result.lowest(self._metric), -result.number, row | shown), EXHIBITS)

    def _score(self, row: dict[str, Any]) -> float:
        value = row["scores"][self._metric]
        return float("inf") if value is None else value

    def end(self, totals: Totals) -> None:
        """Writes the file."""
        summary = Totals(self._settings.metric, SUMMARY)
        summary.take(totals)
        page = self._template.render(
            version=__version__,
            settings=_described(self._settings),
            totals=totals,
            pools=SUMMARY,
            pooled=self._rows.pooled(summary),
            columns=self._rows.columns.names,
            plots=self._plots(totals),
            rows=[row for *_, row in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)],
            exhibits=[row for *_, row in sorted(self._exhibits, key=lambda entry: entry[:2], reverse=True)],
            failures=self._failures,
            metric=self._metric,
        )
        with opened(self._path) as file:
            file.write(page)

    def _plots(self, totals: Totals) -> list[dict[str, str]]:
        values = totals.values(self._metric)
        plots = []
        if self._lines:
            plots.append({"title": f"{self._metric} over frames", "svg": _lines_plot(self._lines, self._metric)})
        if len(values) > 1:
            plots.append({"title": f"Distribution of {self._metric}", "svg": _histogram(values, self._metric)})
        return plots


def _keep(heap: list, entry: tuple, size: int) -> None:
    """Keeps the ``size`` greatest; numbers differ, so what stands behind them is never compared."""
    if len(heap) < size:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def _embedded(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def _described(settings: Settings) -> str:
    """What was computed, in a line."""
    convention = settings.resolved()
    window = f"Gaussian of sigma {convention.sigma:g}"
    if convention.window == "uniform":
        window = f"uniform window of {convention.kernel_size}x{convention.kernel_size}"
    parts = [window, f"{convention.padding} padding", f"luma {convention.luma}" if convention.luma else "RGB"]
    if settings.convention:
        parts.insert(0, f"as {settings.convention}")
    if settings.crop:
        parts.append(f"{settings.crop} pixels cropped")
    parts += [f"without x={x} y={y} w={w} h={h}" for x, y, w, h in settings.ignore]
    return ", ".join(parts)


def _figure():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    return figure, axes


def _lines_plot(lines: Sequence[tuple[str, list[int], list[float]]], metric: str) -> str:
    figure, axes = _figure()
    for name, numbers, values in lines:
        axes.plot(numbers, values, linewidth=1.2, label=name, color=_LINE if len(lines) == 1 else None)
    axes.set_xlabel("frame", color=_INK)
    axes.set_ylabel(metric, color=_INK)
    if len(lines) > 1:
        axes.legend(frameon=False, labelcolor=_INK, fontsize="small")
    return _svg(figure)


def _histogram(values: Sequence[float], metric: str) -> str:
    import numpy as np

    figure, axes = _figure()
    finite = np.asarray(values)[np.isfinite(values)]
    axes.hist(finite, bins=min(60, max(10, len(finite) // 5)), color=_LINE)
    axes.set_xlabel(metric, color=_INK)
    axes.set_ylabel("frames", color=_INK)
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure)


def _svg(figure: Any) -> str:
    """The figure as an element of the page, in its font and the color of its text."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ssim_fused", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
