"""Every synchronization site of the CUDA kernels is needed, and the race detector notices if one is missing."""

from __future__ import annotations

import pytest
from simt_mutants import UNNOTICED, Mutant, Prepared, by, mutants, prepare


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return prepare(request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("mutants"))


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", mutants(), ids=str)
def test_a_missing_barrier_is_noticed(cases: list[Prepared], mutant: Mutant) -> None:
    """If this fails, either the barrier is not needed, or the smoke cases miss what it is needed for."""
    assert by(cases, mutant, detector=True) != (str(mutant) in UNNOTICED), UNNOTICED.get(str(mutant), "not noticed")


def test_exceptions_are_mutants() -> None:
    assert set(UNNOTICED) <= {str(mutant) for mutant in mutants()}


def test_a_barrier_that_is_left_out_is_noticed(cases: list[Prepared]) -> None:
    """The central barrier of the march, without which all simulated cases give the same bits in rounds of threads."""
    central = next(m for m in mutants() if m.site.startswith("march.cuh") and m.function == "sync_warp")
    assert by(cases, central, detector=True)
    assert by(cases, central, detector=False)
