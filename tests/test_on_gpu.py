"""scripts/on_gpu.py and gpu_bundle.py, without a GPU: a dry run of all parts, limits, and which cases are selected."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_cuda_kinds import KINDS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import gpu_bundle  # noqa: E402
import gpu_cases  # noqa: E402
import on_gpu  # noqa: E402


def run_of(tmp_path: Path, seconds: float) -> on_gpu.Run:
    options = on_gpu.Options(tmp_path, None, dry=True)
    return on_gpu.Run(options, on_gpu.Log(tmp_path / "part.log"), time.monotonic() + seconds)


def test_a_dry_run_of_all_parts(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts/on_gpu.py"), "--dry-run", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = (tmp_path / "summary.txt").read_text()
    assert ran.returncode == 0, summary + ran.stderr
    lines = [line.split() for line in summary.splitlines()[1:]]
    assert [(line[0], line[1]) for line in lines] == [("ok", name) for name in on_gpu.PARTS]
    assert all((tmp_path / f"{name}.log").stat().st_size > 0 for name in on_gpu.PARTS)
    assert "5 passed" in summary
    assert "4 passed" in summary
    assert "times as fast" in (tmp_path / "times.log").read_text()
    assert "ssim_fused" in (tmp_path / "cpu.csv").read_text()


def test_what_is_cut_off_leaves_its_log_and_no_process(tmp_path: Path) -> None:
    run = run_of(tmp_path, 3)
    program = "import os, subprocess, time; p = subprocess.Popen(['sleep', '60']); print('child', p.pid, flush=True); "
    program += "time.sleep(60)"
    begin = time.monotonic()
    assert not run.command("slow", sys.executable, "-c", program)
    assert time.monotonic() - begin < 30
    log = (tmp_path / "part.log").read_text()
    assert "slow: cut off" in log
    child = int(log.partition("slow: child ")[2].split()[0])
    for _ in range(100):
        status = Path(f"/proc/{child}/stat")
        if not status.exists() or status.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child of a command that was cut off still runs")
    assert not run.log.failures


def test_a_failure_is_told_and_the_next_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(run: on_gpu.Run) -> None:
        raise RuntimeError("no such part")

    def fails(run: on_gpu.Run) -> None:
        run.command("bad", sys.executable, "-c", "raise SystemExit(7)")

    def passes(run: on_gpu.Run) -> None:
        run.command("good", sys.executable, "-c", "print('tests/test_x.py::test_y PASSED [100%]')")

    parts = {"breaks": (breaks, 9), "fails": (fails, 9), "passes": (passes, 9)}
    monkeypatch.setattr(on_gpu, "PARTS", parts)
    assert on_gpu.main(["--dry-run", str(tmp_path)]) == 1
    lines = (tmp_path / "summary.txt").read_text().splitlines()[1:]
    assert [line.split()[:2] for line in lines] == [["FAILED", "breaks"], ["FAILED", "fails"], ["ok", "passes"]]
    assert "no such part" in lines[0]
    assert "bad (exit status 7)" in lines[1]
    assert "1 passed" in lines[2]


def collected(*arguments: str) -> list[str]:
    """What the runner's selection takes on the CPU, which has the same cases as a GPU."""
    options = on_gpu.Options(Path(), None, dry=True)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "gpu_cases", "--on", "cpu", *arguments]
    ran = subprocess.run(command, cwd=ROOT, env=options.environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    return [line for line in ran.stdout.splitlines() if line.startswith("tests/")]


def test_the_sanitizers_see_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that a sanitizer runs, collected."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(on_gpu.shutil, "which", lambda name: f"/usr/bin/{name}")

    def note(self: on_gpu.Run, label: str, *command: str, **other: Any) -> bool:
        asked.append(command)
        return True

    monkeypatch.setattr(on_gpu.Run, "command", note)
    run = on_gpu.Run(on_gpu.Options(tmp_path, None, dry=False), on_gpu.Log(tmp_path / "log"), time.monotonic() + 9)
    on_gpu.sanitizers(run)
    assert {command[2] for command in asked} == {"memcheck", "racecheck"}
    for command in asked:
        arguments = list(command[command.index("--on") + 2 :])
        assert command[command.index("--on") + 1] == "cuda"
        assert collected(*arguments) == [f"tests/test_cuda_kinds.py::test_results[cpu-{name}]" for name in KINDS]


def test_every_file_of_the_correctness_has_cases() -> None:
    """Its share, or all that it has."""
    shares = on_gpu.shares(on_gpu.gpu_files())
    assert 0.9 * on_gpu.CASES <= sum(shares.values()) <= on_gpu.CASES
    most = max(shares.values())
    cases = collected("--most", str(most), *(f"tests/{name}" for name in shares))
    counts = {name: sum(case.startswith(f"tests/{name}::") for case in cases) for name in shares}
    assert min(counts.values()) > 0, counts
    kinds = [case for case in cases if "test_cuda_kinds.py" in case]
    assert {case.partition("[cpu-")[2] for case in kinds} >= {f"{name}]" for name in KINDS}


def test_files_with_tests_of_a_device_are_found(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.fixture\ndef image(device: str): ...\ndef test_image(image): ...\n"
    (tmp_path / "test_by_fixture.py").write_text(text)
    (tmp_path / "test_directly.py").write_text("def test_image(device: str): ...\n")
    (tmp_path / "test_helper.py").write_text("def helper(device: str): ...\ndef test_image(): ...\n")
    text = "import pytest\n@pytest.mark.parametrize('device', ['a'])\ndef test_image(device: str): ...\n"
    (tmp_path / "test_own_values.py").write_text(text)
    found = {path.name for path in tmp_path.glob("*.py") if on_gpu.has_tests_of_devices(path)}
    assert found == {"test_by_fixture.py", "test_directly.py"}
    assert {*gpu_cases.ONLY_ON_A_GPU, "test_masks.py", "test_simt.py"} <= set(on_gpu.gpu_files())


@pytest.mark.parametrize(("count", "most"), [(1, 1), (10, 3), (10, 10), (97, 40)])
def test_cases_are_spread_evenly(count: int, most: int) -> None:
    chosen = gpu_cases.spread(count, most)
    assert len(chosen) == most
    assert chosen[0] == 0
    assert chosen[-1] < count
    steps = {after - before for before, after in itertools.pairwise(chosen)}
    assert not steps or max(steps) - min(steps) <= 1


def test_selecting_nothing_is_an_error() -> None:
    options = on_gpu.Options(Path(), None, dry=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu_cases", "--on", "tpu", "tests/test_cuda_kinds.py"]
    assert subprocess.run(command, cwd=ROOT, env=options.environment, capture_output=True, check=False).returncode == 5


def test_a_bundle_for_one_python_or_too_large_is_refused(tmp_path: Path) -> None:
    from ssim_fused import _C

    libraries = list(Path(_C.__file__).parent.glob("*.so"))
    for library in libraries:
        (tmp_path / library.name).write_bytes(library.read_bytes())
    found = gpu_bundle.faults(tmp_path)
    assert len(found) == 1
    assert "_C.cpython-" in found[0]
    gpu_bundle.write_module_of_any_python(tmp_path)
    assert gpu_bundle.faults(tmp_path) == []
    (tmp_path / "_x.cpython-311-x86_64-linux-gnu.so").write_bytes(b"")
    (tmp_path / "_python.so").write_bytes(Path(_C.__file__).read_bytes())
    (tmp_path / "module.pyc").write_bytes(b"")
    found = "\n".join(gpu_bundle.faults(tmp_path, limit_mib=0.1))
    for fault in (
        "_x.cpython-311-x86_64-linux-gnu.so is for one",
        "_python.so uses",
        "module.pyc is",
        "expected at most",
    ):
        assert fault in found
    assert len(found.splitlines()) == 4


def test_a_python_without_a_compiled_module_learns_the_same(tmp_path: Path) -> None:
    from ssim_fused import _C

    (tmp_path / Path(_C.__file__).name).write_bytes(Path(_C.__file__).read_bytes())
    gpu_bundle.write_module_of_any_python(tmp_path)
    spec = importlib.util.spec_from_file_location("_C_of_any_python", tmp_path / "_C.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (module.build_id, module.cuda_state, module.build_info()) == (_C.build_id, _C.cuda_state, _C.build_info())


def test_files_that_are_the_same_keep_their_times(tmp_path: Path) -> None:
    """So that a second build compiles only what changed; what a commit lacks is removed, what was built stays."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    gpu_bundle.export("HEAD", tmp_path)
    same, changed, gone, built = (tmp_path / name for name in ("setup.py", "Makefile", "gone.h", "build/kept.o"))
    for path in (same, changed):
        os.utime(path, (1, 1))
    built.parent.mkdir()
    for path in (gone, built, changed):
        path.write_text("other")
    gpu_bundle.export("HEAD", tmp_path)
    assert same.stat().st_mtime == 1
    assert changed.read_text() != "other"
    assert (gone.exists(), built.exists()) == (False, True)


def test_the_commit_to_compare_with_is_known() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    commit = gpu_bundle.default_before()
    assert json.dumps(commit)
    assert gpu_bundle.output("git", "rev-parse", "--verify", f"{commit}^{{commit}}")
