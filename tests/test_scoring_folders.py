"""Tests the pairing of folders: links, system files, Unicode forms of names, and folders that cannot be read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scoring_files import run, save

from ssim_fused.scoring import compare, find_pairs
from ssim_fused.scoring.folders import natural
from ssim_fused.scoring.pairs import frames_of

COMMAND = [sys.executable, "-m", "ssim_fused"]
BYTES = os.fsdecode(b"caf\xe9")  # a Latin-1 name, as on an old disk


def picture(path: str | Path, level: int = 100) -> Path:
    return save(Path(path), np.full((24, 24, 3), level, np.uint8))


def names(a: Path, b: Path) -> list[tuple[str, str, str | None]]:
    """Returns the pairs of two folders: relative paths and errors."""
    pairs = find_pairs(str(a), [str(b)])
    return [(os.path.relpath(p.reference, a), os.path.relpath(p.distorted, b), p.error) for p in pairs]


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "a", tmp_path / "b"


def test_links_to_folders_are_followed_and_cycles_terminate(folders, tmp_path):
    a, b = folders
    for folder in (tmp_path / "elsewhere", b / "shots"):
        picture(folder / "x.png")
        picture(folder / "deep/y.png")
    a.mkdir()
    (a / "shots").symlink_to(tmp_path / "elsewhere")
    (a / "again").symlink_to(a)
    (tmp_path / "elsewhere/up").symlink_to(a)
    assert names(a, b) == [("shots/deep/y.png", "shots/deep/y.png", None), ("shots/x.png", "shots/x.png", None)]


def test_a_linked_folder_is_read_once_and_pairs_by_either_name(folders):
    a, b = folders
    picture(a / "camera/x.png")
    (a / "default").symlink_to("camera")
    picture(b / "camera/x.png")
    assert names(a, b) == [("camera/x.png", "camera/x.png", None)]
    picture(b / "default/x.png")
    assert names(a, b) == [
        ("camera/x.png", "camera/x.png", None),
        ("camera/x.png", "default/x.png", None),
    ]


def test_a_broken_link_is_an_error(folders):
    a, b = folders
    picture(b / "x.png")
    a.mkdir()
    (a / "x.png").symlink_to("gone.png")
    code, _, err = run("compare", a, b)
    assert code == 2
    assert "x.png: No such file or directory" in err


@pytest.mark.parametrize("kind", ["fifo", "loop"])
def test_fifos_and_cyclic_links_are_errors_and_do_not_block(folders, kind):
    a, b = folders
    picture(b / "x.png")
    a.mkdir()
    if kind == "fifo":
        os.mkfifo(a / "x.png")
    else:
        (a / "x.png").symlink_to("x.png")
    code, _, err = run("compare", a, b)
    assert code == 2
    assert "only files are read" in err if kind == "fifo" else "symbolic links" in err


def test_files_of_operating_systems_are_ignored(folders):
    a, b = folders
    for folder in folders:
        picture(folder / "x.png")
    for name in ("._x.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._x.png", "@eaDir/x.png",
                 ".thumbnails/y.png", "notes.txt"):  # fmt: skip
        (a / name).parent.mkdir(exist_ok=True)
        (a / name).write_bytes(b"\0\5\x16\7")
    assert names(a, b) == [("x.png", "x.png", None)]
    assert run("compare", a, b)[0] == 0
    assert [Path(path).name for path in frames_of(str(a))] == ["x.png"]


def test_names_in_either_unicode_form_are_paired(folders, tmp_path):
    a, b = folders
    composed, decomposed = (unicodedata.normalize(form, "Zoë/é.png") for form in ("NFC", "NFD"))
    picture(a / composed)
    picture(b / decomposed)
    assert names(a, b) == [(composed, decomposed, None)]
    picture(tmp_path / "masks" / decomposed, 255)
    assert compare(str(a), str(b), mask=str(tmp_path / "masks"))["failed"] == []
    picture(b / composed)  # if both forms exist, each is its own name
    assert [(r, d) for r, d, error in names(a, b) if not error] == [(composed, composed)]
    assert [d for _, d, error in names(a, b) if error] == [decomposed]
    picture(a / decomposed)
    assert [error for *_, error in names(a, b)] == [None, None]


def test_natural_order_of_any_name():
    found = ["10².png", "f10", "f9", "f٣", "①", "f1", "f01", "9" * 5000, "", "²"]
    ordered = sorted(found, key=natural)
    assert all(sorted(found[k:] + found[:k], key=natural) == ordered for k in range(len(found)))
    assert sorted(["f10", "f9", "f01", "f1", "f1b"], key=natural) == ["f01", "f1", "f1b", "f9", "f10"]


def test_natural_order_of_a_superscript_digit(folders):
    a, b = folders
    for folder in folders:
        for name in ("10².png", "9².png", "x.png"):
            picture(folder / name)
    assert [name for name, *_ in names(a, b)] == ["9².png", "10².png", "x.png"]
    assert len(frames_of(str(a))) == 3


def test_pairs_whose_numbers_tie_have_a_fixed_order(folders):
    """Pairs come from a set, whose order differs between processes, but all ranks must number them alike."""
    for stem in ("f1", "f01", "f001", "f1a", "f01a", "g00", "g0"):
        for folder in folders:
            picture(folder / f"{stem}.png")
    order = [name for name, *_ in names(*folders)]
    assert order == ["f001.png", "f01.png", "f1.png", "f01a.png", "f1a.png", "g0.png", "g00.png"]
    assert [Path(path).name for path in frames_of(str(folders[0]))] == order


@pytest.mark.parametrize("both", [False, True])
def test_a_folder_that_cannot_be_read_is_an_error(folders, monkeypatch, both):
    a, b = folders
    for folder in folders:
        picture(folder / "x.png")
        picture(folder / "closed/y.png")
    closed = {str(a / "closed"), *([str(b / "closed")] if both else [])}
    scandir = os.scandir

    def refusing(path):  # simulated, because root may read everything
        if str(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("ssim_fused.scoring.folders.os.scandir", refusing)
    code, out, err = run("compare", a, b, "--format", "csv")
    assert code == 2
    assert out.splitlines()[1].split(",")[2] or "x.png" in out
    for folder in closed:
        assert f"{folder} cannot be read: Permission denied" in err
    # Counterparts in the other folder are not reported as missing.
    assert "has no file with this name" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_as_an_argument(folders):
    a, b = folders
    picture(b / "x.png")
    a.mkdir(0)
    code, _, err = run("compare", a, b)
    assert (code, "Permission denied" in err) == (2, True)
    a.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("path", ["a" * 300, "a/" * 3000, "null\0byte"])
def test_an_argument_that_is_no_valid_path(tmp_path, path):
    code, out, err = run("compare", picture(tmp_path / "x.png"), path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "markdown"])
def test_undecodable_names_in_every_output_format(folders, tmp_path, form):
    for folder in folders:
        picture(folder / f"{BYTES}.png")
    written = [tmp_path / "out", tmp_path / "report.html"]
    arguments = "--format", form, "--map", tmp_path / "maps", "--output", written[0], "--report", written[1]
    assert run("compare", *folders, *arguments) == (0, "", "")
    assert all("caf" in path.read_text(encoding="utf-8") for path in written)
    (drawn,) = (tmp_path / "maps").iterdir()
    assert Image.open(drawn).size[0] > 3 * 24


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_undecodable_names_on_strict_standard_output(folders, encoding):
    for folder in folders:
        picture(folder / f"漢{BYTES}.png")
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([*COMMAND, "compare", *map(str, folders)], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "caf" in done.stdout.decode(encoding.split(":")[0])


@pytest.mark.parametrize(
    "name",
    ["x" * 247, "漢" * 83, "two\nlines", "tab\tand\rreturn", "$\\frac{$", "_hidden", BYTES],
    ids=["long", "long in UTF-8", "lines", "controls", "mathematics", "underscore", "bytes"],
)
def test_names_of_maps_are_shortened_and_escaped(tmp_path, name):
    path = picture(tmp_path / f"{name}.png")
    code, out, err = run("compare", path, path, "--map", tmp_path / "maps", "--report", tmp_path / "r.html")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 4
    (drawn,) = (tmp_path / "maps").iterdir()
    assert "\n" not in drawn.name
    assert drawn.suffix == ".png"
    assert Image.open(drawn).size[0] > 3 * 24
