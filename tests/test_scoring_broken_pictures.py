"""Tests limits, broken and malicious files, and the worker processes that read them."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import picture_bytes as raw
import pytest
import torch
from picture_bytes import Page, tiff
from picture_files import HEIGHT, WIDTH, by_av, every_case, noise, pypng
from picture_helpers import COLOR, error_of, pixels_of, scores, written
from PIL import Image
from scoring_files import run, save

from ssim_fused.scoring import PairError
from ssim_fused.scoring.picture import opened_picture, read_picture
from ssim_fused.scoring.readers import pool
from ssim_fused.scoring.readers.samples import Limits


def large_files(tmp_path):
    """Yields files whose headers state 30000 x 30000 pixels, without that many pixels."""
    side = 30000
    png = pypng(noise(8), 8)
    ihdr = side.to_bytes(4, "big") * 2 + png[24:29]
    yield "png", png[:8] + raw.png_chunk(b"IHDR", ihdr) + png[33:]
    deep = pypng(noise(16, 3), 16)
    yield "png", deep[:8] + raw.png_chunk(b"IHDR", side.to_bytes(4, "big") * 2 + deep[24:29]) + deep[33:]
    jpeg = io.BytesIO()
    Image.fromarray(COLOR).save(jpeg, "JPEG")
    at = jpeg.getvalue().index(b"\xff\xc0")
    yield "jpg", jpeg.getvalue()[: at + 5] + side.to_bytes(2, "big") * 2 + jpeg.getvalue()[at + 9 :]
    yield "tif", tiff(Page(noise(8), tags={256: (raw.LONG, [side]), 257: (raw.LONG, [side]), 278: (raw.LONG, [side])}))
    yield "ppm", b"P6 30000 30000 255\n" + bytes(100)
    yield "bmp", raw.bmp(COLOR)[:18] + side.to_bytes(4, "little") * 2 + raw.bmp(COLOR)[26:]
    yield "gif", b"GIF89a" + side.to_bytes(2, "little") * 2 + b"\x80\0\0" + bytes(6) + b"," + bytes(9) + b"\2\1\0\0;"
    yield "j2k", by_av("jpeg2000", noise(8), "gray", format="j2k").replace(
        WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big"), side.to_bytes(4, "big") * 2, 1)  # fmt: skip
    yield "hdr", raw.radiance(np.zeros((2, 2, 4)), "-Y 30000 +X 30000")


def test_pictures_above_the_limit_are_refused_before_they_are_decoded(tmp_path):
    for number, (ending, content) in enumerate(large_files(tmp_path)):
        path = written(tmp_path / f"{number}.{ending}", content)
        with pytest.raises(PairError, match="--max-pixels"):
            read_picture(str(path))


def test_all_readers_apply_max_pixels(tmp_path, recwarn):
    names = {"png-8-3", "png-16-3", "tiff-16-3-big", "netpbm-P6-255", "jpeg2000-8", "webp", "bmp", "exr", "avif-10"}
    cases = [case for case in every_case() if case.name in names]
    assert len(cases) == len(names)
    for case in cases:
        path = written(tmp_path / f"x.{case.ending}", case.data())
        assert read_picture(str(path), Limits(1.5, HEIGHT * WIDTH)).size == f"{WIDTH}x{HEIGHT}"
        with pytest.raises(PairError, match=f"{WIDTH}x{HEIGHT} pixels, .* --max-pixels"):
            read_picture(str(path), Limits(1.5, HEIGHT * WIDTH - 1))
    x = save(tmp_path / "x.png", COLOR)
    assert "--max-pixels" in error_of(x, x, "--max-pixels", 6299)
    assert scores(x, x, "--max-pixels", 6300)["pairs"][0]["ssim"] == 1
    assert "max_pixels is 0" in error_of(x, x, "--max-pixels", 0)
    assert not recwarn.list


def test_pillows_own_pixel_limit_has_no_effect(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for ending in ("png", "jpg", "bmp", "webp"):
        path = tmp_path / f"x.{ending}"
        Image.new("RGB", (90, 70)).save(path)
        assert read_picture(str(path)).size == "90x70"


ROOT = str(Path(__file__).parents[1])

# Replaces a decoder by one that crashes, hangs or raises, depending on the content of the file.
POISON = """
import os, time, readers.worker as worker
inner = worker.open_bytes
def poisoned(data, limits):
    if data.endswith(b"CRASH"):
        os.kill(os.getpid(), 11)
    if data.endswith(b"EXIT"):
        os._exit(3)
    if data.endswith(b"HANG"):
        time.sleep(600)
    return inner(data, limits)
