"""Builds a bundle for a machine with a GPU on which nothing can be compiled or downloaded; see scripts/on_gpu.py.

    make gpu-bundle [BEFORE=COMMIT] [ARCH=9.0]

    build/gpu-bundle/now/      this commit: libraries, package, tests, benchmarks, scripts
    build/gpu-bundle/before/   the package of the commit to compare with
    build/gpu-bundle/site/     other packages, for any Python 3

The operators' libraries depend on no version of Python or torch, so the torch here and the one there may differ, and
this one may be without CUDA. nvcc must be of the CUDA version of the torch there. The module `_C` is compiled for every
Python that is found here, and a Python file with the same facts serves the others. Commits are exported to build/gpu
and built there, so that a second build compiles only what changed. Finally the bundle is checked: nothing else in it
may depend on Python's minor version, and it must be smaller than LIMIT_MIB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from make_wheels import find_pythons

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MIB = 60
OF_NOW = ("ssim_fused", "pytest_ssim_fused", "tests", "benchmarks", "scripts", "csrc", "pyproject.toml", "setup.py")
# Pure Python packages that the tests and benchmarks import, and libraries to compare with. The latter load their own
# code with ctypes, from wheels for any Python 3.
PACKAGES = ("attrs", "hypothesis", "iniconfig", "lightning-utilities", "packaging", "pluggy", "pygments", "pytest")
PACKAGES += ("sortedcontainers", "torchmetrics==1.9.0", "tqdm", "frame-analytics")
UNUSED = ("frame_analytics/weights", "bin")

# torch.version.cuda decides whether the build has CUDA. A torch for the CPU has the same stable headers.
BUILD = """
import runpy, sys, torch
torch.version.cuda, sys.argv[1:] = sys.argv[1], sys.argv[2:]
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""
# A stand-in for torch's CUDA library. The linker only needs one symbol of it to record the library's name.
STAND_IN = "void aoti_torch_get_current_cuda_stream(void) {}\n"
# Loads a module `_C` by its path and prints what it reports. Importing the package would need a suitable torch.
ASK_MODULE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps([module.build_id, module.cuda_state, module.build_info()]))
"""
# Python prefers a compiled module of the same name.
MODULE_OF_ANY_PYTHON = '''"""What was compiled, for a Python that the compiled module `_C` is not there for."""

build_id = {!r}
cuda_state = {!r}


def build_info():
    """What the compiled module's `build_info` returns."""
    return dict({!r})
