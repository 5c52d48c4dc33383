"""What compilers, linkers and loaders expect on each system, for setup.py: flags, names, quoting, and HIP for ROCm.

Everything here depends on its arguments alone, so that tests on one system check what is chosen on the others.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class System:
    """How an operating system compiles, links and names libraries."""

    compiler: str  # if CXX is unset
    compile_flags: str
    link_flags: str
    module_flags: str  # of the linker for the Python module, whose other symbols nobody needs
    library_suffix: str  # of a library that is not a Python module
    is_windows: bool = False

    def quote(self, word: str) -> str:
        """A word of a ninja command: ninja runs a shell on POSIX systems, and CreateProcess on Windows."""
        return subprocess.list2cmdline([word]) if self.is_windows else shlex.quote(word)

    def command(self, compiler: str) -> list[str]:
        """The words of CXX: a program, whose path may contain blanks, or a program with arguments."""
        return [compiler] if shutil.which(compiler) else shlex.split(compiler, posix=not self.is_windows)

    def python_libraries(self, base_prefix: str) -> str:
        """The linker's flags for a Python module: on Windows, headers name the library, and the build its folder."""
        return self.quote(f"-L{base_prefix}/libs") if self.is_windows else ""


def system_of(platform: str) -> System:
    """The system that `sys.platform` names. All that are neither macOS nor Windows are linked as Linux is."""
    if platform == "darwin":
        # The process that loads a library has Python's and torch's symbols.
        return System("c++", "-fPIC", "-undefined dynamic_lookup", "", ".so")
    if platform == "win32":
        # The compiler of clang-cl with Clang's own options, for the same flags everywhere. Libraries share the C
        # runtime with torch: the DLL, in place of the static one that this driver names to the linker.
        driver = "--driver-mode=g++ -fms-runtime-lib=dll"
        return System("clang-cl", driver, "-fuse-ld=lld -Xlinker -nodefaultlib:libcmt", "", ".dll", is_windows=True)
    module = "-Wl,--strip-all -Wl,--gc-sections -Wl,--version-script=exports"  # a file of the build's folder
    return System("c++", "-fPIC", "-Wl,--as-needed", module, ".so")


def link_folder(link: Path, target: Path, system: System) -> None:
    """Let the path `link` lead to the folder `target`, in place of a link that is there.

    On Windows this is a junction, since symbolic links need a privilege there.
    """
    if not system.is_windows:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return
    import _winapi

    if os.path.lexists(link):
        os.rmdir(link)  # the junction, not what it leads to
    _winapi.CreateJunction(str(target), str(link))  # ty: ignore[missing-attribute]


@dataclass(frozen=True)
class Hip:
    """A HIP compiler, and the AMD GPUs that it compiles for."""

    home: Path
    architectures: tuple[str, ...]

    @property
    def compiler(self) -> Path:
        """hipcc, which knows the folders of its headers and device libraries."""
        return self.home / "bin/hipcc"

    @property
    def lanes(self) -> int:
        """Lanes of a wavefront, the kernels' warp."""
        return lanes_of(self.architectures)

    def compile_flags(self, defines: str) -> str:
        """The flags of a .cu file."""
        targets = " ".join(f"--offload-arch={name}" for name in self.architectures)
        # torch's headers call AMD's GPUs "cuda", too.
        names = f"-D__HIP_PLATFORM_AMD__=1 -DUSE_ROCM -DUSE_CUDA -DSSIM_FUSED_WARP_SIZE={self.lanes}"
        # LLVM copies a kernel's parameters to memory of each thread if they are read at more than 300 places, and
        # marches with gradients read theirs at some 400.
        in_place = "-mllvm -instcombine-max-copied-from-constant-users=10000"
        return f"-x hip -std=c++20 -O3 -fPIC -fvisibility=hidden {in_place} {names} {defines} {targets}"

    def link_flags(self) -> str:
        """HIP's runtime is torch's own, by its name: the process has loaded it already."""
        return f"-ltorch_hip -ltorch_cpu -lc10 {shlex.quote(f'-L{self.home}/lib')} -lamdhip64"


def lanes_of(architectures: Sequence[str]) -> int:
    """Lanes of a wavefront of these GPUs, as `gfx90a`.

    Raises:
        ValueError: there is none, or they have wavefronts of different sizes, which one build cannot serve.

    """
    lanes = {64 if name.startswith("gfx9") else 32 for name in architectures}
    if len(lanes) != 1:
        raise ValueError(
            f"PYTORCH_ROCM_ARCH is {';'.join(architectures)!r}, expected GPUs whose wavefronts have the same size: 64 "
            "lanes (gfx9...) or 32 (gfx10 and later)"
        )
    return lanes.pop()


def find_hip(torch: ModuleType, environment: Mapping[str, str]) -> tuple[Hip | None, str]:
    """The HIP compiler for a torch of ROCm, or None; and the reason in words.

    The kernels for AMD's GPUs are compiled only if SSIM_FUSED_CUDA=1 asks for them: nobody has run them yet. Without
    them PyTorch's own operations compute.

    Raises:
        ValueError: they are requested, but there is no compiler, or no GPU to compile for.

    """
    if environment.get("SSIM_FUSED_CUDA") != "1":
        return None, "the kernels for ROCm are experimental, and compiled with SSIM_FUSED_CUDA=1 only"
    homes = [environment.get("ROCM_HOME"), environment.get("ROCM_PATH"), environment.get("HIP_PATH")]
    hipcc = shutil.which("hipcc", path=environment.get("PATH", ""))
    homes += [str(Path(hipcc).resolve().parents[1]) if hipcc else None, "/opt/rocm"]
    home = next((Path(home) for home in homes if home and (Path(home) / "bin/hipcc").exists()), None)
    if home is None:
        raise ValueError(
            f"SSIM_FUSED_CUDA=1 asks for ROCm's kernels, for torch {torch.__version__}, but hipcc was not found in "
            "ROCM_HOME, ROCM_PATH, HIP_PATH, on PATH, or in /opt/rocm"
        )
    architectures = tuple(environment.get("PYTORCH_ROCM_ARCH", "").replace(";", " ").split())
    if not architectures and torch.cuda.is_available():
        visible = range(torch.cuda.device_count())
        # A name may have features after it: gfx90a:sramecc+:xnack-
        names = (torch.cuda.get_device_properties(number).gcnArchName.split(":")[0] for number in visible)
        architectures = tuple(dict.fromkeys(names))
    if not architectures:
        raise ValueError("no AMD GPU is visible: set PYTORCH_ROCM_ARCH to those to compile for, as gfx90a;gfx942")
    lanes_of(architectures)
    return Hip(home, architectures), f"hipcc in {home} compiles for torch of ROCm {torch.version.hip}"


SYSTEM = system_of(sys.platform)
