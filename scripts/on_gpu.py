"""Runs the checks that need a GPU, in ten minutes: parts with a time limit each, the most important first.

    make gpu-bundle                                               # here, on a machine with nvcc
    python3 build/gpu-bundle/now/scripts/on_gpu.py OUT            # there, with a torch that finds the GPU
    python3 scripts/on_gpu.py --dry-run OUT                       # all parts on the CPU, with a few small cases

Runs in a bundle, or in a checkout that is built in place. Nothing is installed; only PYTHONPATH is set. Each part
writes its log, OUT/PART.log, line by line, and adds a line to OUT/summary.txt when it ends. So nothing that came before
is lost if a limit is reached or the machine goes away.

    smoke         every operator once
    correctness   about 400 cases, with a process for each test file
    times         compared with the build of another commit, then with other libraries: OUT/cuda.csv
    sanitizers    memcheck and racecheck on one case of each kind of kernel (tests/test_cuda_kinds.py)
    ncu           Nsight Compute's metrics of five kernels: OUT/ncu.ncu-rep

The exit status is 1 if a part failed or could not run, and 0 if all passed or reached their limits without a failure.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT.parent  # if ROOT is the folder `now` of a bundle
OUTCOME = re.compile(r"^tests/\S+::.* (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b")

CASES = 400  # in the part "correctness"
# These files reach most kernels, so they get more cases than the others.
MORE_CASES = {"test_cuda_kinds.py": 40, "test_cuda_training.py": 40, "test_simt.py": 60, "test_simt_volumes.py": 40}
LIBRARIES = ("ssim_fused", "frame-analytics", "torchmetrics")
PROFILED = """
import torch
from ssim_fused import ms_ssim as msssim, ssim
def step(function, x, y, **arguments):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (1 - function(x, y, data_range=1.0, **arguments)).backward()
shape, device = {shape}, "{device}"
x, y = (torch.rand(*shape, device=device) for _ in range(2))
step(ssim, x, y)
with torch.no_grad():
    ssim(x, y, data_range=1.0)
step(ssim, x, y, sigma=3.0)
step(msssim, x, y)
step(ssim, *(image.contiguous(memory_format=torch.channels_last) for image in (x, y)))
print("done", float(ssim(x, y, data_range=1.0)))
"""
# One launch each: a strip with gradient, a strip without, radius 11, and MS-SSIM's downsampling and gathering.
PROFILED_KERNELS = "regex:^(strip|downsample|gather)_kernel"


class Log:
    """The log of a part. Several processes write lines to it as they come, each with its label."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", buffering=1)
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()  # outcomes of tests
        self.failures: list[str] = []

    def line(self, text: str, label: str = "") -> None:
        """Add a line, and count the outcome if it reports a test."""
        match = OUTCOME.match(text)
        with self.lock:
            self.file.write(f"{label + ': ' if label else ''}{text}\n")
            if match:
                self.outcomes[match[1].lower()] += 1

    def fail(self, reason: str) -> None:
        """Record a failure."""
        with self.lock:
            self.failures.append(reason)


@dataclass
class Run:
    """A running part, with its log and deadline."""

    options: Options
    log: Log
    deadline: float

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def command(self, label: str, *command: str, seconds: float = 1e9, env: dict[str, str] | None = None) -> bool:
        """Run a command until it ends or its time is over, record a failure, and return whether it ended."""
        if self.left() < 1:
            self.log.line("not started: the time of this part is over", label)
            return False
        self.log.line(f"$ {' '.join(command)[:400]}", label)
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.options.environment | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # a process group, so that no descendant outlives the limit
        )
        over = threading.Event()

        def stop() -> None:
            over.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.1, min(seconds, self.left())), stop)
        timer.start()
        try:
            for line in process.stdout or ():
                self.log.line(line.rstrip("\n"), label)
            status = process.wait()
        finally:
            timer.cancel()
        if over.is_set():
            self.log.line(f"cut off, {self.left():.0f} s before the part's limit", label)
        elif status != 0:
            self.log.fail(f"{label} (exit status {status})")
        return not over.is_set()

    def pytest(
        self,
        label: str,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        most: int | None = None,
        env: dict[str, str] | None = None,
    ) -> bool:
        """Run tests of the device, at most `most` of each file, under the command `prefix`."""
        chosen = ["-p", "gpu_cases", "--on", self.options.device, *(["--most", str(most)] if most else [])]
        shown = ["-v", "--color=no", "--tb=short", "-p", "no:cacheprovider"]
        return self.command(label, *prefix, *self.options.python, "-m", "pytest", *shown, *chosen, *arguments, env=env)


