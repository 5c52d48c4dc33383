"""Compiles the CUDA kernels for the host (tests/simt) under AddressSanitizer and UBSan."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SIMT = Path(__file__).parent / "simt"
CUDA_SOURCES = Path(__file__).parent.parent / "csrc"


def host_program(name: str, cache: Path, scratch: Path) -> Path:
    """The program of tests/simt/`name`.cpp, kept in `cache` between runs until a source changes."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    flags = ["-std=c++20", "-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += ["-Wall", "-Wno-unknown-pragmas", "-Wno-clobbered", f"-I{SIMT}"]
    binary = cache / name
    sources = [*(CUDA_SOURCES / "math").glob("*"), *(CUDA_SOURCES / "cuda").rglob("*.*h"), *SIMT.glob("*")]
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest's workers share it
        if not binary.exists() or binary.stat().st_mtime < max(path.stat().st_mtime for path in sources):
            fresh = scratch / name
            command = [compiler, *flags, "-o", str(fresh), str(SIMT / f"{name}.cpp")]
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stderr[-4000:]
            shutil.move(fresh, binary)
    return binary
