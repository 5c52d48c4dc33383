"""Records what a run does to stored pictures, and finds those that no test uses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER = "__image_snapshots__"
LONGEST = 120  # characters of a file name without its extension


def names_of(item: pytest.Item) -> list[str]:
    """Returns the names in a node id after that of the module: classes, and the test with its parameters.

    The node id itself differs between runs, because xdist appends the group of ``--dist loadgroup``.
    """
    chain = item.listchain()
    files = [number for number, node in enumerate(chain) if isinstance(node, pytest.File)]
    return [node.name for node in chain[files[-1] + 1 if files else -1 :]]


def safe_name(text: str) -> str:
    """Returns a file name for a text: always the same, and different for different texts."""
    name = re.sub(r"[^\w\-.\[\]=+]", "_", text, flags=re.ASCII)
    if name == text and len(name) <= LONGEST and not name.startswith("."):
        return name
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{name[: LONGEST - 9].lstrip('.')}-{digest}"


def stem_of(item: pytest.Item) -> str:
    """Returns the name of a test's first picture, without extension."""
    return safe_name(".".join(names_of(item)))


@dataclass
class Record:
    """The pictures of a run, by path. The xdist controller has those of all workers.

    Attributes:
        used: pictures that were compared, whatever the result.
        created: pictures that were stored for the first time.
        updated: pictures that were replaced.
        tests: for each folder of pictures, the names of its tests and their node ids.
        partial: folders of which only some tests were collected.
        passed: node ids of tests that passed.
        failed: node ids of tests of which any part failed, such as a subtest.
        lost: whether a worker exited without sending its record.

    """

    used: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    updated: set[str] = field(default_factory=set)
    tests: dict[str, dict[str, str]] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    lost: bool = False

    def collected(self, config: pytest.Config, items: Iterable[pytest.Item]) -> None:
        """Records the tests of modules in folders that have stored pictures."""
        by_module: dict[Path, list[pytest.Item]] = {}
        for item in items:
            by_module.setdefault(item.path, []).append(item)
        some = [argument.partition("::") for argument in config.args]
        only = {Path(config.invocation_params.dir, path).resolve() for path, colons, _ in some if colons}
        last_failed = bool(config.getoption("lf", False))
        for module, its in by_module.items():
            if not (module.parent / FOLDER).is_dir():
                continue
            folder = str(module.parent / FOLDER / module.stem)
            self.tests[folder] = {stem_of(item): item.nodeid for item in its}
            if last_failed or module.resolve() in only:
                self.partial.add(folder)

    def finished(self, report: pytest.TestReport) -> None:
        """Records the outcome of a test."""
        ids = {report.nodeid, report.nodeid.rpartition("@")[0]}  # with and without the group that xdist appends
        if report.failed:
            self.failed |= ids
        elif report.passed and report.when == "call":
            self.passed |= ids

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as a dictionary, which xdist can send."""
        sets = {name: sorted(getattr(self, name)) for name in ("used", "created", "updated", "partial")}
        return sets | {"tests": self.tests}

    def add(self, other: dict[str, Any] | None) -> None:
        """Adds the record of a worker; None means that the worker has crashed."""
        if other is None:
            self.lost = True
            return
        for name in ("used", "created", "updated", "partial"):
            getattr(self, name).update(other[name])
        for folder, tests in other["tests"].items():
            self.tests.setdefault(folder, {}).update(tests)

    def unused(self) -> list[str]:
        """Returns the pictures that no test uses, as far as this run can tell.

        A picture belongs to the test with its name. It is unused if this test passed without comparing it, if all tests
        of the module were collected and none has its name, or if the module does not exist.
        """
        if self.lost:
            return []
        found = [
            str(picture)
            for folder, tests in self.tests.items()
            for picture in sorted(Path(folder).glob("*.png"))
            if str(picture) not in self.used and self._is_unused(picture.stem, tests, folder)
        ]
        for parent in {Path(folder).parent for folder in self.tests}:
            for folder in sorted(parent.iterdir()):
                if folder.is_dir() and str(folder) not in self.tests and not _has_module(parent.parent, folder.name):
                    found += [str(picture) for picture in sorted(folder.glob("*.png"))]
        return found

    def _is_unused(self, stem: str, tests: dict[str, str], folder: str) -> bool:
        owners = [name for name in tests if stem == name or stem.startswith(f"{name}.")]
        if owners:
            return tests[max(owners, key=len)] in self.passed - self.failed
        return folder not in self.partial


def _has_module(folder: Path, stem: str) -> bool:
    return any(path.stem == stem and path.is_file() for path in folder.iterdir())


RECORD = pytest.StashKey[Record]()
