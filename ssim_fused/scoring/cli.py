"""The command line: ``ssim-fused compare | info | bench``.

Exit codes: 0; 1 where a score lies below ``--fail-under``; 2 for a wrong call, or a pair that could not be scored; 130
where the run was interrupted. Results on standard output; progress and errors on standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssim_fused.scoring import distributed
from ssim_fused.scoring.errors import PairError, UsageError
from ssim_fused.scoring.output import FORMATS, Rows, opened
from ssim_fused.scoring.pairs import Pair, find_pairs, read_pairs
from ssim_fused.scoring.pool import Columns, check_pools
from ssim_fused.scoring.results import PairResult, Totals
from ssim_fused.scoring.run import Sink, Wanted, run
from ssim_fused.scoring.sequence import open_sequence
from ssim_fused.scoring.settings import ALIGNMENTS, CONVENTIONS, LUMAS, METRICS, PADDINGS, WINDOWS, Settings

OK, BELOW, FAILED, INTERRUPTED = 0, 1, 2, 130
EXHIBITS = 12  # pairs, the worst, that a report shows


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    options = make_parser().parse_args(_with_formula(sys.argv[1:] if arguments is None else arguments))
    try:
        return options.command(options)
    except UsageError as error:
        print(f"ssim-fused: {error}", file=sys.stderr)
        return FAILED
    except ModuleNotFoundError as error:
        if error.name not in ("PIL", "av", "jinja2", "matplotlib", "numpy", "tqdm"):
            raise
        print(f"ssim-fused: {error.name} is missing; pip install 'ssim_fused[scoring]'", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # `| head` has seen enough; nothing more is to be written, on closing neither
        sys.stdout = None
        return OK


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``command`` of what it returns is the function to call."""
    parser = argparse.ArgumentParser(
        "ssim-fused", description="SSIM, MS-SSIM and PSNR of pictures, folders and videos."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands.add_parser("compare", help="score distorted pictures, folders or videos against a reference"))
    info = commands.add_parser("info", help="what is built and would be used; to paste into a bug report")
    info.set_defaults(command=_info)
    bench = commands.add_parser("bench", help="how fast this machine is, in a minute, and where the time goes")
    bench.add_argument("--seconds", type=float, default=5, help="time for each measurement (default %(default)g)")
    bench.set_defaults(command=_bench)
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.set_defaults(command=_compare)
    add("reference", nargs="?", help="a picture, a folder, a video, or - for a y4m stream on standard input")
    add("distorted", nargs="*", help="what is compared with it; folders are paired by relative path without ending")
    add("--pairs", metavar="LIST.CSV", help="instead: a file of lines reference,distorted[,mask]")

    group = parser.add_argument_group("what is computed")
    group.add_argument("--metric", type=_names, default=("ssim",), help=f"of {','.join(METRICS)} (default ssim)")
    group.add_argument("--convention", choices=CONVENTIONS, help="what this library computes (default torchmetrics)")
    group.add_argument("--padding", choices=PADDINGS, help="beyond the borders (default: the convention's)")
    group.add_argument("--window", choices=WINDOWS)
    group.add_argument("--sigma", type=float, help="of the Gaussian window, in pixels")
    group.add_argument("--kernel-size", type=int, help="side of the uniform window")
    group.add_argument("--luma", nargs="?", choices=LUMAS, const="bt601",
                       help="score luma alone: by this formula (bt601) of RGB, the plane Y of two videos")  # fmt: skip
    group.add_argument("--rgb", action="store_true", help="score two videos by RGB instead of their planes Y, U, V")
    group.add_argument("--crop", type=int, default=0, metavar="N", help="cut N pixels off each side first")
    group.add_argument("--mask", metavar="PATH", help="a picture that weighs the pixels, or a folder of them")
    group.add_argument("--resize", action="store_true", help="scale the distorted picture to the reference's size")
    group.add_argument("--frames", type=_frames, default=(0, None, 1), metavar="A:B:STEP",
                       help="score frames A to B - 1 of videos, every STEP-th")  # fmt: skip
    group.add_argument("--align", choices=ALIGNMENTS, default="number",
                       help="match frames of two videos by number, or by pts: their time")  # fmt: skip
    group.add_argument("--size", metavar="WxH", help="size of the frames of raw .yuv files")
    group.add_argument("--pix-fmt", metavar="FMT", help="their pixel format, as FFmpeg names it: yuv420p10le")

    group = parser.add_argument_group("where")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default %(default)s)")
    group.add_argument("--batch", type=int, default=Settings.batch, metavar="N", help="pairs a kernel's call")
    group.add_argument("--workers", type=int, metavar="N", help="threads that decode (default: one a core)")

    group = parser.add_argument_group("what is printed")
    group.add_argument("--format", choices=FORMATS, default="table")
    group.add_argument("--output", metavar="FILE", help="instead of standard output")
    group.add_argument("--per-frame", action="store_true", help="each frame's scores, too")
    group.add_argument("--pool", type=_names, default=("mean",), metavar="NAMES",
                       help="of mean,min,max,median,harmonic,p0..p100; the first makes a video's score")  # fmt: skip
    group.add_argument("--db", action="store_true", help="with -10 log10(1 - SSIM)")
    group.add_argument("--dssim", action="store_true", help="with (1 - SSIM) / 2")
    group.add_argument("--map", metavar="DIR", help="write each pair's heat map, beside its pictures, into this folder")
    group.add_argument("--report", metavar="FILE.html", help="write a page to look at")
    group.add_argument("--fail-under", type=float, metavar="VALUE", help="exit with 1 where a pair scores less")


