"""Resident memory stays where it is, whatever is called however often."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Loops of each function in a process of its own, with the allocator's defaults; prints by how much it grew.
PROGRAM = """
import sys
import torch
import ssim_fused

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

function, step, *shape = sys.argv[1], sys.argv[2] == "step", *map(int, sys.argv[3:])
torch.set_num_threads(2)
preds, target = torch.rand(shape).requires_grad_(step), torch.rand(shape)
arguments = {}
if function == "ms_ssim":
    compute = ssim_fused.multiscale_structural_similarity_index_measure
    if min(shape[2:]) < 176:
        arguments["betas"] = (0.5, 0.5)
else:
    compute = ssim_fused.structural_similarity_index_measure

def run(times):
    for _ in range(times):
        value = compute(preds, target, data_range=1.0, **arguments)
        if step:
            value.backward()
            preds.grad = None

run(100)
before = resident()
run(300)
print(resident() - before)
"""

# PyTorch's own tensors, of 3 MiB each, make glibc's heap breathe by this much, without growing. Scratch that tasks
# allocated from it grew by 5 MiB each step.
BOUND = 32 << 20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
@pytest.mark.parametrize("mode", ["value", "step"])
@pytest.mark.parametrize("shape", [(1, 1, 48, 40), (4, 3, 256, 256), (1, 1, 24, 26, 28), (1, 1, 48, 48, 160)])
@pytest.mark.parametrize("function", ["ssim", "ms_ssim"])
def test_resident_memory_stays(function: str, shape: tuple[int, ...], mode: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", PROGRAM, function, mode, *map(str, shape)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) < BOUND
