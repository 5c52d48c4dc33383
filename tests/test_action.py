"""`action.yml` follows GitHub's rules, and bash runs its scripts as a runner would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scoring_files import save

from ssim_fused.scoring.output import FORMATS

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
INSTALL, COMPARE = ACTION["runs"]["steps"]


def test_it_is_a_composite_action() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "branding", "inputs", "outputs", "runs"} == set(ACTION)
    for given in (*ACTION["inputs"].values(), *ACTION["outputs"].values()):
        assert given["description"]
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]  # it would run an input as a command
        named = re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", " ".join(step["env"].values()))
        assert set(named) <= set(ACTION["inputs"])


def test_every_input_is_on_the_page() -> None:
    page = (ROOT / "docs/guides/image_regression.md").read_text()
    for name in (*ACTION["inputs"], *ACTION["outputs"]):
        assert f"`{name}`" in page


def filled(text: str, context: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda match: context[match[1]], text)


def run_action(folder: Path, **inputs: str) -> tuple[int, dict[str, str], str, str]:
    """The exit status, outputs, summary, and what was printed."""
    values = {name: given.get("default", "") for name, given in ACTION["inputs"].items()}
    values |= {name.replace("_", "-"): value for name, value in inputs.items()} | {"package": ""}
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "ssim-fused").write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m ssim_fused "$@"\n')
    (bin_ / "ssim-fused").chmod(0o755)
    output, summary = folder / "output.txt", folder / "summary.md"
    code, printed, outputs = 0, "", {}
    for step in ACTION["runs"]["steps"]:
        context = {f"inputs.{name}": value for name, value in values.items()}
        context |= {f"steps.install.outputs.{name}": value for name, value in outputs.items()}
        env = {name: filled(text, context) for name, text in step["env"].items()}
        env |= {"PATH": f"{bin_}:{os.environ['PATH']}", "RUNNER_TEMP": str(folder), "GITHUB_OUTPUT": str(output)}
        script = folder / "script.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            cwd=folder, env=env | {"GITHUB_STEP_SUMMARY": str(summary)}, capture_output=True, text=True,
        )  # fmt: skip
        code, printed = done.returncode, printed + done.stdout + done.stderr
        outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return code, outputs, summary.read_text(), printed


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder with the images ``base line/a.png`` and ``b.png``, the second of which has changed."""
    for name in ("a", "b"):
        image = np.random.default_rng(0).integers(0, 200, (40, 60, 3)).astype(np.uint8)
        save(tmp_path / f"base line/{name}.png", image)
        image[10:30, 20:40] += 50 if name == "b" else 0
        save(tmp_path / f"new $(touch no)/{name}.png", image)
    return tmp_path


FOLDERS = {"baseline": "base line", "candidate": "new $(touch no)"}
needs_markdown = pytest.mark.skipif("markdown" not in FORMATS, reason="this version has no --format markdown")


@needs_markdown
def test_a_change_fails_the_job_and_is_in_the_summary(folders: Path) -> None:
    code, outputs, summary, printed = run_action(folders, **FOLDERS, title="Pages")
    assert code == 1
    assert outputs["outcome"] == "below"
    assert (folders / outputs["report"]).is_file()
    assert summary.startswith("## Pages\n")
    assert "b.png" in summary
    assert "b.png" in printed
    assert not (folders / "no").exists()


@needs_markdown
def test_options_reach_the_command(folders: Path) -> None:
    code, outputs, _, _ = run_action(
        folders, **FOLDERS, ignore="\n20,10,20,20\n", report="", arguments="--luma=bt601\n--crop\n2\n", fail_under="1"
    )
    assert (code, outputs) == (0, {"command": "ssim-fused", "outcome": "passed"})


@needs_markdown
def test_a_missing_image_fails_the_job_and_is_in_the_summary(folders: Path) -> None:
    (folders / "new $(touch no)/a.png").unlink()
    code, outputs, summary, _ = run_action(folders, **FOLDERS, ignore="20,10,20,20")
    assert code == 2
    assert outputs["outcome"] == "failed"
    assert "no file with this name" in summary


def test_an_invalid_call_is_in_the_summary(folders: Path) -> None:
    code, outputs, summary, _ = run_action(folders, **FOLDERS, ignore="1,2,3")
    assert code == 2
    assert outputs["outcome"] == "failed"
    assert "--ignore" in summary or "--format" in summary
