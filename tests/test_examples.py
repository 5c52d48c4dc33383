"""Examples that no other test runs, from end to end; each returns 1 where its scores did not rise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.nightly
def test_gaussians_are_fitted_to_a_photograph(tmp_path: Path) -> None:
    for module in ("matplotlib", "skimage", "tqdm"):
        pytest.importorskip(module)
    figure = tmp_path / "splatting.png"
    size = ["--gaussians", "150", "--steps", "30", "--size", "64", "--output", str(figure)]
    done = subprocess.run([sys.executable, EXAMPLES / "splatting.py", *size], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure.stat().st_size > 10_000
