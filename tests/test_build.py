"""What was built: its report of itself, and that it asks nothing of libtorch beyond the stable ABI."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

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
