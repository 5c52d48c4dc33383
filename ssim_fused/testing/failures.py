"""Writes the heat map of a failed comparison."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from ssim_fused.testing.comparison import Comparison
from ssim_fused.testing.images import HIDDEN

__tracebackhide__ = HIDDEN


def check_path(name: str, path: str | os.PathLike[str] | None) -> None:
    """Checks the path of an output file, before the comparison."""
    if path is not None and not (isinstance(path, str | os.PathLike) and os.fspath(path)):
        kind = ValueError if isinstance(path, str) else TypeError
        raise kind(f"`{name}` is {path!r}; expected the path of the PNG file to write, such as 'failure.png', or None.")


def heat_map_path() -> Path:
    """Returns the default path of a heat map: named after the running test by the plugin, or in a temporary folder."""
    plugin = sys.modules.get("pytest_ssim_fused")
    path = plugin.failure_path() if plugin else None
    return path or Path(tempfile.mkdtemp(prefix="ssim-fused-failures-"), "heat_map.png")


def write_heat_map(result: Comparison, path: str | os.PathLike[str]) -> str:
    """Writes the heat map. Returns a line with its path, or with the reason why it was not written."""
    try:
        from ssim_fused.testing.drawing import draw

        sheet = draw(result)
    except ModuleNotFoundError as error:
        return f"heat map: not drawn: {error.name} is not installed; run: pip install 'ssim_fused[scoring]'"
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target, "PNG")
    except OSError as error:
        return f"heat map: not written to {target}: {error.strerror or error}"
    return f"heat map: {target}"
