"""The command itself: what it imports, what it says of the machine, and that an interruption loses nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios

import pytest
from scoring_files import run, save, write_folders
from skimage import data

import ssim_fused
from ssim_fused.scoring import bench as bench_module

COMMAND = [sys.executable, "-m", "ssim_fused"]


def test_help_imports_nothing_that_it_does_not_need():
    """What takes long to import is imported by what needs it: beyond torch, a call costs little."""
    program = (
        "import sys; from ssim_fused.scoring import cli\n"
        "try: cli.main(['compare', '--help'])\n"
        "except SystemExit: print([m for m in ('PIL', 'av', 'jinja2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--fail-under" in done.stdout


def test_info_says_what_a_bug_report_needs():
    code, out, _ = run("info")
    assert code == 0
    lines = {line[:27].strip(): line[27:].strip() for line in out.splitlines()}
    assert lines["ssim_fused"] == ssim_fused.__version__
    assert {"would use", "torch", "pillow", "av", "FFmpeg", "Python", "CPU"} <= set(lines)
    assert all(str(value) in lines.values() for value in ssim_fused.build_info().values() if value)


def test_bench_measures_what_it_says(monkeypatch):
    for name, value in (("WIDTH", 192), ("HEIGHT", 176), ("PAIRS", 2), ("FRAMES", 4)):
        monkeypatch.setattr(bench_module, name, value)
    for function in (bench_module.write_pictures, bench_module.write_videos):
        monkeypatch.setattr(function, "__defaults__", (2,))
    monkeypatch.setattr(bench_module.picture, "__defaults__", (176, 192))
    code, out, err = run("bench", "--seconds", 0.01)
    assert code == 0, err
    assert [line.split(":")[0] for line in out.splitlines() if "decoding alone" in line] == [
        "JPEG, RGB", "H.264, luma", "H.264, Y, U and V",
    ]  # fmt: skip
    assert out.count("ms a pair\n") >= 3


@pytest.mark.parametrize("form", ["json", "csv"])
def test_an_interruption_prints_what_it_has(tmp_path, form):
    picture = save(tmp_path / "x.png", data.astronaut())
    listing = tmp_path / "list.csv"
    listing.write_text(f"{picture},{picture}\n" * 20000)
    command = [*COMMAND, "compare", "--pairs", str(listing), "--format", form]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        first = b""
        while first.count(b"\n") < 20:  # some pairs are scored
            first += process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted after" in err
    assert b"Traceback" not in err
    out = (first + rest).decode()
    count = len(json.loads(out)["pairs"]) if form == "json" else len(out.splitlines()) - 1
    assert 0 < count < 20000


def test_progress_is_shown_on_a_terminal_and_apart_from_the_results(tmp_path):
    a, b = write_folders(tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows and columns, to draw a bar in
    done = subprocess.run(
        [*COMMAND, "compare", str(a), str(b), "--format", "json"], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone once all is read
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert b"3/3" in shown
    assert len(json.loads(done.stdout)["pairs"]) == 3


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    picture = save(tmp_path / "x.png", data.astronaut()[:32, :32])
    listing = tmp_path / "list.csv"
    listing.write_text(f"{picture},{picture}\n" * 5000)
    command = [*COMMAND, "compare", "--pairs", str(listing), "--format", "csv"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_what_is_missing_is_named_with_its_extra(monkeypatch, tmp_path):
    a, b = write_folders(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, err = run("compare", a, b, "--report", tmp_path / "r.html")
    assert code == 2
    assert "jinja2 is missing; pip install 'ssim_fused[scoring]'" in err
