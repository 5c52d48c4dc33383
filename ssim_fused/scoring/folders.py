"""Lists the files of a folder and its subfolders by relative path without extension, for pairing.

Links to folders are followed, and each real folder is read once, so that a link to a parent does not loop. Files that
operating systems leave in folders (previews, resource forks, recycle bins) are skipped. A folder that cannot be read is
recorded with the reason.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from fnmatch import translate

# Files and folders created by macOS, Windows, Synology, GNOME, Jupyter and file systems, which are never scored.
JUNK = (
    "._*", ".DS_Store", "__MACOSX", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd", "Icon\r",
    "Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information",
    "@eaDir", ".thumbnails", ".Trash-*", ".ipynb_checkpoints", "lost+found",
)  # fmt: skip


_JUNK = re.compile("|".join(map(translate, JUNK)), re.IGNORECASE)


def is_junk(name: str) -> bool:
    """Returns whether an operating system or a program created this file or folder for its own use."""
    return _JUNK.match(name) is not None


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that puts ``frame10`` after ``frame9``; names with equal numbers (``f1``, ``f01``) sort as text."""
    # Numbers are compared by their count of digits, then as text: int() rejects numbers of more than 4300 digits.
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") for part in parts]
    keys = [(0, len(digits[k]), digits[k]) if k % 2 else (1, 0, part) for k, part in enumerate(parts) if part]
    return keys, name


def stem_of(relative: str) -> str:
    """Returns a relative path without its file extension."""
    return os.path.splitext(relative)[0]


def key_of(stem: str) -> str:
    """Returns the key that stems are compared by: Unicode's composed form, because macOS decomposes names."""
    return unicodedata.normalize("NFC", stem)


@dataclass
class Tree:
    """The contents of a folder.

    Attributes:
        folder: path of the folder.
        files: relative paths of the files, by :func:`key_of` of their stem.
        aliases: links to folders that are in the tree already: relative path of the link to that of the folder.
        unreadable: folders that cannot be read: relative path to the reason.
        special: relative paths that are neither files nor folders. They are not opened: reading a FIFO would block
            until something writes to it.

    """

    folder: str
    files: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    special: set[str] = field(default_factory=set)

    def find(self, key: str) -> list[str]:
        """Returns the relative paths with this key, also below a link to a folder listed under another name."""
        if key in self.files:
            return self.files[key]
        for alias, target in self.aliases.items():
            if key.startswith(key_of(alias) + "/"):
                rest = key[len(key_of(alias)) + 1 :]
                return self.files.get(key_of(_joined(target, rest)), [])
        return []

    def missing(self, key: str) -> str:
        """Returns the reason why there is no file with this key."""
        for relative, reason in self.unreadable.items():
            if key.startswith(key_of(relative) + "/"):
                return f"{self.path(relative)} cannot be read: {reason}"
        return f"{self.folder} has no file with this name"

    def path(self, relative: str) -> str:
        """Joins a relative path to that of the folder."""
        return os.path.join(self.folder, relative)


def read_tree(folder: str, endings: Container[str]) -> Tree:
    """Lists the files with one of these extensions (in lower case) in a folder and its subfolders."""
    tree = Tree(folder)
    seen: dict[tuple[int, int], str] = {}
    real, links = [""], deque[str]()
    while real or links:
        # Real folders come before links, so that files are listed under their real paths.
        relative = real.pop() if real else links.popleft()
        try:
            about = os.stat(tree.path(relative))
            first = seen.setdefault((about.st_dev, about.st_ino), relative)
            if first != relative:
                tree.aliases[relative] = first
                continue
            with os.scandir(tree.path(relative)) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            tree.unreadable[relative] = error.strerror or str(error)
            continue
        for entry in listed:
            name = _joined(relative, entry.name)
            if is_junk(entry.name):
                continue
            if _is_folder(entry):
                (links if entry.is_symlink() else real).append(name)
            elif os.path.splitext(entry.name)[1].lower() in endings:
                tree.files.setdefault(key_of(stem_of(name)), []).append(name)
                if not _is_file(entry):
                    tree.special.add(name)
    return tree


def _is_file(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a file, or a broken link, which its reader reports."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder or a link to one. If that fails, its reader reports the reason."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
