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
    module_flags: str  # for linking the Python module, which exports a single symbol
    library_suffix: str  # of libraries that are not Python modules
    is_windows: bool = False

    def quote(self, word: str) -> str:
        """Quote a word of a ninja command. Ninja runs a shell on POSIX systems, and CreateProcess on Windows."""
        return subprocess.list2cmdline([word]) if self.is_windows else shlex.quote(word)

    def command(self, compiler: str) -> list[str]:
        """Split the value of CXX: a program, whose path may contain spaces, or a program with arguments."""
        return [compiler] if shutil.which(compiler) else shlex.split(compiler, posix=not self.is_windows)

    def python_libraries(self, base_prefix: str) -> str:
        """Return link flags for a Python module. On Windows: the folder of the library that Python's headers name."""
        return self.quote(f"-L{base_prefix}/libs") if self.is_windows else ""


def system_of(platform: str) -> System:
    """Return the system that `sys.platform` names. All except macOS and Windows are treated like Linux."""
    if platform == "darwin":
        # The symbols of Python and torch are resolved in the process that loads the library.
        return System("c++", "-fPIC", "-undefined dynamic_lookup", "", ".so")
    if platform == "win32":
        # --driver-mode makes clang-cl accept Clang's own options, so that flags are the same on all systems. The other
        # flags replace the static C runtime, this driver's default, by the DLL, which torch uses.
        driver = "--driver-mode=g++ -fms-runtime-lib=dll"
        return System("clang-cl", driver, "-fuse-ld=lld -Xlinker -nodefaultlib:libcmt", "", ".dll", is_windows=True)
    module = "-Wl,--strip-all -Wl,--gc-sections -Wl,--version-script=exports"  # `exports` is in the build folder
    return System("c++", "-fPIC", "-Wl,--as-needed", module, ".so")


def link_folder(link: Path, target: Path, system: System) -> None:
    """Create a link to the folder `target`, replacing an existing link.

    On Windows it is a junction, because symbolic links need a privilege there.
    """
    if not system.is_windows:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return
    import _winapi

    if os.path.lexists(link):
        os.rmdir(link)  # removes the junction, not its target
    _winapi.CreateJunction(str(target), str(link))  # ty: ignore[missing-attribute]


@dataclass(frozen=True)
class Hip:
    """A HIP compiler, and the AMD GPUs that it compiles for."""

    home: Path
    architectures: tuple[str, ...]

    @property
    def compiler(self) -> Path:
        """The path of hipcc, which finds its headers and device libraries by itself."""
        return self.home / "bin/hipcc"

    @property
    def lanes(self) -> int:
        """The number of lanes of a wavefront, which the kernels call a warp."""
        return lanes_of(self.architectures)

    def compile_flags(self, defines: str) -> str:
        """Return the flags to compile a .cu file."""
        targets = " ".join(f"--offload-arch={name}" for name in self.architectures)
        # torch's headers call AMD GPUs "cuda" too.
        names = f"-D__HIP_PLATFORM_AMD__=1 -DUSE_ROCM -DUSE_CUDA -DSSIM_FUSED_WARP_SIZE={self.lanes}"
        # LLVM copies the parameters of a kernel to local memory if it reads them in more than 300 places. Marches with
        # gradients read theirs in about 400.
        in_place = "-mllvm -instcombine-max-copied-from-constant-users=10000"
        return f"-x hip -std=c++20 -O3 -fPIC -fvisibility=hidden {in_place} {names} {defines} {targets}"

    def link_flags(self) -> str:
        """Return the flags to link. At run time the HIP runtime is torch's, which the process has already loaded."""
        return f"-ltorch_hip -ltorch_cpu -lc10 {shlex.quote(f'-L{self.home}/lib')} -lamdhip64"


def lanes_of(architectures: Sequence[str]) -> int:
    """Return the number of lanes of a wavefront of these GPUs, named as in `gfx90a`.

    Raises:
        ValueError: the list is empty, or the GPUs have wavefronts of different sizes, which need separate builds.

    """
    lanes = {64 if name.startswith("gfx9") else 32 for name in architectures}
    if len(lanes) != 1:
        raise ValueError(
            f"PYTORCH_ROCM_ARCH is {';'.join(architectures)!r}, expected GPUs whose wavefronts have the same size: 64 "
            "lanes (gfx9...) or 32 (gfx10 and later)"
        )
    return lanes.pop()


def find_hip(torch: ModuleType, environment: Mapping[str, str]) -> tuple[Hip | None, str]:
    """Return the HIP compiler for a torch of ROCm, or None; and the reason for the message.

    The kernels for AMD GPUs are compiled only if SSIM_FUSED_CUDA=1 requests them, because they have not been run yet.
    Without them PyTorch's own operations are used.

    Raises:
        ValueError: the kernels are requested, but there is no compiler, or no GPU to compile for.

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
        # The name may be followed by features: gfx90a:sramecc+:xnack-
        names = (torch.cuda.get_device_properties(number).gcnArchName.split(":")[0] for number in visible)
        architectures = tuple(dict.fromkeys(names))
    if not architectures:
        raise ValueError("no AMD GPU is visible: set PYTORCH_ROCM_ARCH to those to compile for, as gfx90a;gfx942")
    lanes_of(architectures)
    return Hip(home, architectures), f"hipcc in {home} compiles for torch of ROCm {torch.version.hip}"


SYSTEM = system_of(sys.platform)
