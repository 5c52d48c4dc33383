"""The build's messages, its choice of CUDA, the module `_C` of each Python, and the wheels of a release."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import pty
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssim_fused import _C, SSIMLoss, ms_ssim

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import make_wheels  # noqa: E402

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
# Loads a module `_C` by its path, calls it from eight threads, and prints whether the GIL is enabled.
CALL_FROM_THREADS = """
import importlib.util, sys
from concurrent.futures import ThreadPoolExecutor
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

def answers(number):
    shape = (number % 7 + 1, 64 + number, 1920)
    plan = module.plan(shape, gradient=True, sms=132, shared_bytes=228 * 1024, max_threads=2048)
    return module.build_info(), plan

expected = [answers(number) for number in range(50)]
with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(answers, list(range(50)) * 20)) == expected * 20
print(getattr(sys, "_is_gil_enabled", lambda: True)())
"""


@pytest.fixture
def setup_script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The functions of setup.py, loaded by a run that only prints the package's name."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--name"])
    return runpy.run_path(str(ROOT / "setup.py"))


def fake_nvcc(home: Path, release: str) -> Path:
    """Makes a toolkit folder whose nvcc reports this release; returns the folder."""
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    answer = f"Cuda compilation tools, release {release}, V{release}.1"
    nvcc.write_text(
        f'#!/bin/sh\ncase "$1" in\n--version) echo "{answer}" ;;\n*) echo "#$ _HERE_={nvcc.parent}" ;;\nesac\n'
    )
    nvcc.chmod(0o755)
    return home


def torch_of(cuda: str | None) -> SimpleNamespace:
    return SimpleNamespace(__version__="2.14.1", version=SimpleNamespace(cuda=cuda))


@pytest.mark.parametrize("by_front_end", [True, False], ids=["by pip", "directly"])
def test_captured_messages_reach_the_terminal(by_front_end: bool) -> None:
    """Pip of any version captures a build's output; a direct run of setup.py into a pipe stays in the pipe."""
    main, terminal = pty.openpty()
    program = f"""
        import fcntl, runpy, sys, termios
        fcntl.ioctl({terminal}, termios.TIOCSCTTY, 0)
        {"import setuptools.build_meta" if by_front_end else ""}
        sys.argv = ["setup.py", "--name"]
        runpy.run_path("setup.py")["say"]("[3/7] march.cpp")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        pass_fds=[terminal],
        start_new_session=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert b"[3/7] march.cpp" in ran.stdout
    os.set_blocking(main, False)
    try:
        shown = os.read(main, 4096)
    except BlockingIOError:
        shown = b""
    os.close(main)
    os.close(terminal)
    assert (b"[3/7] march.cpp" in shown) == by_front_end


@pytest.mark.parametrize(
    ("wish", "torch_cuda", "release", "state", "reason"),
    [
        ("0", "13.0", "13.0", "left out", "SSIM_FUSED_CUDA=0"),
        ("", None, "13.0", "torch has none", r"torch 2\.14\.1 is a build without CUDA"),
        ("", "13.0", None, "no nvcc", "nvcc was not found"),
        ("", "13.0", "12.8", "nvcc disagrees", r"bin/nvcc is of CUDA 12, torch of CUDA 13\.0"),
        ("", "13.0", "13.1", "built", "agree on CUDA 13"),
    ],
)
def test_the_choice_of_cuda(
    wish: str,
    torch_cuda: str | None,
    release: str | None,
    state: str,
    reason: str,
    setup_script: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSIM_FUSED_CUDA", wish)
    monkeypatch.setenv("CUDA_HOME", str(fake_nvcc(tmp_path, release) if release else tmp_path / "nothing"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    home, found, why = setup_script["find_cuda"](torch_of(torch_cuda))
    assert found == state
    assert re.search(reason, why)
    assert home == (tmp_path if state == "built" else None)
    if wish != "0" and state != "built":
        monkeypatch.setenv("SSIM_FUSED_CUDA", "1")
        with pytest.raises(SystemExit, match=f"SSIM_FUSED_CUDA=1 asks for CUDA, but .*{reason}"):
            setup_script["find_cuda"](torch_of(torch_cuda))


def test_the_build_says_at_once_what_it_does(setup_script: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    announce = setup_script["announce"]
    capsys.readouterr()
    announce(
        torch_of("13.0"), "13.0 for 7.5;9.0+PTX", "all, since no GPU is visible", "built", "", 14, "about 6 min", 4
    )
    line = capsys.readouterr().out
    for words in (
        "the CPU and CUDA 13.0 for 7.5;9.0+PTX (all, since no GPU is visible)",
        "about 6 min for 14 steps, 4 at",
    ):
        assert words in line
    for variable in ("TORCH_CUDA_ARCH_LIST", "SSIM_FUSED_CUDA=0", "MAX_JOBS"):
        assert variable in line
    assert line.count("\n") == 1
    announce(torch_of("13.0"), "", "", "nvcc disagrees", "nvcc is of CUDA 12", 0, "", 4)
    warning, line = capsys.readouterr().out.splitlines()
    assert "WARNING: building without CUDA, although torch 2.14.1 has it: nvcc is of CUDA 12" in warning
    assert "set CUDA_HOME to a toolkit of CUDA 13" in warning
    assert "the CPU alone (nvcc is of CUDA 12)" in line
    assert "everything is compiled already" in line


@pytest.mark.parametrize(
    ("steps", "jobs", "count", "duration"),
    [
        ([], 2, 0, "less than a minute"),
        (["march_float.cpp", "schema.cpp", "_operators.so"], 2, 3, "less than a minute"),
        (["images.cu", "volumes.cu", "wide.cu"], 2, 3, "about 10 min"),  # (113 + 75 + 13) s x 6 / 2
        (["images.cu", "volumes.cu", "wide.cu"], 64, 3, "about 6 min"),  # images.cu, two architectures at a time
    ],
)
def test_the_duration_is_that_of_what_is_left(
    steps: list[str], jobs: int, count: int, duration: str, setup_script: dict[str, Any], tmp_path: Path
) -> None:
    ninja = tmp_path / "ninja"
    lines = "\n".join(f"[{i + 1}/{len(steps)}] {step}" for i, step in enumerate(steps)) or "ninja: no work to do."
    ninja.write_text(f"#!/bin/sh\ncat <<END\n{lines}\nEND\n")
    ninja.chmod(0o755)
    assert setup_script["what_it_takes"](str(ninja), tmp_path, str(jobs), 6) == (count, duration)


def test_an_old_setuptools_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the error, it would install a package called UNKNOWN."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--name"])
    monkeypatch.setattr("setuptools.__version__", "59.6.0")
    with pytest.raises(SystemExit, match=r"setuptools 59\.6\.0 cannot read pyproject\.toml"):
        runpy.run_path(str(ROOT / "setup.py"))


def test_further_pythons_have_to_be_pythons(setup_script: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pythons = setup_script["pythons"]
    monkeypatch.setenv("SSIM_FUSED_PYTHONS", sys.executable)
    assert pythons() == {SUFFIX: sysconfig.get_path("include")}
    monkeypatch.setenv("SSIM_FUSED_PYTHONS", os.pathsep.join([sys.executable, "/no/python"]))
    with pytest.raises(SystemExit, match="SSIM_FUSED_PYTHONS: '/no/python' is not a Python with headers"):
        pythons()


IMPORT_AS_BUILT = """
import importlib.util, sys, types, warnings
import torch
path, state, gpus = sys.argv[1:]
spec = importlib.util.spec_from_file_location("_C", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
info = module.build_info() | {"cuda": "", "why_no_cuda": "of a reason"}
built = types.ModuleType("ssim_fused._C")
built.__dict__.update(__file__=path, build_id=module.build_id, cuda_state=state, build_info=lambda: info)
sys.modules["ssim_fused._C"] = built
torch.version.cuda, torch.cuda.device_count = "13.0", lambda: int(gpus)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import ssim_fused
print(*(f"{w.filename}: {w.message}" for w in caught if "ssim_fused" in str(w.message)), sep="\\n")
"""


@pytest.mark.parametrize(
    ("state", "gpus", "warns"),
    [
        ("nvcc disagrees", 0, True),
        ("no nvcc", 0, False),
        ("no nvcc", 1, True),
        ("torch has none", 1, True),
        ("left out", 1, False),
    ],
)
def test_a_build_that_lost_cuda_says_so_at_import(state: str, gpus: int, warns: bool) -> None:
    command = [sys.executable, "-c", IMPORT_AS_BUILT, _C.__file__, state, str(gpus)]
    environment = os.environ | {"PYTHONPATH": str(Path(_C.__file__).parents[1])}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    assert bool(shown) == warns
    if warns:
        assert shown.startswith("<string>: ssim_fused was built without CUDA")  # where the user imports it
        assert "of a reason. To build it for them, set CUDA_HOME" in shown
        assert len(shown.splitlines()) == 1


def test_the_module_is_small_and_of_this_python() -> None:
    path = Path(_C.__file__)
    assert path.name == f"_C{SUFFIX}"
    assert path.stat().st_size < 300_000
    assert _C.cuda_state in ("built", "left out", "torch has none", "no nvcc", "nvcc disagrees")
    assert bool(_C.build_info()["cuda"]) == (_C.cuda_state == "built") == (not _C.build_info()["why_no_cuda"])


def call_from_threads(python: str, module: Path) -> bool:
    """Whether the GIL is enabled after threads have called the module."""
    command = [python, "-W", "error", "-c", CALL_FROM_THREADS, str(module)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_threads_may_call_the_module() -> None:
    """In a free-threaded Python, the module does not enable the GIL."""
    assert call_from_threads(sys.executable, Path(_C.__file__)) != bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def test_threads_compute_what_one_thread_computes() -> None:
    """Prepared specs, caches and the libraries' tables are shared by threads, also without the GIL."""

    def compute(number: int) -> list[float]:
        generator = torch.Generator().manual_seed(number % 13)
        target = torch.rand(1 + number % 2, 3, 40 + number % 13, 50, generator=generator)
        preds = (0.9 * target).requires_grad_()
        loss = SSIMLoss(data_range=1.0 + number % 29 / 7)(preds, target)
        loss = loss + ms_ssim(preds, target, data_range=1.0, betas=(0.5, 0.5))
        (gradient,) = torch.autograd.grad(loss, preds)
        return [loss.item(), gradient.sum().item(), gradient.abs().sum().item()]

    numbers = list(range(60))
    expected = [compute(number) for number in numbers]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(compute, numbers * 5)) == expected * 5


