"""Turns benchmarks/results/*.csv into figures and tables: `python -m benchmarks.plot`.

Every name and number comes from the CSV. A file NAME.csv gives docs/figures/speed_NAME_*.svg and memory_NAME_*.svg,
one for values and one for values with gradients, and a part of docs/benchmarks.md. Three of its settings give
docs/figures/summary_NAME_*.svg and six rows of the README. Both pages are written between the marks `bench:begin` and
`bench:end`.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from . import provenance
from .marks import rewrite
from .peers import OURS, REFERENCE
from .rows import COPY_BANDWIDTH, RESULTS, is_peer, read_csv
from .svg import WIDTH, Chart

ROOT = Path(__file__).resolve().parents[1]
IMAGE = "one is the bytes of one input, images or volumes"

# The settings that the README shows, by device.
SUMMARY = {
    "cpu": ("SSIM 8x3x256x256", "MS-SSIM 1x3x1080x1920", "SSIM volume 1x1x96x96x96"),
    "cuda": ("SSIM 16x3x1080x1920", "SSIM 8x3x256x256", "MS-SSIM 8x3x1080x1920"),
}

BARS = 122  # pixels to the left of the bars, for the libraries' names
LABELS = 118  # pixels to the right of the longest bar, for its label
BAR_HEIGHT = 16


@dataclass(frozen=True)
class Result:
    """A line of the CSV, reduced to what charts and tables need."""

    setting: str  # operator, shape and parameters: a group of bars, and a row of tables for each mode
    mode: str
    library: str
    version: str
    mpix_per_s: float
    peak_images: float | None
    date: str = ""
    kernels: str = ""  # hash of the kernels of ssim_fused that were measured (provenance.py); empty if unknown


OUTDATED = "&dagger;"
FOOTNOTE = f"{OUTDATED} Measured with older kernels of ssim_fused than those of this checkout."


class Run:
    """The results on one device: one CSV, of one or several runs, each with all rows of its cases.

    `kernels` is the hash of the current kernels, by default that of the checkout.
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
        """The same run, with only the settings that the README shows."""
        part = copy.copy(self)
        part.settings = [setting for setting in SUMMARY.get(self.device, ()) if setting in self.settings]
        part.settings = part.settings or self.settings[:3]
        part.results = [result for result in self.results if result.setting in part.settings]
        return part

    def measured(self, panel: dict[str, Result]) -> str:
        """The version of ours that a case was measured with, and the day."""
        ours = panel.get(OURS)
        return next((result.date for result in panel.values()), "") if ours is None else f"{ours.version}, {ours.date}"

    def is_outdated(self, panel: dict[str, Result]) -> bool:
        """Whether our kernels have changed since a case was measured."""
        return OURS in panel and panel[OURS].kernels != self.kernels

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


def shown(library: str) -> str:
    """The name of a library in tables and charts. Lines may break within the names of our variants."""
    return library.replace(f"{OURS}_", f"{OURS} ")


def is_ahead(panel: dict[str, Result]) -> bool:
    """Whether ours is the fastest of a case's libraries."""
    peers = [result.mpix_per_s for name, result in panel.items() if is_peer(name)]
    return OURS in panel and panel[OURS].mpix_per_s >= max(peers, default=0.0)


def times(ratio: float) -> str:
    """A speed ratio as text, such as 62x or 1.3x."""
    return f"{ratio:.0f}x" if ratio >= 9.95 else f"{ratio:.1f}x"


class _Bars:
    """A chart of bars, a group for each case, all on one scale."""

    def __init__(self, run: Run, title: str, meaning: str) -> None:
        self.run = run
        self.chart = Chart(f"{title}: {meaning}. {run.conditions}")
        self.chart.text(0, 18, title, "title")
        self.y = 22.0
        for line in (meaning, *textwrap.wrap(run.conditions, 72)):
            self.y += 15
            self.chart.text(0, self.y, line, "small")
        self.y += 10

    def group(self, title: str, lengths: dict[str, float], labels: dict[str, str]) -> None:
        """Draw a case: bars with lengths from 0 to 1, in the order of the dictionary."""
        chart = self.chart
        self.y += 20
        chart.text(0, self.y, title, "case")
        self.y += 6
        chart.line(BARS, self.y, BARS, self.y + BAR_HEIGHT * len(lengths))
        for name, length in lengths.items():
            is_ours = name == OURS
            width = length * (WIDTH - BARS - LABELS)
            chart.text(BARS - 6, self.y + 12, shown(name), "end ours" if is_ours else "end")
            chart.bar(BARS, self.y + 2, width, BAR_HEIGHT - 4, "bar-ours" if is_ours else "bar")
            chart.text(BARS + width + 5, self.y + 12, labels[name], "ours" if is_ours else "")
            self.y += BAR_HEIGHT

    def bound(self, length: float, height: float, label: str) -> None:
        """Mark a limit across the bars of the group that was drawn last, with its label in the group's title line."""
        x = BARS + length * (WIDTH - BARS - LABELS)
        self.chart.line(x, self.y - height, x, self.y, "bound")
        self.chart.text(WIDTH, self.y - height - 6, label, "end bound-text small")

    def write(self, path: Path) -> None:
        """Write the file."""
        self.chart.write(path, self.y + 8)


