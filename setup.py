"""Compiles three libraries as one ninja graph, in a folder under build/ that the next build takes up again.

    ssim_fused/_operators_ID.so   schemas and CPU kernels; knows no Python
    ssim_fused/_cuda_ID.so        CUDA kernels, where torch has CUDA and nvcc agrees
    ssim_fused/_C.abi3.so         the module that knows ID, a hash over the sources and all that compiles them

SSIM_FUSED_CUDA=1 makes a missing CUDA an error, SSIM_FUSED_CUDA=0 leaves CUDA out. TORCH_CUDA_ARCH_LIST chooses the
GPUs, "all" those of a wheel; without it, those visible, or else all. MAX_JOBS limits the compilers at work.
docs/building.md has more.
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# Code for 8.6 is, to the instruction, what nvcc makes for 8.9. Other GPUs compile the PTX when they first run it.
DEFAULT_ARCHITECTURES = "7.5;8.0;8.6;9.0+PTX"
NEW_ARCHITECTURES = ("10.0", "12.0")  # those of them that nvcc knows: since CUDA 12.8
DEFINES = "-DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000"  # LibTorch's stable ABI, since torch 2.10
CXX = f"-std=c++20 -O3 -g0 -fPIC -ffp-contract=fast -fno-math-errno -fvisibility=hidden -Wall -Wno-psabi {DEFINES}"
CXX += " -fmacro-prefix-map=../../="  # errors name csrc/...
# Python's and torch's names come with the process that loads the libraries.
LINK = "-undefined dynamic_lookup" if sys.platform == "darwin" else "-Wl,--as-needed"
# One module for every Python since 3.10. A Python without the lock has no such interface.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
NVCC = f"-std=c++20 -O3 --threads=2 --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden -DUSE_CUDA {DEFINES}"


def say(message):
    """Print; where pip keeps the output to itself, on the terminal too: compiling takes minutes."""
    print(message, flush=True)
    if "_PYPROJECT_HOOKS_BUILD_BACKEND" in os.environ and not sys.stdout.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(f"\n  {message}  ")  # the blanks are for pip's spinner


def fail(message) -> NoReturn:
    """Stop with a sentence instead of a traceback."""
    raise SystemExit(f"ssim_fused: {message}")


def output_of(*command):
    """What a command prints; nothing where there is none."""
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout + done.stderr
    return ""


def find_cuda(torch):
    """The toolkit's folder, or None, and the reason in words."""
    wish = os.environ.get("SSIM_FUSED_CUDA", "")
    if wish == "0":
        return None, "SSIM_FUSED_CUDA=0"
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    nvcc = nvcc or next(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"), None)  # the extra `nvcc`
    release = re.search(r"release (\d+)\.\d+", output_of(nvcc, "--version")) if nvcc else None
    # nvcc may be a wrapper script in another folder: the toolkit's own answer.
    here = re.search(r"_HERE_=(\S+)", output_of(nvcc, "--dryrun", "-x", "cu", os.devnull)) if nvcc else None
    if not torch.version.cuda:
        missing = f"torch {torch.__version__} is a build without CUDA"
    elif nvcc is None:
        missing = "nvcc was not found in CUDA_HOME, on PATH, or as a wheel"
    elif release is None or here is None:
        missing = f"{nvcc} does not say its version and folder, as nvcc does"
    elif release[1] != torch.version.cuda.split(".")[0]:
        missing = f"nvcc is of CUDA {release[1]}, torch of CUDA {torch.version.cuda}"
    else:
        return Path(here[1]).parent, f"nvcc and torch agree on CUDA {release[1]}"
    if wish == "1":
        fail(f"SSIM_FUSED_CUDA=1 asks for CUDA, but {missing}.")
    return None, missing


def all_architectures(home):
    """Those of a wheel, as TORCH_CUDA_ARCH_LIST names them."""
    known = output_of(home / "bin/nvcc", "--list-gpu-arch").split()
    new = [name for name in NEW_ARCHITECTURES if f"compute_{name.replace('.', '')}" in known]
    return ";".join([DEFAULT_ARCHITECTURES, *new])


def cuda_runtime(home):
    """The linker's words for CUDA's runtime, the static one: torch's may be of another version (docs/building.md)."""
    static = next((path for folder in ("lib64", "lib") for path in (home / folder).glob("libcudart_static.a")), None)
    if static is None:
        fail(f"the CUDA toolkit in {home} has no libcudart_static.a: install the runtime's development files.")
    return f"{static} -Wl,--exclude-libs,{static.name} -lrt -lpthread -ldl"


def build():
    """Compile and link what is not up to date; the libraries' paths."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        fail(f"to build without isolation, install torch, ninja and setuptools first ({error}).")
    ninja = shutil.which("ninja", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    compiler = os.environ.get("CXX", "c++")
    version = output_of(*shlex.split(compiler), "--version")
    if ninja is None or not version:
        fail("ninja is missing: pip install ninja." if version else f"there is no C++ compiler {compiler!r}: set CXX.")
    home, reason = find_cuda(torch)
    cuda, nvcc = "", ""
    if home:
        unset = "" if torch.cuda.is_available() else "all"
        if os.environ.get("TORCH_CUDA_ARCH_LIST", unset) == "all":
            os.environ["TORCH_CUDA_ARCH_LIST"] = all_architectures(home)
        cuda = f"{torch.version.cuda} for {os.environ.get('TORCH_CUDA_ARCH_LIST', 'the visible GPUs')}"
        host = f"-ccbin {shlex.quote(compiler)}" if "CXX" in os.environ else ""
        # A quarter of the size; drivers of CUDA 13 read it.
        size = "--compress-mode=size" if int((torch.version.cuda or "0").split(".")[0]) >= 13 else ""
        nvcc = f"{home}/bin/nvcc {NVCC} {size} {host} {' '.join(cpp_extension._get_cuda_arch_flags())}"
    say(f"ssim_fused: building for {'CPU and CUDA' if cuda else 'CPU'} against torch {torch.__version__}: {reason}")

    # Commands name torch's headers by links in the build's folder, so that they are the same in every environment.
    rules = f"""
cxx = {compiler} {CXX} {os.environ.get("CXXFLAGS", "")}
ldflags = -shared {LINK} -Ltorch/lib {os.environ.get("LDFLAGS", "")}
rule cxx
  command = $cxx -MMD -MF $out.d $defines -isystem torch/include -isystem $python -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $name
rule nvcc
  command = {nvcc} -MMD -MF $out.d -isystem torch/include -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $name
rule link
  command = $cxx $in $ldflags $libraries -o $out
  description = $out
"""
    toolchain = f"{rules} {version} {output_of(home / 'bin/nvcc', '--version') if home else ''} {torch.__version__}"
    digest = hashlib.sha256(toolchain.encode())
    folder = ROOT / "build" / f"torch-{torch.__version__}-{digest.hexdigest()[:8]}"
    for path in sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\n{path.read_text()}".encode())
    build_id = digest.hexdigest()[:12]

    def library(name, kind, paths, libraries, suffix=".o", defines="", python="."):
        """The statements that compile and link a library."""
        objects = {path: f"{path.relative_to(ROOT / 'csrc')}{suffix}" for path in paths}
        return f"build {name}: link {' '.join(objects.values())}\n  libraries = {libraries}\n" + "".join(
            f"build {made}: {kind} ../../{path.relative_to(ROOT)}\n"
            f"  name = {path.name}\n  defines = {defines}\n  python = {python}\n"
            for path, made in objects.items()
        )

    suffix = ".abi3.so" if LIMITED else sysconfig.get_config_var("EXT_SUFFIX")
    macros = {"SSIM_FUSED_BUILD_ID": build_id, "SSIM_FUSED_CUDA_BUILD": cuda}  # of one small file: the others stay
    defines = " ".join(shlex.quote(f'-D{name}="{value}"') for name, value in macros.items())
    defines += " -DPy_LIMITED_API=0x030a0000" if LIMITED else ""
    cpu = [ROOT / "csrc/api/schema.cpp", *sorted((ROOT / "csrc/cpu").rglob("*.cpp"))]
    # It uses nothing of the libc that it names, by which auditwheel tells what system a wheel is for.
    libc = "" if sys.platform == "darwin" else "-Wl,--no-as-needed"
    libraries = {
        f"_C{suffix}": (
            "cxx",
            [ROOT / "csrc/api/python.cpp"],
            libc,
            f"{suffix}.o",
            defines,
            sysconfig.get_path("include"),
        ),
        f"_operators_{build_id}.so": ("cxx", cpu, "-ltorch_cpu -lc10"),
    }
    if cuda:
        kernels = sorted((ROOT / "csrc/cuda").rglob("*.cu"))
        libraries[f"_cuda_{build_id}.so"] = ("nvcc", kernels, f"-ltorch_cuda -ltorch_cpu -lc10 {cuda_runtime(home)}")
    graph = rules + "".join(library(name, *parts) for name, parts in libraries.items())

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torch").unlink(missing_ok=True)
    (folder / "torch").symlink_to(Path(torch.__file__).parent)
    (folder / "build.ninja").write_text(graph)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )  # macOS has no affinity
    jobs = os.environ.get("MAX_JOBS") or str(cores)
    running = subprocess.Popen(
        [ninja, "-j", jobs],
        cwd=folder,
        env=os.environ | {"NINJA_STATUS": "[%f/%t] "},
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in running.stdout or ():
        say(line.rstrip())
    if running.wait():
        fail("the compiler failed, see above (under pip: `pip install -v`).")
    return [folder / name for name in libraries]


class BuildLibraries(build_ext):
    """Setuptools' command, with `build` in the place of its compilers."""

    def run(self):
        """Build, and put the libraries into the package, where they replace those of earlier builds."""
        self.built = build()
        package = ROOT / "ssim_fused" if self.inplace else Path(self.build_lib).resolve() / "ssim_fused"
        package.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self.built}
        for path in self.built:
            shutil.copy2(path, package / f"{path.name}.new")
            os.replace(package / f"{path.name}.new", package / path.name)  # a running Python keeps the old file
        for stale in {path for kind in ("C", "operators", "cuda") for path in package.glob(f"_{kind}[._]*.so")}:
            if stale.name not in names:
                stale.unlink()

    def get_outputs(self):
        """The installed files."""
        return [os.path.join(self.build_lib, "ssim_fused", path.name) for path in self.built]

    def get_output_mapping(self):
        """Where the files of an editable installation are."""
        return {out: f"ssim_fused/{os.path.basename(out)}" for out in self.get_outputs()} if self.inplace else {}


setup(
    ext_modules=[Extension("ssim_fused._C", ["csrc/api/python.cpp"], py_limited_api=LIMITED)],
    cmdclass={"build_ext": BuildLibraries},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED else {},
)
