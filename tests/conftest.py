"""Fixtures shared by all tests: the devices to test on, and how hypothesis searches."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

# Examples are few and small, but a first call may build or load a library: no deadline.
hypothesis.settings.register_profile("default", deadline=None)
# In CI the same examples every time, so that a red run is about the change under test.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
