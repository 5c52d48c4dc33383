"""What was built: its report of itself, and that it asks nothing of libtorch beyond the stable ABI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

import ssim_fused

ROOT = Path(__file__).parent.parent


def test_build_info_names_what_was_compiled() -> None:
    info = ssim_fused.build_info()
    assert set(info) == {"torch", "compiler", "instruction_set", "best_instruction_set", "cuda"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["torch"])
    assert info["compiler"]


def test_only_the_stable_abi_is_used() -> None:
    library = Path(ssim_fused.__file__).parent / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    symbols = subprocess.run(
        ["nm", "-D", "-C", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    unstable = [line for line in symbols.stdout.splitlines() if re.search(r"\b(at|c10|torch|caffe2)::", line)]
    assert not unstable


def test_plain_loops_stand_in_for_vector_types(tmp_path: Path) -> None:
    """Compilers without GCC's vectors take the loops of lanes.h; both give the same numbers."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-Wno-psabi", f"-I{ROOT / 'csrc'}"]
    flags += ["-fsanitize=address"]
    flags += [f"-I{path}" for path in include_paths()]
    outputs = []
    for name, extra in (("vectors", []), ("loops", ["-DSSIM_FUSED_PLAIN_LANES"])):
        program = tmp_path / name
        subprocess.run([compiler, *flags, *extra, ROOT / "tests/lanes.cpp", "-o", program], check=True)
        outputs.append(subprocess.run([program], capture_output=True, text=True, check=True).stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].split()) > 1000
    assert torch.tensor([float(number) for number in outputs[0].split()]).isfinite().all()
