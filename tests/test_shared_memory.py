"""Every call has a kernel on GPUs with little shared memory, whatever the size of a warp."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).parent.parent
LEAST = 64 * 1024  # bytes for a block on compute capability 7.5, and on all of AMD's GPUs


@pytest.mark.parametrize("warp_size", [32, 64])
def test_a_kernel_of_each_kind_fits(warp_size: int, tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    command = [compiler, "-std=c++20", "-O0", "-Wno-unknown-pragmas", f"-DSSIM_FUSED_WARP_SIZE={warp_size}"]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{ROOT / 'csrc'}"]
    command += [word for path in include_paths() for word in ("-isystem", path)]
    program = tmp_path / "shared_memory"
    subprocess.run([*command, str(ROOT / "tests/shared_memory.cpp"), "-o", str(program)], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    needed = {tuple(line.split()[:3]): int(line.split()[3]) for line in lines}
    kinds, storages = {kind for kind, _, _ in needed}, {storage for _, storage, _ in needed}
    assert kinds == {
        "images",
        "images,pixel-term",
        "images,radius-3",
        "images,radius-11",
        "slices,moments",
        "slices,gradient",
        "slices,pixel-term",
        "depth",
    }
    assert storages == {"float", "double", "Half", "BFloat16", "AnyPixel"}
    assert not {kind: bytes_ for kind, bytes_ in needed.items() if bytes_ > LEAST}
