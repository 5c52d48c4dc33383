"""What a run did to the stored pictures, and which of them no test uses any more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER = "__image_snapshots__"
LONGEST = 120  # characters of a file name without its ending


def names_of(item: pytest.Item) -> list[str]:
    """The names in a node id behind the module's: of classes, and of the test with its parameters.

    Node ids themselves are not the same in every run: xdist appends the group of ``--dist loadgroup``.
    """
    chain = item.listchain()
    files = [number for number, node in enumerate(chain) if isinstance(node, pytest.File)]
    return [node.name for node in chain[files[-1] + 1 if files else -1 :]]


def safe_name(text: str) -> str:
    """A file name for any text, the same every time and another one for every other text."""
    name = re.sub(r"[^\w\-.\[\]=+]", "_", text, flags=re.ASCII)
    if name == text and len(name) <= LONGEST and not name.startswith("."):
        return name
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{name[: LONGEST - 9].lstrip('.')}-{digest}"


def stem_of(item: pytest.Item) -> str:
    """The name of a test's first picture, without ending."""
    return safe_name(".".join(names_of(item)))


@dataclass
class Record:
    """The pictures of a run, by path; in xdist's controller those of all workers.

    Attributes:
        used: compared, in whatever way that ended.
        created: stored, where there were none.
        updated: replaced.
        tests: of each folder of pictures the names of its tests, with their node ids.
        partial: the folders of whose tests only some were collected.
        passed: node ids of the tests of which something passed.
        failed: node ids of those of which something failed, such as a subtest.
        lost: whether a worker ended without its record.

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
        """Notes the tests of the modules that have stored pictures, or lie next to such."""
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
        """Notes what became of a test."""
        ids = {report.nodeid, report.nodeid.rpartition("@")[0]}  # without the group that xdist appends
        if report.failed:
            self.failed |= ids
        elif report.passed and report.when == "call":
            self.passed |= ids

    def as_dict(self) -> dict[str, Any]:
        """What xdist can send."""
        sets = {name: sorted(getattr(self, name)) for name in ("used", "created", "updated", "partial")}
        return sets | {"tests": self.tests}

    def add(self, other: dict[str, Any] | None) -> None:
        """Adds the record of a worker, None if it has crashed."""
        if other is None:
            self.lost = True
            return
        for name in ("used", "created", "updated", "partial"):
            getattr(self, name).update(other[name])
        for folder, tests in other["tests"].items():
            self.tests.setdefault(folder, {}).update(tests)

    def unused(self) -> list[str]:
        """The pictures that no test uses, as far as this run can know.

        A picture belongs to the test whose name it has. It is unused if this test passed without it, or if all tests of
        the module were collected and none has the name, or if the module doesn't exist.
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
