"""Measures scoring files against decoding alone, pyiqa's command line, a scikit-image loop, and FFmpeg's filter.

All read files of 1920x1080 that this program writes to a temporary folder. Ratios are of medians over rounds in which
the contenders alternate. pyiqa's command is timed on a few pairs and on a few more, which separates the time per pair
from the startup time. Writes ``benchmarks/results/scoring.csv``, with one figure per row.

    python -m benchmarks.scoring [--pairs 200] [--frames 300] [--rounds 3] [--pyiqa PATH]
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ssim_fused.scoring import Pair, Settings, score
from ssim_fused.scoring.bench import exhaust, write_pictures, write_videos
from ssim_fused.scoring.decoding import decoded, whole
from ssim_fused.scoring.info import processor

Figures = list[tuple[str, float | str, str]]  # name, value, unit

RESULTS = Path(__file__).parent / "results" / "scoring.csv"
LISTED = 100_000
FEW, MORE = 1, 3  # numbers of pairs for pyiqa, which takes seconds per pair


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pyiqa", default=shutil.which("pyiqa"), help="its command, where it is not on the PATH")
    options = parser.parse_args()
    figures: Figures = []
    with tempfile.TemporaryDirectory(prefix="ssim_fused") as name:
        folder = Path(name)
        pairs = write_pictures(folder, options.pairs)
        videos = write_videos(folder, options.frames)
        figures += against_decoding("1080p JPEG, RGB", pairs, Settings(), options.pairs, options.rounds)
        luma = Settings(luma="bt601")
        figures += against_decoding("1080p H.264, Y", videos, luma, options.frames, options.rounds)
        figures += against_decoding("1080p H.264, Y, U and V", videos, Settings(), options.frames, options.rounds)
        figures += against_ffmpeg(videos[0], options.frames, options.rounds)
        figures += against_skimage(pairs[:4])
        figures += against_pyiqa(options.pyiqa, pairs, folder)
        figures += memory(folder, pairs, videos[0], options.frames)
    write(figures)


def against_decoding(title: str, pairs: Sequence[Pair], settings: Settings, frames: int, rounds: int) -> Figures:
    """The fraction of the total time that decoding alone takes, with the same decoder and workers."""
    calls: dict[str, Callable[[], object]] = {
        "decoding": lambda: exhaust(decoded(whole(pairs, settings), settings)),
        "scoring": lambda: exhaust(score(pairs, settings)),
    }
    times, work = in_turns(calls, rounds, title)
    return [
        (f"{title}: decoding alone", 1e3 * times["decoding"] / frames, "ms a pair"),
        (f"{title}: with SSIM", 1e3 * times["scoring"] / frames, "ms a pair"),
        (f"{title}: decoding alone / with SSIM", times["decoding"] / times["scoring"], ""),
        (f"{title}: decoding alone, of all cores", 1e3 * work["decoding"] / frames, "CPU ms a pair"),
        (f"{title}: with SSIM, of all cores", 1e3 * work["scoring"] / frames, "CPU ms a pair"),
        (f"{title}: SSIM beyond decoding / decoding alone, of all cores", work["scoring"] / work["decoding"] - 1, ""),
    ]


def in_turns(
    calls: dict[str, Callable[[], object]], rounds: int, title: str
) -> tuple[dict[str, float], dict[str, float]]:
    """The median seconds of each call, in wall time and in CPU time of all cores. Every round runs each call once."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    work: dict[str, list[float]] = {name: [] for name in calls}
    for turn in tqdm(range(rounds), title, leave=False):
        names = list(calls)[turn % len(calls) :] + list(calls)[: turn % len(calls)]
        for name in names:
            begin, used = time.perf_counter(), cpu_seconds()
            calls[name]()
            times[name].append(time.perf_counter() - begin)
            work[name].append(cpu_seconds() - used)
    return medians(times), medians(work)


