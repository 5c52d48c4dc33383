"""Compares this ssim_fused with that of another checkout, side by side: `python -m benchmarks.bench --against PATH`.

Each build runs in its own process and waits while the other measures. They alternate block by block and swap the order
in every round. A row has both medians, and the median and the 20th and 80th percentile of the ratios within the rounds,
because a machine that slows down slows both.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from .cases import CASES, GRADIENT, SSIM, VALUE, Case, make_inputs, make_step
from .peers import OURS, create

ROOT = Path(__file__).resolve().parents[1]
# Cases so small that only the host's overhead counts. The README's cases do not include them.
HOST_CASES = [Case(SSIM, (1, 1, 16, 16), GRADIENT), Case(SSIM, (1, 1, 16, 16), VALUE)]

# Imports ssim_fused from the checkout, and the benchmarks from here.
_PROGRAM = (
    "import sys; checkout, root, *rest = sys.argv[1:]; sys.path.insert(0, checkout); import ssim_fused; "
    "sys.path.insert(0, root); from benchmarks.against import serve; serve(*rest)"
)


def serve(device: str, threads: str, *labels: str) -> None:
    """Run as the worker: read the number of a case or `block SECONDS`, and answer with seconds."""
    import ssim_fused

    from .bench import seconds_per_step

    torch.set_num_threads(int(threads))
    by_label = {case.label: case for case in [*HOST_CASES, *CASES[device]]}
    print(Path(ssim_fused.__file__).parent, flush=True)
    step, repeats = None, 1
    for line in sys.stdin:
        if line.startswith("case "):
            case = by_label[labels[int(line.split()[1])]]
            try:
                step = make_step(case, create(OURS).case_function(case, device), *make_inputs(case, device))
                for _ in range(3):
                    step()
                print(seconds_per_step(step, 1, device), flush=True)
            except Exception as error:  # an older checkout may lack what the case calls; the other cases continue
                print(f"error {type(error).__name__}: {error}".splitlines()[0], flush=True)
        elif line.startswith("block ") and step is not None:
            repeats = int(line.split()[1])
            if repeats > 1:
                step()
            print(seconds_per_step(step, repeats, device), flush=True)


class Unsupported(Exception):  # noqa: N818, an answer rather than an error
    """A checkout that raises on a case, with its message."""


class Worker:
    """The process that measures one checkout."""

    def __init__(self, checkout: Path, device: str, threads: int, cases: list[Case]) -> None:
        arguments = [str(checkout.resolve()), str(ROOT), device, str(threads), *(case.label for case in cases)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.path.sep,  # a folder without an ssim_fused
        )
        self.package = self.answer()

    def answer(self) -> str:
        """The next line that the process prints."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit("a worker has failed, see above; are both checkouts built in place (make, or setup.py)?")
        return line.strip()

    def ask(self, question: str) -> float:
        """Seconds per step. Raises Unsupported if the checkout cannot run the case."""
        if self.process.stdin:
            self.process.stdin.write(question + "\n")
            self.process.stdin.flush()
        answer = self.answer()
        if answer.startswith("error "):
            raise Unsupported(answer.removeprefix("error "))
        return float(answer)

    def stop(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def compare(
    other: Path, device: str, threads: int, cases: list[Case], rounds: int, block_s: float, budget_s: float = math.inf
) -> None:
    """Measure the cases with both checkouts and print a row for each. Starts no case when the time is over."""
    begin = time.monotonic()
    workers = [Worker(checkout, device, threads, cases) for checkout in (other, ROOT)]
    for name, worker in zip(("before", "now"), workers, strict=True):
        print(f"{name + ':':8}{worker.package}")
    print(f"\n{'':40}{'before ms':>11}{'now ms':>11}{'times as fast':>15}{'p20':>7}{'p80':>7}")
    for number, case in enumerate(cases):
        if time.monotonic() - begin > budget_s:
            print(f"the time is over: {number} of {len(cases)} cases were measured", flush=True)
            break
        try:
            once = max([worker.ask(f"case {number}") for worker in workers])
        except Unsupported as error:
            print(f"{case.label:40}  not measured, one of the two says: {error}", flush=True)
            continue
        repeats = max(1, round(block_s / max(once, 1e-6)))
        samples: list[tuple[float, float]] = []
        for turn in range(rounds):
            first = turn % 2
            begun, followed = workers[first].ask(f"block {repeats}"), workers[1 - first].ask(f"block {repeats}")
            samples.append((followed, begun) if first else (begun, followed))
        before, now = (statistics.median(sample[i] for sample in samples) * 1e3 for i in (0, 1))
        ratios = torch.tensor([a / b for a, b in samples]).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
        print(f"{case.label:40}{before:11.3f}{now:11.3f}{ratios[1]:15.3f}{ratios[0]:7.2f}{ratios[2]:7.2f}", flush=True)
    for worker in workers:
        worker.stop()
