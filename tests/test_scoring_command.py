"""Tests the command line itself: its imports, ``info`` and ``bench``, interruptions, and argument parsing."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from scoring_files import PHOTOGRAPHS, moving_picture, run, save, write_folders, write_video
from skimage import data

import ssim_fused
from ssim_fused.scoring import bench as bench_module
from ssim_fused.scoring.cli import make_parser
from ssim_fused.scoring.pairs import picture_endings

COMMAND = [sys.executable, "-m", "ssim_fused"]


def take_interrupts():
    """Restores SIGINT in a child process. A parent in the background or under nohup ignores it, which is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_help_imports_no_slow_module():
    """Slow modules are imported only where they are needed, so that a call costs little more than importing torch."""
    program = (
        "import sys; from ssim_fused.scoring import cli\n"
        "try: cli.main(['compare', '--help'])\n"
        "except SystemExit: print([m for m in ('PIL', 'av', 'jinja2', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--fail-under" in done.stdout


def test_commands_that_work_without_the_extra():
    """Blocks the modules of the extra. The package itself depends only on torch."""
    program = (
        "import sys\n"
        "for name in ('PIL', 'av', 'jinja2', 'matplotlib', 'numpy', 'tqdm'): sys.modules[name] = None\n"
        "from ssim_fused.scoring import cli\n"
        "for command in ['info'], ['--help'], ['compare', '--help'], ['--version']:\n"
        "    try: print('status', cli.main(command))\n"
        "    except SystemExit as end: print('status', end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert done.stdout.count("status 0\n") == 4
    info, top, compare, version, _ = done.stdout.split("status 0\n")
    assert "missing, with av" in info
    assert top.startswith("usage: ssim-fused [")
    assert compare.startswith("usage: ssim-fused compare [")
    assert version == f"ssim-fused {ssim_fused.__version__}\n"


def test_compare_without_the_extra_names_the_missing_package(monkeypatch, tmp_path):
    a, b = write_folders(tmp_path)
    files = "sub1/cat.png", "sub1/cat.jpg"
    for name, arguments in (
        ("PIL", (a, b)),
        ("PIL", (a / files[0], b / files[1])),
        ("numpy", (a / files[0], b / files[1])),
        ("tqdm", (a, b)),
        ("matplotlib", (a, b, "--report", tmp_path / "r.html")),
    ):
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, name, None)
            missing.delitem(sys.modules, "ssim_fused.scoring.readers.rules", raising=False)  # it has imported numpy
            picture_endings.cache_clear()
            code, _, err = run("compare", *arguments)
        assert (code, err) == (2, f"ssim-fused: {name} is not installed; run: pip install 'ssim_fused[scoring]'\n")
    assert not (tmp_path / "r.html").exists()


def test_help_has_groups_and_describes_every_option():
    code, out, _ = run("compare", "--help")
    assert code == 0
    groups = ["inputs:", "scores:", "results:", "resources:", "Exit status:"]
    assert [out.count(f"\n{group}") for group in groups] == [1] * len(groups)
    compare = make_parser()._subparsers._group_actions[0].choices["compare"]
    assert all(action.help for action in compare._actions)


def test_version():
    assert run("--version") == (0, f"ssim-fused {ssim_fused.__version__}\n", "")


def test_a_bug_exits_with_status_3(monkeypatch, tmp_path):
    a, b = write_folders(tmp_path)

    def broken(*arguments):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("ssim_fused.scoring.command.find_pairs", broken)
    code, _, err = run("compare", a, b, "--fail-under", 0.5)
    assert code == 3
    assert "this is a bug; please report it" in err
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize(
    "error",
    [RuntimeError("avif"), struct.error("gif"), TypeError("tiff"), KeyError(3), MemoryError(), AssertionError(),
     RecursionError("deep"), ImportError("a codec"), UnicodeDecodeError("ascii", b"x", 0, 1, "no"), EOFError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["pictures", "frames"])
def test_any_exception_of_a_reader_is_an_error_of_its_file(monkeypatch, tmp_path, error, kind):
    a, b = write_folders(tmp_path)
    save(a / "poisoned.png", data.camera()[:32, :32])
    save(b / "poisoned.png", data.camera()[:32, :32])
    arguments = a, b
    if kind == "frames":
        frames = [data.camera()[:192, :208]] * 2
        videos = [write_video(tmp_path / f"{folder}/x.mkv", frames, "ffv1", "gray") for folder in "vw"]
        for number in range(2):
            save(tmp_path / f"frames/poisoned{number}.png", frames[0])
        arguments = videos[0], videos[1], tmp_path / "frames"

    for name in ("decoding", "sequence"):
        module = importlib.import_module(f"ssim_fused.scoring.{name}")
        read = module.read_picture

        def poisoned(path, *limits, read=read):
            if "poisoned" in path:
                raise error
            return read(path, *limits)

        monkeypatch.setattr(module, "read_picture", poisoned)
    code, out, err = run("compare", *arguments, "--format", "jsonl")
    assert code == 2
    lines = [json.loads(line) for line in out.splitlines()]
    assert ["error" in line for line in lines].count(True) == 1
    assert len(lines) == (4 if kind == "pictures" else 2)
    assert err.count("\n") == 2
    assert "poisoned" in err
    assert type(error).__name__ in err or str(error) in err


def test_absurdly_large_values_are_usage_errors(tmp_path):
    picture = save(tmp_path / "x.png", data.camera()[:32, :32])
    for options in (
        ("--window", "uniform", "--kernel-size", "9" * 30), ("--window", "uniform", "--kernel-size", 2**31 + 1),
        ("--window", "uniform", "--kernel-size", 2**31 - 1), ("--sigma", "1e300"), ("--sigma", "1e8"),
        ("--crop", "9" * 30), ("--workers", "9" * 30), ("--workers", "100000"), ("--batch", "0"),
    ):  # fmt: skip
        code, _, err = run("compare", picture, picture, *options)
        assert (code, "Traceback" in err) == (2, False), options
        assert all(line.startswith("ssim-fused: ") for line in err.splitlines())


def test_info_prints_what_a_bug_report_needs():
    code, out, _ = run("info")
    assert code == 0
    lines = {line[:27].strip(): line[27:].strip() for line in out.splitlines()}
    assert lines["ssim_fused"] == ssim_fused.__version__
    assert {"would use", "torch", "pillow", "av", "FFmpeg", "Python", "CPU"} <= set(lines)
    assert all(str(value) in lines.values() for value in ssim_fused.build_info().values() if value)


def test_bench_prints_all_figures(monkeypatch):
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
    assert out.count("ms per pair\n") >= 3


@pytest.mark.parametrize("form", ["json", "csv"])
def test_an_interrupted_run_prints_its_results_so_far(tmp_path, form):
    picture = save(tmp_path / "x.png", data.astronaut())
    listing = tmp_path / "list.csv"
    listing.write_text(f"{picture},{picture}\n" * 20000)
    command = [*COMMAND, "compare", "--pairs", str(listing), "--format", form]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, preexec_fn=take_interrupts, **pipes) as process:
        assert process.stdout is not None
        first = b""
        while first.count(b"\n") < 20:  # waits until some pairs have been scored
            first += process.stdout.read(1000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted after" in err
    assert b"Traceback" not in err
    out = (first + rest).decode()
    count = len(json.loads(out)["pairs"]) if form == "json" else len(out.splitlines()) - 1
    assert 0 < count < 20000


def test_an_interruption_does_not_wait_for_standard_input(tmp_path):
    video = write_video(tmp_path / "x.mp4", moving_picture(3))
    command = [*COMMAND, "compare", str(video), "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, preexec_fn=take_interrupts, **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(b"YUV4MPEG2 W208 H192 F25:1 C420\n")  # a header without a frame
        process.stdin.flush()
        while struct.unpack("i", fcntl.ioctl(process.stdin.fileno(), termios.FIONREAD, bytes(4))) != (0,):
            time.sleep(0.05)  # gives the process time to read the header and to block on standard input
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr is not None
        err = process.stderr.read()
        assert b"interrupted after 0 of 1 pairs" in err
        assert b"Traceback" not in err
        assert b"Fatal" not in err


def test_progress_is_shown_on_a_terminal_and_not_in_the_results(tmp_path):
    a, b = write_folders(tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows and columns of the terminal
    done = subprocess.run(
        [*COMMAND, "compare", str(a), str(b), "--format", "json"], stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # reading fails when the other side has closed the terminal
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert b"3/3" in shown
    assert len(json.loads(done.stdout)["pairs"]) == 3


def test_a_reader_that_exits_early_is_not_an_error(tmp_path):
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


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    a, b = write_folders(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, _, err = run("compare", a, b, "--report", tmp_path / "r.html")
    assert code == 2
    assert "jinja2 is not installed; run: pip install 'ssim_fused[scoring]'" in err


def test_options_may_come_between_paths(tmp_path):
    photographs = [array()[:100, :120] for array in PHOTOGRAPHS.values()]
    x, y, z = (save(tmp_path / f"{k}.png", array) for k, array in enumerate(photographs))
    expected = run("compare", x, y, z, "--luma", "bt601", "--crop", 4, "--format", "csv")
    assert (expected[0], expected[2]) == (0, "")
    csv = "--format", "csv"
    for words in ((x, "--luma", y, "--crop", 4, z), ("--luma", x, "--crop", 4, y, z),
                  (x, "--luma", y, "--crop=4", "--", z), ("--luma", "--crop", 4, "--", x, y, z)):  # fmt: skip
        assert run("compare", *csv, *words) == expected
    weird = save(tmp_path / "-odd.png", photographs[0])
    assert run("compare", x, "--crop", 4, "--", weird)[0] == 0
    for words in ((x, "--nothing", y), (x, y, "--nothing"), ("--nothing", x, "--crop", 4, "--", y)):
        code, out, err = run("compare", *words)
        assert (code, out) == (2, "")
        assert err == "ssim-fused: unrecognized arguments: --nothing; see ssim-fused compare --help\n"
    assert run("info", "x")[0] == 2


@pytest.mark.parametrize(("option", "value", "words"), [
    ("--ignore", "-1,0,5,5", "ignore is -1,0,5,5; expected x, y >= 0 and w, h >= 1."),
    ("--frames", "-3:5", "frames is -3:5:1; expected A:B:STEP with 0 <= A < B"),
    ("--data-range", "-1e3", "data_range is -1000.0; expected a number above 0."),
    ("--sigma", "-.5", "sigma is -0.5; expected a number above 0."),
    ("--fail-under", "-90", "fail-under is -90"),
])  # fmt: skip
def test_values_may_start_with_a_minus_sign(tmp_path, option, value, words):
    picture = save(tmp_path / "x.png", PHOTOGRAPHS["cat"]()[:50, :50])
    for given in ((option, value), (f"{option}={value}",)):
        code, _, err = run("compare", picture, picture, *given)
        assert code == 2
        assert words in err.splitlines()[-1]
    assert run("compare", picture, picture, "--fail-under", "-.5")[0] == 0
