"""Distributed training gives the gradients of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")


def torchrun(processes: int, *arguments: Any) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command += map(str, arguments)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def processes_on(device: str) -> int:
    """NCCL needs a GPU for each process."""
    return min(2, torch.cuda.device_count()) if device == "cuda" else 2


@pytest.mark.slow
def test_gradients_are_those_of_one_process_with_the_whole_batch(device: str, tmp_path: Path) -> None:
    """DDP with and without `no_sync`, FSDP2, checkpointing and torch.compile, on values, maps and losses."""
    path = tmp_path / "gradients.pt"
    torchrun(processes_on(device), ROOT / "tests" / "distributed_worker.py", device, path)
    results = torch.load(path)
    assert len(results) == 35
    for way, (found, expected) in results.items():
        for ours, theirs in zip(found, expected, strict=True):
            assert theirs.abs().max() > 0, way
            error = (ours - theirs).abs().max() / theirs.abs().max()
            assert error <= 1e-12, way  # float64, summed in another order


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_the_example(way: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.png"
    options = ["--steps", "30", "--device", "cpu", "--output", figure, *(["--fsdp"] if way == "fsdp" else [])]
    output = torchrun(2, ROOT / "examples" / "train_ddp.py", *options)
    assert "2 processes on cpu, gloo" in output
    assert figure.stat().st_size > 10000
