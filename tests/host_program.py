"""Compiles the CUDA kernels for the host (tests/simt) in several builds, and runs cases of them.

A build is a set of compiler flags: AddressSanitizer and UBSan, the race detector, or warps of 64. `make test` runs
every case in the first build, and `make test-all` in all of them (`program_fixture`). `make check` runs only the smoke
cases (simt_smoke.py), whose programs compile in half a minute.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

SIMT = Path(__file__).parent / "simt"
CUDA_KERNELS = Path(__file__).parent.parent / "csrc/cuda/kernels"
COMMON = ("-std=c++20", "-g1", "-Wall", "-Wno-unknown-pragmas", "-Wno-clobbered", f"-I{SIMT}")
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# The compiler inserts calls to the detector (tests/simt/race.cpp), which replaces ThreadSanitizer's library.
DETECTOR = ("-O1", "-fno-pie", "-DSSIM_RACE")
INSTRUMENT = ("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0")
WARP_64 = ("-DSSIM_FUSED_WARP_SIZE=64",)
ONLY_FLOAT32 = ("-DSSIM_SIMT_TYPES=float",)

# Orders of copies, threads and blocks (tests/simt/scheduler.h). A case must give the same bits in each.
ORDERS = ("", "reverse", "last_block_first", "early_copies", "reverse last_block_first early_copies")


@dataclass(frozen=True)
class Build:
    """How a program is compiled, and the orders in which it runs a case."""

    name: str
    flags: tuple[str, ...] = SANITIZERS
    detects_races: bool = False
    orders: tuple[str, ...] = ("",)


SANITIZED = Build("sanitized")
RACES = Build("races", DETECTOR, detects_races=True)
WARPS_OF_64 = Build("warps_of_64", (*SANITIZERS, *WARP_64))
# Programs that compile in half a minute. The one for warps of 32 runs a case in every order.
SMOKE = Build("smoke", (*DETECTOR, *ONLY_FLOAT32), detects_races=True, orders=ORDERS)
SMOKE_OF_64 = Build("smoke_of_64", (*DETECTOR, *ONLY_FLOAT32, *WARP_64), detects_races=True)

BUILDS = [
    pytest.param(SANITIZED, id="sanitized", marks=pytest.mark.slow),
    pytest.param(replace(SANITIZED, orders=ORDERS), id="orders", marks=pytest.mark.nightly),
    pytest.param(RACES, id="races", marks=pytest.mark.nightly),
    pytest.param(WARPS_OF_64, id="warps_of_64", marks=pytest.mark.nightly),
]


@dataclass(frozen=True)
class Program:
    """A compiled program, and the environment of its runs."""

    binary: Path
    build: Build
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, *arguments: object, order: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.binary, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SSIM_SIMT_ORDER": order, **self.environment},
            timeout=600,
        )


def is_current(binary: Path, command: str) -> bool:
    """Whether a binary was compiled with this command and is newer than all files that it was made of."""
    dependencies, made_by = binary.with_suffix(".d"), binary.with_suffix(".command")
    if not (binary.exists() and dependencies.exists() and made_by.exists()) or made_by.read_text() != command:
        return False
    _, _, files = dependencies.read_text().replace("\\\n", " ").partition(": ")
    compiled = binary.stat().st_mtime
    return all(path.exists() and path.stat().st_mtime <= compiled for path in map(Path, files.split()))


def compile_object(compiler: str, source: str, flags: tuple[str, ...], target: Path) -> Path:
    """The object file of a source of tests/simt, recompiled if the command or a file that it includes has changed."""
    command = [compiler, *COMMON, *flags, "-MMD", "-c", str(SIMT / source)]
    if not is_current(target, " ".join(command)):
        fresh, started = target.with_suffix(".new"), time.time()
        built = subprocess.run(
            [*command, "-MF", str(target.with_suffix(".d")), "-o", str(fresh)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert built.returncode == 0, built.stderr[-4000:]
        os.utime(fresh, (started, started))  # a file that changed during the compilation makes the object outdated
        fresh.replace(target)
        target.with_suffix(".command").write_text(" ".join(command))
    return target


def host_program(name: str, build: Build, cache: Path) -> Program:
    """The program of tests/simt/`name`.cpp. `cache` keeps objects between runs."""
    # The detector implements the functions that GCC's instrumentation calls.
    compiler = shutil.which("g++" if build.detects_races else os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler" + " (g++) for the race detector" * build.detects_races)
    binary = cache / f"{name}-{build.name}"
    with (cache / f"{binary.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's workers share the cache
        instrument = INSTRUMENT if build.detects_races else ()
        objects = [compile_object(compiler, f"{name}.cpp", build.flags + instrument, cache / f"{binary.name}.o")]
        if build.detects_races:
            objects.append(compile_object(compiler, "race.cpp", ("-O2", *build.flags), cache / f"{binary.name}-race.o"))
        if not binary.exists() or any(path.stat().st_mtime_ns > binary.stat().st_mtime_ns for path in objects):
            link = ["-no-pie"] if build.detects_races else [*build.flags]
            fresh = binary.with_suffix(".new")
            subprocess.run([compiler, *link, "-o", str(fresh), *map(str, objects)], check=True)
            fresh.replace(binary)
    return Program(binary, build)


def program_fixture(name: str, has_few_cases: bool = False) -> Any:
    """A fixture: the program in each of the builds.

    A program that has few cases is compiled under the sanitizers without optimization: that takes half the time, and a
    case takes 1.5 times as long.
    """

    @pytest.fixture(scope="session", params=BUILDS)
    def program(request: pytest.FixtureRequest) -> Program:
        build: Build = request.param
        if has_few_cases and build.flags[: len(SANITIZERS)] == SANITIZERS:
            build = replace(build, flags=(*build.flags, "-O0"))
        return host_program(name, build, request.config.cache.mkdir("simt"))

    return program


def with_lines(message: str, program: Program) -> str:
    """A message of the race detector, with addresses replaced by source lines."""
    addresses = sorted(set(re.findall(r"0x[0-9a-f]+", message)))
    tool = shutil.which("addr2line")
    if not program.build.detects_races or not addresses or tool is None:
        return message
    for address in addresses:
        # The return address belongs to the next statement, so look up the byte before it.
        at = hex(int(address, 16) - 1)
        found = subprocess.run([tool, "-i", "-e", program.binary, at], capture_output=True, text=True, check=False)
        ours = [line for line in found.stdout.splitlines() if re.search(r"/(csrc|tests)/", line)]
        lines = dict.fromkeys(re.sub(r".*/", "", line) for line in ours)
        message = re.sub(rf"{address}\b", " in ".join(lines) or address, message)
    return message


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes of the elements in contiguous order."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def write_case(directory: Path, fields: Mapping[str, Any]) -> None:
    lines = []
    for name, value in fields.items():
        words = value if isinstance(value, (list, tuple)) else [value]
        lines.append(" ".join([name, *map(str, words)]))
    (directory / "case.txt").write_text("\n".join(lines) + "\n")


def run_case(program: Program, directory: Path, fields: Mapping[str, Any], order: str | None = None) -> str:
    """Run a program on the files in a folder and on these fields (lists become words), and return what it prints.

    Runs in all orders of the build unless one is given. Each must leave the same bits in the folder.
    """
    write_case(directory, fields)
    printed, first = "", None
    for number, of_run in enumerate(program.build.orders if order is None else (order,)):
        ran = program.run(directory, order=of_run)
        assert ran.returncode == 0, with_lines(ran.stderr[-4000:], program)
        files = {path.name: path.read_bytes() for path in directory.glob("*.bin")}
        if number == 0:
            printed, first = ran.stdout, files
        differing = [name for name in files if first and files[name] != first[name]]
        assert not differing, f"order {of_run!r} gives other bits in {differing}"
    return printed
