"""The choices of setup.py on other systems than this one: flags, names, quoting, and the GPUs of ROCm."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from scripts.toolchain import find_hip, lanes_of, link_folder, system_of
from ssim_fused._core import _ops

ROOT = Path(__file__).parent.parent
PLATFORMS = ("linux", "darwin", "win32", "freebsd14")


def words_on_windows(line: str) -> list[str]:
    """Splits a command line like Microsoft's C runtime, for which backslashes escape only before quotes."""
    words, word, is_quoted, is_word, i = [], "", False, False, 0
    while i < len(line):
        backslashes = len(line[i:]) - len(line[i:].lstrip("\\"))
        if backslashes and line[i + backslashes : i + backslashes + 1] == '"':
            word, i, is_word = word + "\\" * (backslashes // 2), i + backslashes, True
            if backslashes % 2:
                word, i = word + '"', i + 1
            continue
        if line[i] == '"':
            is_quoted, is_word = not is_quoted, True
        elif line[i] in " \t" and not is_quoted:
            words, word, is_word = words + [word] * is_word, "", False
        else:
            word, is_word = word + line[i], True
        i += 1
    return words + [word] * is_word


@pytest.mark.parametrize("word", ['-DNAME="13.0 for 9.0+PTX"', "-LC:/Program Files/Python311/libs", "-O3", 'a\\"b c\\'])
def test_words_survive_the_quoting_of_each_system(word: str) -> None:
    assert words_on_windows(f"{system_of('win32').quote(word)} x") == [word, "x"]
    shell = subprocess.run(
        ["sh", "-c", f"printf %s {system_of('linux').quote(word)}"], capture_output=True, text=True, check=True
    )
    assert shell.stdout == word


def test_each_system_has_its_flags_and_names() -> None:
    linux, mac, windows, bsd = map(system_of, PLATFORMS)
    assert linux == bsd  # and all other systems with ELF linkers
    assert "-fPIC" in linux.compile_flags
    assert "-fPIC" in mac.compile_flags
    assert "-fPIC" not in windows.compile_flags, "Clang refuses it for Windows"
    assert "-Wl," not in mac.link_flags + windows.link_flags, "these are words of GNU's linker"
    assert mac.link_flags == "-undefined dynamic_lookup"
    # Only both flags together select the C runtime that torch uses.
    assert "-fms-runtime-lib=dll" in windows.compile_flags
    assert "-nodefaultlib:libcmt" in windows.link_flags
    assert [system_of(platform).library_suffix for platform in PLATFORMS] == [".so", ".so", ".dll", ".so"]


def test_a_module_finds_the_library_of_python_on_windows_alone() -> None:
    assert system_of("win32").python_libraries("C:/Program Files/Python311") == '"-LC:/Program Files/Python311/libs"'
    assert system_of("linux").python_libraries("/usr") == system_of("darwin").python_libraries("/usr") == ""


def test_a_compiler_is_a_path_or_words(tmp_path: Path) -> None:
    program = tmp_path / "Program Files" / "clang-cl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for platform in PLATFORMS:
        assert system_of(platform).command(str(program)) == [str(program)]
    assert system_of("linux").command("ccache g++ -m64") == ["ccache", "g++", "-m64"]
    assert system_of("win32").command("C:\\LLVM\\clang-cl.exe -m64") == ["C:\\LLVM\\clang-cl.exe", "-m64"]


def test_the_package_loads_the_names_that_the_build_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in PLATFORMS:
        monkeypatch.setattr(sys, "platform", platform)
        assert _ops._library("operators").name.endswith(system_of(platform).library_suffix)


def test_a_folder_is_linked_again(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        link_folder(tmp_path / "link", tmp_path / name, system_of("linux"))
        assert (tmp_path / "link").resolve() == tmp_path / name


def test_windows_links_by_a_junction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A junction is removed like a folder, so a folder stands in for it here."""
    made: list[tuple[str, str]] = []

    def create(target: str, link: str) -> None:
        os.mkdir(link)  # fails if the previous one was not removed
        made.append((target, link))

    module: Any = ModuleType("_winapi")
    module.CreateJunction = create
    monkeypatch.setitem(sys.modules, "_winapi", module)
    for name in ("one", "other"):
        link_folder(tmp_path / "link", tmp_path / name, system_of("win32"))
    assert made == [(str(tmp_path / name), str(tmp_path / "link")) for name in ("one", "other")]


def test_wavefronts_of_one_size() -> None:
    assert lanes_of(["gfx90a", "gfx942"]) == 64
    assert lanes_of(["gfx1030", "gfx1100", "gfx1201"]) == 32
    for mixed in (["gfx90a", "gfx1100"], []):
        with pytest.raises(ValueError, match="wavefronts have the same size"):
            lanes_of(mixed)


@pytest.fixture
def rocm(tmp_path: Path) -> dict[str, str]:
    """An environment with a HIP compiler."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/hipcc").touch()
    return {"ROCM_HOME": str(tmp_path), "SSIM_FUSED_CUDA": "1"}


def torch_of_rocm(*gpus: str) -> Any:
    """A stand-in for a torch of ROCm to which these GPUs are visible."""
    cuda = SimpleNamespace(
        is_available=lambda: bool(gpus),
        device_count=lambda: len(gpus),
        get_device_properties=lambda number: SimpleNamespace(gcnArchName=gpus[number]),
    )
    return SimpleNamespace(__version__="2.13.0+rocm6.4", version=SimpleNamespace(hip="6.4.0", cuda=None), cuda=cuda)


def test_hip_is_compiled_on_request_alone(rocm: dict[str, str]) -> None:
    for wish in ("", "0"):
        hip, reason = find_hip(torch_of_rocm("gfx90a"), rocm | {"SSIM_FUSED_CUDA": wish})
        assert hip is None
        assert "experimental" in reason


def test_hip_compiles_for_the_gpus_that_are_named_or_visible(rocm: dict[str, str]) -> None:
    seen, _ = find_hip(torch_of_rocm("gfx90a:sramecc+:xnack-", "gfx90a:sramecc+:xnack-", "gfx942"), rocm)
    named, _ = find_hip(torch_of_rocm("gfx90a"), rocm | {"PYTORCH_ROCM_ARCH": "gfx1100;gfx1101"})
    assert seen is not None
    assert named is not None
    assert (seen.architectures, seen.lanes) == (("gfx90a", "gfx942"), 64)
    assert (named.architectures, named.lanes) == (("gfx1100", "gfx1101"), 32)
    assert "--offload-arch=gfx90a --offload-arch=gfx942" in seen.compile_flags("")
    assert "-DSSIM_FUSED_WARP_SIZE=32" in named.compile_flags("")
    assert "-DNDEBUG" in named.compile_flags("-DNDEBUG")
    assert seen.compiler == Path(rocm["ROCM_HOME"]) / "bin/hipcc"


def test_what_hip_lacks_is_named(rocm: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="no AMD GPU is visible: set PYTORCH_ROCM_ARCH"):
        find_hip(torch_of_rocm(), rocm)
    with pytest.raises(ValueError, match="PYTORCH_ROCM_ARCH is 'gfx90a;gfx1100', expected GPUs"):
        find_hip(torch_of_rocm(), rocm | {"PYTORCH_ROCM_ARCH": "gfx90a gfx1100"})
    if not Path("/opt/rocm/bin/hipcc").exists():
        with pytest.raises(ValueError, match="hipcc was not found in ROCM_HOME"):
            find_hip(torch_of_rocm("gfx90a"), {"SSIM_FUSED_CUDA": "1"})


def test_kernels_fit_the_torch_that_they_were_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch for ROCm calls its devices "cuda" too, but a library loads only with the torch that it was built for."""
    for cuda, hip, fits in (
        ("13.0", None, (True, False)),
        (None, "6.4.0", (False, True)),
        (None, None, (False, False)),
    ):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        assert (_ops._fits_torch("13.0 for 9.0+PTX"), _ops._fits_torch("ROCm 6.4.0 for gfx90a")) == fits
        assert not _ops._fits_torch("")


@pytest.fixture
def graph_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The ninja file that setup.py writes on a system; nothing is compiled."""
    (tmp_path / "csrc").symlink_to(ROOT / "csrc")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--name"])
    script = runpy.run_path(str(ROOT / "setup.py"))

    def graph(platform: str) -> str:
        compiler = tmp_path / "c++ of this system"
        if not compiler.exists():
            compiler.symlink_to(shutil.which("c++") or "/usr/bin/false")
        monkeypatch.setenv("CXX", str(compiler))
        names = script["build"].__globals__
        monkeypatch.setitem(names, "SYSTEM", system_of(platform))
        monkeypatch.setitem(names, "ROOT", tmp_path)
        monkeypatch.setitem(names, "link_folder", lambda link, target, _: link_folder(link, target, system_of("linux")))
        ninja = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", lambda words, **more: ninja([*words, "-n"], **more))
        libraries = script["build"]()
        monkeypatch.setattr(subprocess, "Popen", ninja)
        assert [path.suffix for path in libraries[1:]] == [system_of(platform).library_suffix] * len(libraries[1:])
        return (libraries[0].parent / "build.ninja").read_text()

    return graph


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_graph_of_each_system(
    graph_of: Callable[[str], str], platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSIM_FUSED_CUDA", "0")
    graph, system = graph_of(platform), system_of(platform)
    for flags in (system.compile_flags, system.link_flags, system.module_flags):
        assert flags in graph
    assert ("/libs" in graph) == (platform == "win32")
    assert ("-Wl,--as-needed" in graph) == (platform in ("linux", "freebsd14"))
    assert "_cuda_" not in graph
    quoted = '"-DSSIM_FUSED_CUDA_BUILD=\\"\\""' if platform == "win32" else "'-DSSIM_FUSED_CUDA_BUILD=\"\"'"
    assert quoted.replace('"-D', "-D").removesuffix('"') in graph


def test_the_graph_of_rocm(
    graph_of: Callable[[str], str], rocm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (rocm | {"PYTORCH_ROCM_ARCH": "gfx90a;gfx942"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.version, "hip", "6.4.0")
    graph = graph_of("linux")
    hipcc = Path(rocm["ROCM_HOME"]) / "bin/hipcc"
    assert re.search(rf"command = {hipcc} -x hip .*-DSSIM_FUSED_WARP_SIZE=64 .*--offload-arch=gfx942 ", graph)
    assert len(re.findall(r"^build cuda/\w+\.cu\.o: gpu ", graph, re.MULTILINE)) == len(
        list(ROOT.glob("csrc/cuda/*.cu"))
    )
    assert re.search(r"build _cuda_\w+\.so: link .*\n  libraries = -ltorch_hip .*-lamdhip64\n", graph)
    assert "ROCm 6.4.0 for gfx90a;gfx942" in graph


def test_windows_has_no_cuda_yet(graph_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSIM_FUSED_CUDA", "1")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(SystemExit, match="asks for CUDA, but its kernels are not compiled on Windows yet"):
        graph_of("win32")
