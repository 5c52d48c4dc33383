"""Follows the guide docs/extending.md: docs/huber.patch adds a pixel term to a copy of the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATCH = ROOT / "docs/huber.patch"
COPIED = ("csrc", "ssim_fused", "tests", "scripts", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def patched(tmp_path: Path) -> Path:
    """A copy of the sources with the patch applied."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignored)
        else:
            shutil.copy(source, tmp_path)
    command = ["patch", "--strip=1", "--batch", "--forward", "--fuzz=0", f"--input={PATCH}"]
    if shutil.which("patch") is None:
        pytest.skip("patch is not on PATH")
    applied = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, (
        "docs/huber.patch no longer applies. Take the steps of docs/extending.md by hand and write the new patch by "
        f"`git diff > docs/huber.patch`.\n{applied.stdout}{applied.stderr}"
    )
    return tmp_path


def test_the_guide_applies(patched: Path) -> None:
    assert "huber" in (patched / "csrc/math/pixel_term.h").read_text()


@pytest.mark.nightly
def test_the_guide_adds_a_term_on_both_devices(patched: Path) -> None:
    """The tests that run over all pixel terms pass for the new one: CPU values and slopes against autograd, and the
    CUDA kernels on the host.
    """

    def run(*command: str) -> str:
        environment = os.environ | {"SSIM_FUSED_CUDA": "0"}
        done = subprocess.run(command, cwd=patched, env=environment, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        return output

    assert "-Wswitch" not in run(sys.executable, "setup.py", "build_ext", "--inplace")
    for tests in ("tests/test_losses.py", "tests/test_simt.py"):
        report = run(sys.executable, "-m", "pytest", "-q", tests, "-k", "huber")
        assert " passed" in report
