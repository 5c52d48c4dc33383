"""Output formats: a table, JSON, JSON lines, CSV, Markdown, and the lines of FFmpeg's ``ssim`` filter.

Results are written as they arrive, so that an interrupted run has printed all pairs scored before the interruption.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ssim_fused.scoring.destination import Destination
from ssim_fused.scoring.errors import one_line
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.pool import PLANES, Columns, to_db
from ssim_fused.scoring.provenance import of_run, sentence, with_range
from ssim_fused.scoring.results import PairResult, Pooled, Threshold, Totals


class Rows:
    """Converts results to names and numbers. All formats print these.

    Args:
        columns: the scores to show.
        pool: the pool that makes the score of a sequence from those of its frames.
        per_frame: include the scores of each frame.
        threshold: the ``--fail-under`` threshold, by which rows are marked, or None.
        planes_of: returns the planes that a pair's scores will have. CSV names its columns before the first score.

    """

    def __init__(
        self,
        columns: Columns,
        pool: str = "mean",
        per_frame: bool = False,
        threshold: Threshold | None = None,
        planes_of: Callable[[Pair], str] = lambda pair: "",
    ) -> None:
        self.columns, self._pool, self.per_frame, self.threshold = columns, pool, per_frame, threshold
        self._planes_of = planes_of

    def pair(self, result: PairResult) -> dict[str, Any]:
        """Returns the row of a pair, or its error."""
        row: dict[str, Any] = {"reference": result.reference, "distorted": result.distorted}
        if result.error:
            return row | {"error": result.error}
        row |= self.scores(result)
        if self.threshold:
            row["below"] = self.below(result)
        if result.notes:
            row["notes"] = list(result.notes)
        return row | {"frames": self.frames(result)} if self.per_frame else row

    def below(self, result: PairResult) -> bool:
        """Returns whether the result is below ``--fail-under``; False without that option."""
        return self.threshold is not None and self.threshold.fails(result)

    def scores(self, result: PairResult) -> dict[str, float | None]:
        """Returns the pooled scores of a pair by column."""
        return _numbers(self.columns.of(result.pooled(self._pool)))

    def frames(self, result: PairResult) -> list[dict[str, Any]]:
        """Returns the number and the scores of each frame."""
        shown = zip(result.numbers, result.scores, strict=True)
        return [{"frame": number} | _numbers(self.columns.of(scores)) for number, scores in shown]

    def pooled(self, pooled: Pooled, pools: Sequence[str]) -> dict[str, dict[str, float | None]]:
        """Returns pooled scores by column, then by pool."""
        by_pool = {name: _numbers(self.columns.of(scores)) for name, scores in pooled.pooled(pools).items()}
        first = next(iter(by_pool.values()), {})
        columns = self.header(first)
        return {column: {name: row[column] for name, row in by_pool.items()} for column in columns}

    def header(self, scores: Collection[str]) -> list[str]:
        """Returns the names of the columns. Planes have a column only if the scores have that plane."""
        return [*self.columns.names, *(name for name in self.columns.planes.values() if name in scores)]

    def expected_header(self, pairs: Sequence[Pair]) -> list[str]:
        """Returns the names of the columns that the scores of these pairs will fill."""
        planes: set[str] = set()
        for pair in pairs if self.columns.planes else ():
            planes |= {*self._planes_of(pair)}
            if planes == {*PLANES}:
                break
        return self.header([name for score, name in self.columns.planes.items() if score[-1] in planes])

    def summary(self, totals: Totals, made: dict[str, Any]) -> dict[str, Any]:
        """Returns the pooled scores of each distorted input, and the settings of the run.

        ``pooled`` is present only for a single input, because one number for several encodes would be meaningless.
        """
        inputs = [
            {"distorted": name, "pairs": one.scored, "failed": one.failed, "pooled": self.pooled(one, totals.pools)}
            for name, one in totals.inputs.items()
        ]
        nothing = self.pooled(Pooled(()), totals.pools)
        single = {"pooled": inputs[0]["pooled"] if inputs else nothing} if len(inputs) < 2 else {}
        return single | {"inputs": inputs, "settings": of_run(made, totals)}


def _numbers(scores: dict[str, float]) -> dict[str, float | None]:
    """Rounds to seven digits, the precision of float32. Infinity (identical pictures in dB), not in JSON, is None."""
    return {name: float(f"{value:.7g}") if math.isfinite(value) else None for name, value in scores.items()}


def _text(value: float | None) -> str:
    return "inf" if value is None else f"{value:.6f}"


class Writer:
    """A format. The caller calls :meth:`begin`, then :meth:`pair` for each result, then :meth:`end`.

    Args:
        file: the destination of the text.
        rows: converts results to rows.
        made: the settings of the run, from :func:`provenance.describe`.

    """

    def __init__(self, file: Destination, rows: Rows, made: dict[str, Any]) -> None:
        self.file, self.rows, self.made = file, rows, made

    def begin(self, pairs: Sequence[Pair]) -> None:
        """Writes what precedes the results of these pairs."""

    def pair(self, result: PairResult) -> None:
        """Writes the result of one pair."""
        raise NotImplementedError

    def end(self, totals: Totals) -> None:
        """Writes what follows the results."""


class Json(Writer):
    """One JSON object with ``pairs``, ``failed``, and the keys of :meth:`Rows.summary`."""

    def begin(self, pairs: Sequence[Pair]) -> None:
        self._failed: list[dict[str, Any]] = []
        self._between = "\n  "
        self.file.write('{"pairs": [')

    def pair(self, result: PairResult) -> None:
        if result.error:
            self._failed.append(self.rows.pair(result))
            return
        self.file.write(self._between + json.dumps(self.rows.pair(result)))
        self._between = ",\n  "

    def end(self, totals: Totals) -> None:
        failed = ",\n  ".join(json.dumps(row) for row in self._failed)
        if failed:
            failed = f"\n  {failed}\n"
        summary = json.dumps(self.rows.summary(totals, self.made))
        self.file.write(f'\n], "failed": [{failed}], {summary[1:]}\n')


class JsonLines(Writer):
    """One JSON line per pair, with the settings, so that lines can be merged and sorted. A failure has ``error``."""

    def pair(self, result: PairResult) -> None:
        made = with_range(self.made, [] if result.peak is None else [result.peak])
        self.file.write(json.dumps(self.rows.pair(result) | {"settings": made}) + "\n")


class Csv(Writer):
    """One CSV row per pair, or per frame. A failure has ``error``."""

    def begin(self, pairs: Sequence[Pair]) -> None:
        frame = ["frame"] if self.rows.per_frame else []
        below = ["below"] if self.rows.threshold else []
        notes = ["notes"] if any(pair.sequence for pair in pairs) else []
        names = ["reference", "distorted", *frame, *self.rows.expected_header(pairs), *below, "error", *notes]
        self._csv = csv.DictWriter(self.file, names, restval="", extrasaction="ignore", lineterminator="\n")
        self._csv.writeheader()

    def pair(self, result: PairResult) -> None:
        row = self.rows.pair(result)
        if "notes" in row:
            row["notes"] = "; ".join(row["notes"])
        for frame in row.pop("frames", [{}]):
            self._csv.writerow({name: "inf" if value is None else value for name, value in (row | frame).items()})


class Ffmpeg(Writer):
    """Lines ``n:1 Y:0.98 U:0.98 V:0.98 All:0.98 (17.2)``, as in the ``stats_file`` of FFmpeg's filter; SSIM only."""

    def begin(self, pairs: Sequence[Pair]) -> None:
        self._lines = 0

    def pair(self, result: PairResult) -> None:
        for scores in [] if result.error else result.scores:
            self._lines += 1
            each = " ".join(f"{name[5:]}:{value:.6f}" for name, value in scores.items() if name.startswith("ssim/"))
            self.file.write(f"n:{self._lines} {each} All:{scores['ssim']:.6f} ({to_db(scores['ssim']):.6f})\n")


