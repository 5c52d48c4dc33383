"""The mutation run: tests whether a missing synchronization site of the CUDA kernels is noticed.

A mutant is a run of the smoke cases (simt_smoke.py) that leaves out one site, or weakens its block barrier to a warp
barrier. Mutants need no compilation: an environment variable names the site for the harness (tests/simt/sites.h).

`python -m tests.simt_mutants` prints the table for docs/kernels.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from host_program import ORDERS, SMOKE, Program
from simt_smoke import NAMES, Call, run_smoke, sites, smoke_programs

# Mutants that cannot be noticed: (file, text of the line, "left out" or "weakened"), with the reason to keep the
# barrier. There are none today.
UNNOTICED: dict[tuple[str, str, str], str] = {}

KINDS = {
    "__syncthreads": "block barrier",
    "sync_rows": "barrier of the threads that share rows",
    "sync_warp": "warp barrier",
    "wait_for_copies": "wait for copies or commit",
    "wait_for_copies_before_last": "wait for copies or commit",
    "commit_copies": "wait for copies or commit",
    "next_ticket": "fence of a ticket",
}


@dataclass(frozen=True)
class Mutant:
    site: str
    call: Call
    is_weakened: bool = False

    def __str__(self) -> str:
        return f"{self.site} {self.change}"

    @property
    def change(self) -> str:
        return "weakened" if self.is_weakened else "left out"

    @property
    def line(self) -> tuple[str, str, str]:
        return self.site.partition(":")[0], self.call.text, self.change

    @property
    def environment(self) -> dict[str, str]:
        return {"SSIM_SIMT_WEAKEN" if self.is_weakened else "SSIM_SIMT_LEAVE_OUT": self.site}


def mutants() -> list[Mutant]:
    found = []
    for site, call in sites().items():
        found.append(Mutant(site, call))
        if call.function in ("__syncthreads", "sync_rows"):
            found.append(Mutant(site, call, is_weakened=True))
    return found


@dataclass(frozen=True)
class Prepared:
    """A smoke case that has run: its program and directory, its results, and the sites that it reaches."""

    program: Program
    directory: Path
    results: dict[str, bytes]
    sites: frozenset[str]


def results_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.bin")}


def prepare(cache: Path, directory: Path, names: Sequence[str] = NAMES) -> list[Prepared]:
    programs, cases = smoke_programs(SMOKE, cache).in_one_order(), []
    for name in names:
        of_case, reached = directory / name, directory / f"{name}.sites"
        of_case.mkdir()
        run_smoke(programs, name, of_case)
        results, program = results_in(of_case), programs.of(name)
        ran = Program(program.binary, program.build, {"SSIM_SIMT_SITES": str(reached)}).run(of_case)
        assert ran.returncode == 0, ran.stderr
        cases.append(Prepared(program, of_case, results, frozenset(reached.read_text().split())))
    return cases


def is_noticed(case: Prepared, mutant: Mutant, detector: bool) -> bool:
    """Return whether the detector reports the mutant or, without the detector, results differ in any order."""
    environment = {**mutant.environment, **({} if detector else {"SSIM_RACE_OFF": "1"})}
    program = Program(case.program.binary, case.program.build, environment)
    for order in ORDERS[:1] if detector else ORDERS:
        ran = program.run(case.directory, order=order)
        if ran.returncode != 0 or (not detector and results_in(case.directory) != case.results):
            return True
    return False


def notices(cases: list[Prepared], mutant: Mutant, detector: bool) -> bool:
    """Return whether any of the cases that reach the site of a mutant notices it."""
    return any(mutant.site in case.sites and is_noticed(case, mutant, detector) for case in cases)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        cache = Path(__file__).parent.parent / "build/simt"
        cache.mkdir(parents=True, exist_ok=True)
        cases = prepare(cache, Path(directory))
        total: Counter[tuple[str, bool]] = Counter()
        scheduler, detector = total.copy(), total.copy()
        for mutant in mutants():
            row = KINDS[mutant.call.function], mutant.is_weakened
            found = [notices(cases, mutant, detector=is_on) for is_on in (False, True)]
            print(f"{mutant}: scheduler {found[0]}, detector {found[1]}", file=sys.stderr, flush=True)
            total[row] += 1
            scheduler[row] += found[0]
            detector[row] += found[1]
    print("| changed | sites | noticed by the scheduler alone | noticed by the detector |\n|---|---|---|---|")
    for row, count in total.items():
        what = f"{row[0]}, {'weakened to a warp barrier' if row[1] else 'left out'}"
        print(f"| {what} | {count} | {scheduler[row]} | {detector[row]} |")


if __name__ == "__main__":
    main()