worker.open_bytes = poisoned
main()
"""


@pytest.fixture
def poisonous(monkeypatch):
    assert pool._PROGRAM.rstrip().endswith("main()")
    monkeypatch.setattr(pool, "_PROGRAM", pool._PROGRAM.rstrip().removesuffix("main()") + POISON)
    monkeypatch.setattr(pool, "TIMEOUT", 2.0)
    workers = pool._Pool()
    monkeypatch.setattr("ssim_fused.scoring.picture.POOL", workers)
    yield
    workers.close()


def test_a_crashing_decoder_costs_one_error_line(tmp_path, poisonous):
    good = tiff(Page(noise(16, 3), raw.RGB))
    for number in range(9):
        for folder in "ab":
            (tmp_path / folder).mkdir(exist_ok=True)
            written(tmp_path / f"{folder}/{number}.tif", good)
    for number, end in ((2, b"CRASH"), (4, b"HANG"), (6, b"EXIT")):
        written(tmp_path / f"b/{number}.tif", good + end)
    code, out, err = run("compare", tmp_path / "a", tmp_path / "b", "--format", "json")
    assert code == 2
    result = json.loads(out)
    assert [pair["ssim"] for pair in result["pairs"] if "ssim" in pair] == [1.0] * 6
    lines = [line for line in err.splitlines() if "decoder" in line]
    assert len(lines) == 3
    assert "2.tif: the decoder crashed (SIGSEGV)" in lines[0]
    assert "4.tif: the decoder took more than 2 s" in lines[1]
    assert "6.tif: the decoder exited with status 3" in lines[2]


@pytest.mark.parametrize("error", [RuntimeError("x"), struct.error("x"), TypeError("x"), AssertionError(),
                                   MemoryError(), KeyError("x"), RecursionError("x")], ids=repr)  # fmt: skip
def test_any_exception_of_a_decoder_is_one_error_line(tmp_path, monkeypatch, error):
    from PIL import JpegImagePlugin

    def broken(*_):
        raise error

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", broken)
    Image.fromarray(COLOR).save(tmp_path / "x.jpg")
    err = error_of(tmp_path / "x.jpg", tmp_path / "x.jpg")
    assert len(err.splitlines()) == 2  # the pair, and the number of pairs that failed
    assert "x.jpg: " in err


def test_a_missing_package_is_named_with_the_pip_command(tmp_path, monkeypatch):
    blocked = "import sys\nsys.modules['tifffile'] = None\n"
    monkeypatch.setattr(pool, "_PROGRAM", blocked + pool._PROGRAM)
    workers = pool._Pool()
    monkeypatch.setattr("ssim_fused.scoring.picture.POOL", workers)
    path = written(tmp_path / "x.tif", tiff(Page(noise(8))))
    err = error_of(path, path)
    workers.close()
    assert "tifffile" in err
    assert "pip install 'ssim_fused[scoring]'" in err


def broken_files(case, generator, count):
    content = case.data()
    for _ in range(count):
        yield "cut", content[: generator.integers(1, len(content))]
        flipped = bytearray(content)
        for _ in range(generator.integers(1, 4)):
            flipped[generator.integers(0, min(len(flipped), generator.choice([64, 400, len(flipped)])))] ^= (
                1 << generator.integers(0, 8)
            )
        yield "flip", bytes(flipped)


def read_or_error(read):
    try:
        return read(), ""
    except PairError as error:
        return None, str(error)


def check_broken(path, cases, count, seed=0):
    generator = np.random.default_rng(seed)

    def read():
        with opened_picture(str(path), Limits(1.5)) as file:
            return [file.frame(number).pixels for number in range(min(file.count, 3))]

    for case in cases:
        path.write_bytes(case.data())
        whole = read()
        for kind, content in broken_files(case, generator, count):
            path.write_bytes(content)
            pixels, error = read_or_error(read)
            assert "decoder took" not in error
            assert "\n" not in error
            if pixels is None:
                continue
            text = case.name.startswith(("netpbm-P2", "netpbm-P3"))  # a truncated last number is still a number
            if kind == "cut" and not text:  # Only bytes that no pixel depends on may be missing.
                assert len(pixels) == len(whole), case.name
                assert all(torch.equal(a.double(), b.double()) for a, b in zip(pixels, whole, strict=True)), case.name


def test_broken_files_are_errors_or_read_exactly(tmp_path):
    names = {"png-8-3", "png-8-4-interlaced", "png-16-3-interlaced", "png-palette-4", "png-2-1-trns",
             "tiff-16-3-little", "tiff-12-3-planar-tiled-big", "tiff-16-4-tiled-little-deflate", "tiff-lzw-16",
             "tiff-ccitt-1", "bigtiff-16-little", "tiff-palette-16", "netpbm-P3-1023", "netpbm-P6-4095",
             "netpbm-P4", "pam-rgba-255", "jpeg2000-16-3", "avif-10",
             "avif-8", "webp", "webp-alpha", "bmp", "gif", "qoi", "pfm-little", "exr",
             "radiance", "radiance-rle"}  # fmt: skip
    cases = [case for case in every_case() if case.name in names]
    assert len(cases) == len(names)
    check_broken(tmp_path / "x.bin", cases, 5)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 100}], ids=str)
def test_a_truncated_jpeg_is_an_error(tmp_path, options):
    file = io.BytesIO()
    Image.fromarray(COLOR).save(file, "JPEG", **options)
    content = file.getvalue()
    for end in [*range(0, len(content) - 2, 61), len(content) - 2]:
        path = written(tmp_path / "x.jpg", content[:end])
        with pytest.raises(PairError):
            read_picture(str(path))


def test_decoders_print_nothing_on_standard_error(tmp_path):
    """Standard error has one line for each broken file, and one with their number."""
    generator, names = np.random.default_rng(0), []
    for case in every_case():
        if case.name.split("-")[0] not in names:
            names.append(case.name.split("-")[0])
            content = bytearray(case.data())
            content[generator.integers(20, len(content))] ^= 255
            written(tmp_path / f"{len(names)}.bin", content[: -len(content) // 4])
    content = io.BytesIO()
    Image.fromarray(COLOR).save(content, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12")
    written(tmp_path / "0.bin", content.getvalue()[:-9])
    count = len(names) + 1
    listing = written(tmp_path / "l.csv", b"".join(b"%d.bin,%d.bin\n" % (n, n) for n in range(count)))
    command = [sys.executable, "-m", "ssim_fused", "compare", "--pairs", listing]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == count + 1, done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_broken_files_of_the_full_matrix(tmp_path, seed):
    check_broken(tmp_path / "x.bin", every_case(), 12, seed + 1)


def test_a_changed_byte_of_a_png_is_detected(tmp_path):
    content = pypng(noise(8, 3), 8)
    for at in range(8, len(content), 97):
        changed = bytearray(content)
        changed[at] ^= 4
        path = written(tmp_path / "x.png", changed)
        with pytest.raises(PairError):
            read_picture(str(path))


@pytest.mark.parametrize("content", [b"", b"x", b"BM", b"P6", b"II*\0", b"MM\0+", b"GIF89a", b"\xff\xd8\xff",
                                     b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\x4f\xff\x51", b"\xff\x0a",
                                     b"\0\0\0\x20ftypavif", b"\0\0\0\x20ftypheic", b"#?RADIANCE\n\n",
                                     b"\x76\x2f\x31\x01", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
                                     b"DDS |\0\0\0", b"BLP2", b"Image type: x\r\n", b"8BPS\0\1",
                                     b"\x01\xda"])  # fmt: skip
def test_a_file_with_only_a_signature_is_one_error_line(tmp_path, content):
    path = written(tmp_path / "x.bin", content)
    assert len(error_of(path, path).splitlines()) == 2


def test_files_are_read_by_many_threads_concurrently(tmp_path):
    arrays = [noise(16, 3, seed) for seed in range(24)]
    paths = [written(tmp_path / f"{n}.tif", tiff(Page(a, raw.RGB))) for n, a in enumerate(arrays)]
    with ThreadPoolExecutor(4) as threads:
        for pixels, array in zip(threads.map(pixels_of, paths), arrays, strict=True):
            assert np.array_equal(pixels, array)


def test_a_worker_process_does_not_import_torch(tmp_path):
    path = written(tmp_path / "x.tif", tiff(Page(noise(16))))
    program = (
        pool._PROGRAM.rstrip().removesuffix("main()")
        + f"""
