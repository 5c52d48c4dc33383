"""The race detector of tests/simt: its self-test, and the kernels under it, in all orders of threads and copies."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from host_program import RACES, SIMT, SMOKE, SMOKE_OF_64, WARP_64, Build, Program, host_program, is_current, with_lines
from simt_smoke import NAMES, SmokePrograms, run_smoke, sites, smoke_programs

RACE = 66  # exit status of a program with a race

# The expected report for each program of race_selftest.cpp; empty: no race.
SELFTEST = {
    "block_barrier": "",
    "no_block_barrier": "race: write after an unordered read",
    "warp_barrier": "",
    "no_warp_barrier": "race: write after an unordered read",
    "warp_barrier_between_warps": "race: write after an unordered read",
    "shuffle_as_barrier": "race: read after an unordered write",
    "write_after_read": "race: write after an unordered read",
    "barrier_before_write": "",
    "write_after_read_of_two_warps": "race: read after an unordered write",
    "written_twice": "race: write after an unordered write",
    "same_value_written_twice": "race: write after an unordered write",
    "neighbouring_bytes": "",
    "different_lines": "threads wait for one another at different lines",
    "part_of_a_warp": "a shuffle or barrier of a warp is reached by part of it",
    "part_of_a_block": "a barrier is reached by part of the block",
    "copy": "",
    "copy_shared_after_barrier": "",
    "no_wait": "race: read before the wait for a copy to it",
    "no_barrier_after_wait": "race: write after an unordered read",
    "wait_after_barrier": "race: read before the wait for a copy to it",
    "destination_written": "race: write during a copy to it",
    "source_written": "race: write during a copy from it",
    "group": "",
    "last_group": "race: read before the wait for a copy to it",
    "no_commit": "race: read before the wait for a copy to it",
    "elements_of_blocks": "",
    "element_of_two_blocks": "race: write after an unordered write",
    "read_by_another_block": "race: write after an unordered read",
    "ticket": "",
    "no_barrier_before_ticket": "race: read after an unordered write",
    "no_barrier_after_ticket": "race: read after an unordered write",
    "no_ticket": "race: read after an unordered write",
}


@pytest.fixture(scope="session", params=[RACES, Build("races_of_64", (*RACES.flags, *WARP_64), True)])
def selftest(request: pytest.FixtureRequest) -> Program:
    return host_program("race_selftest", request.param, request.config.cache.mkdir("simt"))


def test_every_program_of_the_selftest_has_an_outcome(selftest: Program) -> None:
    assert selftest.run().stdout.split() == sorted(SELFTEST)


@pytest.mark.parametrize("name", SELFTEST)
def test_planted_races_are_found(selftest: Program, name: str) -> None:
    ran = selftest.run(name)
    assert (ran.returncode != 0) == bool(SELFTEST[name]), ran.stderr
    assert SELFTEST[name] in ran.stderr
    assert (ran.returncode == RACE) == SELFTEST[name].startswith("race")


def test_a_race_names_its_lines(selftest: Program) -> None:
    message = with_lines(selftest.run("no_block_barrier").stderr, selftest)
    source = (SIMT / "race_selftest.cpp").read_text().splitlines()
    lines = {source[int(number) - 1].strip() for number in re.findall(r"race_selftest\.cpp:(\d+)", message)}
    assert lines == {"shared()[t] = 1;", "own(t) = shared()[(t + 1) % kThreads];"}, message


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> SmokePrograms:
    return smoke_programs(SMOKE, request.config.cache.mkdir("simt"))


@pytest.fixture(scope="session")
def programs_of_64(request: pytest.FixtureRequest) -> SmokePrograms:
    """The smoke programs, compiled for warps of 64 threads."""
    return smoke_programs(SMOKE_OF_64, request.config.cache.mkdir("simt"))


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_kernels_have_no_race(programs: SmokePrograms, name: str, tmp_path: Path) -> None:
    """Also checks that results do not depend on the order, and compares them with float64."""
    run_smoke(programs, name, tmp_path)


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES)
def test_kernels_for_warps_of_64_have_no_race(programs_of_64: SmokePrograms, name: str, tmp_path: Path) -> None:
    run_smoke(programs_of_64, name, tmp_path)


def test_every_synchronization_site_is_reached(
    programs: SmokePrograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = tmp_path / "sites"
    monkeypatch.setenv("SSIM_SIMT_SITES", str(reached))
    for name in NAMES:
        directory = tmp_path / name
        directory.mkdir()
        run_smoke(programs.in_one_order(), name, directory)
    assert set(reached.read_text().split()) == set(sites())


def test_a_program_is_compiled_again_if_a_file_that_it_includes_changes(tmp_path: Path) -> None:
    binary, header = tmp_path / "program.o", tmp_path / "header.h"
    header.touch()
    binary.touch()
    binary.with_suffix(".d").write_text(f"program.o: {header} \\\n {header}\n")
    binary.with_suffix(".command").write_text("g++")
    os.utime(header, (100, 100))
    os.utime(binary, (200, 200))
    assert is_current(binary, "g++")
    assert not is_current(binary, "g++ -O1")
    os.utime(header, (300, 300))
    assert not is_current(binary, "g++")
    header.unlink()
    assert not is_current(binary, "g++")
