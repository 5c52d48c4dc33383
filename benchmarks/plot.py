"""Turns benchmarks/results/*.csv into figures and tables: `python -m benchmarks.plot`.

Every name and number comes from the CSV. A file NAME.csv gives docs/figures/speed_NAME.png and memory_NAME.png and
one part of docs/benchmarks.md; and of three settings docs/figures/summary_NAME.png and six rows of the README. Both
files are written between the marks `bench:begin` and `bench:end`.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from . import provenance
from .marks import rewrite
from .peers import OURS, REFERENCE
from .rows import COPY_BANDWIDTH, RESULTS, is_peer, read_csv

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "one is the bytes of one input, images or volumes"

# What the README shows of a device: images small and large, and what else there is.
SUMMARY = {
    "cpu": ("SSIM 8x3x256x256", "MS-SSIM 1x3x1080x1920", "SSIM volume 1x1x96x96x96"),
    "cuda": ("SSIM 16x3x1080x1920", "SSIM 8x3x256x256", "MS-SSIM 8x3x1080x1920"),
}

OURS_COLOR, PEER_COLOR, BOUND_COLOR, TEXT_COLOR = "#d9480f", "#adb5bd", "#1864ab", "#343a40"


@dataclass(frozen=True)
class Result:
    """A line of the CSV, as far as figures and table need it."""

    setting: str  # operator, shape and parameters: a row of figures and tables
    mode: str
    library: str
    version: str
    mpix_per_s: float
    peak_images: float | None
    date: str = ""
    kernels: str = ""  # of ssim_fused, as measured (provenance.py); empty where the file does not tell


OUTDATED = "before these kernels"


class Run:
    """One CSV: the results on one device, of one run or of several, each with all rows of its cases.

    `kernels` is the hash of the kernels as they are now, by default that of the checkout.
    """

    def __init__(self, path: Path, kernels: str | None = None) -> None:
        lines = read_csv(path)
        if not lines:
            raise ValueError(f"{path} has no results")
        self.name = path.stem
        first = lines[0]
        self.device = first["device"]
        threads = f"{first['threads']} threads, " if first["device"] == "cpu" else ""
        self.results = [_parse(line) for line in lines]
        self.kernels = provenance.kernels(self.device) if kernels is None else kernels
        dates = sorted({result.date for result in self.results})
        ours = sorted({result.version for result in self.results if result.library == OURS})
        version = f"{OURS} {' and '.join(ours)}, " if ours else ""
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        self.conditions = f"{first['device_name']}, {threads}torch {first['torch']}, {version}{when}"
        # Three digits of a GPU's rate are easier to read in Gpix/s.
        large = max(result.mpix_per_s for result in self.results) >= 1e4
        self.unit, self.scale = ("Gpix/s", 1e-3) if large else ("Mpix/s", 1.0)
        self.has_volumes = any("volume" in result.setting for result in self.results)
        self.settings = list(dict.fromkeys(result.setting for result in self.results))
        self.modes = list(dict.fromkeys(result.mode for result in self.results))

        rates: dict[str, list[float]] = {}
        for result in self.results:
            rates.setdefault(result.library, []).append(math.log(result.mpix_per_s))
        rates.pop(COPY_BANDWIDTH, None)
        self.libraries = sorted(rates, key=lambda name: (name != OURS, -sum(rates[name]) / len(rates[name])))
        self.versions = {result.library: result.version for result in self.results}

    def summary(self) -> Run:
        """The same run, of the settings that the README shows."""
        part = copy.copy(self)
        part.settings = [setting for setting in SUMMARY.get(self.device, ()) if setting in self.settings]
        part.settings = part.settings or self.settings[:3]
        part.results = [result for result in self.results if result.setting in part.settings]
        return part

    def measured(self, panel: dict[str, Result]) -> str:
        """Which version of ours a case's row is of, from which day, and whether its kernels have changed since."""
        if OURS not in panel:
            return next((result.date for result in panel.values()), "")
        ours = panel[OURS]
        is_outdated = ours.kernels != self.kernels
        return f"{ours.version}, {ours.date}{f', {OUTDATED}' if is_outdated else ''}"

    def panel(self, setting: str, mode: str) -> dict[str, Result]:
        """Results of one case by library, ours first, then fastest on average first."""
        found = {r.library: r for r in self.results if (r.setting, r.mode) == (setting, mode)}
        order = [*self.libraries, COPY_BANDWIDTH]
        return {name: found[name] for name in order if name in found}


