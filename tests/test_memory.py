"""Resident memory does not grow with the number of calls, in any thread or process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc"),
]

STEPS = [
    "ssim value", "ssim step", "ms-ssim value", "ms-ssim step", "range step", "ms-ssim range step", "map step",
    "contrast step", "double backward", "ms-ssim double backward", "mapped", "autocast", "loss step",
    "l1 loss step", "bytes", "errors", "other sizes", "threads",
]  # fmt: skip
# Images so small that Python and PyTorch keep their memory anyway. A leak per call shows after hundreds of calls.
SMALL, VOLUME = (1, 1, 48, 40), (1, 1, 24, 26, 28)
# PyTorch's own tensors of 3 MiB make glibc's heap fluctuate by this much without growing. Scratch memory that tasks
# allocated from it grew by 5 MiB per step, and a gradient that outlived the next forward by 3 MiB.
LARGE, LARGE_VOLUME = (4, 3, 256, 256), (1, 1, 48, 48, 160)
BOUNDS = {SMALL: 2 << 20, VOLUME: 4 << 20, LARGE: 32 << 20, LARGE_VOLUME: 32 << 20}


def grown(loops: list[str], steps: int, shape: tuple[int, ...]) -> dict[str, int]:
    """The bytes by which each loop grew, each in a separate process with the allocator's defaults."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "passive"}
    program = Path(__file__).with_name("memory_loops.py")
    command = [sys.executable, str(program), ",".join(loops), *map(str, (steps, *shape))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    found = {name: int(growth) for growth, name in lines}
    assert list(found) == loops
    return found


def assert_flat(loops: list[str], steps: int, shape: tuple[int, ...]) -> None:
    for name, growth in grown(loops, steps, shape).items():
        assert growth < BOUNDS[shape], name


def test_small_images() -> None:
    assert_flat(STEPS, 40, SMALL)


def test_small_volumes() -> None:
    assert_flat(["ssim value", "ssim step", "ms-ssim step", "map step", "errors", "threads"], 40, VOLUME)


@pytest.mark.parametrize("shape", [LARGE, LARGE_VOLUME], ids=str)
def test_large_images(shape: tuple[int, ...]) -> None:
    assert_flat(["ssim value", "ssim step", "ms-ssim step", "threads"], 40, shape)


def test_forked_children() -> None:
    assert_flat(["fork"], 2, SMALL)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*STEPS, "compiled"])
@pytest.mark.parametrize("shape", [SMALL, VOLUME], ids=str)
def test_thousands_of_small_images(shape: tuple[int, ...], name: str) -> None:
    assert_flat([name], 2000, shape)


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*STEPS, "compiled"])
@pytest.mark.parametrize("shape", [LARGE, LARGE_VOLUME], ids=str)
def test_many_large_images(shape: tuple[int, ...], name: str) -> None:
    assert_flat([name], 1000 if "double" not in name else 150, shape)


@pytest.mark.nightly
def test_many_forked_children() -> None:
    assert_flat(["fork"], 50, SMALL)