def speed_labels(run: Run, panel: dict[str, Result]) -> dict[str, str]:
    """A label for each library's bar: its rate, and how much slower or faster it is than ours."""
    labels = {}
    for name, result in panel.items():
        labels[name] = significant(result.mpix_per_s * run.scale)
        if name != OURS and OURS in panel:
            ratio = panel[OURS].mpix_per_s / result.mpix_per_s
            labels[name] += f", {times(ratio)} slower" if ratio >= 1 else f", {times(1 / ratio)} faster"
    return labels


def draw_speed(run: Run, mode: str, path: Path) -> bool:
    """Draw the rates of all settings; False if the run has none of this mode."""
    panels = {setting: panel for setting in run.settings if (panel := run.panel(setting, mode))}
    if not panels:
        return False
    rates = [math.log(result.mpix_per_s) for panel in panels.values() for result in panel.values()]
    low, high = min(rates) - math.log(2), max(rates)

    def length(result: Result) -> float:
        return (math.log(result.mpix_per_s) - low) / (high - low)

    bars = _Bars(run, f"Speed, {mode}", f"{run.unit}, logarithmic: longer is faster")
    for setting, panel in panels.items():
        bound = panel.pop(COPY_BANDWIDTH, None)
        bars.group(setting, {name: length(result) for name, result in panel.items()}, speed_labels(run, panel))
        if bound is not None:
            label = f"{COPY_BANDWIDTH} {significant(bound.mpix_per_s * run.scale)}"
            bars.bound(length(bound), BAR_HEIGHT * len(panel), label)
    bars.write(path)
    return True


def draw_memory(run: Run, mode: str, path: Path) -> bool:
    """Draw the peak memory of all settings; False if the run has none of this mode."""
    panels = {
        setting: images
        for setting in run.settings
        if (images := {n: r.peak_images for n, r in run.panel(setting, mode).items() if r.peak_images is not None})
    }
    if not panels:
        return False
    highest = max(value for images in panels.values() for value in images.values())
    bars = _Bars(run, f"Memory, {mode}", "peak beyond the inputs, in images: shorter is better")
    for setting, images in panels.items():
        lengths = {name: value / highest for name, value in images.items()}
        bars.group(setting, lengths, {name: significant(value) for name, value in images.items()})
    bars.write(path)
    return True


MEASURED = "measured"
Case = tuple[str, str, dict[str, Result]]  # setting, mode, results by library


def markdown(run: Run, header: list[str], cases: list[Case], cells: list[list[str]]) -> str:
    """A table with a row for each case; cases with older kernels have a mark, which a line below explains.

    A last column says when each case was measured, unless all have the same day and version.
    """
    measured = [run.measured(panel) for _, _, panel in cases]
    is_mixed = len(set(measured)) > 1
    header = ["", "", *header, *([MEASURED] if is_mixed else [])]
    rule = ["---", "---"] + ["---" if name == MEASURED else "---:" for name in header[2:]]
    rows = []
    for (setting, mode, panel), row, when in zip(cases, cells, measured, strict=True):
        mark = f" {OUTDATED}" if run.is_outdated(panel) else ""
        rows.append([setting + mark, mode, *row, *([when] if is_mixed else [])])
    text = "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows]) + "\n"
    return text + (f"\n{FOOTNOTE}\n" if any(run.is_outdated(panel) for _, _, panel in cases) else "")


