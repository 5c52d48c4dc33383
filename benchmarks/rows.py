"""The rows of `python -m benchmarks.bench`: their fields and ratios, and their CSV and text form."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

from .peers import OURS, REFERENCE

RESULTS = Path(__file__).parent / "results"
COPY_BANDWIDTH = "copy bandwidth"  # the "library" of rows with the physical bound


@dataclass
class Row:
    """A row of the CSV. `ratio_to_x` is the time of x divided by the time of this library.

    "Fastest other" is the fastest of the libraries that ssim_fused is compared with. `commit` and `kernels` are those
    of the measured checkout (provenance.py).
    """

    op: str
    sigma: float
    device: str
    device_name: str
    threads: int
    dtype: str
    shape: str
    mode: str
    library: str
    version: str
    torch: str
    median_ms: float
    p20_ms: float
    p80_ms: float
    mpix_per_s: float
    ratio_to_torchmetrics: float | None = None
    ratio_to_fastest_other: float | None = None
    peak_bytes: int | None = None
    peak_images: float | None = None
    date: str = ""
    commit: str = ""
    kernels: str = ""


def summarize(samples: list[float], pixels: int) -> dict[str, float]:
    """Median and percentiles in ms, and the rate, of times in seconds."""
    levels = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    p20, median, p80 = torch.tensor(samples, dtype=torch.float64).quantile(levels).tolist()
    return {
        "median_ms": median * 1e3,
        "p20_ms": p20 * 1e3,
        "p80_ms": p80 * 1e3,
        "mpix_per_s": pixels / median / 1e6,
    }


def is_peer(library: str) -> bool:
    """Whether a row is of another library: not of ours, whichever of its functions, and not the bound."""
    return not library.startswith(OURS) and library != COPY_BANDWIDTH


def add_ratios(rows: list[Row]) -> None:
    """Fill in the ratios of one case's rows."""
    medians = {row.library: row.median_ms for row in rows}
    others = [median for library, median in medians.items() if is_peer(library)]
    for row in rows:
        if REFERENCE in medians:
            row.ratio_to_torchmetrics = medians[REFERENCE] / row.median_ms
        if others:
            row.ratio_to_fastest_other = min(others) / row.median_ms


def write_csv(rows: list[Row], path: Path) -> None:
    """Write the rows, replacing the file, because ratios are meaningful only within one run."""

    def text(value: object) -> object:
        return f"{value:.6g}" if isinstance(value, float) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: text(value) for key, value in asdict(row).items()} for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV. Columns that an older file lacks are empty."""
    with path.open(newline="") as file:
        return [dict.fromkeys((field.name for field in fields(Row)), "") | line for line in csv.DictReader(file)]


def merge_csv(new: Path, into: Path) -> int:
    """Replace the cases that a run measured in a file of the same device, and return their number.

    Ratios are meaningful only within one run, so all rows of a case are replaced together. A case that the file lacks
    is appended. Raises ValueError if the files are of different devices.
    """
    key = ("op", "sigma", "dtype", "shape", "mode")
    lines, found = read_csv(into), read_csv(new)
    devices = {line["device_name"] for line in [*lines, *found]}
    if len(devices) > 1:
        raise ValueError(
            f"{new} is of {found[0]['device_name']}, {into} of {lines[0]['device_name']}: expected one device; "
            f"copy {new} to a file of its own in {into.parent}"
        )
    cases: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in lines:
        cases.setdefault(tuple(line[name] for name in key), []).append(line)
    measured: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for line in found:
        measured.setdefault(tuple(line[name] for name in key), []).append(line)
    cases |= measured
    with into.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(line for case in cases.values() for line in case)
    return len(measured)


def table(rows: list[Row]) -> str:
    """The rows as text, with a block for each case."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    header = (
        f"{'':18}{'median ms':>11}{'p20':>10}{'p80':>10}{'Mpix/s':>11}"
        f"{'x ' + REFERENCE:>16}{'x fastest other':>17}{'memory/image':>14}"
    )
    lines, title = [], ""
    for row in rows:
        row_title = f"{row.op} {row.shape} {row.dtype}, sigma {row.sigma:g}, {row.mode}"
        if row_title != title:
            title = row_title
            lines += ["", title, header]
        lines.append(
            f"  {row.library:16}{row.median_ms:11.3f}{row.p20_ms:10.3f}{row.p80_ms:10.3f}"
            f"{row.mpix_per_s:11.1f}{number(row.ratio_to_torchmetrics):>16}"
            f"{number(row.ratio_to_fastest_other):>17}{number(row.peak_images):>14}"
        )
    return "\n".join(lines)
