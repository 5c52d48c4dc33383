"""Measures ssim_fused and other SSIM libraries: `python -m benchmarks.bench`.

In every round each library gets one block of steps, some tens of milliseconds long, in rotating order, so that a
machine that slows down slows all of them. The table has the median and the 20th and 80th percentile over the rounds.
The slowest libraries skip some rounds. CUDA blocks are timed with events. A complete run writes
benchmarks/results/<device>.csv, from which plot.py makes the figures and the README's table.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from . import against, memory, provenance
from .cases import GRADIENT, Case, Step, make_inputs, make_step, select
from .peers import OURS, REFERENCE, Peer, load
from .rows import COPY_BANDWIDTH, RESULTS, Row, add_ratios, merge_csv, summarize, table, write_csv

MIN_SAMPLES = 3
QUICK_PIXELS = 2_000_000
BUSY_LOAD = 0.8  # a busier machine slows libraries with a barrier per operator most
# Padding changes the mean of these inputs by less, a wrong window or range by more.
VALUE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, length of a block, and the time of a library per case."""

    rounds: int
    block_s: float
    library_s: float


FULL = Effort(rounds=11, block_s=0.03, library_s=3.0)
QUICK = Effort(rounds=3, block_s=0.01, library_s=1.0)


class Log:
    """Messages above the progress bar, and the errors, which are repeated at the end."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def say(self, message: str) -> None:
        """Print a line."""
        tqdm.write(message, file=sys.stderr)

    def error(self, library: str, message: str) -> None:
        """Print an error of a library, and record it."""
        self.errors.append((library, message))
        self.say(f"ERROR {library}: {message}")


def device_name(device: str) -> str:
    """The GPU's name, or the processor's with the instruction set that torch uses on it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        model = found[1].strip() if found else model
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}"


def seconds_per_step(step: Step, repeats: int, device: str) -> float:
    """The mean time of a step in a block of `repeats` steps."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begin) / repeats


class Block:
    """A library's step for a case, warmed up, with a number of repeats and rounds that suits its speed."""

    def __init__(self, name: str, step: Step, device: str, effort: Effort) -> None:
        self.name, self.step, self.device, self.rounds = name, step, device, effort.rounds
        self.value = float(step())  # compiles and fills caches
        once = max(seconds_per_step(step, 1, device), 1e-6)
        self.repeats = max(1, round(effort.block_s / once))
        affordable = int(effort.library_s / (once * self.repeats))
        self.wanted = min(effort.rounds, max(MIN_SAMPLES, affordable))
        self.samples: list[float] = []

    def attends(self, turn: int) -> bool:
        """Whether this library takes part in a round. Its `wanted` rounds are evenly spread."""
        return (turn + 1) * self.wanted // self.rounds > turn * self.wanted // self.rounds

    def measure(self) -> None:
        """Take one sample."""
        if self.repeats > 1:
            self.step()  # untimed: the previous library may still occupy caches and spinning threads
        self.samples.append(seconds_per_step(self.step, self.repeats, self.device))


def prepare(peers: list[Peer], case: Case, device: str, effort: Effort, bar: tqdm, log: Log) -> list[Block]:
    """Warm up every library. One that raises or returns another score is an error."""
    preds, target = make_inputs(case, device)
    blocks = []
    for peer in peers:
        bar.set_postfix_str(f"warming up {peer.name}")
        try:
            step = make_step(case, peer.case_function(case, device), preds, target)
            blocks.append(Block(peer.name, step, device, effort))
        except Exception:  # report it, and measure the others
            log.error(peer.name, f"{case.label}\n{traceback.format_exc()}")
    usual = statistics.median(block.value for block in blocks) if blocks else 0.0
    for block in [b for b in blocks if not abs(b.value - usual) <= VALUE_TOLERANCE]:
        log.error(block.name, f"{case.label}: SSIM is {block.value:.4f}, for most {usual:.4f}")
        blocks.remove(block)
    return blocks


