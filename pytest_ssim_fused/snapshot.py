"""The object that the fixture ``image_snapshot`` returns, and the names of stored pictures.

The picture of ``tests/test_a.py::TestB::test_c[d]`` is ``tests/__image_snapshots__/test_a/TestB.test_c[d].png``. The
name of the folder differs from that of syrupy, which deletes pictures that it does not know.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ssim_fused.record import FOLDER, Record, names_of, safe_name, stem_of

if TYPE_CHECKING:
    from ssim_fused.testing.images import Range, Rectangle

_MISSING: Any = object()


def results_folder(config: pytest.Config) -> Path:
    """Returns the folder for the images of failed comparisons. It may not exist yet."""
    given = config.getoption("ssim_results_path")
    if given:
        return Path(config.invocation_params.dir, given)
    if config.getini("ssim_results_path"):
        return config.rootpath / config.getini("ssim_results_path")
    factory = getattr(config, "_tmp_path_factory", None)  # the object of the fixture tmp_path_factory
    base = factory.getbasetemp() if factory else Path(tempfile.mkdtemp(prefix="ssim-fused-"))
    if factory and hasattr(config, "workerinput"):  # each xdist worker has its own folder
        base = base.parent
    return base / "ssim-fused-failures"


def _setting(config: pytest.Config) -> float:
    text = config.getini("ssim_at_least")
    try:
        return float(text)
    except ValueError:
        raise pytest.UsageError(f"ssim_at_least is {text!r}; expected a number of at most 1, such as 0.99.") from None


def folder_of(root: Path, module: str) -> Path:
    """Returns the subfolder of a module, given by its path in a node id."""
    parts = [part for part in Path(module).with_suffix("").parts if part not in ("..", "/")]
    return root.joinpath(*parts)


class ImageSnapshot:
    """Compares images with the pictures stored next to a test.

    ``image_snapshot(image)`` raises an AssertionError that names the images to look at. The notation of syrupy,
    ``assert image == image_snapshot``, does the same; ``image_snapshot(name=..., at_least=...)``, without an image,
    gives it the arguments of ``image_snapshot(image, ...)``.
    """

    __array_ufunc__ = None  # makes a NumPy array to the left of == call __eq__ of this class

    def __init__(
        self, item: pytest.Item, record: Record, arguments: dict[str, Any] | None = None, stems: set[str] | None = None
    ) -> None:
        self._item, self._record, self._arguments = item, record, arguments or {}
        self._stems: set[str] = set() if stems is None else stems  # names used by this test so far

    def __call__(
        self,
        image: Any = _MISSING,
        name: str | None = None,
        *,
        at_least: float | None = None,
        region_at_least: float | None = None,
        ignore: Sequence[Rectangle] = (),
        mask: Any = None,
        data_range: Range = None,
    ) -> Any:
        """Compares an image. Without an image, returns a snapshot with these arguments, to compare with ``==``.

        Args:
            image: an array, a tensor, a PIL image or a path, as in :func:`ssim_fused.testing.assert_similar`.
            name: the name of the picture, if a test has several. Pictures without a name are numbered.
            at_least: the lowest SSIM that passes; by default the setting ``ssim_at_least``, 0.99.
            region_at_least: the lowest SSIM of the worst region that passes. None does not check it.
            ignore: rectangles ``(x, y, w, h)`` to exclude.
            mask: the pixels to compare.
            data_range: the range of the image, if it is neither that of its integer type nor [0, 1] for floats.

        Returns:
            The score.

        Raises:
            AssertionError: the image is not similar to the stored picture, or no picture is stored.

        """
        __tracebackhide__ = True
        arguments: dict[str, Any] = {
            "at_least": at_least, "region_at_least": region_at_least, "ignore": ignore, "mask": mask,
            "data_range": data_range,
        }  # fmt: skip
        if image is _MISSING:
            return ImageSnapshot(self._item, self._record, {"name": name} | arguments, self._stems)
        from ssim_fused.testing.images import lacking  # imports torch

        try:
            from ssim_fused.testing.stored import Stored
        except ModuleNotFoundError as error:
            raise lacking(error) from error

        item, stem, config = self._item, self._stem(name), self._item.config
        path = item.path.parent / FOLDER / item.path.stem / f"{stem}.png"
        self._record.used.add(str(path))
        module = item.nodeid.partition("::")[0]
        test = "::".join([os.path.relpath(item.path, config.invocation_params.dir), *names_of(item)])
        stored = Stored(
            path=path,
            results=folder_of(results_folder(config), module) / stem,
            update=config.getoption("ssim_update"),
            command=f"pytest {shlex.quote(test)} --ssim-update",
        )
        if at_least is None:
            arguments["at_least"] = _setting(config)
        outcome, score = stored.check(image, **arguments)
        if outcome != "passed":
            getattr(self._record, outcome).add(str(path))
        return score

    def __repr__(self) -> str:
        return f"<image_snapshot of {'::'.join(names_of(self._item))}>"

    def __eq__(self, image: object) -> bool:
        __tracebackhide__ = True
        self(image, **self._arguments)
        return True

    def __ne__(self, image: object) -> bool:
        raise TypeError("image_snapshot does not support `!=`; use image_snapshot(image).")

    def _stem(self, name: str | None) -> str:
        """Returns the name of the next picture: that of the test, with a number or the given name appended."""
        __tracebackhide__ = True
        base = stem_of(self._item)
        if name is None:
            number = sum(stem == base or stem[len(base) + 1 :].isdigit() for stem in self._stems)
            stem = f"{base}.{number}" if number else base
        elif not isinstance(name, str) or not name or name.isdigit():
            raise ValueError(f"`name` is {name!r}; expected a text that is not a number, such as 'dark'.")
        else:
            stem = f"{base}.{safe_name(name)}"
        if stem in self._stems:
            raise ValueError(f"`name` is {name!r} for the second time in this test; expected a unique name per image.")
        self._stems.add(stem)
        return stem
