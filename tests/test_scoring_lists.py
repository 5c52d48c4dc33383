"""Tests ``--pairs``: lists as programs and spreadsheets save them, and errors in lists."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scoring_files import moving_picture, run, save, write_video

from ssim_fused.scoring import UsageError, compare, read_pairs
from ssim_fused.scoring.rates import bit_rate

NAMES = ("é.png", "b, c.png", "d; e.png", "f.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    for level, name in enumerate(NAMES):
        save(folder / name, np.full((24, 24, 3), 60 * level, np.uint8))
    save(folder / "mask.png", np.full((24, 24), 255, np.uint8))
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)


def paired(content: bytes | str, encoding: str = "utf-8") -> list[tuple[str, str]]:
    with open("list.csv", "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode(encoding))
    return [(pair.reference, pair.distorted) for pair in read_pairs("list.csv")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["", "Reference{0}DISTORTED", "sep={0}"])
def test_encodings_and_separators_of_spreadsheets(separator, encoding, end, head):
    rows = [head.format(separator)] * bool(head) + [f'"é.png"{separator}f.png', f"f.png{separator} é.png", ""]
    assert paired(end.join(rows), encoding) == [("é.png", "f.png"), ("f.png", "é.png")]


def test_separators_within_names():
    assert paired('"b, c.png",f.png') == [("b, c.png", "f.png")]
    assert paired("b, c.png;f.png\nf.png;b, c.png") == [("b, c.png", "f.png"), ("f.png", "b, c.png")]
    assert paired("d; e.png,f.png") == [("d; e.png", "f.png")]
    assert paired('"d; e.png";f.png') == [("d; e.png", "f.png")]
    assert paired("Distorted;mask;REFERENCE\nf.png;;b, c.png") == [("b, c.png", "f.png")]


def test_padded_rows_and_masks():
    assert paired("reference;distorted;;\nf.png;é.png;;\n;;;\n") == [("f.png", "é.png")]
    with open("list.csv", "w", encoding="utf-8") as file:
        file.write("Mask,Reference,Distorted\nmask.png,f.png,é.png\n,f.png,é.png\n")
    assert [pair.mask for pair in read_pairs("list.csv")] == ["mask.png", None]
    assert compare(pairs="list.csv")["failed"] == []


def test_undecodable_names_are_files_or_windows_1252():
    name = os.fsdecode(b"caf\xe9.png")
    save(Path(name), np.full((24, 24, 3), 9, np.uint8))
    assert paired(b"caf\xe9.png,f.png") == [(name, "f.png")]
    os.unlink(name)
    assert paired(b"caf\xe9.png,f.png") == [("café.png", "f.png")]  # without such a file, the bytes are Windows-1252


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no pairs"),
        (b"\n\n , \n", "has no pairs"),
        (b"reference,distorted\n", "has no pairs"),
        (b"f.png,f.png\nf.png\n", "line 2: number of columns is 1"),
        (b"f.png;f.png\nf.png\n", "line 2: number of columns is 1"),
        (b"f.png,f.png\n\na,b,c,d\n", "line 3: number of columns is 4"),
        (b"f.png,f.png\n,f.png\n", "line 2: reference is empty"),
        (b"f.png,-\n", "line 1: '-' (standard input) cannot be listed"),
        (b'f.png,f.png\n"f.png,f.png\n', "line 2: "),
        (b'f.png,"f.png"x\n', "line 1: "),
        (b"reference,distorted,score\nf.png,f.png,1\n", "line 1: the columns are reference, distorted, score"),
        (b"reference,distorted,distorted\nf.png,f.png,f.png\n", "line 1: the columns are"),
        (b"\xff\xfef\0", "line 1: number of columns is 1"),
        (b"\xff\xfef", "line 1: not valid utf-16"),
        (b"f.png,f.p\0ng\n", "line 1"),
        (b"PK\x03\x04xlsx", "is a spreadsheet"),
        (b"f.png," + b"x" * 200_000, "line 1: field larger"),
    ],
)  # fmt: skip
def test_errors_name_the_line(content, message):
    with open("list.csv", "wb") as file:
        file.write(content)
    code, out, err = run("compare", "--pairs", "list.csv")
    assert (code, out) == (2, "")
    assert message in err
    assert "--pairs list.csv" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("listing", [".", "missing.csv", "null\0byte", "x" * 300])
def test_a_list_that_cannot_be_opened(listing):
    code, out, err = run("compare", "--pairs", listing)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_failed_pair_names_its_line():
    with open("list.csv", "w") as file:
        file.write("reference,distorted\nf.png,f.png\nf.png,gone.png\n")
    code, out, err = run("compare", "--pairs", "list.csv", "--format", "json")
    assert code == 2
    assert "list.csv, line 3: f.png, gone.png: gone.png: No such file or directory" in err
    assert json.loads(out)["failed"][0]["error"] == "gone.png: No such file or directory"


def test_a_folder_in_a_list_is_an_error_that_names_the_line(tmp_path):
    with open("list.csv", "w") as file:
        file.write(f"{tmp_path},{tmp_path}\nf.png,f.png\n")
    code, out, err = run("compare", "--pairs", "list.csv")
    assert code == 2
    assert "line 1" in err
    assert "1 pair scored, 1 not scored" in out


def test_an_empty_list_is_refused():
    with pytest.raises(UsageError, match="has no pairs"):
        compare(pairs=[])


def test_a_colon_in_a_name_is_not_a_protocol(tmp_path, monkeypatch):
    write_video(tmp_path / "12.mp4", moving_picture(2)).rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    result = compare("12:30.mp4", ["12:30.mp4"])
    assert (result["failed"], result["pairs"][0]["ssim"]) == ([], 1)
    assert bit_rate("12:30.mp4")


@pytest.mark.parametrize("name", ["concat:f.png|f.png", "12:30.mp4", "http:x.mp4", "pipe:0.mp4", "subfile,,x.mp4"])
def test_names_in_lists_never_reach_protocols(name):
    with open("list.csv", "w") as file:
        file.write(f'"{name}",f.png\n"{name}","{name}"\n')
    code, _, err = run("compare", "--pairs", "list.csv")
    assert code == 2
    assert err.count(f"{name}: No such file or directory") == 2
