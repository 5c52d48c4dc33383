"""Runs the examples that no other test runs. A script returns 1 if its scores did not rise."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


# The packages that a script needs besides torch, and its arguments. The last argument is the image that it draws.
SCRIPTS = {
    "quickstart.py": (["matplotlib", "skimage", "torchmetrics"], "quickstart.png"),
    "splatting.py": (
        ["matplotlib", "skimage", "tqdm"],
        "--gaussians 150 --steps 30 --size 64 --output splatting.png",
    ),
    "train_denoiser.py": (
        ["matplotlib", "skimage", "torchmetrics", "tqdm"],
        "--steps 40 --batch 4 --patch 48 --output denoising.png",
    ),
    "train_volume_denoiser.py": (
        ["matplotlib", "nilearn", "skimage", "torchmetrics", "tqdm"],
        "--steps 30 --batch 1 --patch 24 --output volume.png",
    ),
    "score_pictures.py": (["av", "matplotlib", "PIL", "skimage", "tqdm"], "--output scoring"),
}


@pytest.mark.nightly
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_draws_its_result(script: str, tmp_path: Path) -> None:
    """`train_ddp.py` is tested in test_distributed.py."""
    needed, arguments = SCRIPTS[script]
    for module in needed:
        pytest.importorskip(module)
    command = [sys.executable, EXAMPLES / script, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = tmp_path / arguments.split()[-1]
    figures = drawn.glob("*.png") if drawn.is_dir() else [drawn]
    assert [figure.stat().st_size > 10_000 for figure in figures] == [True]


def test_every_script_is_run_by_a_test() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == SCRIPTS.keys() | {"train_ddp.py"}


@pytest.mark.slow
def test_the_notebook_reproduces_its_stored_results(tmp_path: Path) -> None:
    """The notebook runs from top to bottom, and its stored results are those of this version."""
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
    """The text that a cell printed, and the number of images that it drew."""
    outputs = cell.get("outputs", [])
    printed = "".join(output["text"] for output in outputs if output["output_type"] == "stream")
    return printed, sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)