@dataclass
class Options:
    """The command line, and values derived from it."""

    out: Path
    before: Path | None
    dry: bool

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def python(self) -> tuple[str, ...]:
        return (sys.executable,)

    @property
    def environment(self) -> dict[str, str]:
        """The environment, with only this checkout and the bundle's packages on PYTHONPATH."""
        site = BUNDLE / "site"
        paths = [str(ROOT), str(ROOT / "scripts"), *([str(site)] if site.is_dir() else [])]
        paths += filter(None, [os.environ.get("PYTHONPATH")] if not site.is_dir() else [])
        return os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "TQDM_DISABLE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # ignore other installed plugins
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def has_tests_of_devices(path: Path) -> bool:
    """Whether a test of the file, or a fixture of its tests, has the argument `device`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and "device" in [argument.arg for argument in node.args.args]:
            marks = [ast.unparse(mark) for mark in node.decorator_list]
            # If values are given, `device` is not the fixture.
            if any(mark.startswith("pytest.mark.parametrize('device', [") for mark in marks):
                continue
            if node.name.startswith("test_") or any(mark.startswith("pytest.fixture") for mark in marks):
                return True
    return False


def gpu_files() -> list[str]:
    """The names of test files with tests that have a device."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [path.name for path in files if path.name in MORE_CASES or has_tests_of_devices(path)]


