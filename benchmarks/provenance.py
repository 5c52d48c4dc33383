"""The build that a result is of: its commit, and a hash of the measured kernels.

The rows of benchmarks/results/*.csv have both. If the hash differs from that of the sources, the kernels have changed
since the measurement.
"""

from __future__ import annotations

import functools
import hashlib
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINE_COMMENT = re.compile(r"//.*")
SUFFIXES = (".h", ".cuh", ".cu", ".cpp")


def kernel_folders(device: str) -> tuple[str, ...]:
    """The folders of a device's kernels in a checkout, and of the formulas that the devices share."""
    return f"csrc/{device}/", "csrc/math/"


def hash_of(sources: Iterable[tuple[str, str]]) -> str:
    """A hash of paths and texts, in any order. Comments, blanks and line breaks do not change it."""
    digest = hashlib.sha256()
    for path, text in sorted(sources):
        words = " ".join(LINE_COMMENT.sub("", text).split())
        digest.update(f"{path}\n{words}\n".encode())
    return digest.hexdigest()[:10]


@functools.cache
def kernels(device: str, root: Path = ROOT) -> str:
    """The hash of a device's kernels in a checkout."""
    folders = [root / folder for folder in kernel_folders(device)]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES]
    return hash_of((path.relative_to(root).as_posix(), path.read_text()) for path in paths)


def git(*arguments: str, root: Path = ROOT) -> str:
    """The output of git, or an empty string without git or a repository."""
    try:
        ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def kernels_of_commit(device: str, commit: str, show: Callable[..., str] = git) -> str:
    """The hash of a device's kernels in a commit."""
    paths = show("ls-tree", "-r", "--name-only", commit, *kernel_folders(device)).splitlines()
    paths = [path for path in paths if Path(path).suffix in SUFFIXES]
    return hash_of((path, show("show", f"{commit}:{path}")) for path in paths)


@functools.cache
def commit(root: Path = ROOT) -> str:
    """The commit of a checkout, with a `+` if its sources differ from it, or the commit that a bundle's file states."""
    told = root / "COMMIT"
    if told.exists():
        return told.read_text().strip()
    head = git("rev-parse", "--short=10", "HEAD", root=root)
    changed = git("status", "--porcelain", "csrc", "ssim_fused", "setup.py", root=root)
    return f"{head}+" if head and changed else head
