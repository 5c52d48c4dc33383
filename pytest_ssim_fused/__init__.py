"""The pytest plugin: the fixture ``image_snapshot``, its options, and the report of what was stored or is unused.

It is a package of its own, because every run of pytest imports it: ``import ssim_fused`` imports torch. Nothing here
does until a test compares an image.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_ssim_fused.record import RECORD, Record, safe_name
from pytest_ssim_fused.snapshot import ImageSnapshot, folder_of, results_folder

__all__ = ["ImageSnapshot"]

MOST_FILES = 100  # heat maps of one test; the last one is then overwritten, so that a search doesn't fill a disk

_running: list[pytest.Config] = []  # the innermost run is the last one
_failures: Counter[Path] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ssim_fused", "image snapshots (ssim_fused)")
    group.addoption(
        "--ssim-update", action="store_true",
        help="Store the images of image_snapshot that are missing or not similar, and delete unused ones.",
    )  # fmt: skip
    group.addoption(
        "--ssim-results-path", metavar="DIR",
        help="Write actual images and heat maps of failed comparisons into DIR. Default: ssim-fused-failures in "
        "pytest's temporary folder.",
    )  # fmt: skip
    parser.addini("ssim_at_least", "lowest SSIM that passes where image_snapshot gives no at_least", default="0.99")
    parser.addini("ssim_results_path", "default of --ssim-results-path, relative to the root folder")


def pytest_configure(config: pytest.Config) -> None:
    _running.append(config)
    config.stash[RECORD] = Record()


def pytest_unconfigure(config: pytest.Config) -> None:
    if config in _running:
        _running.remove(config)


@pytest.fixture
def image_snapshot(request: pytest.FixtureRequest) -> ImageSnapshot:
    """Compares an image with the picture stored next to the test: ``image_snapshot(image)``.

    ``pytest --ssim-update`` stores it. Keyword arguments: name, at_least, region_at_least, ignore, mask,
    data_range.
    """
    return ImageSnapshot(request.node, request.config.stash[RECORD])


def failure_path() -> Path | None:
    """Where `assert_similar` writes the heat map of its next failure; None outside of a run.

    The file is named after the running test; further ones of the same test are numbered.
    """
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    if not _running or not test:
        return None
    module, _, name = test.partition("::")
    stem = folder_of(results_folder(_running[-1]), module) / safe_name(name.replace("::", "."))
    _failures[stem] = min(_failures[stem] + 1, MOST_FILES)
    return Path(f"{stem}.png" if _failures[stem] == 1 else f"{stem}-{_failures[stem]}.png")


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    if op == "==" and isinstance(right, ImageSnapshot):  # the left side has answered by itself, as PIL's images do
        return [
            f"{type(left).__name__} == image_snapshot",
            "This type can't be compared so: use image_snapshot(image).",
        ]
    return None


# What follows finds unused pictures. The process that reports collects nothing itself if xdist's workers do.


@pytest.hookimpl(tryfirst=True)  # before anything is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[RECORD].collected(config, items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if _running:
        _running[-1].stash[RECORD].finished(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ssim_fused"] = session.config.stash[RECORD].as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    node.config.stash[RECORD].add(getattr(node, "workeroutput", {}).get("ssim_fused"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    record = config.stash[RECORD]
    unused = record.unused()
    if not (unused or record.created or record.updated):
        return
    delete = config.getoption("ssim_update") and not config.getoption("collectonly")
    terminalreporter.section("image snapshots")
    for title, paths in (("created", record.created), ("updated", record.updated),
                         ("deleted, unused" if delete else "unused", unused)):  # fmt: skip
        for path in sorted(paths):
            terminalreporter.write_line(f"{title}: {_relative(Path(path), config)}")
    if delete:
        for path in unused:
            Path(path).unlink(missing_ok=True)
    elif unused:
        terminalreporter.write_line("pytest --ssim-update deletes unused ones.")


def _relative(path: Path, config: pytest.Config) -> Path:
    start = config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path
