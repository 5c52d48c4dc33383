"""Measure how close the CPU kernel comes to the machine's rate of multiply-adds: `python -m benchmarks.peak`.

Compiles benchmarks/peak.cpp with the flags of setup.py, and runs it on one thread: a loop of nothing but multiply-adds,
the window alone over data in L1, and whole marches. Between two such runs it times steps and values from Python. The
value of a pixel takes 8 convolutions of 11 taps, its gradient 6 more. Writes benchmarks/results/peak/cpu.csv and the
table of docs/kernel_notebook.md. `--program FILE` only compiles, for a profiler: `FILE N` makes N marches, value and
gradient.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import tempfile
import timeit
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

from .cases import GRADIENT, SSIM, VALUE, Case, make_inputs, make_step
from .marks import rewrite
from .path import RESULTS as PATH_RESULTS
from .peers import OURS, create

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = PATH_RESULTS.with_name("peak") / "cpu.csv", ROOT / "docs/kernel_notebook.md"
SHAPE = (8, 3, 256, 256)
MULTIPLY_ADDS = {VALUE: 4 * 2 * 11, GRADIENT: 7 * 2 * 11}  # per pixel
FLOOR = "a loop of multiply-adds"


def build(to: Path) -> Path:
    """Compile the program; return its path."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        raise SystemExit("benchmarks.peak compiles a program and finds no C++ compiler: install one, or set CXX to it")
    flags = ["-std=c++20", "-O3", "-ffp-contract=fast", "-g1", "-Wno-psabi", "-DNDEBUG", f"-I{ROOT / 'csrc'}"]
    flags += [f"-isystem{path}" for path in include_paths()] + ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    subprocess.run([compiler, *flags, str(ROOT / "benchmarks/peak.cpp"), "-o", str(to)], check=True)
    return to


def rates(program: Path) -> dict[str, float]:
    """Run the program; return billions of multiply-adds a second, by what it measured."""
    lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: float(rate) for name, rate in (line.rsplit(",", 1) for line in lines)}


def from_python(mode: str, repeats: int = 40) -> float:
    """Return the rate of values or steps called from Python, in billions of multiply-adds per second."""
    case = Case(SSIM, SHAPE, mode)
    preds, target = make_inputs(case, "cpu")
    step = make_step(case, create(OURS).case_function(case, "cpu"), preds, target)
    step()
    return preds.numel() * MULTIPLY_ADDS[mode] / min(timeit.repeat(step, number=1, repeat=repeats)) / 1e9


def main() -> None:
    """Measure, write the CSV, and rewrite the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.program:
        build(arguments.program)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        program = build(Path(directory) / "peak")
        found = rates(program)
        for mode in (VALUE, GRADIENT):
            found[f"{'x'.join(map(str, SHAPE))} from Python: {mode}"] = from_python(mode)
        for name, rate in rates(program).items():
            found[name] = max(rate, found[name])
    rows = [(name, round(rate, 2), round(100 * rate / found[FLOOR])) for name, rate in found.items()]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        csv.writer(file).writerows([("what", "G multiply-adds/s", "percent of the loop"), *rows])
    table = "\n".join(f"| {name} | {rate} | {percent} % |" for name, rate, percent in rows)
    rewrite(PAGE, f"| one thread, float32 | G multiply-adds/s | of the loop |\n| --- | ---: | ---: |\n{table}\n")


if __name__ == "__main__":
    main()
