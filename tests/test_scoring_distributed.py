"""Tests that runs under torchrun print the same bytes as one process, and that a crash of one rank ends the job."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scoring_files import moving_picture, run, save, write_folders, write_video
from skimage import data

from ssim_fused.scoring import Settings, distributed, find_pairs, score
from ssim_fused.scoring.decoding import whole
from ssim_fused.scoring.results import collect
from ssim_fused.scoring.score import score_parts

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def torchrun(*arguments, program=("-m", "ssim_fused"), processes=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONHASHSEED", None)  # each process has its own hash seed, as outside of tests
    return subprocess.run(
        [*command, *program, "compare", *map(str, arguments)], capture_output=True, env=environment, timeout=240
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    a, b = write_folders(folder)
    save(a / "broken.png", data.camera()[:64, :64])
    (b / "broken.png").write_text("")
    frames = moving_picture(25)
    videos = [write_video(folder / f"{crf}.mp4", frames, crf=crf, g=10) for crf in (8, 33)]
    return a, b, *videos


@pytest.mark.parametrize("form", ["json", "csv"])
def test_two_folders_print_the_same_bytes(files, form):
    arguments = (
        *files[:2],
        "--metric",
        "ssim,ms-ssim,psnr",
        "--format",
        form,
        "--pool",
        "mean,p5,harmonic",
        "--per-frame",
    )
    done = torchrun(*arguments)
    code, out, err = run("compare", *arguments)
    assert done.stdout.decode() == out
    assert code == 2
    assert done.returncode != 0
    assert "broken.png" in err
    assert done.stderr.decode().count("1 of 4 pairs could not be scored") == 1


def test_each_pair_is_scored_once_if_numbers_in_names_tie(tmp_path):
    """Every process finds the pairs itself, with its own hash seed, and all must number them alike."""
    for stem in ("f1", "f01", "f001", "g2", "g02", "g002", "h0"):
        for folder in "ab":
            save(tmp_path / folder / f"{stem}.png", data.camera()[:16, :16])
    done = torchrun(tmp_path / "a", tmp_path / "b", "--format", "csv")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == run("compare", tmp_path / "a", tmp_path / "b", "--format", "csv")[1]
    assert done.stdout.count(b"\n") == 8


def test_one_video_with_a_map_and_a_report(files, tmp_path):
    written = {}
    for name, call in (("one", run), ("two", None)):
        arguments = (*files[2:], "--luma", "bt601", "--metric", "ssim,psnr", "--frames", "1:24:2", "--per-frame",
                     "--format", "json", "--map", tmp_path / name, "--report", tmp_path / f"{name}.html")  # fmt: skip
        if call:
            code, out, err = call("compare", *arguments)
            assert code == 0, err
        else:
            done = torchrun(*arguments)
            assert done.returncode == 0, done.stderr.decode()
            assert done.stdout.decode() == out
        (drawn,) = (tmp_path / name).iterdir()
        page = (tmp_path / f"{name}.html").read_text()
        page = re.sub(r"<p>\d{4}-\d\d-\d\d [^.]*|<pre>.*?</pre>", "", page, flags=re.S)  # the date and the command
        written[name] = drawn.name, drawn.read_bytes(), page
    assert written["one"] == written["two"]
    assert [frame["frame"] for frame in json.loads(out)["pairs"][0]["frames"]] == list(range(1, 24, 2))


def _encoded(path, ending):
    frames = moving_picture(40, 64, 48)
    if ending == "mp4":  # open groups of pictures
        return write_video(path, frames, "libx265", x265_params="keyint=10:min-keyint=10:log-level=none")
    return write_video(path, frames, g=10, bf=2)


@pytest.mark.parametrize("ending", ["ts", "mp4", "avi"])
def test_ranks_together_score_the_frames_of_one_process(tmp_path, ending):
    """Reads the range of each rank and joins them. A file in which decoding cannot start late is read by one rank."""
    reference = write_video(tmp_path / "r.mkv", moving_picture(40, 64, 48), "ffv1")
    pairs = find_pairs(str(reference), [str(_encoded(tmp_path / f"d.{ending}", ending))])
    for frames in ((0, None, 1), (3, 38, 3)):
        settings = Settings(frames=frames)
        shares = []
        for rank in range(3):
            parts = distributed.share(pairs, settings, distributed.Group(rank, 3))
            shares.append(list(collect(score_parts(parts, settings), parts, "ssim")))
        (alone,) = collect(score(pairs, settings), list(whole(pairs, settings)), "ssim")
        (result,) = distributed.merged(shares, "ssim")
        assert (result.numbers, result.scores) == (alone.numbers, alone.scores)
        assert result.numbers == list(range(40))[slice(*frames)]
        assert [bool(share) for share in shares] == [True, ending != "avi", ending != "avi"]


def test_fail_under_sets_the_exit_status(files):
    done = torchrun(*files[2:], "--luma", "bt601", "--fail-under", 0.9999)
    assert done.returncode == 1


def test_a_stream_is_refused(files):
    done = torchrun(files[2], "-")
    assert done.returncode != 0
    assert b"under torchrun give files" in done.stderr


def test_a_rank_that_dies_ends_the_job(files):
    done = torchrun(*files[:2], "--format", "json", program=(str(HERE / "scoring_rank.py"),))
    assert done.returncode != 0
    assert b"rank 1 cannot go on with" in done.stderr
    assert done.stdout.strip() in (b"", b'{"pairs": [')
