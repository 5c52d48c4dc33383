"""Benchmark results state their version, date and commit, and whether the kernels have changed since."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import provenance
from benchmarks.plot import FOOTNOTE, MEASURED, OUTDATED, Run, draw_memory, draw_speed, short_table, tables
from benchmarks.rows import COPY_BANDWIDTH, RESULTS, Row, merge_csv, read_csv, write_csv


def row(library: str, median_ms: float, shape: str = "1x1x8x8", kernels: str = "new", **other: str) -> Row:
    common = {"op": "ssim", "sigma": 1.5, "device": "cuda", "device_name": "a GPU", "threads": 1, "dtype": "float32"}
    common |= {"mode": "value", "version": "0.1.0", "torch": "2.13.0", "date": "2026-11-23", "commit": "abc"}
    return Row(
        **(common | other), shape=shape, library=library, median_ms=median_ms, p20_ms=median_ms, p80_ms=median_ms,
        mpix_per_s=1e5 / median_ms, peak_images=2.0, kernels=kernels,
    )  # fmt: skip


def run_of(tmp_path: Path, *rows: Row) -> Run:
    write_csv(list(rows), tmp_path / "cuda.csv")
    return Run(tmp_path / "cuda.csv", "new")


def test_rows_of_older_kernels_are_marked(tmp_path: Path) -> None:
    rows = [row("ssim_fused", 1), row("other", 2)]
    assert all(OUTDATED not in text(run_of(tmp_path, *rows)) for text in (tables, short_table))
    rows += [row("ssim_fused", 1, "1x1x9x9", "old"), row("other", 2, "1x1x9x9")]
    run = run_of(tmp_path, *rows)
    for text in (tables(run), short_table(run)):
        assert "ssim_fused 0.1.0, 2026-11-23**" in text
        assert FOOTNOTE in text
        lines = {shape: [line for line in text.splitlines() if shape in line] for shape in ("1x1x8x8", "1x1x9x9")}
        assert all(lines.values())
        assert not any(OUTDATED in line for line in lines["1x1x8x8"])
        assert all(f"1x1x9x9 {OUTDATED} |" in line for line in lines["1x1x9x9"])


def test_rows_of_different_days_say_which(tmp_path: Path) -> None:
    first = [row("ssim_fused", 1), row("other", 2)]
    assert all(MEASURED not in text(run_of(tmp_path, *first)) for text in (tables, short_table))
    later = [row(name, 1, "1x1x9x9", version="0.2.0", date="2026-11-29") for name in ("ssim_fused", "other")]
    run = run_of(tmp_path, *first, *later)
    for text in (tables(run), short_table(run)):
        assert f"| {MEASURED} |" in text
        assert "| 0.1.0, 2026-11-23 |\n" in text
        assert "| 0.2.0, 2026-11-29 |\n" in text


@pytest.mark.parametrize("draw", [draw_speed, draw_memory])
def test_charts_are_svg_and_name_every_library(draw: Callable[[Run, str, Path], bool], tmp_path: Path) -> None:
    run = run_of(tmp_path, row("ssim_fused", 1), row("other <1>", 2), row(COPY_BANDWIDTH, 0.5))
    assert not draw(run, "value+gradient", tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()
    assert draw(run, "value", tmp_path / "chart.svg")
    root = ElementTree.parse(tmp_path / "chart.svg").getroot()
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ssim_fused", "other <1>"} <= set(texts)
    if draw is draw_speed:
        assert "50.0, 2.0x slower" in texts
        assert f"{COPY_BANDWIDTH} 200" in texts
    else:
        assert texts.count("2.00") >= 2


def test_only_the_fastest_is_bold(tmp_path: Path) -> None:
    rows = [row("ssim_fused", 1), row("other", 2), row("ssim_fused", 4, "1x1x9x9"), row("other", 2, "1x1x9x9")]
    run = run_of(tmp_path, *rows)
    for text in (tables(run).partition("Peak memory")[0], short_table(run)):
        assert "| **100** |" in text
        assert "| 25.0 |" in text


def test_a_case_is_replaced_as_a_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    write_csv([row("ssim_fused", 1), row("other", 2), row("ssim_fused", 3, "1x1x9x9")], old)
    write_csv([row("ssim_fused", 5, commit="def"), row("ssim_fused", 6, "1x1x7x7")], new)
    assert merge_csv(new, old) == 2
    found = [(line["shape"], line["library"], line["median_ms"], line["commit"]) for line in read_csv(old)]
    assert found == [
        ("1x1x8x8", "ssim_fused", "5", "def"),
        ("1x1x9x9", "ssim_fused", "3", "abc"),
        ("1x1x7x7", "ssim_fused", "6", "abc"),
    ]
    write_csv([row("ssim_fused", 5, device_name="another GPU")], new)
    before = old.read_text()
    with pytest.raises(ValueError, match=r"is of another GPU, .* of a GPU: expected one device"):
        merge_csv(new, old)
    assert old.read_text() == before


def test_the_hash_ignores_comments() -> None:
    code = ("csrc/cuda/a.cu", "int a = 1;  // one\n")
    same = ("csrc/cuda/a.cu", "// The number one.\nint a =\n    1;\n")
    assert provenance.hash_of([code]) == provenance.hash_of([same])
    for other in (("csrc/cuda/a.cu", "int a = 2;"), ("csrc/cuda/b.cu", code[1])):
        assert provenance.hash_of([code]) != provenance.hash_of([other])
    assert provenance.kernels("cpu") != provenance.kernels("cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_results_name_their_commits(device: str) -> None:
    """The kernels of each row's commit have the hash that the row states."""
    lines = read_csv(RESULTS / f"{device}.csv")
    told = {(line["commit"], line["kernels"]) for line in lines}
    assert all(re.fullmatch(r"[0-9a-f]{10}\+?", commit) and kernels for commit, kernels in told)
    assert all(set(line) == {field.name for field in fields(Row)} for line in lines)
    if not provenance.git("rev-parse", "--verify", "HEAD"):
        pytest.skip("no git repository")
    for commit, kernels in told:
        if commit.endswith("+") or not provenance.git("cat-file", "-t", commit):
            continue  # edited by hand, or a shallow clone
        assert provenance.kernels_of_commit(device, commit) == kernels