BUILD = """
import runpy, sys, torch
torch.version.cuda, sys.argv = "13.0", ["setup.py", "build_ext", "--build-lib", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


@pytest.mark.nightly
def test_a_build_with_another_nvcc_and_for_other_pythons(tmp_path: Path) -> None:
    """Builds a copy of the sources and compiled objects, with an nvcc whose version differs from torch's."""
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, tmp_path)
    junk = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in (ROOT / "csrc", ROOT / "ssim_fused", *(ROOT / "build").glob("torch-*")):
        shutil.copytree(folder, tmp_path / folder.relative_to(ROOT), symlinks=True, ignore=junk)
    found = make_wheels.find_pythons()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = {key: python for key, python in found.items() if not key.startswith(version)}
    environment = os.environ | {
        "SSIM_FUSED_CUDA": "",
        "SSIM_FUSED_PYTHONS": os.pathsep.join(others.values()),
        "CUDA_HOME": str(fake_nvcc(tmp_path / "cuda", "12.8")),
    }
    command = [sys.executable, "-c", BUILD, "lib"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "WARNING: building without CUDA" in ran.stdout
    modules = {path.name: path for path in (tmp_path / "lib/ssim_fused").glob("_C.*")}
    assert len(modules) == 1 + len(others)
    for key, python in {version: sys.executable, **others}.items():
        (module,) = (path for name, path in modules.items() if f"-{key.replace('.', '')}-" in name)
        assert call_from_threads(python, module) != key.endswith("t")
    shutil.copytree(tmp_path / "ssim_fused", tmp_path / "lib/ssim_fused", dirs_exist_ok=True)
    program = (
        "import torch; torch.version.cuda = '13.0'; import ssim_fused; print(ssim_fused.build_info()['why_no_cuda'])"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path / "lib", env=os.environ, capture_output=True, text=True, check=True)
    assert "nvcc is of CUDA 12, torch of CUDA 13.0" in ran.stdout
    assert "ssim_fused was built without CUDA" in ran.stderr


MODULES = ("cpython-310", "cpython-314", "cpython-314t")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with the modules of three Pythons."""
    path = tmp_path / "ssim_fused-0.2.0-cp310-cp310-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ssim_fused/__init__.py", "")
        archive.writestr("ssim_fused/_operators_0123456789ab.so", b"operators" * 1000)
        for name in MODULES:
            archive.writestr(f"ssim_fused/_C.{name}-x86_64-linux-gnu.so", name.encode())
        archive.writestr("ssim_fused-0.2.0.dist-info/METADATA", "Name: ssim_fused\n")
        text = "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n\n"
        archive.writestr("ssim_fused-0.2.0.dist-info/WHEEL", text)
        archive.writestr("ssim_fused-0.2.0.dist-info/RECORD", "ssim_fused/__init__.py,,\n")
    return path


def test_a_wheel_is_split_by_python(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    made = make_wheels.split(wheel, tmp_path / "dist")
    tags = [path.name.split("-", 2)[2].split("-manylinux")[0] for path in made]
    assert sorted(tags) == ["cp310-cp310", "cp314-cp314", "cp314-cp314t"]
    for path, tag in zip(made, tags, strict=True):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            modules = [name for name in names if "_C." in name]
            assert len(modules) == 1
            content = archive.read(modules[0]).decode()
            assert content.replace("cpython-", "cp") == tag.split("-")[1]
            rows = list(csv.reader(archive.read("ssim_fused-0.2.0.dist-info/RECORD").decode().splitlines()))
            assert sorted(row[0] for row in rows) == sorted(names)
            for name, digest, size in rows[:-1]:
                data = archive.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={expected}", str(len(data)))
            assert rows[-1] == ["ssim_fused-0.2.0.dist-info/RECORD", "", ""]
            lines = archive.read("ssim_fused-0.2.0.dist-info/WHEEL").decode().splitlines()
            found = [line.removeprefix("Tag: ") for line in lines if line.startswith("Tag: ")]
            assert found == [f"{tag}-manylinux_2_24_x86_64", f"{tag}-manylinux_2_28_x86_64"]
    text = make_wheels.table(made, "Built with torch 2.13.0")
    assert "| `_operators_ID.so` | 0.01 MB |" in text
    assert "wheels cp310, cp314, cp314t |" in text


def test_pythons_are_found_by_asking_them(tmp_path: Path) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    version += "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    assert make_wheels.version_of(sys.executable) == version
    assert make_wheels.find_pythons()[version] == sys.executable
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3.12").chmod(0o755)
    assert make_wheels.version_of(str(tmp_path / "python3.12")) is None
    assert make_wheels.version_of(str(tmp_path / "absent")) is None


def test_the_page_has_marks_for_the_sizes() -> None:
    page = make_wheels.PAGE.read_text()
    for name in ("wheels-cpu", "wheels-cuda"):
        assert page.count(f"<!-- {name}:begin -->\n") == page.count(f"<!-- {name}:end -->") == 1
