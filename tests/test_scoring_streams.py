"""Tests FIFOs and process substitutions as videos, which are y4m streams that can be read only once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import av
import pytest
from scoring_files import moving_picture, run, save, write_video

from ssim_fused.scoring import UsageError, find_pairs

COUNT = 5


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder, frames = tmp_path_factory.mktemp("streams"), moving_picture(COUNT)
    return (
        str(write_video(folder / "r.mkv", frames, "ffv1")),
        str(write_video(folder / "d.mkv", frames, crf=36)),
    )


def y4m(path):
    """Returns the output of ``ffmpeg -i PATH -f yuv4mpegpipe -``."""
    file = io.BytesIO()
    with av.open(path) as container:
        for frame in container.decode(video=0):
            if not file.tell():
                file.write(f"YUV4MPEG2 W{frame.width} H{frame.height} F25:1 Ip A1:1 C420mpeg2\n".encode())
            file.write(b"FRAME\n" + frame.to_ndarray().tobytes())
    return file.getvalue()


@pytest.fixture
def fifo(tmp_path):
    """Creates a FIFO to which a thread writes the content, like another program."""
    threads = []

    def make(name, content):
        path = tmp_path / name
        os.mkfifo(path)
        threads.append(threading.Thread(target=_write, args=(path, content), daemon=True))
        threads[-1].start()
        return str(path)

    yield make
    for thread in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()


def _write(path, content):
    try:
        path.write_bytes(content)
    except BrokenPipeError:  # the reader has closed the FIFO
        return


def scores(out):
    return [line.split(",")[2:] for line in out.splitlines()]


@pytest.mark.parametrize("name", ["pipe", "pipe.mkv", "pipe.y4m", "pipe.yuv"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_fifo_has_the_scores_of_its_video(videos, fifo, name, side):
    paths = list(videos)
    paths[side] = fifo(name, y4m(paths[side]))
    code, out, err = run("compare", *paths, "--per-frame", "--format", "csv")
    assert (code, err) == (0, "")
    assert scores(out) == scores(run("compare", *videos, "--per-frame", "--format", "csv")[1])


def test_two_fifos_and_a_report(videos, fifo, tmp_path):
    paths = [fifo(f"pipe{k}", y4m(path)) for k, path in enumerate(videos)]
    code, out, err = run("compare", *paths, "--format", "csv", "--report", tmp_path / "r.html", "--map", tmp_path)
    assert (code, err) == (0, "")
    assert scores(out) == scores(run("compare", *videos, "--format", "csv")[1])


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="needs bash")
def test_a_process_substitution_has_the_scores_of_its_file(videos, tmp_path):
    (tmp_path / "d.y4m").write_bytes(y4m(videos[1]))
    script = '"$0" -m ssim_fused compare "$1" <(cat "$2") --format csv'
    command = ["/bin/bash", "-c", script, sys.executable, videos[0], tmp_path / "d.y4m"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert scores(done.stdout) == scores(run("compare", *videos, "--format", "csv")[1])


def test_a_stream_that_is_not_y4m_is_an_error(videos, fifo):
    path = fifo("pipe", b"\x1a\x45\xdf\xa3" + bytes(1000))
    code, _, err = run("compare", videos[0], path)
    assert code == 2
    assert f"{path} is not a y4m stream: it starts with b'\\x1aE\\xdf\\xa3" in err
    assert "write it with ffmpeg -i FILE -f yuv4mpegpipe -" in err


def test_a_fifo_compared_with_a_picture_is_a_picture(fifo, tmp_path):
    picture = save(tmp_path / "p.png", moving_picture(1)[0])
    code, out, err = run("compare", picture, fifo("pipe", picture.read_bytes()), "--format", "csv")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split(",")[2] == "1.0"


def test_a_stream_given_twice_is_refused(videos, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"is a stream, which can be read only once, but 2 distorted inputs are given"):
        find_pairs(pipe, list(videos))
    with pytest.raises(UsageError, match="'-' is a stream, which can be read only once"):
        find_pairs("-", list(videos))
    with pytest.raises(UsageError, match="pipe' is given twice, but can be read only once; give a file"):
        find_pairs(pipe, [pipe])
    (tmp_path / "list.csv").write_text(f"{videos[0]},{pipe}\n")
    code, _, err = run("compare", "--pairs", tmp_path / "list.csv")
    assert code == 2
    assert "pipe' is a FIFO, which cannot be listed; give it as an argument" in err


@pytest.mark.parametrize(("fields", "words"), [
    (b"W0 H4", "the header has the width W0; expected 1 to 65535"),
    (b"W4 H-4", "the header has the height H-4; expected 1 to 65535"),
    (b"Wabc H4", "the header has the width Wabc; expected 1 to 65535"),
    (b"W99999999999 H4", "the header has the width W99999999999; expected 1 to 65535"),
    (b"H4", "the header has no width (W)"),
    (b"W4", "the header has no height (H)"),
])  # fmt: skip
def test_a_y4m_header_without_a_valid_size_is_an_error(videos, fifo, tmp_path, fields, words):
    content = b"YUV4MPEG2 " + fields + b" F25:1 C420\nFRAME\n" + bytes(24)
    (tmp_path / "d.y4m").write_bytes(content)
    for path in (str(tmp_path / "d.y4m"), fifo("pipe", content)):
        code, _, err = run("compare", videos[0], path)
        assert code == 2
        assert f"{path}: broken y4m: {words}" in err.splitlines()[0]
