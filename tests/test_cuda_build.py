"""CUDA compiles without a GPU, and the float32 kernels keep everything in registers.

Skipped where there is no nvcc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)
    if found is None:
        pytest.skip("no nvcc in CUDA_HOME or on PATH")
    return found


def compile_cubin(nvcc: str, source: Path, out: Path, architecture: str, *flags: str) -> str:
    command = [nvcc, "-std=c++20", "-O3", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", *flags]
    built = subprocess.run([*command, "-o", str(out), str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return built.stderr


# Bytes a thread may spill. On some architectures ptxas keeps one or two flags of the narrow variants in local memory,
# read once a step of several hundred instructions.
@pytest.mark.parametrize(("architecture", "allowed"), [("sm_75", 16), ("sm_90", 0)])
def test_float32_kernels_fit_their_registers(nvcc: str, architecture: str, allowed: int, tmp_path: Path) -> None:
    log = compile_cubin(nvcc, ROOT / "tests/simt/strips.cu", tmp_path / "strips.cubin", architecture)
    pattern = r"(Strip|Depth)ConfigIf(?:Li(\d+)E)?LNS_11GradientsOfE(\d)E[^']*?(?:Li(\d+)E)?EEEEvNS[^']*'"
    pattern += r".*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers"
    kernels = re.findall(pattern, log, flags=re.DOTALL)
    assert len(kernels) == 17 + 5 + 9 + 13 + 4
    for kernel, columns, gradients, radius, stack, spilled, registers in kernels:
        name = (
            f"{kernel}, {columns} columns, gradients of {('nothing', 'preds', 'both')[int(gradients)]}, radius {radius}"
        )
        assert int(spilled) <= allowed, name
        assert int(stack) <= allowed, name
        # As docs/kernels.md says: the warps that an SM holds follow from it.
        if radius == "3":
            most = 80 if gradients == "0" else 96 if int(columns) <= 128 else 128
        elif radius == "11":
            most = 168 if gradients == "0" else 255
        else:
            most = 168 if gradients == "2" else 96 if gradients == "0" else 128
        assert int(registers) <= most, name


@pytest.mark.parametrize("source", ["device.cu", "images.cu", "volumes.cu", "wide.cu", "masked.cu", "pyramid.cu"])
def test_the_operators_compile(nvcc: str, source: str, tmp_path: Path) -> None:
    """The whole library for one architecture, without optimizing it: is every name there, does it all fit?"""
    include = Path(torch.__file__).parent / "include"
    flags = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{include}"]
    flags += [f"-I{include}/torch/csrc/api/include"]
    command = [nvcc, "-std=c++20", "-arch=sm_90", "--ptx", "-Xcicc", "-O0", *flags]
    command += ["-o", str(tmp_path / "out.ptx"), str(ROOT / "csrc/cuda" / source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
