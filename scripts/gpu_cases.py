"""A pytest plugin that selects tests for a GPU: those of one device, at most so many of a file.

    python -m pytest -p gpu_cases --on cuda --most 20 tests/test_masks.py

Of a file, every test function gets a case before one gets a second; a function's cases are spread evenly over its
list. The choice depends on nothing but the tests. Selecting nothing is an error (pytest's exit status 5).
"""

from __future__ import annotations

import pytest

ONLY_ON_A_GPU = ("test_cuda_training.py",)  # without the fixture `device`


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    parser.addoption("--on", metavar="DEVICE", help="select the tests that run on this device")
    parser.addoption("--most", type=int, metavar="N", help="select at most N cases of each file")


def runs_on(item: pytest.Item, device: str) -> bool:
    """Whether a test is about the device: by its parameter `device`, or as a whole."""
    call = getattr(item, "callspec", None)
    if call is not None and "device" in call.params:
        return call.params["device"] == device
    return item.path.name in ONLY_ON_A_GPU


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` positions, evenly spread, the first among them."""
    return sorted({position * count // most for position in range(most)})


def choose(items: list[pytest.Item], most: int) -> list[pytest.Item]:
    """At most so many items of one file, of all its functions, in their order."""
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
