"""CUDA sources compile without a GPU, and kernels fit their registers.

Skipped without nvcc. The nightly run compiles every source for every architecture, and compares the registers and the
spilled bytes of each kernel with benchmarks/results/registers.csv, the source of the tables in
docs/kernel_notebook.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from benchmarks.registers import ARCHITECTURES, SOURCES, Kind, Table, Usage, compile_source, nvcc_release, tables

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def nvcc() -> str:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = shutil.which("nvcc", path=str(Path(home) / "bin") if home else None)
    if found is None:
        pytest.skip("no nvcc in CUDA_HOME or on PATH")
    return found


def compile_cubin(nvcc: str, source: Path, out: Path, architecture: str, *flags: str) -> str:
    command = [nvcc, "-std=c++20", "-O3", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", *flags]
    built = subprocess.run([*command, "-o", str(out), str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return built.stderr


# `allowed`: bytes that a thread may spill. On some architectures ptxas keeps one or two flags of the narrow variants in
# local memory, which are read once per step of several hundred instructions.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "allowed"), [pytest.param("sm_75", 16, marks=pytest.mark.nightly), ("sm_90", 0)]
)
def test_float32_kernels_fit_their_registers(nvcc: str, architecture: str, allowed: int, tmp_path: Path) -> None:
    log = compile_cubin(nvcc, ROOT / "tests/simt/strips.cu", tmp_path / "strips.cubin", architecture)
    pattern = r"(Strip|Depth)ConfigIf(?:Li(\d+)E)?LNS_11GradientsOfE(\d)E[^']*?(?:Li(\d+)E)?EEEEvNS[^']*'"
    pattern += r".*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers"
    kernels = re.findall(pattern, log, flags=re.DOTALL)
    assert len(kernels) == 17 + 5 + 9 + 13 + 4
    for kernel, columns, gradients, radius, stack, spilled, registers in kernels:
        name = (
            f"{kernel}, {columns} columns, gradients of {('nothing', 'preds', 'both')[int(gradients)]}, radius {radius}"
        )
        assert int(spilled) <= allowed, name
        assert int(stack) <= allowed, name
        # The limits of docs/kernels.md, from which the number of warps per SM follows.
        if radius == "3":
            most = 80 if gradients == "0" else 96 if int(columns) <= 128 else 128
        elif radius == "11":
            most = 168 if gradients == "0" else 255
        else:
            most = 168 if gradients == "2" else 96 if gradients == "0" else 128
        assert int(registers) <= most, name


# Kernels for 16-bit pixels, which are loaded one by one if rows are not whole vectors, and for sums of a pixel term.
SOME_KERNELS = """
#include "{root}/csrc/cuda/kernels/pixel_term_sums.cuh"
#include "{root}/csrc/cuda/kernels/strip/march.cuh"
namespace ssim_fused::cuda {{
#define STRIP(Storage, columns, gradients, radius)                                                                 \\
  template __global__ void strip_kernel<StripConfig<Storage, columns, GradientsOf::gradients,                      \\
                                                    Objective::mean_similarity, false, false, Pass::image, false,  \\
                                                    radius>>(const __grid_constant__ StripParams<Storage, radius>);
STRIP(Half, 128, none, kMarchRadius)
STRIP(Half, 128, preds, kMarchRadius)
STRIP(BFloat16, 128, none, kMarchRadius)
STRIP(Half, 128, preds, kShortRadius)
template __global__ void
pixel_term_sums_kernel<float, true>(const __grid_constant__ PixelTermSumParams<float, true>);
template __global__ void
pixel_term_sums_kernel<double, false>(const __grid_constant__ PixelTermSumParams<double, false>);
}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["10.0", "12.0"])
def test_some_kernels_spill_nothing(nvcc: str, architecture: str, tmp_path: Path) -> None:
    source = tmp_path / "some.cu"
    source.write_text(SOME_KERNELS.format(root=ROOT))
    found = compile_source(architecture, source, nvcc)
    assert len(found) == 6
    assert not {kernel: str(usage) for kernel, usage in found.items() if usage.spills}
    assert all(usage.registers <= 64 for kernel, usage in found.items() if kernel.startswith("pixel_term"))


@pytest.mark.nightly
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_and_spilled_bytes_of_every_kernel(nvcc: str, architecture: str, source: str) -> None:
    """The nvcc that made the table gives equal numbers. With another nvcc, kernels that did not spill still do not."""
    table = Table()
    expected, found = table.of(source, architecture), compile_source(architecture, ROOT / "csrc/cuda" / source, nvcc)
    assert found.keys() == expected.keys(), "run `python -m benchmarks.registers`"
    if nvcc_release(nvcc) == table.release:
        differing = {k: f"{expected[k]}, now {usage}" for k, usage in found.items() if usage != expected[k]}
    else:
        differing = {k: str(usage) for k, usage in found.items() if usage.spills and not expected[k].spills}
    assert not differing, f"run `python -m benchmarks.registers` and check the changes: {differing}"