def run_rounds(blocks: list[Block], effort: Effort, bar: tqdm) -> None:
    """Take the samples, round by round, in rotating order."""
    for turn in range(effort.rounds):
        shift = turn % len(blocks) if blocks else 0
        for block in blocks[shift:] + blocks[:shift]:
            bar.set_postfix_str(f"round {turn + 1}/{effort.rounds}, {block.name}")
            if block.attends(turn):
                block.measure()
            bar.update()


def peak_memory(block: Block, case: Case, device: str) -> int | None:
    """Peak bytes of a step beyond its inputs, or None if the image is too small to measure them."""
    if device == "cuda":
        return memory.cuda_peak(block.step)
    if case.image_bytes < memory.MIN_IMAGE_BYTES:
        return None
    return memory.cpu_peak(block.name, case, torch.get_num_threads())


def copy_seconds_per_byte() -> list[float]:
    """Samples of the time per byte in which the GPU reads and writes a large tensor."""
    free, _ = torch.cuda.mem_get_info()
    source = torch.ones(min(1 << 30, free // 4), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = [seconds_per_step(lambda: target.copy_(source), 5, "cuda") for _ in range(FULL.rounds + 1)]
    return [each / (2 * source.numel()) for each in seconds[1:]]


class Bench:
    """A run: what all rows have in common, and the progress bar."""

    def __init__(self, peers: list[Peer], device: str, effort: Effort, with_memory: bool, log: Log) -> None:
        self.peers, self.device, self.effort = peers, device, effort
        self.with_memory, self.log = with_memory, log
        self.common: dict[str, Any] = {
            "device": device,
            "device_name": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "date": datetime.date.today().isoformat(),
            "commit": provenance.commit(),
            "kernels": provenance.kernels(device),
        }
        self.copies = copy_seconds_per_byte() if device == "cuda" else []

    def run(self, cases: list[Case], save: Callable[[list[Row]], None], seconds: float = math.inf) -> list[Row]:
        """Measure all cases, and save the rows after each. Starts no case when the time is over."""
        table = [(case, [peer for peer in self.peers if peer.supports(case)]) for case in cases]
        ticks = self.effort.rounds + self.with_memory
        total = sum(len(peers) * ticks for _, peers in table)
        rows, done = [], 0
        begin = time.monotonic()
        with tqdm(total=total, unit="block", dynamic_ncols=True) as bar:
            for number, (case, peers) in enumerate(table):
                if time.monotonic() - begin > seconds:
                    self.log.say(f"the time is over: {number} of {len(table)} cases were measured")
                    break
                bar.set_description(case.label)
                rows += self.run_case(case, peers, bar)
                save(rows)
                done += len(peers) * ticks
                bar.update(done - bar.n)  # add the blocks that errors skipped
        return rows

    def run_case(self, case: Case, peers: list[Peer], bar: tqdm) -> list[Row]:
        """Measure time, then memory, of all libraries for one case."""
        blocks = prepare(peers, case, self.device, self.effort, bar, self.log)
        run_rounds(blocks, self.effort, bar)
        versions = {peer.name: peer.version for peer in peers}
        rows = []
        for block in blocks:
            timing = summarize(block.samples, case.pixels)
            row = self.row(case, block.name, versions[block.name], timing)
            if self.with_memory:
                bar.set_postfix_str(f"memory, {block.name}")
                try:
                    row.peak_bytes = peak_memory(block, case, self.device)
                except Exception:  # reported, as above; the measured time remains valid
                    self.log.error(block.name, f"{case.label}, memory\n{traceback.format_exc()}")
                bar.update()
            if row.peak_bytes is not None:
                row.peak_images = row.peak_bytes / case.image_bytes
            rows.append(row)
        if self.copies:
            # The minimum traffic of a step: both inputs, and with the gradient one output.
            moved = (3 if case.mode == GRADIENT else 2) * case.image_bytes
            bound = summarize([moved * seconds for seconds in self.copies], case.pixels)
            rows.append(self.row(case, COPY_BANDWIDTH, "", bound))
        add_ratios(rows)
        return rows

    def row(self, case: Case, library: str, version: str, timing: dict[str, float]) -> Row:
        """A row without memory and ratios."""
        return Row(
            op=case.op,
            sigma=case.sigma,
            dtype=case.dtype_label,
            shape=case.shape_label,
            mode=case.mode,
            library=library,
            version=version,
            **self.common,
            **timing,
        )


def memory_wanted(device: str, quick: bool, log: Log) -> bool:
    """Whether the memory column can be measured. If not, the log says why."""
    if quick or device == "cuda":
        return not quick
    if not memory.cpu_supported():
        log.say("memory is not measured: on the CPU that needs Linux and glibc")
        return False
    try:
        memory.self_check()
    except RuntimeError as error:
        log.say(f"memory is not measured: {error}")
        return False
    return True


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="torch's threads (default: all)")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"at least {MIN_SAMPLES} (default: {FULL.rounds})")
    parser.add_argument("--quick", action="store_true", help="3 rounds, small shapes, no memory")
    parser.add_argument("--cases", nargs="+", default=[], metavar="GLOB", help="cases whose label ends so")
    parser.add_argument("--libraries", nargs="+", default=[], metavar="NAME", help="libraries (default: all)")
    parser.add_argument(
        "--budget", type=float, default=math.inf, metavar="SECONDS", help="begin no further case after so long"
    )
    parser.add_argument("--merge", type=Path, metavar="CSV", help="put the cases of a run elsewhere into the results")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="compare with the ssim_fused built in another checkout"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="CSV",
        help="default: benchmarks/results/<device>.csv if the run is complete, else nothing",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, write the CSV. Returns 1 if ssim_fused or the reference failed, else 0."""
    args = parse_arguments(argv)
    if args.merge is not None:
        path = args.out or RESULTS / f"{args.device}.csv"
        try:
            print(f"{merge_csv(args.merge, path)} cases of {args.merge} are now in {path}")
        except ValueError as error:
            raise SystemExit(str(error)) from None
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no CUDA device")
    if args.threads is not None:
        torch.set_num_threads(args.threads)  # before a library creates its thread pool
    effort = QUICK if args.quick else FULL
    if args.rounds is not None:
        effort = Effort(max(args.rounds, MIN_SAMPLES), effort.block_s, effort.library_s)
    if args.against is not None:
        cases = select(args.device, args.cases, against.HOST_CASES)
        cases = [case for case in cases if not args.quick or case.pixels <= QUICK_PIXELS]
        threads = torch.get_num_threads()
        against.compare(args.against, args.device, threads, cases, effort.rounds, effort.block_s, args.budget)
        return 0
    try:
        cases = select(args.device, args.cases)
        peers, missing, import_errors = load(args.device, args.libraries)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if args.quick:
        cases = [case for case in cases if case.pixels <= QUICK_PIXELS]

    log = Log()
    for line in missing:
        log.say(line)
    for name, message in import_errors:
        log.error(name, message)
    bench = Bench(peers, args.device, effort, memory_wanted(args.device, args.quick, log), log)
    log.say(
        f"{bench.common['device_name']}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; " + ", ".join(f"{p.name} {p.version}" for p in peers)
    )
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY_LOAD:
        log.say(f"WARNING load average {os.getloadavg()[0]:.1f}: measure on an idle machine")

    def save(rows: list[Row]) -> None:
        if args.out is not None:
            write_csv(rows, args.out)

    rows = bench.run(cases, save, args.budget)
    print(table(rows))

    partial = args.quick or args.cases or args.libraries or args.budget < math.inf
    path = args.out or (None if partial else RESULTS / f"{args.device}.csv")
    if path is None:
        print("\na partial run: no CSV written (--out CSV writes one)")
    else:
        write_csv(rows, path)
        print(f"\nwrote {path}")
    if log.errors:
        print(f"\n{len(log.errors)} errors; the table lacks what they left out")
        for name, message in log.errors:
            print(f"\n{name}: {message}")
    return int(any(name in (OURS, REFERENCE) for name, _ in log.errors))


if __name__ == "__main__":
    sys.exit(main())
