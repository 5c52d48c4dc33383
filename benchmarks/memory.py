"""Peak memory of one step beyond its inputs, in bytes.

On CUDA, torch's allocator reports it, because the libraries allocate through it, including cuDNN's workspaces.

On the CPU, oneDNN and C++ kernels allocate memory themselves, and torch's profiler does not see it. So the peak comes
from the operating system, for one step in a separate process: its peak resident size (VmHWM, reset through
/proc/self/clear_refs) minus the resident size before the step. Two measures make this exact to a few percent of an
image of 3 MiB or more:

- glibc returns every freed block above 64 KiB at once, so that the step cannot silently reuse memory freed before it
  (with glibc's defaults, five images read as six in the self-check);
- the warm-up runs on small images: it covers imports, threads and compilation, but scratch that a library keeps
  between calls still has to grow during the step, and so it counts.

`self_check` measures an allocation of known size. This module is also the program of the separate process:
`python -m benchmarks.memory LIBRARY CASE THREADS`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from . import peers
from .cases import CASES, MASKED, Case, Step, make_inputs, make_step

# The kernel counts resident pages in batches per CPU, which is an uncertainty of some hundred KiB.
MIN_IMAGE_BYTES = 3 << 20

_CLEAR_REFS = Path("/proc/self/clear_refs")
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# (B, *sides), with B at most that of the case. Two shapes, because torch.compile compiles for the first shape and, at
# the second, for dynamic shapes. Images are larger than 176, the minimum for MS-SSIM.
_WARM_UP_SHAPES = {2: ((2, 192, 208), (3, 200, 224)), 3: ((2, 16, 18, 20), (3, 18, 20, 22))}
_SELF_CHECK = "self-check"
_SELF_CHECK_IMAGES = 5


def cuda_peak(step: Step) -> int:
    """The peak of torch's CUDA allocator during a warmed-up step, beyond what it held before."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cpu_supported() -> bool:
    """Whether the system supports the measurement on the CPU, which needs Linux's /proc and glibc."""
    return _CLEAR_REFS.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")


def cpu_peak(library: str, case: Case, threads: int) -> int:
    """Peak resident memory of one step of a case, measured in a separate process.

    If that process fails, the RuntimeError contains its error output.
    """
    return _run(library, case.label, str(threads))


def self_check() -> None:
    """Measure an allocation of five images, two of them outside torch, after freeing one of four.

    Raises RuntimeError if the result is off by a tenth of an image, because then no figure can be trusted.
    """
    images = _run(_SELF_CHECK) / MIN_IMAGE_BYTES
    if abs(images - _SELF_CHECK_IMAGES) > 0.1:
        raise RuntimeError(f"{_SELF_CHECK_IMAGES} images read as {images:.2f} on this system")


def _run(*arguments: str) -> int:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | _GIVE_BACK,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise RuntimeError(f"benchmarks.memory {' '.join(arguments)} failed:\n{result.stderr}")
    return int(result.stdout.splitlines()[-1])


def _status_bytes(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {field}")
    return int(match[1]) * 1024


def _resident_peak(step: Step) -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text("5")  # sets VmHWM to VmRSS
    before = _status_bytes("VmRSS")
    step()
    return _status_bytes("VmHWM") - before


def _case_peak(library: str, label: str, threads: str) -> int:
    torch.set_num_threads(int(threads))  # before the library creates its thread pool
    case = next(case for case in CASES["cpu"] if case.label == label)
    peer = peers.create(library)
    function = peer.case_function(case, "cpu")
    for batch, *sides in _WARM_UP_SHAPES[case.spatial_dims]:
        shape = (min(batch, case.shape[0]), case.shape[1], *sides)
        small = replace(case, shape=shape)
        # Masks must have the images' size, so the warm-up needs its own.
        of_small = peer.case_function(small, "cpu") if case.op == MASKED else function
        make_step(small, of_small, *make_inputs(small, "cpu"))()
    return _resident_peak(make_step(case, function, *make_inputs(case, "cpu")))


def _known_step() -> torch.Tensor:
    image = MIN_IMAGE_BYTES
    torch.ones(4 * image, dtype=torch.uint8)  # freed at once, and smaller than the five that follow
    inside = torch.ones(3 * image, dtype=torch.uint8)
    outside = bytearray(b"\1") * (2 * image)
    return inside[: len(outside)]


def _self_check_peak() -> int:
    _known_step()
    return _resident_peak(_known_step)


if __name__ == "__main__":
    print(_self_check_peak() if sys.argv[1:] == [_SELF_CHECK] else _case_peak(*sys.argv[1:]))
