"""The race detector notices if any synchronization site of the CUDA kernels is missing, so each one is needed."""

from __future__ import annotations

import pytest
from simt_mutants import UNNOTICED, Mutant, Prepared, mutants, notices, prepare


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return prepare(request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("mutants"))


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", mutants(), ids=str)
def test_a_missing_barrier_is_noticed(cases: list[Prepared], mutant: Mutant) -> None:
    """If this fails, either the barrier is not needed, or the smoke cases do not cover the accesses that it orders."""
    assert notices(cases, mutant, detector=True) != (mutant.line in UNNOTICED), mutant.call.text


def test_exceptions_are_lines_of_the_kernels() -> None:
    assert set(UNNOTICED) <= {mutant.line for mutant in mutants()}


@pytest.mark.slow
def test_the_scheduler_alone_shows_a_missing_barrier(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Results differ without the barriers of the march, because a warp runs ahead of the others.

    They would not if all threads of a block ran in rounds, since a warp barrier would then act as a block barrier.
    """
    cases = prepare(request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("scheduler"), ["rows_of_a_warp"])
    of_march = [m for m in mutants() if m.site.startswith("march.cuh") and m.call.function == "__syncthreads"]
    reached = [mutant for mutant in of_march if mutant.site in cases[0].sites and not mutant.is_weakened]
    assert len(reached) >= 4
    for mutant in reached:
        assert notices(cases, mutant, detector=False), mutant
