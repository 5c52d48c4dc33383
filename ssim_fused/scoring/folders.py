"""The files of a folder and of those within it, by relative path without ending, for pairing.

Links to folders are followed, and each real folder is read once, so that a link to a parent ends. What systems leave
in folders (previews, resource forks, recycle bins) is left out. A folder that cannot be read is kept with the reason.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, field
from fnmatch import translate

# Files and folders that nobody put there to be scored: of macOS, Windows, Synology, GNOME, Jupyter, and file systems.
JUNK = (
    "._*", ".DS_Store", "__MACOSX", ".AppleDouble", ".Spotlight-V100", ".Trashes", ".fseventsd", "Icon\r",
    "Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information",
    "@eaDir", ".thumbnails", ".Trash-*", ".ipynb_checkpoints", "lost+found",
)  # fmt: skip


_JUNK = re.compile("|".join(map(translate, JUNK)), re.IGNORECASE)


def is_junk(name: str) -> bool:
    """Whether an operating system left this file or folder there."""
    return _JUNK.match(name) is not None


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts ``frame10`` behind ``frame9``; names whose numbers tie (``f1``, ``f01``) are sorted as text."""
    # A number is compared by its count of digits, then as text: it may be longer than int() takes.
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") for part in parts]
    keys = [(0, len(digits[k]), digits[k]) if k % 2 else (1, 0, part) for k, part in enumerate(parts) if part]
    return keys, name


def stem_of(relative: str) -> str:
    """A relative path without its ending."""
    return os.path.splitext(relative)[0]


def key_of(stem: str) -> str:
    """What stems are compared by: Unicode's composed form, since macOS writes names decomposed."""
    return unicodedata.normalize("NFC", stem)


@dataclass
class Tree:
    """What lies in a folder.

    Attributes:
        folder: its path.
        files: relative paths, by :func:`key_of` their stems.
        aliases: relative paths of links to folders that are in the tree already, and where they are.
        unreadable: relative paths of folders that cannot be read, and why.
        special: relative paths of what has such a name but is no file; to read a FIFO would wait for its writer.

    """

    folder: str
    files: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    special: set[str] = field(default_factory=set)

    def find(self, key: str) -> list[str]:
        """The relative paths with this key, also below a link to a folder that is in the tree by another name."""
        if key in self.files:
            return self.files[key]
        for alias, target in self.aliases.items():
            if key.startswith(key_of(alias) + "/"):
                rest = key[len(key_of(alias)) + 1 :]
                return self.files.get(key_of(_joined(target, rest)), [])
        return []

    def missing(self, key: str) -> str:
        """Why there is no file with this key."""
        for relative, reason in self.unreadable.items():
            if key.startswith(key_of(relative) + "/"):
                return f"{self.path(relative)} cannot be read: {reason}"
        return f"{self.folder} has no file of this name"

    def path(self, relative: str) -> str:
        return os.path.join(self.folder, relative)


def read_tree(folder: str, endings: Container[str]) -> Tree:
    """The files with one of these endings (lower case) in a folder and in those within it."""
    tree = Tree(folder)
    seen: dict[tuple[int, int], str] = {}
    real, links = [""], deque[str]()
    while real or links:
        # Real folders come before links, so that files are found by their own names.
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
    """Whether it is a file, or a link whose target is missing, which its reader says."""
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:
        return True


def _is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder or a link to one; what cannot be told is a file, whose reader gives the reason."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
