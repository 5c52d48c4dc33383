"""The command line: ``ssim-fused compare | info | bench``.

Exit status: 0 for success; 1 if a score is below ``--fail-under``; 2 for a usage error, a pair that could not be
scored, or a result that could not be written; 3 for a bug in this program; 130 if the run was interrupted. Results go
to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from ssim_fused._version import __version__
from ssim_fused.scoring.destination import complain, destination, let_go_of_standard_output
from ssim_fused.scoring.errors import OutputError, UsageError, lacks_extra
from ssim_fused.scoring.ignored import Rectangle, parsed
from ssim_fused.scoring.output import FORMATS
from ssim_fused.scoring.settings import ALIGNMENTS, CONVENTIONS, LUMAS, METRICS, PADDINGS, WINDOWS, Settings

OK, BELOW, FAILED, BUG, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    try:
        try:
            options = _parsed(sys.argv[1:] if arguments is None else arguments)
            status = options.command(options)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has exited, as in `| head`: write no more, not even when closing the file
        let_go_of_standard_output()
        return OK
    except (UsageError, OSError) as error:  # an OSError comes from writing; an unreadable input is a PairError
        let_go_of_standard_output()
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and lacks_extra(error):
            complain(f"{error.name} is not installed; run: pip install 'ssim_fused[scoring]'")
            return FAILED
        traceback.print_exc()
        complain("this is a bug; please report it with the traceback above and the output of `ssim-fused info`")
        return BUG


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a usage error in one line, and a failure to write its help as an error."""

    def print_help(self, file: Any = None) -> None:
        """Writes the help. ``argparse`` ignores an ``OSError`` here; the command must report a full disk."""
        target = file or sys.stdout
        if target is not None:
            target.write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Prints the message and the command that prints the help, in one line, and exits."""
        complain(f"{message}; see {self.prog} --help")
        sys.exit(FAILED)

    def numeric_options(self) -> set[str]:
        """Returns the options of this parser and of its commands whose value may start with a minus sign."""
        names: set[str] = set()
        for action in self._actions:
            if action.type in (int, float, _frames, _rectangle):
                names.update(action.option_strings)
            elif isinstance(action.choices, dict):  # of the commands: their parsers, by name
                for choice in action.choices.values():
                    names |= choice.numeric_options() if isinstance(choice, Parser) else set()
        return names


def make_parser() -> Parser:
    """Returns the parser of all commands. The parsed options have ``command``, the function that runs the command."""
    parser = Parser("ssim-fused", description="Compute SSIM, MS-SSIM and PSNR of pictures, folders and videos.")
    parser.add_argument("--version", action="version", version=f"ssim-fused {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(
        commands.add_parser(
            "compare",
            help="score distorted pictures, folders or videos against a reference",
            usage="%(prog)s [OPTIONS] REFERENCE DISTORTED [DISTORTED ...]\n       %(prog)s [OPTIONS] --pairs LIST.CSV",
            description="Score distorted pictures, folders or videos against a reference.",
            epilog="Exit status: 0 success; 1 a score is below --fail-under; 2 a usage error, a pair that could not be "
            "scored, or a result that could not be written; 3 a bug; 130 interrupted.",
        )
    )
    about = "print versions, build options and devices, for a bug report"
    info = commands.add_parser("info", help=about, description=f"{about.capitalize()}.")
    info.set_defaults(command=_info, parser=info)
    about = "measure decoding and scoring speed on this machine, in about a minute"
    bench = commands.add_parser("bench", help=about, description=f"{about.capitalize()}.")
    bench.add_argument("--seconds", type=float, default=5, help="spend this long on each figure (default %(default)g)")
    bench.set_defaults(command=_bench, parser=bench)
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    """Adds the options. An option named after a field of ``Settings`` sets that field."""
    parser.set_defaults(command=_compare, parser=parser)
    for add_group in (_add_inputs, _add_scores, _add_results, _add_resources):
        add_group(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    add = group.add_argument
    add(
        "reference",
        nargs="?",
        metavar="REFERENCE",
        help="picture, folder or video; - is a y4m stream on standard input",
    )
    add(
        "distorted",
        nargs="*",
        metavar="DISTORTED",
        help="pictures, folders or videos to score; each is pooled by itself",
    )
    add("--pairs", metavar="LIST.CSV", help="read the pairs from this file, with columns reference,distorted[,mask]")
    add("--frames", type=_frames, metavar="A:B:STEP", help="score every STEP-th frame of videos from A up to B - 1")
    add("--align", choices=ALIGNMENTS, help="match the frames of two videos by number (default) or by time (pts)")
    add("--size", metavar="WxH", help="set the frame size of raw video files (.yuv)")
    add("--pix-fmt", metavar="FMT", help="set the pixel format of raw video files: an FFmpeg name such as yuv420p10le")
    add("--mask", metavar="PATH", help="weight the pixels by this picture, or by the pictures in this folder")
    add("--ignore", action="append", type=_rectangle, metavar="X,Y,W,H",
        help="exclude a rectangle, given in pixels before --crop; may be repeated")  # fmt: skip
    add("--crop", type=int, metavar="N", help="remove N pixels from each side before scoring")
    add("--resize", action="store_true", default=None, help="scale the distorted picture to the reference's size")
    add("--data-range", type=float, metavar="R",
        help="set the value of white: required for float pictures; 4095 for 12-bit data in a 16-bit file")  # fmt: skip
    add("--max-pixels", type=int, metavar="N",
        help=f"refuse pictures of more than N pixels (default {Settings.max_pixels})")  # fmt: skip


def _add_scores(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    add = group.add_argument
    add("--metric", type=_names, metavar="NAMES",
        help=f"compute these metrics, separated by commas: {', '.join(METRICS)} (default ssim)")  # fmt: skip
    add("--convention", choices=CONVENTIONS, help="match the scores of this library (default torchmetrics)")
    add("--padding", choices=PADDINGS, help="pad the borders this way; valid: no padding")
    add("--window", choices=WINDOWS, help="average over a window of this shape")
    add("--sigma", type=float, metavar="PIXELS", help="set the standard deviation of the Gaussian window (default 1.5)")
    add("--kernel-size", type=int, metavar="N", help="set the side of the uniform window, an odd number")
    add("--luma", nargs="?", choices=LUMAS, const="bt601",
        help="score luma only: of RGB by this formula (default bt601), of two videos the Y plane")  # fmt: skip
    add("--rgb", action="store_true", default=None, help="score two videos as RGB instead of by plane (Y, U, V)")


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    add = group.add_argument
    add("--format", choices=FORMATS, default="table", help="print results in this format (default %(default)s)")
    add("--output", metavar="FILE", help="write results to this file instead of standard output")
    add("--per-frame", action="store_true", help="include the scores of each frame")
    pools = "mean, min, max, median, harmonic, p0 to p100; the first is the score of a video (default mean)"
    add("--pool", type=_names, default=("mean",), metavar="NAMES", help=f"combine the scores of frames by {pools}")
    add("--db", action="store_true", help="include SSIM in decibels, -10 log10(1 - SSIM)")
    add("--dssim", action="store_true", help="include DSSIM, (1 - SSIM) / 2")
    add("--map", metavar="DIR", help="write a PNG of each pair and its heat map into this folder")
    add("--report", metavar="FILE.html", help="write an HTML report with the worst pairs, heat maps and plots")
    add("--fail-under", type=float, metavar="VALUE",
        help="exit with status 1 if a pair's first metric is below VALUE")  # fmt: skip


def _add_resources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("resources")
    add = group.add_argument
    add("--device", metavar="NAME", help="compute on auto, cpu, cuda or cuda:N (default auto)")
    add("--batch", type=int, metavar="N", help=f"score up to N pairs per kernel call (default {Settings.batch})")
    add("--workers", type=int, metavar="N", help="decode in N threads (default: one per core)")


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the options. Paths may come before, between and after them, which ``argparse`` subcommands reject."""
    parser = make_parser()
    options, rest = parser.parse_known_args(_with_values(_with_formula(arguments), parser.numeric_options()))
    before = rest[: rest.index("--")] if "--" in rest else rest  # everything after "--" is a path
    unknown = [word for word in before if word.startswith("-") and word != "-"]
    if unknown or (rest and not hasattr(options, "distorted")):
        options.parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        options.distorted += before + rest[len(before) + 1 :]
    return options


def _with_values(arguments: Sequence[str], numeric: Collection[str]) -> Sequence[str]:
    """Joins a value that starts with a minus sign to its option: ``argparse`` would read the value as an option.

    The option's own check then refuses the value, or accepts it.
    """
    words: list[str] = []
    for word in arguments:
        if words and words[-1] in numeric and re.match(r"-[\d.,:]", word):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _with_formula(arguments: Sequence[str]) -> list[str]:
    """Gives each ``--luma`` without a formula its default, so that it does not consume the path after it."""
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
        raise argparse.ArgumentTypeError(f"{text!r}; expected four integers X,Y,W,H") from error


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
    except BrokenPipeError as error:  # of a worker process; `main` would attribute it to standard output
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
