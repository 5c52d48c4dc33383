"""Every synchronization site of the CUDA kernels is needed, and the race detector notices if one is missing."""

from __future__ import annotations

import pytest
from simt_mutants import UNNOTICED, Mutant, Prepared, mutants, notices, prepare


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return prepare(request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("mutants"))


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", mutants(), ids=str)
def test_a_missing_barrier_is_noticed(cases: list[Prepared], mutant: Mutant) -> None:
    """If this fails, either the barrier is not needed, or the smoke cases miss what it is needed for."""
    assert notices(cases, mutant, detector=True) != (mutant.line in UNNOTICED), mutant.call.text


def test_exceptions_are_lines_of_the_kernels() -> None:
    assert set(UNNOTICED) <= {mutant.line for mutant in mutants()}


@pytest.mark.slow
def test_the_scheduler_alone_shows_a_missing_barrier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A warp runs ahead of the others, so that results differ without the march's barriers.

    They did not when all threads of a block ran in rounds, since a warp's barrier then was one of the block.
    """
    cases = prepare(request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("scheduler"), ["rows_of_a_warp"])
    of_march = [m for m in mutants() if m.site.startswith("march.cuh") and m.call.function == "__syncthreads"]
    reached = [mutant for mutant in of_march if mutant.site in cases[0].sites and not mutant.is_weakened]
    assert len(reached) >= 4
    for mutant in reached:
        assert notices(cases, mutant, detector=False), mutant
