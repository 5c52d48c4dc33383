"""``ssim-fused compare``: from the options to a run, and from its results to files and messages."""

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

EXHIBITS = 12  # pairs, the worst, that a report shows
SIDECAR = "-metadata.json"  # what the W3C's recommendation on tabular data appends to a CSV file's name


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        interrupted: whether it was.
        failed: whether a pair was not scored, or a result not written.
        below: whether a score lies below the bound.

    """

    interrupted: bool
    failed: bool
    below: bool


@dataclass
class Written:
    """Results on their way to a destination.

    Attributes:
        destination: where they go.
        end: writes what is known when all is scored.
        sink: takes each pair's result, or None.
        begin: writes what stands above the results.

    """

    destination: Destination
    end: Callable[[Totals], None]
    sink: Sink | None = None
    begin: Callable[[Sequence[Pair]], None] = lambda pairs: None


def compare_files(options: argparse.Namespace) -> Ended:
    """Runs the command with the parsed options."""
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
        raise UsageError("--format ffmpeg prints ssim, which --metric leaves out.")
    return settings


def _pairs(options: argparse.Namespace) -> list[Pair]:
    if options.pairs is not None:
        if options.reference is not None:
            raise UsageError("--pairs lists what is compared; leave out the other arguments.")
        return read_pairs(options.pairs, options.mask)
    if options.reference is None or not options.distorted:
        raise UsageError("give a REFERENCE and what is compared with it, or --pairs LIST.CSV.")
    return find_pairs(options.reference, options.distorted, options.mask)


@contextmanager
def _written(
    options: argparse.Namespace, pairs: Sequence[Pair], rows: Rows, made: dict[str, Any], first: bool
) -> Generator[list[Written]]:
    """The results' files, opened before the work; all are as they were after an exception. Rank 0 alone writes."""
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
    """Refuses to replace a file that is read, or to write two results to one."""
    targets = [one.destination.regular for one in written if one.destination.regular]
    if len(set(targets)) < len(targets):
        raise UsageError(f"--output and --report are both {options.output!r}; give each a file of its own.")
    if not any(os.path.exists(target) for target in targets):
        return
    arguments = [options.reference, *options.distorted, options.pairs, options.mask]
    inputs = {os.path.realpath(path): path for path in arguments if path}
    # The files of folders and lists may be a million, so links among them are not resolved.
    inputs |= {os.path.abspath(path): path for pair in pairs for path in (pair.reference, pair.distorted)}
    for target in targets:
        if target in inputs:
            raise UsageError(f"{inputs[target]!r} is compared and would be replaced by the results; give another file.")


def _completed(written: Written, totals: Totals) -> list[OutputError]:
    """Writes the end of one result; a failure is returned, so that it does not cost the others."""
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
        complain(f"{totals.failed} of {pairs} pairs were not scored")
    below = threshold.sentence(totals.scored) if threshold else None
    if below:
        complain(below)


@dataclass
class _Complaints:
    """A line on standard error for every pair that was not scored, and for what is to be known of one that was."""

    bar: Any

    def pair(self, result: PairResult) -> None:
        where = f"{result.origin}: " if result.origin else ""
        texts = [f"note: {note}" for note in result.notes] + ([result.error] if result.error else [])
        for text in texts:
            with self.bar.external_write_mode(file=sys.stderr):
                complain(f"{where}{result.reference}, {result.distorted}: {text}")


@contextmanager
def _progress(pairs: Sequence[Pair], settings: Settings, first: bool) -> Generator[Any]:
    """A bar over frames on standard error, if that is a terminal."""
    from tqdm import tqdm

    visible = first and sys.stderr is not None and sys.stderr.isatty()
    total = _frames_of(pairs, settings) if visible else None
    with tqdm(total=total, unit="frame", disable=not visible, dynamic_ncols=True) as bar:
        yield bar


def _frames_of(pairs: Sequence[Pair], settings: Settings) -> int | None:
    """How many frames there are, if that is soon known."""
    sequences = [pair for pair in pairs if pair.sequence and not pair.error]
    try:
        opened = [open_sequence(pair.reference, limits=settings.limits(), raw=settings.raw) for pair in sequences[:100]]
        counts = [frame_count(sequence) for sequence in opened]
    except PairError:
        return None
    known = [count for count in counts if count]
    return len(pairs) - len(sequences) + sum(known) if len(known) == len(sequences) else None