def may_spill(kind: Kind) -> int:
    """Return the limit of the bytes that a thread spills and loads, listed in benchmarks/results/registers.csv."""
    is_general = any(word in kind.name for word in ("general", "any window"))
    if kind.dtype == "float64":
        return 640 if is_general else 0
    if kind.name.startswith("wide"):  # masked, for any window
        return 96
    if is_general:
        return 56
    if kind.dtype == "float32":  # training: images spill nothing, volumes a flag
        return 0 if kind.name.startswith("images") else 16
    return 52 if kind.name.startswith(("images", "slices")) else 0


def test_spilled_bytes_are_bounded() -> None:
    """Bounds the spilled bytes in the file, for every kernel and architecture. A nightly test compares the file."""
    table = Table()
    assert {key[:2] for key in table.usages} == {(source, a) for source in SOURCES for a in ARCHITECTURES}
    too_much = {
        f"{kernel} on {architecture}": str(usage)
        for (_, architecture, kernel), usage in table.usages.items()
        if usage.stores + usage.loads > may_spill(Kind.of(kernel))
    }
    assert not too_much


def test_the_page_has_the_tables_registers() -> None:
    """docs/kernel_notebook.md has the tables that `python -m benchmarks.registers` writes from the file."""
    assert tables(Table()) in (ROOT / "docs/kernel_notebook.md").read_text()


def test_the_architectures_are_those_of_a_wheel() -> None:
    text = (ROOT / "setup.py").read_text()
    default, new = re.search(r'DEFAULT_ARCHITECTURES = "(.*?)\+PTX"', text), re.search(r"NEW_ARCH.* = \((.*)\)", text)
    assert default is not None
    assert new is not None
    assert (*default[1].split(";"), *re.findall(r'"(.*?)"', new[1])) == ARCHITECTURES


def test_usages_are_read_as_they_are_written() -> None:
    for usage in (Usage(128, 0, 0), Usage(255, 16, 36)):
        assert Usage.parse(str(usage)) == usage


def test_a_grid_of_too_many_blocks_is_an_error(tmp_path: Path) -> None:
    """The number of blocks has 64 bits and a grid 31: a larger number must not wrap."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    program = tmp_path / "grid.cpp"
    program.write_text(
        f'#include "{ROOT}/csrc/cuda/launch/grid.h"\n#include <cstdio>\n#include <cstdlib>\n#include <exception>\n'
        "int main(int, char** argv) {\n"
        '  try { std::printf("%u", ssim_fused::cuda::grid_of(std::atoll(argv[1]))); }\n'
        '  catch (const std::exception& error) { std::printf("%s", error.what()); }\n}\n'
    )
    command = [
        compiler,
        "-std=c++20",
        "-DTORCH_TARGET_VERSION=0x020a000000000000",
        *(f"-I{p}" for p in include_paths()),
    ]
    subprocess.run([*command, str(program), "-o", str(tmp_path / "grid")], check=True)

    def grid_of(blocks: int) -> str:
        return subprocess.run([tmp_path / "grid", str(blocks)], capture_output=True, text=True, check=True).stdout

    for blocks in (1, 4096, 2**31 - 1):
        assert grid_of(blocks) == str(blocks)
    for blocks in (0, 2**31, 2**32, 2**32 + 1):
        assert f"the images need {blocks} blocks of threads in one launch, expected 1 to 2147483647" in grid_of(blocks)
    launcher = (ROOT / "csrc/cuda/launch/launcher.cuh").read_text()
    assert "<<<grid_of(blocks)," in launcher


@pytest.mark.slow
@pytest.mark.parametrize("source", ["device.cu", "images.cu", "volumes.cu", "wide.cu", "masked.cu", "pyramid.cu"])
def test_the_operators_compile(nvcc: str, source: str, tmp_path: Path) -> None:
    """Compile each source for one architecture, without optimization, to find errors."""
    include = Path(torch.__file__).parent / "include"
    flags = ["-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", f"-I{include}"]
    flags += [f"-I{include}/torch/csrc/api/include"]
    command = [nvcc, "-std=c++20", "-arch=sm_90", "--ptx", "-Xcicc", "-O0", *flags]
    command += ["-o", str(tmp_path / "out.ptx"), str(ROOT / "csrc/cuda" / source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