def _parse(line: dict[str, str]) -> Result:
    sigma = "" if float(line["sigma"]) == 1.5 else f", sigma {line['sigma']}"
    dtype = "" if line["dtype"] == "float32" else f", {line['dtype']}"
    operator = line["op"].upper().replace("_", "-")
    volume = "volume " if line["shape"].count("x") == 4 else ""
    return Result(
        setting=f"{operator} {volume}{line['shape']}{sigma}{dtype}",
        mode=line["mode"],
        library=line["library"],
        version=line["version"],
        mpix_per_s=float(line["mpix_per_s"]),
        peak_images=float(line["peak_images"]) if line["peak_images"] else None,
        date=line["date"],
        kernels=line["kernels"],
    )


def significant(value: float) -> str:
    """Three significant digits, at most two decimals, without an exponent."""
    decimals = 2 if value < 1e-9 else min(2, max(0, 2 - math.floor(math.log10(value))))
    return f"{value:,.{decimals}f}"


def is_ahead(panel: dict[str, Result]) -> bool:
    """Whether ours is the fastest of a case's libraries."""
    peers = [result.mpix_per_s for name, result in panel.items() if is_peer(name)]
    return OURS in panel and panel[OURS].mpix_per_s >= max(peers, default=0.0)


def times(ratio: float) -> str:
    """A speed ratio as people say it: 62x, 1.3x."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


def _bars(axes: Axes, run: Run, values: dict[str, float], labels: list[str]) -> None:
    names = list(values)
    colors = [OURS_COLOR if name == OURS else PEER_COLOR for name in names]
    bars = axes.barh(range(len(names)), list(values.values()), color=colors, height=0.75)
    background = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.bar_label(bars, labels, padding=4, fontsize=8, color=TEXT_COLOR, bbox=background)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    for tick, name in zip(axes.get_yticklabels(), names, strict=True):
        tick.set_fontweight("bold" if name == OURS else "normal")
        tick.set_color(OURS_COLOR if name == OURS else TEXT_COLOR)
    axes.set_ylim(len(run.libraries) - 0.5, -0.5)  # bars as thick where a library is missing
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#ced4da")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", which="both", labelsize=7.5, colors=TEXT_COLOR, labelbottom=False)
    axes.grid(axis="x", color="#e9ecef", linewidth=0.8)
    axes.set_axisbelow(True)


def _speed_panel(axes: Axes, run: Run, panel: dict[str, Result]) -> None:
    bound = panel.pop(COPY_BANDWIDTH, None)
    rates = {name: result.mpix_per_s * run.scale for name, result in panel.items()}
    labels = []
    for name, rate in rates.items():
        label = f"{significant(rate)} {run.unit}" if name == OURS else significant(rate)
        if name != OURS and OURS in rates:
            ratio = rates[OURS] / rate
            label += f"   {times(ratio)} slower" if ratio >= 1 else f"   {times(1 / ratio)} faster"
        labels.append(label)
    if bound is not None:
        rate = bound.mpix_per_s * run.scale
        axes.axvline(rate, color=BOUND_COLOR, linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            f"{COPY_BANDWIDTH}\n{significant(rate)}",
            (rate, len(run.libraries) - 0.6),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=7.5,
            color=BOUND_COLOR,
            va="bottom",
        )
    _bars(axes, run, rates, labels)
    axes.set_xscale("log")
    every = [result.mpix_per_s * run.scale for result in run.results]
    axes.set_xlim(min(every) / 2, max(every) * 8)  # room for the labels
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _memory_panel(axes: Axes, run: Run, panel: dict[str, Result]) -> None:
    images = {n: r.peak_images for n, r in panel.items() if r.peak_images is not None}
    _bars(axes, run, images, [significant(value) for value in images.values()])
    every = [result.peak_images for result in run.results if result.peak_images is not None]
    axes.set_xlim(0, max(every) * 1.15)


def figure(run: Run, kind: str, path: Path) -> bool:
    """Draw speed or memory, a row of panels for each setting; False if there is nothing to draw."""
    draw = {"speed": _speed_panel, "memory": _memory_panel}[kind]
    title, meaning = {
        "speed": ("Speed", f"{run.unit}, logarithmic axis: longer is faster"),
        "memory": ("Memory", f"peak beyond the inputs, in images ({IMAGE}): shorter is better"),
    }[kind]

    def drawable(panel: dict[str, Result]) -> bool:
        return any(kind == "speed" or r.peak_images is not None for r in panel.values())

    panels = {(s, m): run.panel(s, m) for s in run.settings for m in run.modes}
    panels = {case: panel for case, panel in panels.items() if drawable(panel)}
    settings = list(dict.fromkeys(setting for setting, _ in panels))
    if not settings:
        return False
    head, row_height = 0.75, 0.5 + 0.2 * len(run.libraries)  # inches
    size = (5.4 * len(run.modes), head + 0.3 + row_height * len(settings))
    fig, grid = plt.subplots(len(settings), len(run.modes), figsize=size, squeeze=False)
    for column, mode in enumerate(run.modes):
        drawn = None
        for axes, setting in zip(grid[:, column], settings, strict=True):
            if (setting, mode) not in panels:
                axes.set_axis_off()
                continue
            draw(axes, run, panels[setting, mode])
            axes.set_title(f"{setting}, {mode}", fontsize=9.5, loc="left", color=TEXT_COLOR)
            drawn = axes
        if drawn is not None:
            drawn.tick_params(axis="x", labelbottom=True)  # the panels share one scale
    fig.text(0.01, 1 - 0.1 / size[1], title, va="top", fontsize=13, fontweight="bold")
    conditions = f"{meaning}\n{run.conditions}"
    fig.text(0.01, 1 - 0.36 / size[1], conditions, va="top", fontsize=8.5, color=TEXT_COLOR)
    fig.tight_layout(rect=(0, 0, 1, 1 - head / size[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=130)
    plt.close(fig)
    return True


MEASURED = "measured"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---", "---"] + ["---" if name == MEASURED else "---:" for name in header[2:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])


def tables(run: Run) -> str:
    """The run as Markdown: conditions, a table of speed, one of memory if it was measured."""
    names = [*run.libraries, *([COPY_BANDWIDTH] if COPY_BANDWIDTH in run.versions else [])]
    header = ["", "", *(f"{name} {run.versions[name]}".strip() for name in names)]
    cases = [(s, m, run.panel(s, m)) for s in run.settings for m in run.modes]
    cases = [case for case in cases if case[2]]

    def speed(panel: dict[str, Result], name: str) -> str:
        if name not in panel:
            return ""
        rate = significant(panel[name].mpix_per_s * run.scale)
        return f"**{rate}**" if name == OURS and is_ahead(panel) else rate

    def memory(panel: dict[str, Result], name: str) -> str:
        images = panel[name].peak_images if name in panel else None
        text = "" if images is None else significant(images)
        every = [result.peak_images for result in panel.values() if result.peak_images is not None]
        return f"**{text}**" if name == OURS and images is not None and images == min(every) else text

    def ratios(panel: dict[str, Result]) -> list[str]:
        """To the reference, and to the fastest of the others, named."""
        rates = {name: panel[name].mpix_per_s for name in run.libraries if name in panel}
        ours = rates.pop(OURS, None)
        if ours is None or not rates:
            return ["", ""]
        fastest = max(rates, key=lambda name: rates[name])
        reference = times(ours / rates[REFERENCE]) if REFERENCE in rates else ""
        return [reference, f"{times(ours / rates[fastest])} {fastest}"]

    speed_header = [*header, f"{OURS} vs {REFERENCE}", f"{OURS} vs the fastest other", MEASURED]
    speed_rows = [[s, m, *(speed(p, name) for name in names), *ratios(p), run.measured(p)] for s, m, p in cases]
    voxels = ", where voxels of volumes count as pixels" if run.has_volumes else ""
    text = f"**{run.conditions}**\n\nSpeed in {run.unit}{voxels}:\n\n"
    text += f"{_markdown(speed_header, speed_rows)}\n"
    memory_rows = [[s, m, *(memory(p, n) for n in run.libraries), run.measured(p)] for s, m, p in cases]
    memory_rows = [cells for cells in memory_rows if any(cells[2:-1])]
    if memory_rows:
        memory_header = ["", "", *run.libraries, MEASURED]
        text += f"\nPeak memory beyond the inputs, in images ({IMAGE}):\n\n{_markdown(memory_header, memory_rows)}\n"
    return text


def short_table(run: Run) -> str:
    """The run's summary as Markdown: a row for each case, ours beside the fastest other and the reference."""
    header = ["", "", OURS, "the fastest other", REFERENCE, "memory, images", f"{REFERENCE}'s", MEASURED]
    rows = []
    for setting in run.settings:
        for mode in run.modes:
            panel = run.panel(setting, mode)
            others = [name for name in run.libraries if name in panel and name != OURS]
            if OURS not in panel or not others:
                continue
            fastest = max(others, key=lambda name: panel[name].mpix_per_s)

            def rate(name: str, panel: dict[str, Result] = panel) -> str:
                return significant(panel[name].mpix_per_s * run.scale) if name in panel else ""

            def images(name: str, panel: dict[str, Result] = panel) -> str:
                found = panel[name].peak_images if name in panel else None
                return "" if found is None else significant(found)

            ours = f"**{rate(OURS)}**" if is_ahead(panel) else rate(OURS)
            cells = [ours, f"{rate(fastest)} {fastest}", rate(REFERENCE), images(OURS)]
            rows.append([setting, mode, *cells, images(REFERENCE), run.measured(panel)])
    return f"**{run.conditions}**, {run.unit}:\n\n{_markdown(header, rows)}\n"


