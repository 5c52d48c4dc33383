"""Compiles three libraries as one ninja graph, in a folder under build/ that the next build reuses.

    ssim_fused/_operators_ID.so   schemas and CPU kernels; independent of Python
    ssim_fused/_cuda_ID.so        CUDA kernels, if torch has CUDA and nvcc has the same major version
    ssim_fused/_C.PYTHON.so       the pybind11 module; contains ID, a hash of the sources, the flags and the compilers

Environment variables:

    SSIM_FUSED_CUDA         1: fail if CUDA is missing; 0: build without CUDA
    TORCH_CUDA_ARCH_LIST    GPUs to compile for; "all": those of a wheel; unset: the visible ones, or all if none is
    MAX_JOBS                the number of compilers that run at the same time
    SSIM_FUSED_PYTHONS      interpreters to compile `_C` for, in addition to this one
    SSIM_FUSED_PORTABLE     1: link libstdc++ into `_C`, so that it runs on systems with an older one

docs/building.md has more.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))
from toolchain import SYSTEM, find_hip, link_folder

# nvcc generates the same instructions for 8.9 as for 8.6. GPUs not listed compile the PTX when they first run it.
DEFAULT_ARCHITECTURES = "7.5;8.0;8.6;9.0+PTX"
NEW_ARCHITECTURES = ("10.0", "12.0")  # added if nvcc supports them, as it does since CUDA 12.8
DEFINES = "-DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000"  # the stable ABI of torch 2.10
NAMES = "-fmacro-prefix-map=../../="  # errors name csrc/...
CXX = f"-std=c++20 -O3 -g0 -ffp-contract=fast -fno-math-errno -fvisibility=hidden -Wall -Wno-psabi {DEFINES} {NAMES}"
# CPU seconds of the slow sources (docs/building.md); for CUDA, per architecture. The others take about three.
SECONDS = {"march_float.cpp": 35, "march_double.cpp": 25, "march_masked.cpp": 15}
SECONDS |= {"images.cu": 113, "volumes.cu": 75, "wide.cu": 13, "masked.cu": 19, "pyramid.cu": 7}
NVCC_THREADS = 2
NVCC = f"-std=c++20 -O3 --threads={NVCC_THREADS} --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden"
NVCC += f" -DUSE_CUDA {DEFINES}"


def say(message):
    """Print a line, also to the terminal if a front end such as pip captures the output: compiling takes minutes."""
    print(message, flush=True)
    # Front ends load this module to run setup.py. Environment variables that mark a build differ between pip 23 and 25.
    if "setuptools.build_meta" in sys.modules and not sys.stdout.isatty():
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write(f"\n  {message}  ")  # the spaces overwrite pip's spinner


def fail(message) -> NoReturn:
    """Exit with an error message instead of a traceback."""
    raise SystemExit(f"ssim_fused: {message}")


def output_of(*command):
    """Return the output of a command, or an empty string if the command does not exist."""
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout + done.stderr
    return ""


def find_cuda(torch):
    """Return the CUDA toolkit's folder or None, the state for `_C.cuda_state`, and the reason for the message."""
    wish = os.environ.get("SSIM_FUSED_CUDA", "")
    if wish == "0":
        return None, "left out", "SSIM_FUSED_CUDA=0"
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None)
    nvcc = nvcc or next(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"), None)  # the extra `nvcc`
    release = re.search(r"release (\d+)\.\d+", output_of(nvcc, "--version")) if nvcc else None
    # nvcc may be a wrapper script in another folder, so ask it where the toolkit is.
    here = re.search(r"_HERE_=(\S+)", output_of(nvcc, "--dryrun", "-x", "cu", os.devnull)) if nvcc else None
    if SYSTEM.is_windows:
        state, missing = "left out", "its kernels are not compiled on Windows yet"
    elif not torch.version.cuda:
        state, missing = "torch has none", f"torch {torch.__version__} is a build without CUDA"
    elif nvcc is None:
        state, missing = "no nvcc", "nvcc was not found in CUDA_HOME, on PATH, or as a wheel"
    elif release is None or here is None:
        state, missing = "nvcc disagrees", f"{nvcc} does not say its version and folder, as nvcc does"
    elif release[1] != torch.version.cuda.split(".")[0]:
        state, missing = "nvcc disagrees", f"{nvcc} is of CUDA {release[1]}, torch of CUDA {torch.version.cuda}"
    else:
        return Path(here[1]).parent, "built", f"nvcc and torch agree on CUDA {release[1]}"
    if wish == "1":
        fail(f"SSIM_FUSED_CUDA=1 asks for CUDA, but {missing}.")
    return None, state, missing


def all_architectures(home):
    """Return the architectures of a wheel, in the form of TORCH_CUDA_ARCH_LIST."""
    known = output_of(home / "bin/nvcc", "--list-gpu-arch").split()
    new = [name for name in NEW_ARCHITECTURES if f"compute_{name.replace('.', '')}" in known]
    return ";".join([DEFAULT_ARCHITECTURES, *new])


def cuda_runtime(home):
    """Return the flags to link the static CUDA runtime; torch's may have another version (docs/building.md)."""
    static = next((path for folder in ("lib64", "lib") for path in (home / folder).glob("libcudart_static.a")), None)
    if static is None:
        fail(f"the CUDA toolkit in {home} has no libcudart_static.a: install the runtime's development files.")
    return f"{static} -Wl,--exclude-libs,{static.name} -lrt -lpthread -ldl"


def pybind11_headers(torch):
    """Return version and folder of the pybind11 headers: those of the package, otherwise the copy in torch."""
    with contextlib.suppress(ImportError):
        import pybind11

        return pybind11.__version__, pybind11.get_include()
    return f"of-torch-{torch.__version__}", Path(torch.__file__).parent / "include"


def pythons():
    """Return the Pythons to compile `_C` for: a dictionary from the suffix of a module to the folder of headers."""
    names = "sysconfig.get_config_var('EXT_SUFFIX'), sysconfig.get_path('include')"
    found = {sysconfig.get_config_var("EXT_SUFFIX"): sysconfig.get_path("include")}
    for python in filter(None, os.environ.get("SSIM_FUSED_PYTHONS", "").split(os.pathsep)):
        lines = output_of(python, "-c", f"import sysconfig; print({names}, sep='\\n')").splitlines()
        if len(lines) != 2 or not (Path(lines[1]) / "Python.h").exists():
            fail(f"SSIM_FUSED_PYTHONS: {python!r} is not a Python with headers: {' '.join(lines)}")
        found.setdefault(*lines)
    return found


def what_it_takes(ninja, folder, jobs, architectures):
    """Return the number of steps that are not up to date, and roughly how long they take."""
    steps = re.findall(r"^\[\d+/\d+\] (\S+)", output_of(ninja, "-n", "-C", str(folder)), re.MULTILINE)
    of_cuda = [SECONDS.get(step, 3) * architectures for step in steps if step.endswith(".cu")]
    others = [SECONDS.get(step, 3) for step in steps if step.endswith(".cpp")]
    longest = max([*others, *(seconds / NVCC_THREADS for seconds in of_cuda)], default=0)
    minutes = max(longest, sum(of_cuda + others) / int(jobs)) / 60
    return len(steps), "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"


def announce(torch, cuda, gpus, state, reason, steps, duration, jobs):
    """Print in a line or two what is built, how long it takes, and how to change it."""
    if state in ("no nvcc", "nvcc disagrees"):
        major = torch.version.cuda.split(".")[0]
        say(
            f"ssim_fused: WARNING: building without CUDA, although torch {torch.__version__} has it: {reason}. To "
            f"serve GPUs, set CUDA_HOME to a toolkit of CUDA {major} and build again; SSIM_FUSED_CUDA=1 makes this an "
            "error."
        )
    kernels = cuda if cuda.startswith("ROCm") else f"CUDA {cuda}"
    targets = f"the CPU and {kernels} ({gpus})" if cuda else f"the CPU alone ({reason})"
    effort = f"{duration} for {steps} steps, {jobs} at a time" if steps else "everything is compiled already"
    choose = "TORCH_CUDA_ARCH_LIST=9.0 builds for one kind of GPU, SSIM_FUSED_CUDA=0 for none, " if cuda else ""
    choose = f". {choose}MAX_JOBS=4 with four compilers at a time." if steps and cuda else ""
    say(f"ssim_fused: building for {targets} against torch {torch.__version__}: {effort}{choose}")


def build():
    """Compile and link what is not up to date; return the paths of the libraries."""
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        fail(f"to build without isolation, install torch, ninja, pybind11 and setuptools first ({error}).")
    ninja = shutil.which("ninja", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))
    words = SYSTEM.command(os.environ.get("CXX", SYSTEM.compiler))
    compiler, version = " ".join(map(SYSTEM.quote, words)), output_of(*words, "--version")
    if ninja is None or not version:
        fail("ninja is missing: pip install ninja." if version else f"there is no C++ compiler {compiler!r}: set CXX.")
    hip, home = None, None
    if torch.version.hip and os.environ.get("SSIM_FUSED_CUDA") != "0":
        try:
            hip, reason = find_hip(torch, os.environ)
        except ValueError as error:
            fail(f"{error}.")
        state = "built" if hip else "torch has none"
    else:
        home, state, reason = find_cuda(torch)
    cuda, gpus, gpu_compiler, gpu_libraries, architectures = "", "", "", "", []
    if hip:
        architectures = list(hip.architectures)
        cuda, gpus = f"ROCm {torch.version.hip} for {';'.join(architectures)}", "experimental, not yet run"
        gpu_compiler = f"{shlex.quote(str(hip.compiler))} {hip.compile_flags(f'{DEFINES} {NAMES}')}"
        gpu_libraries = hip.link_flags()
    if home:
        gpus = "chosen by TORCH_CUDA_ARCH_LIST"
        if "TORCH_CUDA_ARCH_LIST" not in os.environ:
            gpus = "the visible GPUs" if torch.cuda.is_available() else "all, since no GPU is visible"
        unset = "" if torch.cuda.is_available() else "all"
        if os.environ.get("TORCH_CUDA_ARCH_LIST", unset) == "all":
            os.environ["TORCH_CUDA_ARCH_LIST"] = all_architectures(home)
        cuda = f"{torch.version.cuda} for {os.environ.get('TORCH_CUDA_ARCH_LIST', 'the visible GPUs')}"
        host = f"-ccbin {shlex.quote(os.environ['CXX'])}" if "CXX" in os.environ else ""
        # Reduces the size to a quarter. It needs a driver of CUDA 13.
        size = "--compress-mode=size" if int((torch.version.cuda or "0").split(".")[0]) >= 13 else ""
        architectures = cpp_extension._get_cuda_arch_flags()
        gpu_compiler = f"{home}/bin/nvcc {NVCC} {size} {host} {' '.join(architectures)}"
        gpu_libraries = f"-ltorch_cuda -ltorch_cpu -lc10 {cuda_runtime(home)}"

    # Commands refer to torch's headers by links in the build folder, so that they are the same in every environment.
    rules = f"""
cxx = {compiler} {SYSTEM.compile_flags} {CXX} {os.environ.get("CXXFLAGS", "")}
ldflags = -shared {SYSTEM.link_flags} -Ltorch/lib {os.environ.get("LDFLAGS", "")}
rule cxx
  command = $cxx -MMD -MF $out.d $flags -isystem torch/include -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $name
rule gpu
  command = {gpu_compiler} -MMD -MF $out.d -isystem torch/include -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = $name
rule link
  command = $cxx $in $ldflags $libraries -o $out
  description = $out
"""
    of_gpu = output_of(home / "bin/nvcc", "--version") if home else output_of(hip.compiler, "--version") if hip else ""
    toolchain = f"{rules} {version} {of_gpu} {torch.__version__}"
    digest = hashlib.sha256(toolchain.encode())
    folder = ROOT / "build" / f"torch-{torch.__version__}-{digest.hexdigest()[:8]}"
    for path in sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\n{path.read_text(encoding='utf-8')}".encode())
    build_id = digest.hexdigest()[:12]

    def objects(paths, suffix=".o"):
        """Return the names of the object files, by source."""
        return {path: f"{path.relative_to(ROOT / 'csrc').as_posix()}{suffix}" for path in paths}

    def compiled(kind, made, flags=""):
        """Return the ninja statements that compile sources to objects."""
        return "".join(
            f"build {name}: {kind} ../../{path.relative_to(ROOT).as_posix()}\n  name = {path.name}\n  flags = {flags}\n"
            for path, name in made.items()
        )

    def linked(name, made, libraries):
        """Return the ninja statement that links objects to a library."""
        return f"build {name}: link {' '.join(made.values())}\n  libraries = {libraries}\n"

    graph, libraries = rules, []
    # Only one small file is compiled with these macros, so a new id or another Python compiles nothing else.
    macros = {"BUILD_ID": build_id, "CUDA_BUILD": cuda, "CUDA_STATE": state, "WHY_NO_CUDA": "" if cuda else reason}
    defines = " ".join(["-Os", *(SYSTEM.quote(f'-DSSIM_FUSED_{name}="{value}"') for name, value in macros.items())])
    planned = objects([ROOT / "csrc/cuda/launch/planned.cpp"])
    graph += compiled("cxx", planned, "-Wno-unknown-pragmas")
    of_module = f"{SYSTEM.module_flags} {SYSTEM.python_libraries(sys.base_prefix)}"
    if os.environ.get("SSIM_FUSED_PORTABLE") == "1":
        of_module += " -static-libstdc++"
    pybind11_version, pybind11_folder = pybind11_headers(torch)
    pybind11_link = f"pybind11-{pybind11_version}"
    for suffix, headers in pythons().items():
        module = objects([ROOT / "csrc/api/python.cpp"], f"{suffix}.o")
        graph += compiled("cxx", module, f"{defines} -isystem {pybind11_link} -isystem {SYSTEM.quote(headers)}")
        libraries.append(f"_C{suffix}")
        graph += linked(libraries[-1], module | planned, of_module)
    cpu = objects([ROOT / "csrc/api/schema.cpp", *sorted((ROOT / "csrc/cpu").rglob("*.cpp"))])
    libraries.append(f"_operators_{build_id}{SYSTEM.library_suffix}")
    graph += compiled("cxx", cpu) + linked(libraries[-1], cpu, "-ltorch_cpu -lc10")
    if cuda:
        kernels = objects(sorted((ROOT / "csrc/cuda").rglob("*.cu")))
        libraries.append(f"_cuda_{build_id}{SYSTEM.library_suffix}")
        graph += compiled("gpu", kernels)
        graph += linked(libraries[-1], kernels, gpu_libraries)

    folder.mkdir(parents=True, exist_ok=True)
    for link, target in (("torch", Path(torch.__file__).parent), (pybind11_link, pybind11_folder)):
        link_folder(folder / link, Path(target), SYSTEM)
    (folder / "exports").write_text("{ global: PyInit__C; local: *; };\n")
    (folder / "build.ninja").write_text(graph)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )  # macOS has no sched_getaffinity
    jobs = os.environ.get("MAX_JOBS") or str(cores)
    announce(torch, cuda, gpus, state, reason, *what_it_takes(ninja, folder, jobs, len(architectures)), jobs)
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
    """The setuptools command `build_ext`, which calls `build` instead of the compilers of setuptools."""

    def run(self):
        """Build, and copy the libraries to the package, where they replace those of earlier builds."""
        self.built = build()
        package = ROOT / "ssim_fused" if self.inplace else Path(self.build_lib).resolve() / "ssim_fused"
        package.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self.built}
        for path in self.built:
            shutil.copy2(path, package / f"{path.name}.new")
            os.replace(package / f"{path.name}.new", package / path.name)  # running processes keep the old file
        for stale in {path for kind in ("C", "operators", "cuda") for path in package.glob(f"_{kind}[._]*")}:
            if stale.suffix in (".so", ".dll", ".pyd") and stale.name not in names:
                stale.unlink()

    def get_outputs(self):
        """Return the paths of the installed files."""
        return [os.path.join(self.build_lib, "ssim_fused", path.name) for path in self.built]

    def get_output_mapping(self):
        """Return where the files of an editable installation are, by their installed path."""
        return {out: f"ssim_fused/{os.path.basename(out)}" for out in self.get_outputs()} if self.inplace else {}


# Setuptools reads pyproject.toml since version 61. Older ones would install a package called UNKNOWN.
SETUPTOOLS = tuple(int(number) for number in re.findall(r"\d+", setuptools.__version__)[:2])
if SETUPTOOLS < (61, 0):
    fail(f"setuptools {setuptools.__version__} cannot read pyproject.toml: pip install --upgrade setuptools.")
if "bdist_wheel" in sys.argv and SETUPTOOLS < (70, 1) and importlib.util.find_spec("wheel") is None:
    fail(f"setuptools {setuptools.__version__} needs the package wheel: pip install --upgrade setuptools wheel.")
# pyproject.toml leaves the license to this file, since only setuptools 77 and newer accept an SPDX expression there.
LICENSE = "license_expression" if SETUPTOOLS >= (77, 0) else "license"
setup(
    **{LICENSE: "Apache-2.0"},
    ext_modules=[Extension("ssim_fused._C", ["csrc/api/python.cpp"])],
    cmdclass={"build_ext": BuildLibraries},
)
