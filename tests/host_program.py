"""Compiles the CUDA kernels for the host (tests/simt) under AddressSanitizer and UBSan, and runs a case of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

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


def raw(tensor: torch.Tensor) -> bytes:
    """The elements, one behind the other."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def run_case(
    program: Path, directory: Path, fields: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> str:
    """Run a program on the files in a folder and these fields, lists as words; what it prints."""
    lines = []
    for name, value in fields.items():
        words = value if isinstance(value, (list, tuple)) else [value]
        lines.append(" ".join([name, *map(str, words)]))
    (directory / "case.txt").write_text("\n".join(lines) + "\n")
    ran = subprocess.run(
        [program, directory],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return ran.stdout