def medians(kept: dict[str, list[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in kept.items()}


def cpu_seconds() -> float:
    """The CPU time of this process and its finished children. Other programs do not count."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def against_ffmpeg(pair: Pair, frames: int, rounds: int) -> Figures:
    """Our command line and FFmpeg's on the same two videos. FFmpeg's SSIM of 8x8 blocks is another metric."""
    program = shutil.which("ffmpeg")
    if program is None:
        return [("1080p H.264: FFmpeg's ssim", "not compared: no ffmpeg", "")]
    theirs = [program, "-v", "error", "-i", pair.distorted, "-i", pair.reference, "-lavfi", "ssim", "-f", "null", "-"]
    ours = ours_on(pair.reference, pair.distorted, "--luma", "bt601")
    times, work = in_turns({"ffmpeg": lambda: quiet(theirs), "ours": lambda: quiet(ours)}, rounds, "FFmpeg")
    return [
        ("1080p H.264: ffmpeg -lavfi ssim, three planes", 1e3 * times["ffmpeg"] / frames, "ms a pair"),
        ("1080p H.264: ssim-fused compare --luma", 1e3 * times["ours"] / frames, "ms a pair"),
        ("1080p H.264: ffmpeg, of all cores", 1e3 * work["ffmpeg"] / frames, "CPU ms a pair"),
        ("1080p H.264: ssim-fused, of all cores, start included", 1e3 * work["ours"] / frames, "CPU ms a pair"),
    ]


def ours_on(*arguments: str) -> list[str]:
    """Our command line with these arguments."""
    return [sys.executable, "-m", "ssim_fused", "compare", *arguments]


def quiet(command: Sequence[str]) -> None:
    """Run a command and discard its output."""
    subprocess.run(command, check=True, capture_output=True)


def against_skimage(pairs: Sequence[Pair]) -> Figures:
    """The loop that scikit-image's documentation suggests, with Wang's settings, and ours with the same settings."""
    from skimage.metrics import structural_similarity

    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}

    def loop() -> None:
        for pair in pairs:
            x, y = (np.asarray(Image.open(path)) for path in (pair.reference, pair.distorted))
            structural_similarity(x, y, channel_axis=-1, **wang)

    settings = Settings(padding="valid")
    times, work = in_turns({"loop": loop, "ours": lambda: exhaust(score(pairs, settings))}, 3, "scikit-image")
    return [
        ("1080p JPEG: scikit-image in a loop", 1e3 * times["loop"] / len(pairs), "ms a pair"),
        ("1080p JPEG: scikit-image / ssim_fused", times["loop"] / times["ours"], "times as long"),
        ("1080p JPEG: scikit-image / ssim_fused, of all cores", work["loop"] / work["ours"], "times as much"),
    ]


def against_pyiqa(program: str | None, pairs: Sequence[Pair], folder: Path) -> Figures:
    """The command line of pyiqa, which scores image by image, in float64."""
    if program is None:
        return [("1080p JPEG: pyiqa", "not compared: no pyiqa", "")]
    seconds: dict[str, list[float]] = {"pyiqa": [], "ours": []}
    for count in (FEW, MORE):
        sides = [folder / f"{side}{count}" for side in ("a", "b")]
        for side, name in zip(sides, ("reference", "distorted"), strict=True):
            side.mkdir()
            for number, pair in enumerate(pairs[:count]):
                shutil.copy(getattr(pair, name), side / f"{number}.jpg")
        a, b = map(str, sides)
        for name, command in (("pyiqa", [program, "ssim", "-t", b, "-r", a]), ("ours", ours_on(a, b))):
            begin = time.perf_counter()
            quiet(command)
            seconds[name].append(time.perf_counter() - begin)
    theirs = (seconds["pyiqa"][1] - seconds["pyiqa"][0]) / (MORE - FEW)
    begin = time.perf_counter()
    exhaust(score(pairs, Settings()))
    ours = (time.perf_counter() - begin) / len(pairs)
    return [
        ("1080p JPEG: pyiqa's command line", 1e3 * theirs, "ms a pair"),
        ("1080p JPEG: pyiqa / ssim_fused", theirs / ours, "times as long"),
        (f"1080p JPEG: command of {MORE} pairs, start included, pyiqa / ssim_fused",
         seconds["pyiqa"][1] / seconds["ours"][1], "times as long"),
    ]  # fmt: skip


def memory(folder: Path, pairs: Sequence[Pair], video: Pair, frames: int) -> Figures:
    """The command's peak resident size, and its growth with more pairs or frames."""
    paths = [str(folder / f"small{n}.png") for n in range(2)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(path)
    small = [(paths[0], paths[1])] * LISTED
    large = [(pair.reference, pair.distorted) for pair in pairs]
    videos = [video.reference, video.distorted]
    runs = {
        (f"{LISTED} pairs of 32x32", "100"): (listed(folder, small[:100]), listed(folder, small)),
        (f"{len(large)} pairs of 1080p JPEG", f"{len(large) // 4}"): (
            listed(folder, large[: len(large) // 4]),
            listed(folder, large),
        ),
        (f"{frames} frames of 1080p H.264", f"{frames // 3}"): (
            [*videos, "--frames", f"0:{frames // 3}"],
            videos,
        ),
    }
    figures: Figures = []
    for (what, fewer), calls in runs.items():
        few, many = (resident(folder, *call) for call in calls)
        figures += [(f"memory of {what}", many, "MB"), (f"memory of {what}, beyond that of {fewer}", many - few, "MB")]
    return figures


def listed(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The arguments that score these pairs."""
    listing = folder / f"{len(pairs)}.csv"
    listing.write_text("".join(f"{reference},{distorted}\n" for reference, distorted in pairs))
    return ["--pairs", str(listing)]


def resident(folder: Path, *arguments: str) -> float:
    """The peak resident size of the command plus that of its largest worker, in MB."""
    program = (
        "import re, resource, sys; from ssim_fused.scoring.cli import main; "
        f"status = main(['compare', *{list(arguments)!r}, '--format', 'json', '--output', {str(folder / 'out')!r}]); "
        "own = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); "
        "print(own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def write(figures: Figures) -> None:
    """Print the figures, and write them to the file."""
    machine = f"{processor()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}"
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    rows = [
        (machine, date, name, f"{value:.3g}" if isinstance(value, float) else value, unit)
        for name, value, unit in figures
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("machine", "date", "figure", "value", "unit"), *rows])
    print(f"{machine}, {date}\n")
    for _, _, name, value, unit in rows:
        print(f"{name:<75} {value:>8} {unit}")


if __name__ == "__main__":
    main()