def shares(files: list[str]) -> dict[str, int]:
    """The number of cases for each file, `CASES` in total."""
    others = [name for name in files if name not in MORE_CASES]
    given = sum(MORE_CASES[name] for name in files if name in MORE_CASES)
    return {name: MORE_CASES.get(name) or max(1, (CASES - given) // max(1, len(others))) for name in files}


def smoke(run: Run) -> None:
    """Call every operator once."""
    run.command("smoke", *run.options.python, str(ROOT / "scripts/smoke.py"), "--device", run.options.device)


def correctness(run: Run) -> None:
    """Run the cases in one process per file, the files with most cases first."""
    files = shares(gpu_files())
    if run.options.dry:
        files = {"test_cuda_kinds.py": 3, "test_volumes.py": 2}
    workers = min(len(files), os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for name, most in sorted(files.items(), key=lambda item: -item[1]):
            pool.submit(run.pytest, name, f"tests/{name}", most=most)


def times(run: Run) -> None:
    """Compare with the other commit for a third of the time, then with other libraries, saving row by row."""
    bench = [*run.options.python, "-m", "benchmarks.bench", "--device", run.options.device]
    few = ["--quick", "--cases", "ssim/8x1x64x64/value"] if run.options.dry else ["--rounds", "7"]
    before = run.options.before
    if before is None:
        run.log.line("no other build to compare with: name one with --before")
    else:
        budget = run.left() / 3
        run.command("against", *bench, *few, "--against", str(before), "--budget", f"{budget:.0f}", seconds=budget + 15)
    out = run.options.out / f"{run.options.device}.csv"
    others = ["--libraries", *LIBRARIES, "--out", str(out), "--budget", f"{run.left() - 10:.0f}"]
    run.command("others", *bench, *few, *others)


def sanitizers(run: Run) -> None:
    """Run both tools at the same time, each on one case of each kind."""
    tool = shutil.which("compute-sanitizer")
    if tool is None and not run.options.dry:
        return run.log.fail("no compute-sanitizer on PATH")

    def sanitize(name: str) -> None:
        prefix = (tool or "", "--tool", name, "--kernel-name", "kns=ssim_fused", "--error-exitcode", "1")
        most = 2 if run.options.dry else None
        # Allocate each tensor separately, so that accesses beyond it are errors.
        env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        cases = ("-k", "test_results", "tests/test_cuda_kinds.py")
        run.pytest(name, *cases, prefix=() if run.options.dry else prefix, most=most, env=env)

    with ThreadPoolExecutor(2) as pool:
        for name in ("memcheck", "racecheck"):
            pool.submit(sanitize, name)


def ncu(run: Run) -> None:
    """Write a report of five kernels for Nsight Compute."""
    tool = shutil.which("ncu")
    if tool is None and not run.options.dry:
        return run.log.fail("no ncu on PATH")
    shape = (1, 1, 192, 192) if run.options.dry else (8, 3, 1080, 1920)
    program = PROFILED.format(shape=shape, device=run.options.device)
    prefix = [tool or "", "--set", "full", "--kernel-name", PROFILED_KERNELS, "--launch-count", "12"]
    prefix += ["--clock-control", "none", "--export", str(run.options.out / "ncu"), "--force-overwrite"]
    run.command("ncu", *([] if run.options.dry else prefix), *run.options.python, "-c", program)


# Time limits in seconds.
PARTS: dict[str, tuple[Callable[[Run], None], float]] = {
    "smoke": (smoke, 30),
    "correctness": (correctness, 120),
    "times": (times, 180),
    "sanitizers": (sanitizers, 120),
    "ncu": (ncu, 60),
}
DRY_LIMIT = 600.0  # the CPU may be busy with other tests


def what_runs(options: Options) -> str:
    """A line about the machine and the builds."""
    program = (
        "import torch, ssim_fused, sys; cuda = torch.cuda.is_available(); "
        "name = torch.cuda.get_device_name() if cuda else 'no GPU'; "
        "print(name, 'torch', torch.__version__, 'python', sys.version.split()[0], ssim_fused.build_info()['cuda']); "
        "sys.exit(0 if cuda or sys.argv[1] == 'cpu' else 3)"
    )
    command = [*options.python, "-c", program, options.device]
    ran = subprocess.run(command, cwd=ROOT, env=options.environment, capture_output=True, text=True, check=False)
    if ran.returncode == 3:
        raise SystemExit(f"on_gpu.py: torch finds no GPU ({ran.stdout.strip()}); --dry-run runs all parts on the CPU")
    if ran.returncode:
        raise SystemExit(f"on_gpu.py: ssim_fused does not load\n{ran.stderr}")
    commits = {name: (folder / "COMMIT") for name, folder in (("now", ROOT), ("before", options.before or ROOT))}
    known = ", ".join(f"{name} {path.read_text().strip()}" for name, path in commits.items() if path.exists())
    return f"{ran.stdout.strip()}; {known or 'a checkout'}"


def main(argv: list[str] | None = None) -> int:
    """Run the parts. Returns 1 if any failed."""
    parser = argparse.ArgumentParser(
        prog="on_gpu.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for the logs, created if missing")
    parser.add_argument("--before", type=Path, help="folder of another build to compare with (default: the bundle's)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--dry-run", action="store_true", help="run all parts on the CPU, with a few tiny cases")
    arguments = parser.parse_args(argv)
    before = arguments.before or (BUNDLE / "before" if (BUNDLE / "before" / "ssim_fused").is_dir() else None)
    if arguments.dry_run and before is None:
        before = ROOT  # compare with itself
    arguments.out.mkdir(parents=True, exist_ok=True)
    options = Options(arguments.out.resolve(), before, arguments.dry_run)
    with (options.out / "summary.txt").open("w", buffering=1) as summary:

        def say(line: str) -> None:
            print(line, flush=True)
            summary.write(line + "\n")

        say(what_runs(options))
        failed = False
        for name in arguments.parts:
            part, limit = PARTS[name]
            begin = time.monotonic()
            log = Log(options.out / f"{name}.log")
            run = Run(options, log, begin + (DRY_LIMIT if options.dry else limit))
            try:
                part(run)
            except Exception as error:  # if a part raises, the next ones still run
                log.fail(f"{type(error).__name__}: {error}")
            is_cut = run.left() <= 0.5
            failed |= bool(log.failures) or bool(log.outcomes["failed"] + log.outcomes["error"])
            state = "FAILED" if log.failures else "cut off" if is_cut else "ok"
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(log.outcomes.items()))
            details = "; ".join(filter(None, [counts, *log.failures]))
            say(f"{state:8} {name:12} {time.monotonic() - begin:5.0f} s  {details}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
