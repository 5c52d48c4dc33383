"""Shared fixtures, the three sizes of a run (`--quick`, the default, `--nightly`), and where nvcc is found."""

from __future__ import annotations

import hashlib
import os
import shutil
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Without this, OpenMP threads spin while they wait for each other, which takes most of the time on small images, and
# more when several pytest workers share the cores. OpenMP reads the variable when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Three sizes of a run. Each has a hypothesis profile, whose number of examples `support.effort` scales.
#   quick    (`make check`)     at most QUICK_CASES parameter sets of each test function, and none marked `slow`
#   daily    (`make test`)      all tests that are not marked `nightly`
#   nightly  (`make test-all`)  all tests, with 30 times the examples
# Quick and daily runs draw the same examples each time, so that a failure is due to the change under test. Nightly runs
# draw new ones. No profile has a deadline, because the first call may build or load a library.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10, derandomize=True)
hypothesis.settings.register_profile("daily", deadline=None, max_examples=100, derandomize=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=3000)

QUICK_CASES = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="run a few parameter sets of each test, and no slow tests")
    parser.addoption("--nightly", action="store_true", help="run the nightly tests too, with more random examples")


def profile_of(config: pytest.Config) -> str:
    if config.getoption("--quick") and config.getoption("--nightly"):
        raise pytest.UsageError("--quick and --nightly exclude each other")
    return "quick" if config.getoption("--quick") else "nightly" if config.getoption("--nightly") else "daily"


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile(profile_of(config))
    # If the machine has no CUDA toolkit, use the nvcc of the extra `nvcc`.
    wheel = next(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"), None)
    if wheel and not (shutil.which("nvcc") or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")):
        os.environ["CUDA_HOME"] = str(wheel.parent.parent)


def quick_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """At most QUICK_CASES parameter sets of each test function, or all of them if it is marked `smoke`.

    The hash of its name decides whether a parameter set is one of them. So every run has the same ones, and the sample
    covers all parameters, which every third or the first ones would not.
    """
    by_function: dict[Any, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if not item.get_closest_marker("slow"):
            by_function[getattr(item, "function", item)].append(item)
    chosen: set[pytest.Item] = set()
    for of_function in by_function.values():
        if not of_function[0].get_closest_marker("smoke"):
            of_function.sort(key=lambda item: hashlib.sha256(item.name.encode()).digest())
            del of_function[QUICK_CASES:]
        chosen.update(of_function)
    return [item for item in items if item in chosen]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    profile = profile_of(config)
    kept = items[:]
    if profile != "nightly":
        kept = [item for item in kept if not item.get_closest_marker("nightly")]
    if profile == "quick":
        kept = quick_cases(kept)
    selected = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the CUDA tests that were skipped, because a passing run without nvcc says nothing about CUDA."""
    reasons = [report.longrepr[2] for report in terminalreporter.getreports("skipped")]
    missing = [reason.removeprefix("Skipped: ") for reason in reasons if "nvcc" in reason or "CUDA" in reason]
    if missing:
        terminalreporter.write_line(f"{len(missing)} CUDA tests were skipped: {'; '.join(sorted(set(missing)))}")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[(14, 15), (6, 7, 8)], ids=["image", "volume"])
def sides(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """The sizes of a small image `(H, W)` and of a small volume `(D, H, W)`."""
    return request.param


@pytest.fixture
def window(sides: tuple[int, ...]) -> dict[str, Any]:
    """Arguments of a window that fits in `sides`: the default, or for volumes 5 taps with the width padded for 7."""
    return {} if len(sides) == 2 else {"sigma": 0.5, "kernel_size": 7}


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
