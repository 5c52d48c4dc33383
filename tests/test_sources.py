"""Rules of the C++ and CUDA sources that a reader may rely on but no compiler checks."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
DEVICES = {"cuda/kernels/device.cuh", "cuda/kernels/device_hip.cuh"}  # NVIDIA's GPUs and AMD's


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Names and contents of the sources in these folders of csrc, without comments."""
    for folder in folders:
        for path in sorted((CSRC / folder).rglob("*")):
            if path.suffix in {".h", ".cuh", ".cpp", ".cu"}:
                yield str(path.relative_to(CSRC)), re.sub(r"//.*", "", path.read_text())


def places(pattern: str, *folders: str) -> set[str]:
    """Sources in these folders of csrc that match the pattern."""
    return {name for name, text in sources(*folders) if re.search(pattern, text, flags=re.MULTILINE)}


def test_formulas_and_kernels_do_not_include_torch() -> None:
    assert not places(r"#include <torch|\btorch::|\bat::", "math", "cuda/kernels")


def test_formulas_do_not_depend_on_a_device() -> None:
    assert not places(r"#include .*(cpu|cuda)/", "math")


def test_each_kind_of_gpu_has_its_own_code_in_one_file() -> None:
    """Only these files have inline assembly, warp intrinsics and compiler builtins: what a port has to replace."""
    assert places(r"\basm\b", "math", "cuda") == DEVICES
    intrinsics = r"\b__(shfl|syncwarp|ballot|any_sync|all_sync|activemask|ldcg|cvta|threadfence)"
    assert places(intrinsics, "math", "cuda") == DEVICES
    assert places(r"__builtin_amdgcn|__hip_atomic", "math", "cuda") == {"cuda/kernels/device_hip.cuh"}
    assert places(r"__(HIP|GFX)\w*__", "math", "cuda") == DEVICES | {"cuda/launch/runtime.h", "math/host_device.h"}


def test_the_size_of_a_warp_is_in_one_place() -> None:
    """In the GPU sources, only kWarpSize states the number of lanes of a warp or a mask of all of them.

    device_hip.cuh checks it against the GPU that it is compiled for.
    """
    bare = r"(?<![\w.])(32(\.0)?|31|0xf{8})(?![\w.])"
    assert places(bare, "cuda") == DEVICES
    assert [len(re.findall(bare, dict(sources("cuda"))[name])) for name in sorted(DEVICES)] == [1, 1]


def test_pixel_terms_are_chosen_in_one_place() -> None:
    assert places(r"case PixelTerm::", "") == {"math/pixel_term.h"}
    term = dict(sources("math"))["math/pixel_term.h"]
    assert not re.search(r"\bdefault:", term), "a default hides a term that has no case"


def test_the_compiler_warns_of_a_pixel_term_without_a_case(tmp_path: Path) -> None:
    """A term without a formula does not compile."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    shutil.copytree(CSRC / "math", tmp_path / "math")
    header = tmp_path / "math/pixel_term.h"
    program = tmp_path / "program.cpp"
    program.write_text(
        '#include "math/pixel_term.h"\n'
        "float slope(ssim_fused::PixelTerm term, float d) { return ssim_fused::pixel_term(term, d, 1.0f).slope; }\n"
    )
    command = [compiler, "-std=c++20", "-Wall", "-Werror", "-fsyntax-only", str(program)]

    def errors() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert errors() == ""
    text = header.read_text()
    more = re.sub(r"(enum class PixelTerm \{[^}]*) \}", r"\1, huber }", text)
    assert more != text
    header.write_text(more)
    assert re.search(r"-W(error=)?switch", errors())
    case = "    case PixelTerm::huber:\n      return f.template operator()<PixelTerm::huber>();\n"
    header.write_text(more.replace("    case PixelTerm::l1:\n", case + "    case PixelTerm::l1:\n", 1))
    assert "this term has no formula" in errors()


def test_types_of_pixels_are_named_in_one_place() -> None:
    """Explicit instantiations and switches are generated from the lists in math/pixel_types.h."""
    assert not places(r"^(extern )?template .*<(Half|BFloat16|AnyPixel)>", "cuda")
    assert not places(r"case ScalarType::(?!scalar)", "")
