"""Fixtures shared by all tests: the devices to test on, how long to search, and the compiler of CUDA."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Threads that spin while they wait for one another take, of small pictures, most of the time; more so where several
# workers share the cores. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis
import pytest
import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Examples are small, but a first call may build or load a library: no deadline. `support.effort` scales with the
# profile: nightly has thirty times as many examples, others every time, and all tests that the marker `nightly` keeps
# from `make test`. Daily they are the same every time, so that a red run is about the change under test.
hypothesis.settings.register_profile("daily", deadline=None, max_examples=100, derandomize=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=3000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="more examples, and the tests that are slow")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("nightly" if config.getoption("--nightly") else "daily")
    # Where the machine has no CUDA toolkit, nvcc's wheel (the extra `nvcc`) compiles.
    wheel = next(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"), None)
    if wheel and not (shutil.which("nvcc") or os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")):
        os.environ["CUDA_HOME"] = str(wheel.parent.parent)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--nightly"):
        return
    slow = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in set(slow)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what of CUDA was not tested: a green run without nvcc tells nothing of it."""
    reasons = [report.longrepr[2] for report in terminalreporter.getreports("skipped")]
    missing = [reason.removeprefix("Skipped: ") for reason in reasons if "nvcc" in reason or "CUDA" in reason]
    if missing:
        terminalreporter.write_line(f"{len(missing)} CUDA tests were skipped: {'; '.join(sorted(set(missing)))}")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[(14, 15), (6, 7, 8)], ids=["image", "volume"])
def sides(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """The sides of a small picture: an image, or a volume."""
    return request.param


@pytest.fixture
def window(sides: tuple[int, ...]) -> dict[str, Any]:
    """A window smaller than `sides`: the default, or for volumes 5 taps, with the width padded for 7."""
    return {} if len(sides) == 2 else {"sigma": 0.5, "kernel_size": 7}


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
