"""What was built: its report of itself, and that it asks nothing of libtorch beyond the stable ABI."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

import ssim_fused
from ssim_fused import _C, functional

ROOT = Path(__file__).parent.parent


def test_build_info_names_what_was_compiled() -> None:
    info = ssim_fused.build_info()
    assert set(info) == {"torch", "compiler", "instruction_set", "best_instruction_set", "cuda", "why_no_cuda"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["torch"])
    assert info["compiler"]


def test_only_the_stable_abi_is_used() -> None:
    libraries = list(Path(ssim_fused.__file__).parent.glob("*.so"))
    assert {library.name.split("_")[1].split(".")[0] for library in libraries} >= {"C", "operators"}
    for library in libraries:
        command = ["nm", "-D", "-C", "--undefined-only", library]
        symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert not [line for line in symbols if re.search(r"\b(at|c10|torch|caffe2)::", line)]
        if not library.name.startswith("_C"):
            assert not [line for line in symbols if re.search(r"\bPy", line)], f"{library.name} knows Python"


def test_a_driver_that_is_too_old_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's CUDA runtime may be older than ours, and work with a driver that ours does not take."""

    def refuse(*arguments: object) -> None:
        raise RuntimeError("CUDA error: CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr(functional, "evaluate", refuse)
    monkeypatch.setattr(_C, "build_info", lambda: {"cuda": "13.0 for 9.0+PTX"})
    image = torch.rand(1, 1, 16, 16)
    with pytest.raises(
        RuntimeError, match=r"insufficient(?s:.*)needs a driver of CUDA 13 or newer(?s:.*)SSIM_FUSED_CUDA=1"
    ):
        ssim_fused.ssim(image, image, data_range=1.0625)  # which no other test has prepared


def test_the_libraries_are_of_one_build() -> None:
    """A file that another build has left is neither loaded nor kept."""
    folder = Path(ssim_fused.__file__).parent
    assert [library.stem for library in folder.glob("_operators_*.so")] == [f"_operators_{_C.build_id}"]
    assert [str(module) for module in folder.glob("_C.*")] == [_C.__file__]


def march_of(place: Path, *flags: str) -> torch.Tensor:
    """What tests/march.cpp prints, compiled by these flags."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler on PATH")
    command = [compiler, "-std=c++20", "-O1", "-Wno-psabi", f"-I{ROOT / 'csrc'}", *flags]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", *(f"-I{path}" for path in include_paths())]
    subprocess.run([*command, str(ROOT / "tests/march.cpp"), "-o", str(place / "march")], check=True)
    output = subprocess.run([place / "march"], capture_output=True, text=True, check=True).stdout.split()
    numbers = torch.tensor([float(number) for number in output], dtype=torch.float64)
    assert len(numbers) > 1000
    assert numbers.isfinite().all()
    return numbers


def test_the_march_under_address_sanitizer(tmp_path: Path) -> None:
    """Strips and splits of planes, and volumes whose fields have no room to spare."""
    march_of(tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize("width", [32, 64])
def test_the_march_by_vectors_of_another_width(tmp_path: Path, width: int) -> None:
    """The order of columns is another one, on any machine."""
    narrow, wide = march_of(tmp_path), march_of(tmp_path, f"-DMARCH_BYTES={width}")
    torch.testing.assert_close(wide, narrow, rtol=1e-5, atol=1e-6)  # sums in another order
