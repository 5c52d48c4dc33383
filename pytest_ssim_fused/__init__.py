"""The pytest plugin: the fixture ``image_snapshot``, its options, and a report of stored and unused pictures.

The plugin is a separate package, because every run of pytest imports it, and ``import ssim_fused`` imports torch. This
package imports torch only when a test compares an image.
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

MOST_FILES = 100  # heat maps per test; further ones overwrite the last, so that a fuzz test does not fill the disk

_running: list[pytest.Config] = []  # nested runs; the innermost is the last one
_failures: Counter[Path] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options and the settings."""
    group = parser.getgroup("ssim_fused", "image snapshots (ssim_fused)")
    group.addoption(
        "--ssim-update", action="store_true",
        help="Store images of image_snapshot that are missing or not similar, and delete unused pictures.",
    )  # fmt: skip
    group.addoption(
        "--ssim-results-path", metavar="DIR",
        help="Write actual images and heat maps of failed comparisons to DIR (default: ssim-fused-failures in pytest's "
        "temporary folder).",
    )  # fmt: skip
    parser.addini("ssim_at_least", "lowest SSIM that passes if image_snapshot gives no at_least", default="0.99")
    parser.addini("ssim_results_path", "default of --ssim-results-path, relative to the root folder")


def pytest_configure(config: pytest.Config) -> None:
    """Starts the record of a run."""
    _running.append(config)
    config.stash[RECORD] = Record()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends a run."""
    if config in _running:
        _running.remove(config)


@pytest.fixture
def image_snapshot(request: pytest.FixtureRequest) -> ImageSnapshot:
    """Compares an image with the picture stored next to the test: ``image_snapshot(image)``.

    ``pytest --ssim-update`` stores the picture. Keyword arguments: name, at_least, region_at_least, ignore, mask,
    data_range.
    """
    return ImageSnapshot(request.node, request.config.stash[RECORD])


def failure_path() -> Path | None:
    """Returns the path of the heat map of the next failure of ``assert_similar``, or None outside of a run.

    The file is named after the running test. Further files of the same test are numbered.
    """
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
    if not _running or not test:
        return None
    module, _, name = test.partition("::")
    stem = folder_of(results_folder(_running[-1]), module) / safe_name(name.replace("::", "."))
    _failures[stem] = min(_failures[stem] + 1, MOST_FILES)
    return Path(f"{stem}.png" if _failures[stem] == 1 else f"{stem}-{_failures[stem]}.png")


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explains a failed ``==``."""
    if op == "==" and isinstance(right, ImageSnapshot):  # left's own __eq__ has answered, as that of PIL images does
        return [
            f"{type(left).__name__} == image_snapshot",
            f"{type(left).__name__} does not support == here; use image_snapshot(image).",
        ]
    return None


# The hooks below find unused pictures. Under xdist, workers collect the tests and the controller reports.


@pytest.hookimpl(tryfirst=True)  # before tests are deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Records the collected tests."""
    config.stash[RECORD].collected(config, items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Records the outcome of a test."""
    if _running:
        _running[-1].stash[RECORD].finished(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the record of an xdist worker to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ssim_fused"] = session.config.stash[RECORD].as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Adds the record of an xdist worker."""
    node.config.stash[RECORD].add(getattr(node, "workeroutput", {}).get("ssim_fused"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Reports created, updated and unused pictures, and deletes unused ones if requested."""
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
        terminalreporter.write_line("To delete unused pictures: pytest --ssim-update")


def _relative(path: Path, config: pytest.Config) -> Path:
    start = config.invocation_params.dir
    return path.relative_to(start) if path.is_relative_to(start) else path