from readers.formats import open_bytes
from readers.samples import Limits
open_bytes(open({str(path)!r}, "rb").read(), Limits()).frame(0)
assert "torch" not in sys.modules and "ssim_fused" not in sys.modules, "loaded"
"""
    )
    arguments = [str(pool.Path(pool.__file__).parent), json.dumps(sys.path)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_reading_8_bit_jpeg_and_png_starts_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "Worker", None)
    for ending in ("png", "jpg", "bmp", "ppm"):
        Image.fromarray(COLOR).save(tmp_path / f"x.{ending}")
        assert read_picture(str(tmp_path / f"x.{ending}")).size == "90x70"


def test_a_picture_is_read_from_a_fifo(tmp_path):
    for content in (pypng(noise(8), 8), tiff(Page(noise(16)))):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(content,))
        writer.start()
        assert read_picture(str(fifo)).size == f"{WIDTH}x{HEIGHT}"
        writer.join()
        fifo.unlink()


@pytest.mark.parametrize(("content", "words"), [
    (b"P5\n4 4\n0\n" + bytes(16), "MAXVAL is 0; expected 1 to 65535"),
    (b"P2\n2 2\n0\n0 0 0 0\n", "MAXVAL is 0; expected 1 to 65535"),
    (b"P6\n4 4\n70000\n" + bytes(192), "MAXVAL is 70000; expected 1 to 65535"),
    (b"P5\n64 64\n255\n" + bytes(100), "truncated; it has 100 bytes of pixels; expected 4096"),
    (b"P6\n64 64\n65535\n" + bytes(101), "truncated; it has 101 bytes of pixels; expected 24576"),
    (b"P4\n65 64\n" + bytes(3), "truncated; it has 3 bytes of pixels; expected 576"),
    (b"PF\n4 4\n-1.0\n" + bytes(3), "truncated; it has 3 bytes of pixels; expected 192"),
    (b"P3\n64 64\n255\n1 2 3", "truncated before the last pixel"),
    (b"P5\n64", r"the header is b'P5\n64'; expected"),
    (b"P5\n0 4\n255\n", "has 0x4 pixels"),
])  # fmt: skip
def test_errors_of_netpbm_files_state_the_cause(tmp_path, content, words):
    path = written(tmp_path / "x.pnm", content)
    code, _, err = run("compare", path, path, "--data-range", 1000)
    assert code == 2
    assert f"{path}: " in err
    assert words in err.splitlines()[0]
