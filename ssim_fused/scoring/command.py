"""Implements ``ssim-fused compare``: options to a run, and its results to files and messages."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from ssim_fused.scoring import distributed
from ssim_fused.scoring.decoding import frame_count
from ssim_fused.scoring.destination import Destination, complain
from ssim_fused.scoring.errors import OutputError, PairError, UsageError
from ssim_fused.scoring.listing import read_pairs
from ssim_fused.scoring.meeting import planes_of
from ssim_fused.scoring.output import FORMATS, Rows
from ssim_fused.scoring.pairs import Pair, find_pairs
from ssim_fused.scoring.pool import PLANES, Columns, check_pools
from ssim_fused.scoring.provenance import describe, device_name
from ssim_fused.scoring.results import PairResult, Threshold, Totals
from ssim_fused.scoring.run import Sink, Wanted, run
from ssim_fused.scoring.sequence import open_sequence
from ssim_fused.scoring.settings import Settings

EXHIBITS = 12  # the number of worst pairs that a report shows as images
SIDECAR = "-metadata.json"  # appended to the name of a CSV file, as in the W3C recommendation on tabular data


@dataclass
class Ended:
    """The outcome of a run.

    Attributes:
        interrupted: whether the run was interrupted.
        failed: whether a pair was not scored, or a result was not written.
        below: whether a score is below ``--fail-under``.

    """

    interrupted: bool
    failed: bool
    below: bool


@dataclass
class Written:
    """A file of results that is being written.

    Attributes:
        destination: the file, or standard output.
        end: writes what follows the results, once all pairs are scored.
        sink: receives the result of each pair, or None if only totals are written.
        begin: writes what precedes the results.

    """

    destination: Destination
    end: Callable[[Totals], None]
    sink: Sink | None = None
    begin: Callable[[Sequence[Pair]], None] = lambda pairs: None


def compare_files(options: argparse.Namespace) -> Ended:
    """Runs ``ssim-fused compare`` with the parsed options."""
    settings = _settings(options)
    pools = check_pools(options.pool)
    threshold = None
    if options.fail_under is not None:
        threshold = Threshold(settings.metric[0], pools[0], options.fail_under)
    made = describe(settings, device_name(settings.device), pools, options.mask)
    pairs = _pairs(options)
    columns = Columns(settings.metric, options.db, options.dssim, "" if settings.resolved().luma else PLANES)
    rows = Rows(columns, pools[0], options.per_frame, threshold, lambda pair: planes_of(pair, settings))
    wanted = Wanted(pool=pools, maps=options.map, exhibits=EXHIBITS if options.report else 0)
    first = distributed.rank() == 0
    with _progress(pairs, settings, first) as bar, _written(options, pairs, rows, made, first) as written:

        def enough() -> bool:
            only = not (options.report or options.map or options.fail_under is not None)
            return only and any(one.destination.gone for one in written)

        sinks: list[Sink] = [one.sink for one in written if one.sink]
        sinks += [_Complaints(bar), *([threshold] if threshold else [])]
        totals, interrupted = run(pairs, settings, wanted, sinks, bar, enough)
        lost = [error for one in written for error in _completed(one, totals)]
    for error in lost:
        complain(str(error))
    if first:
        _sum_up(totals, len(pairs), interrupted, threshold)
    return Ended(interrupted, bool(totals.failed or lost), bool(threshold and threshold.below))


def _settings(options: argparse.Namespace) -> Settings:
    given = {f.name: getattr(options, f.name, None) for f in fields(Settings)}
    settings = Settings(
        **{name: value for name, value in given.items() if value is not None} | {"channels": options.format == "ffmpeg"}
    )
    if options.format == "ffmpeg" and "ssim" not in settings.metric:
        given = ",".join(settings.metric)
        raise UsageError(f"--metric is {given}, but --format ffmpeg prints ssim; add ssim to --metric.")
    return settings


def _pairs(options: argparse.Namespace) -> list[Pair]:
    if options.pairs is not None:
        if options.reference is not None:
            raise UsageError(
                f"--pairs is {options.pairs!r}, but REFERENCE {options.reference!r} is given as well; give only one of "
                "the two."
            )
        return read_pairs(options.pairs, options.mask)
    if options.reference is None or not options.distorted:
        missing = "REFERENCE and DISTORTED are" if options.reference is None else "DISTORTED is"
        raise UsageError(
            f"{missing} missing; expected REFERENCE and DISTORTED, or --pairs LIST.CSV; see ssim-fused compare --help"
        )
    return find_pairs(options.reference, options.distorted, options.mask)


@contextmanager
def _written(
    options: argparse.Namespace, pairs: Sequence[Pair], rows: Rows, made: dict[str, Any], first: bool
) -> Generator[list[Written]]:
    """Opens the result files before scoring starts, and restores all of them after an exception. Only rank 0 writes."""
    written: list[Written] = []
    try:
        if first:
            for one in _open_all(options, pairs, rows, made):
                written.append(one)
            _check_distinct(options, pairs, written)
            for one in written:
                one.begin(pairs)
        yield written
    except BaseException:
        for one in written:
            one.destination.discard()
        raise


def _open_all(
    options: argparse.Namespace, pairs: Sequence[Pair], rows: Rows, made: dict[str, Any]
) -> Iterator[Written]:
    target = Destination(options.output)
    writer = FORMATS[options.format](target, rows, made)
    yield Written(target, writer.end, writer, writer.begin)
    if options.format == "csv" and target.regular:
        sidecar = Destination(options.output + SIDECAR)
        yield Written(sidecar, lambda totals: sidecar.write(json.dumps(rows.summary(totals, made), indent=1) + "\n"))
    if options.report is not None:
        from ssim_fused.scoring.report import Report

        report, page = Report(rows, made, pairs), Destination(options.report)
        yield Written(page, lambda totals: page.write(report.page(totals)), report)


def _check_distinct(options: argparse.Namespace, pairs: Sequence[Pair], written: Sequence[Written]) -> None:
    """Refuses to overwrite an input, or to write two results to the same file."""
    targets = [one.destination.regular for one in written if one.destination.regular]
    if len(set(targets)) < len(targets):
        raise UsageError(f"--output and --report are both {options.output!r}; give two different files.")
    if not any(os.path.exists(target) for target in targets):
        return
    arguments = [options.reference, *options.distorted, options.pairs, options.mask]
    inputs = {os.path.realpath(path): path for path in arguments if path}
    # Folders and lists may name a million files, so their links are not resolved.
    inputs |= {os.path.abspath(path): path for pair in pairs for path in (pair.reference, pair.distorted)}
    for target in targets:
        if target in inputs:
            raise UsageError(f"{inputs[target]!r} is an input, which the results would overwrite; give another file.")


def _completed(written: Written, totals: Totals) -> list[OutputError]:
    """Completes one file. Returns a failure instead of raising it, so that the other files are still completed."""
    try:
        written.end(totals)
        written.destination.close()
    except OutputError as error:
        written.destination.discard()
        return [error]
    return []


def _sum_up(totals: Totals, pairs: int, interrupted: bool, threshold: Threshold | None) -> None:
    if interrupted:
        complain(f"interrupted after {totals.scored + totals.failed} of {pairs} pairs")
    if totals.failed:
        complain(f"{totals.failed} of {pairs} {'pair' if pairs == 1 else 'pairs'} could not be scored")
    below = threshold.sentence(totals.scored) if threshold else None
    if below:
        complain(below)


@dataclass
class _Complaints:
    """Prints a line on standard error for each pair that could not be scored, and for each note on one that was."""

    bar: Any

    def pair(self, result: PairResult) -> None:
        where = f"{result.origin}: " if result.origin else ""
        texts = [f"note: {note}" for note in result.notes] + ([result.error] if result.error else [])
        for text in texts:
            with self.bar.external_write_mode(file=sys.stderr):
                complain(f"{where}{result.reference}, {result.distorted}: {text}")


@contextmanager
def _progress(pairs: Sequence[Pair], settings: Settings, first: bool) -> Generator[Any]:
    """Shows a progress bar over frames on standard error, if that is a terminal."""
    from tqdm import tqdm

    visible = first and sys.stderr is not None and sys.stderr.isatty()
    total = _frames_of(pairs, settings) if visible else None
    with tqdm(total=total, unit="frame", disable=not visible, dynamic_ncols=True) as bar:
        yield bar


def _frames_of(pairs: Sequence[Pair], settings: Settings) -> int | None:
    """Returns the number of frames, or None if it cannot be determined quickly."""
    sequences = [pair for pair in pairs if pair.sequence and not pair.error]
    try:
        opened = [open_sequence(pair.reference, limits=settings.limits(), raw=settings.raw) for pair in sequences[:100]]
        counts = [frame_count(sequence) for sequence in opened]
    except PairError:
        return None
    known = [count for count in counts if count]
    return len(pairs) - len(sequences) + sum(known) if len(known) == len(sequences) else None
