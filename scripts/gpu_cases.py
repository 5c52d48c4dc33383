"""A pytest plugin that selects tests for a GPU: only those of one device, and at most N of each file.

    python -m pytest -p gpu_cases --on cuda --most 20 tests/test_masks.py

In a file, every test function gets one case before any gets a second, and the cases of a function are spread evenly
over its list. The selection is deterministic. If nothing is selected, pytest exits with status 5.
"""

from __future__ import annotations

import pytest

ONLY_ON_A_GPU = ("test_cuda_training.py",)  # has no fixture `device`


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    parser.addoption("--on", metavar="DEVICE", help="select the tests that run on this device")
    parser.addoption("--most", type=int, metavar="N", help="select at most N cases of each file")


def runs_on(item: pytest.Item, device: str) -> bool:
    """Whether a test is for the device, by its parameter `device` or as a whole file."""
    call = getattr(item, "callspec", None)
    if call is not None and "device" in call.params:
        return call.params["device"] == device
    return item.path.name in ONLY_ON_A_GPU


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` positions, evenly spread, including the first."""
    return sorted({position * count // most for position in range(most)})


def choose(items: list[pytest.Item], most: int) -> list[pytest.Item]:
    """At most `most` items of one file, from all its functions, in their original order."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    shares = dict.fromkeys(functions, 0)
    left = min(most, len(items))
    while left:
        for name, cases in functions.items():
            if left and shares[name] < len(cases):
                shares[name] += 1
                left -= 1
    kept = {cases[i] for name, cases in functions.items() if shares[name] for i in spread(len(cases), shares[name])}
    return [item for item in items if item in kept]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the others."""
    device, most = config.getoption("--on"), config.getoption("--most")
    kept = items if device is None else [item for item in items if runs_on(item, device)]
    if most is not None:
        files: dict[object, list[pytest.Item]] = {}
        for item in kept:
            files.setdefault(item.path, []).append(item)
        kept = [item for cases in files.values() for item in choose(cases, most)]
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept
