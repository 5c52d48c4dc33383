"""Fixtures shared by all tests: the devices to test on, and how hypothesis searches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

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


@pytest.fixture(params=[(14, 15), (6, 7, 8)], ids=["image", "volume"])
def sides(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """The sides of a small picture: an image, or a volume."""
    return request.param


@pytest.fixture
def window(sides: tuple[int, ...]) -> dict[str, Any]:
    """A window smaller than `sides`: the default, or for volumes 5 taps, with the width padded for 7."""
    return {} if len(sides) == 2 else {"sigma": 0.5, "kernel_size": 7}


@pytest.fixture
def restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