def main(argv: list[str] | None = None) -> int:
    """Draw every run, rewrite docs/benchmarks.md and the README's table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs/figures", metavar="FOLDER")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="FILE")
    parser.add_argument("--tables", type=Path, default=ROOT / "docs/benchmarks.md", metavar="FILE")
    args = parser.parse_args(argv)

    # Beside those of bench.py there are the accuracy's.
    paths = [path for path in sorted(args.results.glob("*.csv")) if "mpix_per_s" in path.read_text().partition("\n")[0]]
    if not paths:
        raise SystemExit(f"no CSV in {args.results}; run `python -m benchmarks.bench` first")
    full, short = [], []
    for path in paths:
        run = Run(path)
        for parts, document, part, kinds in (
            (full, args.tables, tables(run), {"speed": run, "memory": run}),
            (short, args.readme, short_table(run.summary()), {"summary": run.summary()}),
        ):
            for kind, shown in kinds.items():
                image = args.figures / f"{kind}_{run.name}.png"
                if figure(shown, "memory" if kind == "memory" else "speed", image):
                    print(f"wrote {image}")
                    link = Path(os.path.relpath(image, document.parent)).as_posix()
                    title = "memory" if kind == "memory" else "speed"
                    part += f"\n![{title} on {run.conditions}]({link})\n"
            parts.append(part)
    rewrite(args.tables, "\n".join(full))
    rewrite(args.readme, "\n".join(short))
    return 0


if __name__ == "__main__":
    sys.exit(main())
