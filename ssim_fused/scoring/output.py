"""The formats: a table to read, JSON, JSON lines, CSV, and the lines of FFmpeg's ``ssim`` filter.

Each is written as the results come, so that what was scored before an interruption has been printed.
"""

from __future__ import annotations

import csv
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.pool import Columns, to_db
from ssim_fused.scoring.results import PairResult, Totals


class Rows:
    """What a result looks like as names and numbers: the one place that says what is printed.

    Args:
        columns: the scores that are shown.
        pool: how a sequence's frames make its score.
        per_frame: with the scores of each frame.

    """

    def __init__(self, columns: Columns, pool: str = "mean", per_frame: bool = False) -> None:
        self.columns, self._pool, self.per_frame = columns, pool, per_frame

    def pair(self, result: PairResult) -> dict[str, Any]:
        row: dict[str, Any] = {"reference": result.reference, "distorted": result.distorted}
        if result.error:
            return row | {"error": result.error}
        row |= self.scores(result)
        if result.notes:
            row["notes"] = list(result.notes)
        return row | {"frames": self.frames(result)} if self.per_frame else row

    def scores(self, result: PairResult) -> dict[str, float | None]:
        return _numbers(self.columns.of(result.pooled(self._pool)))

    def frames(self, result: PairResult) -> list[dict[str, Any]]:
        shown = zip(result.numbers, result.scores, strict=True)
        return [{"frame": number} | _numbers(self.columns.of(scores)) for number, scores in shown]

    def pooled(self, totals: Totals) -> dict[str, dict[str, float | None]]:
        """By column, then by pool."""
        by_pool = {name: _numbers(self.columns.of(scores)) for name, scores in totals.pooled().items()}
        first = next(iter(by_pool.values()), {})
        columns = [*self.columns.names, *(name for name in self.columns.planes.values() if name in first)]
        return {column: {name: row[column] for name, row in by_pool.items()} for column in columns}

    def header(self, pairs: Sequence[Pair]) -> list[str]:
        """The names of the columns that these pairs may fill."""
        planes = self.columns.planes.values() if any(pair.sequence for pair in pairs) else ()
        return [*self.columns.names, *planes]


def _numbers(scores: dict[str, float]) -> dict[str, float | None]:
    """Seven digits, which float32 has; None for infinity (dB of identical pictures), which JSON lacks."""
    return {name: float(f"{value:.7g}") if math.isfinite(value) else None for name, value in scores.items()}


def _text(value: float | None) -> str:
    return "inf" if value is None else f"{value:.6f}"


class Writer:
    """A format: ``begin``, every pair's result, ``end``."""

    def __init__(self, file: TextIO, rows: Rows) -> None:
        self.file, self.rows = file, rows

    def begin(self, pairs: Sequence[Pair]) -> None:
        """Writes what stands above the results of these pairs."""

    def pair(self, result: PairResult) -> None:
        raise NotImplementedError

    def end(self, totals: Totals) -> None:
        """Writes what stands below them."""


class Json(Writer):
    """One object: ``pairs``, ``pooled``, ``failed``."""

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
        self.file.write(f'\n], "pooled": {json.dumps(self.rows.pooled(totals))}, "failed": [{failed}]}}\n')


class JsonLines(Writer):
    """A line a pair; one that failed has ``error``."""

    def pair(self, result: PairResult) -> None:
        self.file.write(json.dumps(self.rows.pair(result)) + "\n")


class Csv(Writer):
    """A row a pair, or a frame; one that failed has ``error``."""

    def begin(self, pairs: Sequence[Pair]) -> None:
        frame = ["frame"] if self.rows.per_frame else []
        notes = ["notes"] if any(pair.sequence for pair in pairs) else []
        names = ["reference", "distorted", *frame, *self.rows.header(pairs), "error", *notes]
        self._csv = csv.DictWriter(self.file, names, restval="", lineterminator="\n")
        self._csv.writeheader()

    def pair(self, result: PairResult) -> None:
        row = self.rows.pair(result)
        if "notes" in row:
            row["notes"] = "; ".join(row["notes"])
        for frame in row.pop("frames", [{}]):
            self._csv.writerow({name: "inf" if value is None else value for name, value in (row | frame).items()})


class Ffmpeg(Writer):
    """``n:1 Y:0.98 U:0.98 V:0.98 All:0.98 (17.2)``, as FFmpeg's filter writes to its ``stats_file``; SSIM alone."""

    def begin(self, pairs: Sequence[Pair]) -> None:
        self._lines = 0

    def pair(self, result: PairResult) -> None:
        for scores in [] if result.error else result.scores:
            self._lines += 1
            each = " ".join(f"{name[5:]}:{value:.6f}" for name, value in scores.items() if name.startswith("ssim/"))
            self.file.write(f"n:{self._lines} {each} All:{scores['ssim']:.6f} ({to_db(scores['ssim']):.6f})\n")


class Table(Writer):
    """For eyes: names and scores in columns, then the pooled scores and how many pairs were not scored."""

    WIDEST = 48  # characters of a path, whose end tells more than its beginning

    def begin(self, pairs: Sequence[Pair]) -> None:
        paths = [("reference", "distorted"), *((pair.reference, pair.distorted) for pair in pairs)]
        self._widths = [min(self.WIDEST, max(len(path[side]) for path in paths)) for side in (0, 1)]
        self.file.write(self._line("reference", "distorted", self.rows.header(pairs), "frame"))

    def _line(self, first: str, second: str, cells: list[str], frame: str = "") -> str:
        numbers = "".join(f"  {cell:>10}" for cell in cells)
        shown = f"  {frame:>6}" if self.rows.per_frame else ""
        sides = zip((first, second), self._widths, strict=True)
        return "  ".join(f"{_end_of(path, width):<{width}}" for path, width in sides) + f"{shown}{numbers}\n"

    def pair(self, result: PairResult) -> None:
        if result.error:
            return
        paths = result.reference, result.distorted
        if self.rows.per_frame:
            for row in self.rows.frames(result):
                frame = row.pop("frame")
                self.file.write(self._line(*paths, [_text(value) for value in row.values()], str(frame)))
        else:
            self.file.write(self._line(*paths, [_text(value) for value in self.rows.scores(result).values()]))

    def end(self, totals: Totals) -> None:
        pooled = self.rows.pooled(totals)
        for name in next(iter(pooled.values())):
            self.file.write(self._line(name, "", [_text(column[name]) for column in pooled.values()]))
        failed = f", {totals.failed} not scored" if totals.failed else ""
        self.file.write(f"{totals.scored} {'pair' if totals.scored == 1 else 'pairs'} scored{failed}\n")


def _end_of(path: str, width: int) -> str:
    return path if len(path) <= width else f"…{path[len(path) - width + 1 :]}"


FORMATS: dict[str, Callable[[TextIO, Rows], Writer]] = {
    "table": Table,
    "json": Json,
    "jsonl": JsonLines,
    "csv": Csv,
    "ffmpeg": Ffmpeg,
}


@contextmanager
def opened(path: str | None) -> Generator[TextIO]:
    """Standard output, or a file that appears under its name once it is complete.

    Raises:
        UsageError: its folder is missing or not to be written.

    """
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", text=True)
    except OSError as error:
        raise UsageError(f"{path!r} cannot be written: {error.strerror}.") from error
    try:
        with open(handle, "w", encoding="utf-8") as file:
            yield file
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """What the operating system takes off the rights of new files, which a temporary file has not got."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