def ratios(run: Run, panel: dict[str, Result]) -> list[str]:
    """How much faster ours is than the reference, and than the fastest of the others, which is named."""
    rates = {name: panel[name].mpix_per_s for name in run.libraries if name in panel}
    ours = rates.pop(OURS, None)
    if ours is None or not rates:
        return ["", ""]
    fastest = max(rates, key=lambda name: rates[name])
    reference = times(ours / rates[REFERENCE]) if REFERENCE in rates else ""
    return [reference, f"{times(ours / rates[fastest])} {shown(fastest)}"]


def rate(run: Run, panel: dict[str, Result], name: str) -> str:
    """A library's rate; ours is bold if it is the fastest."""
    if name not in panel:
        return ""
    text = significant(panel[name].mpix_per_s * run.scale)
    return f"**{text}**" if name == OURS and is_ahead(panel) else text


def images(panel: dict[str, Result], name: str) -> str:
    """A library's peak memory in images."""
    found = panel[name].peak_images if name in panel else None
    return "" if found is None else significant(found)


def tables(run: Run) -> str:
    """The run as Markdown: conditions, a table of speed, one of memory if it was measured."""
    names = [*run.libraries, *([COPY_BANDWIDTH] if COPY_BANDWIDTH in run.versions else [])]
    cases = [(s, m, run.panel(s, m)) for s in run.settings for m in run.modes]
    cases = [case for case in cases if case[2]]

    def memory(panel: dict[str, Result], name: str) -> str:
        text = images(panel, name)
        every = [result.peak_images for result in panel.values() if result.peak_images is not None]
        return f"**{text}**" if text and name == OURS and panel[name].peak_images == min(every) else text

    header = [f"vs {REFERENCE}", "vs the fastest other", *map(shown, names)]
    voxels = ", where voxels of volumes count as pixels" if run.has_volumes else ""
    others = [f"{name} {run.versions[name]}" for name in run.libraries if not name.startswith(OURS)]
    text = f"**{run.conditions}**\n\nSpeed of {OURS} relative to others, then rates in {run.unit}{voxels}. "
    text += f"Compared with {', '.join(others)}.\n\n"
    text += markdown(run, header, cases, [[*ratios(run, p), *(rate(run, p, n) for n in names)] for _, _, p in cases])
    rows = [(case, [memory(case[2], name) for name in run.libraries]) for case in cases]
    rows = [(case, cells) for case, cells in rows if any(cells)]
    if rows:
        table = markdown(
            run, [shown(name) for name in run.libraries], [case for case, _ in rows], [cells for _, cells in rows]
        )
        text += f"\nPeak memory beyond the inputs, in images ({IMAGE}):\n\n{table}"
    return text


def short_table(run: Run) -> str:
    """The run's summary as Markdown: how ours compares with the reference and with the fastest other."""
    cases = [(s, m, run.panel(s, m)) for s in run.settings for m in run.modes]
    cases = [case for case in cases if OURS in case[2] and len(case[2]) > 1]
    header = [f"vs {REFERENCE}", "vs the fastest other", run.unit, "memory, images", f"{REFERENCE}'s memory"]
    rows = [[*ratios(run, p), rate(run, p, OURS), images(p, OURS), images(p, REFERENCE)] for _, _, p in cases]
    return f"**{run.conditions}**:\n\n{markdown(run, header, cases, rows)}"


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

    # The folder has results of other programs, too.
    paths = [path for path in sorted(args.results.glob("*.csv")) if "mpix_per_s" in path.read_text().partition("\n")[0]]
    if not paths:
        raise SystemExit(f"no CSV in {args.results}; run `python -m benchmarks.bench` first")

    def pictures(run: Run, kind: str, page: Path) -> str:
        """Draw a chart for each mode; the links to them, in one paragraph."""
        draw, links = draw_memory if kind == "memory" else draw_speed, []
        for mode in run.modes:
            image = args.figures / f"{kind}_{run.name}_{mode.replace('+', '_')}.svg"
            if draw(run, mode, image):
                print(f"wrote {image}")
                title = f"{'memory' if kind == 'memory' else 'speed'}, {mode}, on {run.conditions}"
                links.append(f"![{title}]({Path(os.path.relpath(image, page.parent)).as_posix()})")
        return f"\n{' '.join(links)}\n" if links else ""

    full, short = [], []
    for run in map(Run, paths):
        full.append(tables(run) + pictures(run, "speed", args.tables) + pictures(run, "memory", args.tables))
        short.append(short_table(run.summary()) + pictures(run.summary(), "summary", args.readme))
    rewrite(args.tables, "\n".join(full))
    rewrite(args.readme, "\n".join(short))
    return 0


if __name__ == "__main__":
    sys.exit(main())
