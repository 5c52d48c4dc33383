"""Registers and spilled bytes of every CUDA kernel that ships, on every architecture. Needs nvcc, but no GPU.

    python -m benchmarks.registers                               # all: some 25 minutes of CPU time
    python -m benchmarks.registers --arch 10.0 --source images.cu
    python -m benchmarks.registers --tables                      # compiles nothing, writes the tables again

Compiles csrc/cuda/*.cu for one architecture at a time, and writes what `ptxas -v` says to
benchmarks/results/registers.csv, where it replaces the previous numbers, and from there the tables of
docs/kernel_notebook.md. tests/test_cuda_build.py compares the file with new compilations.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from .marks import rewrite
from .sass import RESOURCES, short_names, tool

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "registers.csv"
PAGE = ROOT / "docs" / "kernel_notebook.md"
ARCHITECTURES = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")  # as in setup.py; 8.9 runs the code for 8.6
SOURCES = ("images.cu", "volumes.cu", "wide.cu", "masked.cu", "pyramid.cu")  # device.cu has no kernels

TYPES = {"float": "float32", "Half": "16 bits", "BFloat16": "16 bits", "double": "float64", "AnyPixel": "integers"}
GRADIENTS = ("value", "gradient", "both gradients")
GENERAL, CONTRAST = 2, 1  # values of `Objective`; 0 is the mean similarity
PASSES = ("images", "slices, moments", "depth", "slices")  # the values of `Pass`, in order
STRIP = re.compile(
    r"strip_kernel<StripConfig<(\w+), (\d+), \(GradientsOf\)(\d), \(Objective\)(\d), (\w+), (\w+), \(Pass\)(\d), "
    r"(\w+), (\d+)>"
)
DEPTH = re.compile(r"depth_kernel<DepthConfig<(\w+), \(GradientsOf\)(\d), \(Objective\)(\d), (\w+)>")


@dataclass(frozen=True)
class Usage:
    """Registers of a kernel's thread on one architecture, and bytes that it spills to local memory."""

    registers: int
    stores: int
    loads: int

    @property
    def spills(self) -> bool:
        """Whether anything is spilled."""
        return self.stores + self.loads > 0

    def __str__(self) -> str:
        return f"{self.registers} {self.stores}/{self.loads}" if self.spills else str(self.registers)

    @staticmethod
    def parse(text: str) -> Usage:
        """The inverse of `str`."""
        registers, *spilled = re.split("[ /]", text)
        return Usage(int(registers), *(int(number) for number in spilled or (0, 0)))


@dataclass(frozen=True)
class Kind:
    """The purpose of a kernel, regardless of the width of its strips, and the type of its pixels."""

    name: str
    dtype: str

    @staticmethod
    def of(kernel: str) -> Kind:
        """The kind of a kernel by its short name."""
        if match := STRIP.match(kernel):
            storage, _, gradients, objective, narrow, _, stage, pixels, radius = match.groups()
            words = [PASSES[int(stage)], *([GRADIENTS[int(gradients)]] if int(stage) != 1 else [])]
            words += ["MS-SSIM's levels"] * (int(objective) == CONTRAST)
            words += [f"general{', any window' if narrow == 'true' else ''}"] * (int(objective) == GENERAL)
            words += ["any window"] * (int(objective) != GENERAL and narrow == "true")
            words += ["pixel term"] * (pixels == "true") + [f"radius {radius}"] * (radius != "5")
        elif match := DEPTH.match(kernel):
            storage, gradients, objective, narrow = match.groups()
            words = ["depth", GRADIENTS[int(gradients)]]
            words += ["MS-SSIM's levels"] * (int(objective) == CONTRAST) + ["general"] * (int(objective) == GENERAL)
            words += ["any window"] * (narrow == "true")
        else:
            name, _, rest = kernel.partition("<")
            storage = next((word for word in re.findall(r"\w+", rest) if word in TYPES), "")
            words = [name.removesuffix("_kernel").replace("_", " "), *(["masked"] * rest.endswith("true>"))]
        return Kind(", ".join(words), TYPES.get(storage, ""))