'''


def say(message: str) -> None:
    """Print a line at once."""
    print(f"gpu_bundle: {message}", flush=True)


def output(*command: str, cwd: Path = ROOT) -> str:
    """The output of a command, or an error with its messages if it fails."""
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"gpu_bundle: {' '.join(command)} failed:\n{ran.stderr}")
    return ran.stdout.strip()


def default_before(commit: str = "HEAD") -> str:
    """The last tag, or without tags the newest commit with other CUDA kernels."""
    tagged = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", commit], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tagged.returncode == 0:
        return tagged.stdout.strip()
    sys.path.insert(0, str(ROOT))
    from benchmarks.provenance import kernel_folders, kernels_of_commit

    now = kernels_of_commit("cuda", commit)
    touching = ("git", "rev-list", "--first-parent", commit, "--", *kernel_folders("cuda"))
    for child in output(*touching).splitlines():
        parents = output("git", "rev-list", "--parents", "--max-count=1", child).split()[1:]
        if parents and kernels_of_commit("cuda", parents[0]) != now:
            return parents[0]
    raise SystemExit("gpu_bundle: there is no tag and no commit with other kernels: name one with BEFORE=COMMIT")


def export(commit: str, folder: Path) -> None:
    """Write a commit's files. Unchanged files keep their modification times, so that ninja does not rebuild them."""
    packed = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=True)
    kept = set()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            path, content = folder / member.name, file.read()
            kept.add(path)
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                path.chmod(member.mode)
    for path in folder.rglob("*"):
        is_built = path.is_relative_to(folder / "build") or path.suffix == ".so"
        if path.is_file() and path not in kept and not is_built:
            path.unlink()


def build(folder: Path, architectures: str, cuda: str) -> None:
    """Compile a checkout in place for these GPU architectures."""
    pythons = {"SSIM_FUSED_PYTHONS": os.pathsep.join(p for p in find_pythons().values() if p != sys.executable)}
    if not cuda:
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        if subprocess.run(command, cwd=folder, env=os.environ | pythons, check=False).returncode != 0:
            raise SystemExit(f"gpu_bundle: {folder} does not build, see above")
        return
    stand_in = folder.parent / "stand_in"  # a fixed path, because a change of flags rebuilds everything
    stand_in.mkdir(exist_ok=True)
    source = stand_in / "torch_cuda.c"
    source.write_text(STAND_IN)
    library = stand_in / "libtorch_cuda.so"
    compiler = os.environ.get("CC", "cc")
    output(compiler, "-shared", "-fPIC", "-Wl,-soname,libtorch_cuda.so", "-o", str(library), str(source))
    old_glibc = ROOT / "scripts/old_glibc.h"  # the target machine may have another glibc
    environment = (
        os.environ
        | pythons
        | {
            "SSIM_FUSED_CUDA": "1",
            "SSIM_FUSED_PORTABLE": "1",
            "TORCH_CUDA_ARCH_LIST": architectures,
            "CXXFLAGS": f"-include {old_glibc} {os.environ.get('CXXFLAGS', '')}".strip(),
            "LDFLAGS": f"-L{stand_in} {os.environ.get('LDFLAGS', '')}".strip(),
        }
    )
    command = [sys.executable, "-c", BUILD, cuda, "--quiet", "build_ext", "--inplace"]
    if subprocess.run(command, cwd=folder, env=environment, check=False).returncode != 0:
        raise SystemExit(f"gpu_bundle: {folder} does not build (see above): name another commit with BEFORE=COMMIT")


def nvcc_release() -> str:
    """The toolkit's version, which is used as that of torch."""
    found = re.search(r"release (\d+\.\d+)", output("nvcc", "--version"))
    if found is None:
        raise SystemExit("gpu_bundle: nvcc on PATH does not say its release")
    return found[1]


def copy(source: Path, to: Path, names: tuple[str, ...]) -> None:
    """Copy files and folders of a checkout, without caches and other generated files."""
    junk = shutil.ignore_patterns("__pycache__", ".*", "*.png", "figures", "build")
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, to / name, ignore=junk, dirs_exist_ok=True)
        elif (source / name).exists():
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, to / name)


def install(packages: tuple[str, ...], folder: Path) -> None:
    """Install packages from wheels that work with any Python 3."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--only-binary=:all:", "--implementation=py", "--abi=none", "--python-version=3.12"]
    command += ["--platform=any", "--platform=manylinux_2_28_x86_64", "--target", str(folder), *packages]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("gpu_bundle: pip could not install the packages, see above")
    for name in UNUSED:
        shutil.rmtree(folder / name, ignore_errors=True)


def write_module_of_any_python(package: Path) -> None:
    """Write `_C.py` next to the compiled module of a package. Older commits, which have no such module, need none."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    module = package / f"_C{suffix}"
    if module.exists():
        facts = json.loads(output(sys.executable, "-c", ASK_MODULE, str(module)))
        (package / "_C.py").write_text(MODULE_OF_ANY_PYTHON.format(*facts))


def faults(bundle: Path, limit_mib: float = LIMIT_MIB) -> list[str]:
    """Reasons why the bundle would not run elsewhere: code for one Python version or another platform, or its size."""
    found = []
    for path in sorted(bundle.rglob("*.so*")):
        name = path.relative_to(bundle)
        if path.name.startswith("_C.cpython-") and path.with_name("_C.py").exists():
            continue
        if re.search(r"\.cpython-|\.cp3\d+|pypy", path.name):
            found.append(f"{name} is for one version of Python")
            continue
        symbols = output("nm", "-D", "--undefined-only", str(path)).splitlines()
        asks_python = any(re.search(r" _?Py[A-Z_]", symbol) for symbol in symbols)
        if asks_python and not path.name.endswith(".abi3.so"):
            found.append(f"{name} uses Python's interface beyond the stable part")
    found += [f"{p.relative_to(bundle)} is compiled for one version of Python" for p in bundle.rglob("*.pyc")]
    mib = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 2**20
    if mib > limit_mib:
        found.append(f"it is {mib:.0f} MiB large, expected at most {limit_mib:g}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Export, build, assemble and check a bundle."""
    parser = argparse.ArgumentParser(
        prog="gpu_bundle.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu-bundle", help="default: build/gpu-bundle")
    parser.add_argument("--commit", default="HEAD", help="commit to test and measure (default: HEAD)")
    parser.add_argument(
        "--before",
        metavar="COMMIT",
        help="commit to compare with (default: the last tag, or the newest with other kernels)",
    )
    parser.add_argument("--arch", default="9.0", help="compute capabilities, as TORCH_CUDA_ARCH_LIST (default: 9.0)")
    parser.add_argument("--no-before", action="store_true", help="do not bundle a commit to compare with")
    parser.add_argument("--cpu-only", action="store_true", help="build without CUDA, to try the bundle on this machine")
    arguments = parser.parse_args(argv)
    commits = {"now": arguments.commit}
    if not arguments.no_before:
        commits["before"] = arguments.before or default_before(arguments.commit)
    out, work = arguments.out.resolve(), ROOT / "build" / ("cpu-bundle-work" if arguments.cpu_only else "gpu")
    shutil.rmtree(out, ignore_errors=True)
    cuda = "" if arguments.cpu_only else nvcc_release()
    known = {}
    for name, commit in commits.items():
        known[name] = output("git", "rev-parse", "--short=10", f"{commit}^{{commit}}")
        say(f"{name}: {known[name]}, CUDA {cuda or 'left out'}")
        export(commit, work / name)
        build(work / name, arguments.arch, cuda)
        copy(work / name, out / name, OF_NOW if name == "now" else ("ssim_fused",))
        write_module_of_any_python(out / name / "ssim_fused")
        (out / name / "COMMIT").write_text(f"{known[name]}\n")
    say(f"packages: {', '.join(PACKAGES)}")
    install(PACKAGES, out / "site")
    facts = {
        "commits": known,
        "architectures": arguments.arch,
        "nvcc": cuda,
        "torch": output(sys.executable, "-c", "import torch; print(torch.__version__)"),
    }
    (out / "bundle.json").write_text(json.dumps(facts, indent=1) + "\n")
    if found := faults(out):
        raise SystemExit("gpu_bundle: this bundle would not run elsewhere:\n  " + "\n  ".join(found))
    mib = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    say(f"{out}, {mib:.0f} MiB; there: python3 {out.name}/now/scripts/on_gpu.py OUT")
    return 0


if __name__ == "__main__":
    sys.exit(main())
