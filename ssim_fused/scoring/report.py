"""Writes the report: one self-contained HTML file with a summary, plots, a table of pairs, and the worst as images."""

from __future__ import annotations

import base64
import heapq
import importlib
import math
import os
from collections.abc import Sequence
from typing import Any

from ssim_fused._version import __version__
from ssim_fused.scoring import provenance
from ssim_fused.scoring.output import Rows
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.plots import LINES, Plot, curves, histogram, rate_distortion
from ssim_fused.scoring.rates import bit_rate
from ssim_fused.scoring.results import PairResult, Totals

ROWS = 1000  # the worst pairs in the table; a page with more rows is slow to open
EXHIBITS = 12  # the worst pairs shown as images
FAILURES = 200  # pairs that could not be scored
RATES = 200  # videos whose packets are read for their bit rates
NAMED = 3  # distorted inputs named in the title
IMAGES = ("reference", "distorted", "map")
SUMMARY = ("mean", "min", "p1", "p5", "median", "max")


class Report:
    """Collects results and renders the page.

    Args:
        rows: converts results to rows.
        made: the settings of the run, from :func:`provenance.describe`.
        pairs: the pairs that are compared.

    """

    def __init__(self, rows: Rows, made: dict[str, Any], pairs: Sequence[Pair]) -> None:
        import jinja2

        importlib.import_module("matplotlib")  # fails before scoring, not after, if it is not installed
        loader = jinja2.PackageLoader("ssim_fused.scoring", "templates")
        environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self._template = environment.get_template("report.html.j2")
        self._rows, self._made, self._metric = rows, made, made["metric"][0]
        self._title = _title(pairs)
        self._worst: list[tuple[float, int, dict[str, Any]]] = []  # negated scores
        self._exhibits: list[tuple[float, int, dict[str, Any]]] = []
        self._lines: list[tuple[str, list[int], list[float]]] = []
        self._videos: list[tuple[str, str, float]] = []  # reference, distorted, score
        self._sequences = 0
        self._failures: list[PairResult] = []

    def pair(self, result: PairResult) -> None:
        """Adds the result of a pair."""
        if result.error:
            self._failures += [result] if len(self._failures) < FAILURES else []
            return
        scores = self._rows.scores(result)
        row = {"number": result.number, "reference": result.reference, "distorted": result.distorted, "scores": scores,
               "below": self._rows.below(result), "notes": result.notes}  # fmt: skip
        order = (-self._score(row), -result.number)
        _keep(self._worst, (*order, row), ROWS)
        if result.sequence:
            self._sequences += 1
            if len(self._videos) < RATES:
                self._videos.append((result.reference, result.distorted, self._score(row)))
            if len(self._lines) < LINES:
                self._lines.append((result.distorted, result.numbers, [s[self._metric] for s in result.scores]))
        if result.exhibit:
            shown = {
                "frame": result.exhibit.frame if result.sequence else None,
                "lowest": result.lowest(self._metric) if math.isfinite(result.lowest(self._metric)) else None,
                "images": {name: _embedded(getattr(result.exhibit, name)) for name in IMAGES},
            }
            _keep(self._exhibits, (-result.lowest(self._metric), -result.number, row | shown), EXHIBITS)

    def _score(self, row: dict[str, Any]) -> float:
        value = row["scores"][self._metric]
        return float("inf") if value is None else value

    def page(self, totals: Totals) -> str:
        """Returns the HTML page."""
        rates = {distorted: bit_rate(distorted) for _, distorted, _ in self._videos}
        inputs = [
            {"name": name, "scored": one.scored, "failed": one.failed, "rate": rates.get(name or ""),
             "pooled": self._rows.pooled(one, SUMMARY)}
            for name, one in totals.inputs.items()
        ]  # fmt: skip
        threshold = self._rows.threshold
        shown = [row for *_, row in (*self._worst, *self._exhibits)]
        names = {name for row in shown for name in row["scores"]}
        planes = [name for name in self._rows.columns.planes.values() if name in names]
        return self._template.render(
            title=self._title,
            version=__version__,
            command=provenance.command(),
            date=provenance.now(),
            settings=provenance.sentence(provenance.of_run(self._made, totals)),
            totals=totals,
            below=threshold and {"count": threshold.below, "least": f"{threshold.metric} {threshold.least:g}"},
            pools=SUMMARY,
            kind=self._kind(),
            inputs=inputs,
            rated=any(one["rate"] for one in inputs),
            columns=[*self._rows.columns.names, *planes],
            planes=planes,
            plots=self._plots(totals, rates),
            rows=[row for *_, row in sorted(self._worst, key=lambda entry: entry[:2], reverse=True)],
            exhibits=[row for *_, row in sorted(self._exhibits, key=lambda entry: entry[:2], reverse=True)],
            failures=self._failures,
            metric=self._metric,
        )

    def _plots(self, totals: Totals, rates: dict[str, float | None]) -> list[Plot]:
        plots = []
        points: dict[str, list[tuple[float, float, str]]] = {}
        for reference, distorted, score in self._videos:
            if (rate := rates[distorted]) is not None:
                points.setdefault(reference, []).append((rate, score, distorted))
        if any(len(encodes) > 1 for encodes in points.values()):
            plots.append(rate_distortion({name: sorted(encodes) for name, encodes in points.items()}, self._metric))
        if self._lines:
            plots.append(curves(self._lines, self._metric, self._sequences))
        values = totals.values(self._metric)
        if len(values) > 1:
            plots.append(histogram(values, self._metric, self._kind()))
        return plots

    def _kind(self) -> str:
        return "frames" if self._sequences else "pictures"


def _title(pairs: Sequence[Pair]) -> str:
    """Returns a title that names the distorted inputs and the reference."""
    inputs = list(dict.fromkeys(pair.input or pair.distorted for pair in pairs))
    if pairs[0].origin:
        return f"Pairs of {inputs[0]}"
    more = f" and {len(inputs) - NAMED} more" if len(inputs) > NAMED else ""
    references = list(dict.fromkeys(pair.reference for pair in pairs))
    against = references[0] if len(references) == 1 else os.path.commonpath(references) or "the references"
    return f"{', '.join(inputs[:NAMED])}{more} against {against}"


def _keep(heap: list, entry: tuple, size: int) -> None:
    """Keeps the ``size`` greatest entries. Entries start with distinct numbers, so that rows are never compared."""
    if len(heap) < size:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def _embedded(image: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()