def _with_formula(arguments: Sequence[str]) -> list[str]:
    """The arguments with a formula for each ``--luma`` that a path or nothing follows, so that it does not take it."""
    given = [*arguments, "-"]
    return [
        "--luma=bt601"
        if word == "--luma" and after not in LUMAS and (after.startswith("-") or Path(after).exists())
        else word
        for word, after in pairwise(given)
    ]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _frames(text: str) -> tuple[int, int | None, int]:
    parts = [*text.split(":"), "", ""][:3]
    if text.count(":") not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r}; expected A:B or A:B:STEP")
    try:
        return int(parts[0] or 0), int(parts[1]) if parts[1] else None, int(parts[2] or 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected A:B or A:B:STEP") from error


def _compare(options: argparse.Namespace) -> int:
    names = ("metric", "convention", "padding", "window", "sigma", "kernel_size", "luma", "rgb", "crop", "resize",
             "frames", "align", "size", "pix_fmt", "device", "batch", "workers")  # fmt: skip
    settings = Settings(
        channels=options.format == "ffmpeg",
        **{name: getattr(options, name) for name in names if getattr(options, name) is not None},
    )
    if options.format == "ffmpeg" and "ssim" not in settings.metric:
        raise UsageError("--format ffmpeg prints ssim, which --metric leaves out.")
    pools = check_pools(options.pool)
    pairs = _pairs(options)
    first = distributed.rank() == 0
    planes = "" if settings.rgb or settings.resolved().luma else "YUV"
    rows = Rows(Columns(settings.metric, options.db, options.dssim, planes), pools[0], options.per_frame)
    check = _Check(settings.metric[0], pools[0], options.fail_under)
    wanted = Wanted(pool=pools, maps=options.map, exhibits=EXHIBITS if options.report else 0)
    with _progress(pairs, first) as bar, opened(options.output) if first else nullcontext() as file:
        writers = [FORMATS[options.format](file, rows)] if file else []
        for writer in writers:
            writer.begin(pairs)
        report = _report(options, settings, rows) if options.report and first else None
        sinks: list[Sink] = [*writers, _Complaints(bar), check, *([report] if report else [])]
        totals, interrupted = run(pairs, settings, wanted, sinks, bar)
        for writer in writers:
            writer.end(totals)
        if report:
            report.end(totals)
    if first:
        _say_what_is_missing(totals, len(pairs), interrupted)
    if interrupted:
        return INTERRUPTED
    return FAILED if totals.failed else BELOW if check.below else OK


def _pairs(options: argparse.Namespace) -> list[Pair]:
    if options.pairs:
        if options.reference is not None:
            raise UsageError("--pairs lists what is compared; leave out the other arguments.")
        return read_pairs(options.pairs, options.mask)
    if options.reference is None or not options.distorted:
        raise UsageError("give a REFERENCE and what is compared with it, or --pairs LIST.CSV.")
    return find_pairs(options.reference, options.distorted, options.mask)


def _say_what_is_missing(totals: Totals, pairs: int, interrupted: bool) -> None:
    if interrupted:
        print(f"ssim-fused: interrupted after {totals.scored + totals.failed} of {pairs} pairs", file=sys.stderr)
    if totals.failed:
        print(f"ssim-fused: {totals.failed} of {pairs} pairs were not scored", file=sys.stderr)


class _Check:
    """Whether a pair's score, by the first metric and pool, lies below the bound."""

    def __init__(self, metric: str, pool: str, least: float | None) -> None:
        self._metric, self._pool, self._least, self.below = metric, pool, least, False

    def pair(self, result: PairResult) -> None:
        if self._least is not None and not result.error:
            self.below |= result.pooled(self._pool)[self._metric] < self._least


@dataclass
class _Complaints:
    """A line on standard error for every pair that was not scored, and for what is to be known of one that was."""

    bar: Any

    def pair(self, result: PairResult) -> None:
        for note in result.notes:
            self.bar.write(f"ssim-fused: {result.reference}, {result.distorted}: note: {note}", file=sys.stderr)
        if result.error:
            self.bar.write(f"ssim-fused: {result.reference}, {result.distorted}: {result.error}", file=sys.stderr)


@contextmanager
def _progress(pairs: Sequence[Pair], first: bool) -> Generator[Any]:
    """A bar over frames on standard error, where that is a terminal."""
    from tqdm import tqdm

    visible = first and sys.stderr.isatty()
    total = _frames_of(pairs) if visible else None
    with tqdm(total=total, unit="frame", disable=not visible, dynamic_ncols=True) as bar:
        yield bar


def _frames_of(pairs: Sequence[Pair]) -> int | None:
    """How many frames there are, where that is soon known."""
    sequences = [pair for pair in pairs if pair.sequence and not pair.error]
    try:
        counts = [open_sequence(pair.reference).count() for pair in sequences[:100]]
    except PairError:
        return None
    known = [count for count in counts if count]
    return len(pairs) - len(sequences) + sum(known) if len(known) == len(sequences) else None


def _report(options: argparse.Namespace, settings: Settings, rows: Rows) -> Any:
    from ssim_fused.scoring.report import Report

    return Report(options.report, settings, rows)


def _info(options: argparse.Namespace) -> int:
    from ssim_fused.scoring.info import info

    print(info())
    return OK


def _bench(options: argparse.Namespace) -> int:
    from ssim_fused.scoring.bench import bench

    bench(options.seconds)
    return OK