class Table(Writer):
    """A text table: paths and scores in columns, then the pooled scores and the number of pairs that failed."""

    WIDEST = 48  # characters of a path; longer ones lose their beginning, which says less than their end

    def begin(self, pairs: Sequence[Pair]) -> None:
        paths = [("reference", "distorted"), *((pair.reference, pair.distorted) for pair in pairs)]
        self._widths = [min(self.WIDEST, max(len(one_line(path[side])) for path in paths)) for side in (0, 1)]
        self._header: list[str] = []

    def _line(self, first: str, second: str, cells: list[str], frame: str = "", mark: str = "") -> str:
        numbers = "".join(f"  {cell:>10}" for cell in cells)
        shown = f"  {frame:>6}" if self.rows.per_frame else ""
        sides = zip(map(one_line, (first, second)), self._widths, strict=True)
        return "  ".join(f"{_end_of(path, width):<{width}}" for path, width in sides) + f"{shown}{numbers}{mark}\n"

    def _head(self, scores: Collection[str]) -> None:
        """Writes the column names, unless the lines above have the same columns."""
        header = self.rows.header(scores)
        if header != self._header:
            self.file.write(self._line("reference", "distorted", header, "frame"))
            self._header = header

    def pair(self, result: PairResult) -> None:
        if result.error:
            return
        self._head(self.rows.scores(result))
        paths = result.reference, result.distorted
        mark = f"  < {self.rows.threshold.least:g}" if self.rows.threshold and self.rows.below(result) else ""
        if self.rows.per_frame:
            for row in self.rows.frames(result):
                frame = row.pop("frame")
                self.file.write(self._line(*paths, [_text(value) for value in row.values()], str(frame), mark))
        else:
            scores = [_text(value) for value in self.rows.scores(result).values()]
            self.file.write(self._line(*paths, scores, mark=mark))

    def end(self, totals: Totals) -> None:
        for name, one in totals.inputs.items():
            of_input = name or "" if len(totals.inputs) > 1 else ""
            pooled = self.rows.pooled(one, totals.pools)
            self._head(pooled)
            for pool in next(iter(pooled.values())):
                self.file.write(self._line(pool, of_input, [_text(column[pool]) for column in pooled.values()]))
        self.file.write(_counted(totals) + "\n")


