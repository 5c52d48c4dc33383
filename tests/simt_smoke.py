"""Small cases that together reach every synchronization site of the CUDA kernels (tests/simt/sites.h).

`make test` runs them under the race detector; the nightly mutation run leaves out each site in turn (simt_mutants.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import test_simt_masks
import test_simt_pyramid
import torch
from host_program import CUDA_KERNELS, Build, Program, host_program
from simt_cases import FULL, Case, check, pictures
from simt_host import Host

VOLUME = Case((1, 1, 9, 13, 22), sizes=(11, 11, 11))
# In strips of 96 columns several warps stage a row; in those of 128 and 256 one warp does.
STRIPS = Case((2, 1, 21, 61), strip_columns=96)
CASES = {
    "folded_gradients": STRIPS,
    "mirrored_derivatives": replace(STRIPS, symmetric=True, shape=(1, 1, 21, 60)),
    "two_strips": replace(STRIPS, symmetric=True, shape=(1, 1, 13, 100)),
    "rows_of_a_warp": replace(STRIPS, strip_columns=128),
    "rows_of_a_warp_mirrored": replace(STRIPS, strip_columns=128, symmetric=True, padding_mode="reflect"),
    "wide_strips": replace(STRIPS, strip_columns=256, shape=(1, 1, 13, 90)),
    "single_strip": replace(STRIPS, strip_columns=64, single_strip=True, symmetric=True),
    "zero_padding": replace(STRIPS, strip_columns=128, padding_mode="zero", shape=(1, 1, 13, 60)),
    "zero_padding_of_shared_rows": replace(STRIPS, padding_mode="zero", shape=(1, 1, 21, 60)),
    "from_strip_to_strip": replace(STRIPS, strip_columns=128, split_rows=13, crossing=True),
    "parts_of_a_strip": replace(STRIPS, split_rows=8),
    "values": replace(STRIPS, strip_columns=64, gradients=""),
    "values_of_parts": replace(STRIPS, strip_columns=128, gradients="", split_rows=9, crossing=True),
    "interleaved": replace(STRIPS, strip_columns=128, shape=(1, 3, 13, 20), layout="channels_last"),
    "general": replace(STRIPS, strip_columns=64, want_map=True, shape=(2, 1, 14, 30), **FULL),
    "volume": VOLUME,
    "mirrored_volume": replace(VOLUME, symmetric=True, shape=(1, 1, 7, 11, 60), strip_columns=128),
    "from_slice_to_slice": replace(VOLUME, strip_columns=128, split_rows=21, crossing=True, shape=(1, 1, 6, 11, 20)),
    "values_of_a_volume": replace(VOLUME, gradients="", sms=60, shape=(1, 1, 19, 8, 9)),
    "general_volume": replace(VOLUME, want_map=True, shape=(2, 1, 7, 9, 11), **FULL),
    "long_window": Case((2, 1, 14, 20), sizes=(13, 13), gradients="preds target"),
    "several_chunks_of_taps": Case((1, 1, 4, 140), sizes=(3, 135), padding_mode="zero", pad=(1, 67)),
    "long_window_in_a_volume": Case((1, 1, 5, 6, 20), sizes=(3, 3, 13), want_map=True, **FULL),
}
MASKED = {
    "mask": Case((2, 1, 14, 20), sizes=(5, 5), gradients="preds target"),
    "mask_with_pixel_term": Case((1, 2, 12, 20), sizes=(5, 5), gradients="preds target"),
}
PYRAMIDS = {"pyramid": (2, 1, 9, 14), "pyramid_of_volumes": (3, 1, 4, 6, 8)}
NAMES = [*CASES, *MASKED, *PYRAMIDS]


@dataclass(frozen=True)
class SmokePrograms:
    cases: Program
    pyramid: Program

    def of(self, name: str) -> Program:
        return self.pyramid if name in PYRAMIDS else self.cases

    def in_one_order(self) -> SmokePrograms:
        return SmokePrograms(*(replace(p, build=replace(p.build, orders=("",))) for p in (self.cases, self.pyramid)))


def smoke_programs(build: Build, cache: Path) -> SmokePrograms:
    return SmokePrograms(host_program("smoke", build, cache), host_program("pyramid", build, cache))


def run_smoke(programs: SmokePrograms, name: str, directory: Path) -> None:
    """Run a case in every order of the build and compare it with float64. Its files stay in `directory`."""
    program = programs.of(name)
    if name in CASES:
        case = CASES[name]
        preds, target = pictures(case)
        check(case, Host(program, directory).run(case, preds, target), preds, target)
    elif name in MASKED:
        case = MASKED[name]
        preds, target = pictures(case)
        mask = test_simt_masks.mask_of(case, "weights")
        results = test_simt_masks.run(program, directory, case, preds, target, mask, "window")
        test_simt_masks.check(case, results, test_simt_masks.exact(case, preds, target, mask, "window"))
    else:
        found, expected, _ = test_simt_pyramid.run(program, directory, PYRAMIDS[name], torch.float32, pixels=1)
        test_simt_pyramid.check(found, expected)


# Calls of synchronizing functions. If a function runs a barrier for its caller, the site is the caller's (device.cuh).
SYNCHRONIZES = re.compile(
    r"(?<![\w.])(?:\w+::)?(__syncthreads|sync_warp|sync_rows|wait_for_copies_before_last|wait_for_copies|commit_copies"
    r"|next_ticket)\((?!SSIM_CALLER)"
)


class Call(NamedTuple):
    function: str
    text: str  # the line of the call


def sites() -> dict[str, Call]:
    """Return the calls of all synchronization sites, by "file:line"."""
    found: dict[str, Call] = {}
    for path in sorted(CUDA_KERNELS.rglob("*.cuh")):
        if path.name in ("device.cuh", "device_hip.cuh"):  # define the functions
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            calls = SYNCHRONIZES.findall(line.partition("//")[0])
            assert len(calls) <= 1, f"{path.name}:{number}: a line must have one site only"
            for function in calls:
                assert f"{path.name}:{number}" not in found, f"{path.name}: two files have the same name"
                found[f"{path.name}:{number}"] = Call(function, line.strip())
    return found