def compile_source(architecture: str, source: Path, nvcc: str | None = None) -> dict[str, Usage]:
    """Compile a source for one architecture; return every kernel's usage by its short name."""
    include = Path(torch.__file__).parent / "include"
    with tempfile.TemporaryDirectory() as directory:
        command = [nvcc or tool("nvcc"), "-std=c++20", "-O3", "--expt-relaxed-constexpr", "-DNDEBUG", "-DUSE_CUDA"]
        command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-isystem", str(include)]
        command += [f"-arch=sm_{architecture.replace('.', '')}", "-cubin", "-Xptxas", "-v"]
        command += ["-o", str(Path(directory) / "kernels.cubin"), str(source)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile for {architecture}:\n{built.stderr[-4000:]}")
    found = {
        symbol: Usage(int(registers), int(stores), int(loads))
        for symbol, stores, loads, registers in RESOURCES.findall(built.stderr)
    }
    names = short_names(list(found))
    return dict(sorted((names[symbol], usage) for symbol, usage in found.items()))


def nvcc_release(nvcc: str | None = None) -> str:
    """The release of the compiler, such as `13.0`."""
    version = subprocess.run([nvcc or tool("nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+\.\d+)", version)
    return found[1] if found else ""


class Table:
    """The CSV: a row for each source and kernel, with a cell `REGISTERS [STORES/LOADS]` for each architecture.

    `release` is that of the nvcc which compiled it.
    """

    def __init__(self, path: Path = RESULTS) -> None:
        self.path, self.release = path, ""
        self.usages: dict[tuple[str, str, str], Usage] = {}  # by source, architecture and kernel
        if path.exists():
            with path.open(newline="") as file:
                for line in csv.DictReader(file):
                    self.release = line["nvcc"]
                    for architecture in ARCHITECTURES:
                        if line[architecture]:
                            key = line["source"], architecture, line["kernel"]
                            self.usages[key] = Usage.parse(line[architecture])

    def of(self, source: str, architecture: str) -> dict[str, Usage]:
        """The kernels of a source on an architecture."""
        return {key[2]: usage for key, usage in self.usages.items() if key[:2] == (source, architecture)}

    def replace(self, source: str, architecture: str, found: dict[str, Usage]) -> None:
        """Replace the usages of a source on an architecture."""
        self.usages = {key: usage for key, usage in self.usages.items() if key[:2] != (source, architecture)}
        self.usages |= {(source, architecture, kernel): usage for kernel, usage in found.items()}

    def write(self) -> None:
        """Write the file."""
        rows = sorted({(source, kernel) for source, _, kernel in self.usages})
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["source", "kernel", *ARCHITECTURES, "nvcc"])
            for source, kernel in rows:
                cells = [str(self.usages.get((source, a, kernel), "")) for a in ARCHITECTURES]
                writer.writerow([source, kernel, *cells, self.release])

    def by_kind(self) -> dict[Kind, dict[str, list[Usage]]]:
        """The usages of every kind of kernel, by architecture."""
        kinds: dict[Kind, dict[str, list[Usage]]] = {}
        for (_, architecture, kernel), usage in self.usages.items():
            kinds.setdefault(Kind.of(kernel), {}).setdefault(architecture, []).append(usage)
        return dict(sorted(kinds.items(), key=lambda item: (item[0].name, item[0].dtype)))


def _markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header), ["---"] * 2 + ["---:"] * len(ARCHITECTURES), *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def tables(table: Table) -> str:
    """The registers of strips and depth in float32 and 16 bits, and all that spills, as Markdown."""

    def span(numbers: list[int]) -> str:
        if not numbers:
            return "?"  # not compiled yet
        return str(max(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"

    header = ["", "type", *ARCHITECTURES]
    registers, spills = [], []
    for kind, usages in table.by_kind().items():
        if kind.name.startswith(("images", "slices", "depth")) and kind.dtype in ("float32", "16 bits"):
            cells = (span([usage.registers for usage in usages.get(a, [])]) for a in ARCHITECTURES)
            registers.append([kind.name, kind.dtype, *cells])
        if any(usage.spills for each in usages.values() for usage in each):
            worst = (max(usages.get(a, [Usage(0, 0, 0)]), key=lambda u: u.stores + u.loads) for a in ARCHITECTURES)
            spills.append([kind.name, kind.dtype, *(f"{u.stores}/{u.loads}" if u.spills else "" for u in worst)])
    count = len({(source, kernel) for source, _, kernel in table.usages})
    return (
        f"Registers per thread, by compute capability (nvcc {table.release}):\n\n"
        f"{_markdown(header, registers)}\n\n"
        f"The kernels that spill, of {count}: bytes that a thread stores and loads, at the worst width. All others "
        f"spill nothing on any of the {len(ARCHITECTURES)} architectures.\n\n{_markdown(header, spills)}\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Compile, write the CSV and the page's tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registers", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("--source", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--tables", action="store_true", help="compile nothing, write the page's tables from the CSV")
    arguments = parser.parse_args(argv)
    table = Table()
    if not arguments.tables:
        table.release = nvcc_release()
        for architecture in arguments.arch:
            for source in arguments.source:
                found = compile_source(architecture, ROOT / "csrc/cuda" / source)
                table.replace(source, architecture, found)
                table.write()
                spilling = sum(usage.spills for usage in found.values())
                print(f"{architecture:5} {source:12} {len(found):3} kernels, {spilling} spill", flush=True)
    rewrite(PAGE, tables(table), "registers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