def _end_of(path: str, width: int) -> str:
    return path if len(path) <= width else f"…{path[len(path) - width + 1 :]}"


class Markdown(Writer):
    """A summary for a pull request: headline, pooled scores, pairs below ``--fail-under``, failed pairs, all others.

    Only the lowest ``ROWS`` pairs are shown, because GitHub rejects a job summary of more than 1 MiB.
    """

    ROWS = 200

    def begin(self, pairs: Sequence[Pair]) -> None:
        # Scores are negated, so that the top of the min-heap is the highest score.
        self._rows: list[tuple[float, int, bool, list[str], dict[str, str]]] = []
        self._failed: list[str] = []
        self._below = 0
        self._planes: set[str] = set()

    def pair(self, result: PairResult) -> None:
        names = [_cell(result.reference), _cell(result.distorted)]
        if result.error:
            self._failed += [_row([*names, _cell(result.error)])] if len(self._failed) < self.ROWS else []
            return
        below = self.rows.below(result)
        self._below += below
        scores = {name: _text(value) for name, value in self.rows.scores(result).items()}
        self._planes |= scores.keys()
        first = self.rows.columns.names[0]
        if below:
            scores[first] = f"**{scores[first]}** ❌"
        lowest = self.rows.scores(result)[first]
        entry = (-(math.inf if lowest is None else lowest), -result.number, below, names, scores)
        (heapq.heappushpop if len(self._rows) == self.ROWS else heapq.heappush)(self._rows, entry)

    def end(self, totals: Totals) -> None:
        write = self.file.write
        write(f"### {_headline(totals, self._below, self.rows.threshold)}\n\n")
        for name, pooled in totals.inputs.items():
            write(f"{_cell(name or '')}: {_counted(pooled)}\n\n" if len(totals.inputs) > 1 else "")
            write(_markdown_table(["", *totals.pools], self._pooled(pooled, totals.pools)))
        ordered = sorted(self._rows, key=lambda entry: entry[:2], reverse=True)
        header = self.rows.header(self._planes)
        rows = [(below, _row([*names, *(scores.get(column, "") for column in header)])) for _, _, below, names, scores
                in ordered]  # fmt: skip
        columns = ["reference", "distorted", *header]
        write(_markdown_table(columns, [row for below, row in rows if below]))
        write(_markdown_table(["reference", "distorted", "not scored"], self._failed))
        others = [row for below, row in rows if not below]
        if others:
            shown = f"{len(others)} of {totals.scored}" if len(ordered) < totals.scored else str(len(others))
            title = "other pairs" if self._below else "pairs"
            write(f"<details><summary>{shown} {title}, lowest first</summary>\n\n")
            write(_markdown_table(columns, others) + "</details>\n\n")
        write(f"<sub>{_cell(sentence(of_run(self.made, totals)))}</sub>\n")

    def _pooled(self, pooled: Pooled, pools: Sequence[str]) -> list[str]:
        table = self.rows.pooled(pooled, pools)
        return [_row([column, *map(_text, values.values())]) for column, values in table.items() if values]


def _headline(totals: Totals, below: int, threshold: Threshold | None) -> str:
    parts = [_counted(totals)]
    if threshold:
        bound = f"{threshold.metric} {threshold.least:g}"
        parts.append(f"{below} below {bound} ❌" if below else f"none below {bound} ✅")
    return ", ".join(parts)


def _counted(results: Totals | Pooled) -> str:
    failed = f", {results.failed} not scored" if results.failed else ""
    return f"{results.scored} {'pair' if results.scored == 1 else 'pairs'} scored{failed}"


def _cell(text: str) -> str:
    """Escapes text for a cell of a Markdown table."""
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _markdown_table(names: Sequence[str], rows: Sequence[str]) -> str:
    """Returns a Markdown table with right-aligned numbers, or an empty text if there are no rows."""
    if not rows:
        return ""
    marks = ["---" if name in ("", "reference", "distorted", "not scored") else "---:" for name in names]
    return _row(names) + _row(marks) + "".join(rows) + "\n"


FORMATS: dict[str, Callable[[Destination, Rows, dict[str, Any]], Writer]] = {
    "table": Table,
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
    "markdown": Markdown,
    "ffmpeg": Ffmpeg,
}
