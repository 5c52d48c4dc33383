"""Examples that no other test runs, from end to end; each script returns 1 where its scores did not rise."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.nightly
def test_gaussians_are_fitted_to_a_photograph(tmp_path: Path) -> None:
    for module in ("matplotlib", "skimage", "tqdm"):
        pytest.importorskip(module)
    figure = tmp_path / "splatting.png"
    size = ["--gaussians", "150", "--steps", "30", "--size", "64", "--output", str(figure)]
    done = subprocess.run([sys.executable, EXAMPLES / "splatting.py", *size], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure.stat().st_size > 10_000


def test_the_notebook_prints_and_draws_what_it_shows(tmp_path: Path) -> None:
    """It runs from top to bottom, and the results that lie in the file are those of this version."""
    for module in ("matplotlib", "skimage", "ipykernel"):
        pytest.importorskip(module)
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    shown = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    made = copy.deepcopy(shown)
    nbclient.NotebookClient(made, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [results_of(cell) for cell in shown.cells]
    assert [results_of(cell) for cell in made.cells] == results
    assert sum(drawn for _, drawn in results) == 5
    assert sum(bool(printed) for printed, _ in results) == 4


def results_of(cell: Any) -> tuple[str, int]:
    """What a cell printed, and how many pictures it drew."""
    outputs = cell.get("outputs", [])
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    return printed, sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)
