"""The command line: ``ssim-fused compare | info | bench``.

Exit statuses: 0; 1 if a score lies below ``--fail-under``; 2 for a wrong call, a pair that could not be scored, or a
result that could not be written; 3 for a bug in this program; 130 if the run was interrupted. Results go to standard
output; progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ssim_fused._version import __version__
from ssim_fused.scoring.destination import complain, destination, let_go_of_standard_output
from ssim_fused.scoring.errors import OutputError, UsageError, lacks_extra
from ssim_fused.scoring.ignored import Rectangle, parsed
from ssim_fused.scoring.output import FORMATS
from ssim_fused.scoring.settings import ALIGNMENTS, CONVENTIONS, LUMAS, METRICS, PADDINGS, WINDOWS, Settings

# Options whose value may start with a minus, and must not be taken for an option then: their own check refuses it.
NUMBERS = ("--batch", "--crop", "--data-range", "--fail-under", "--frames", "--ignore", "--kernel-size", "--max-pixels",
           "--sigma", "--workers")  # fmt: skip

OK, BELOW, FAILED, BUG, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    try:
        try:
            options = _parsed(sys.argv[1:] if arguments is None else arguments)
            status = options.command(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has seen enough; nothing more is to be written, on closing neither
        let_go_of_standard_output()
        return OK
    except (UsageError, OSError) as error:  # OSError: of writing; what cannot be read is a pair's error
        let_go_of_standard_output()
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and lacks_extra(error):
            complain(f"{error.name} is missing; pip install 'ssim_fused[scoring]'")
            return FAILED
        traceback.print_exc()
        complain("this is a bug; please report it with the lines above and what `ssim-fused info` prints")
        return BUG


class Parser(argparse.ArgumentParser):
    """A parser that fails if its help cannot be written, which argparse's own passes over."""

    def print_help(self, file: Any = None) -> None:
        target = file or sys.stdout
        if target is not None:
            target.write(self.format_help())


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``command`` of what it returns is the function to call."""
    parser = Parser("ssim-fused", description="Compute SSIM, MS-SSIM and PSNR of pictures, folders and videos.")
    parser.add_argument("--version", action="version", version=f"ssim-fused {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(
        commands.add_parser(
            "compare",
            help="score distorted pictures, folders or videos against a reference",
            description="Score distorted pictures, folders or videos against a reference.",
            epilog="Exit statuses: 0 success; 1 a score below --fail-under; 2 a wrong call, a pair that was not "
            "scored, or a result that cannot be written; 3 a bug; 130 interrupted.",
        )
    )
    info = commands.add_parser("info", help="print what is built and would be used, for a bug report")
    info.set_defaults(command=_info)
    bench = commands.add_parser("bench", help="measure in a minute how fast this machine is, and where the time goes")
    bench.add_argument("--seconds", type=float, default=5, help="time for each measurement (default %(default)g)")
    bench.set_defaults(command=_bench)
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    """Adds the options; one whose name is a field of ``Settings`` reaches it without more ado."""
    parser.set_defaults(command=_compare)
    for add_group in (_add_inputs, _add_scores, _add_results, _add_resources):
        add_group(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    add = group.add_argument
    add("reference", nargs="?", help="a picture, a folder, a video, or - for a y4m stream on standard input")
    add("distorted", nargs="*", help="one or several to compare with it; each is pooled by itself")
    add("--pairs", metavar="LIST.CSV", help="read lines reference,distorted[,mask] from this file instead")
    add("--frames", type=_frames, metavar="A:B:STEP", help="score frames A to B - 1 of videos, every STEP-th")
    add("--align", choices=ALIGNMENTS, help="match frames of two videos by number (the default), or by pts: their time")
    add("--size", metavar="WxH", help="set the size of the frames of raw .yuv files")
    add("--pix-fmt", metavar="FMT", help="set their pixel format, as FFmpeg names it: yuv420p10le")
    add("--mask", metavar="PATH", help="weigh the pixels by this picture, or by the pictures of this folder")
    add("--ignore", action="append", type=_rectangle, metavar="X,Y,W,H",
        help="leave out this rectangle, in pixels of the picture; may be repeated")  # fmt: skip
    add("--crop", type=int, metavar="N", help="cut N pixels off each side first")
    add("--resize", action="store_true", default=None, help="scale the distorted picture to the reference's size")
    add("--data-range", type=float, metavar="R", help="set the value of white of float pictures, and of 12 bits in 16")
    add("--max-pixels", type=int, metavar="N", help=f"refuse larger pictures (default {Settings.max_pixels})")


def _add_scores(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    add = group.add_argument
    add("--metric", type=_names, metavar="NAMES", help=f"compute these, of {','.join(METRICS)} (default ssim)")
    add("--convention", choices=CONVENTIONS, help="compute what this library computes (default torchmetrics)")
    add("--padding", choices=PADDINGS, help="continue pictures beyond their borders like this")
    add("--window", choices=WINDOWS, help="average over a window of this shape")
    add("--sigma", type=float, help="set the Gaussian window's standard deviation, in pixels")
    add("--kernel-size", type=int, metavar="N", help="set the side of the uniform window, odd")
    add("--luma", nargs="?", choices=LUMAS, const="bt601",
        help="score luma alone: by this formula (bt601) of RGB, the plane Y of two videos")  # fmt: skip
    add("--rgb", action="store_true", default=None, help="score two videos by RGB instead of their planes Y, U and V")


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    add = group.add_argument
    add("--format", choices=FORMATS, default="table", help="print results like this (default %(default)s)")
    add("--output", metavar="FILE", help="write results to this file instead of standard output")
    add("--per-frame", action="store_true", help="include the scores of each frame")
    pools = "of mean,min,max,median,harmonic,p0..p100; the first makes a video's score"
    add("--pool", type=_names, default=("mean",), metavar="NAMES", help=f"pool frames by these, {pools}")
    add("--db", action="store_true", help="include -10 log10(1 - SSIM)")
    add("--dssim", action="store_true", help="include (1 - SSIM) / 2")
    add("--map", metavar="DIR", help="write each pair's heat map, next to its pictures, into this folder")
    add("--report", metavar="FILE.html", help="write a page to look at")
    add("--fail-under", type=float, metavar="VALUE", help="exit with status 1 if any score is below VALUE")


def _add_resources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("resources")
    add = group.add_argument
    add("--device", help="compute on auto, cpu, cuda or cuda:N (default auto)")
    add("--batch", type=int, metavar="N", help=f"score up to N pairs in a call (default {Settings.batch})")
    add("--workers", type=int, metavar="N", help="decode in N threads (default: one for each core)")


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; paths may stand before, between and behind them, which argparse's own commands refuse."""
    parser = make_parser()
    options, rest = parser.parse_known_args(_with_values(_with_formula(arguments)))
    before = rest[: rest.index("--")] if "--" in rest else rest  # what follows are paths, whatever they start with
    unknown = any(word.startswith("-") and word != "-" for word in before)
    if unknown or (rest and not hasattr(options, "distorted")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.distorted += before + rest[len(before) + 1 :]
    return options


def _with_values(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments with each value that starts with a minus joined to its option, since argparse takes it for one."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] in NUMBERS and re.match(r"-[\d.,:]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _with_formula(arguments: Sequence[str]) -> list[str]:
    """The arguments with a formula for each ``--luma`` that a path or nothing follows, so that it does not take it."""
    given = [*arguments, "-"]
    return [
        "--luma=bt601"
        if word == "--luma" and after not in LUMAS and (after.startswith("-") or os.path.exists(after))
        else word
        for word, after in pairwise(given)
    ]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _rectangle(text: str) -> Rectangle:
    try:
        return parsed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected four whole numbers X,Y,W,H") from error


def _frames(text: str) -> tuple[int, int | None, int]:
    parts = [*text.split(":"), "", ""][:3]
    if text.count(":") not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r}; expected A:B or A:B:STEP")
    try:
        return int(parts[0] or 0), int(parts[1]) if parts[1] else None, int(parts[2] or 1)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}; expected A:B or A:B:STEP") from error


def _compare(options: argparse.Namespace) -> int:
    from ssim_fused.scoring.command import compare_files

    try:
        ended = compare_files(options)
    except BrokenPipeError as error:  # not of standard output, whose reader may leave: of another process
        raise OutputError(str(error)) from error
    if ended.interrupted:
        return INTERRUPTED
    return FAILED if ended.failed else BELOW if ended.below else OK


def _info(options: argparse.Namespace) -> int:
    from ssim_fused.scoring.info import info

    with destination(None) as file:
        file.write(info() + "\n")
    return OK


def _bench(options: argparse.Namespace) -> int:
    from ssim_fused.scoring.bench import bench

    bench(options.seconds)
    return OK
