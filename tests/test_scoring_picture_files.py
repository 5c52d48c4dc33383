"""What surrounds the pixels of picture files: animations, ranges, limits, broken and hostile files, lost depth."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import picture_bytes as raw
import pytest
import torch
from PIL import Image
from picture_bytes import Page, tiff
from picture_files import HEIGHT, TURNS, WIDTH, by_av, every_case, noise, pypng
from scoring_files import run, save, write_video
from skimage import data

import ssim_fused
from ssim_fused.scoring import PairError, compare
from ssim_fused.scoring.picture import Picture, matched, opened_picture, read_picture
from ssim_fused.scoring.readers import pool
from ssim_fused.scoring.readers.samples import Limits

COLOR = data.astronaut()[:70, :90]
FEW = (COLOR // 128 * 255).astype(np.uint8)  # colors that a GIF holds exactly


def pixels_of(path, **limits):
    return read_picture(str(path), Limits(**limits)).pixels.double().permute(1, 2, 0).numpy()


def written(path, content):
    path.write_bytes(content)
    return path


def scores(*arguments):
    code, out, err = run("compare", *arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)


def error_of(*arguments):
    code, out, err = run("compare", *arguments)
    assert code == 2
    assert "Traceback" not in err + out
    return err


# --- Animations and pages ---------------------------------------------------------------------------------------------


def frames(count=4):
    return [np.ascontiguousarray(np.roll(FEW, 3 * k, 1)) for k in range(count)]


def animation(path, arrays, **options):
    images = [Image.fromarray(array) for array in arrays]
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    return path


def tiff_of_pages(path, arrays):
    thumbnail = Page(arrays[0][:9, :9], raw.RGB, tags={254: (raw.LONG, [1])})
    return written(path, tiff(*(page for array in arrays for page in (Page(array, raw.RGB), thumbnail))))


def write_animation(path, arrays):
    if path.suffix == ".tif":
        return tiff_of_pages(path, arrays)
    return animation(path, arrays, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_animations_and_pages_are_sequences_of_frames(tmp_path, ending):
    arrays = frames()
    noisy = [array ^ np.uint8(255 * (k == 2)) for k, array in enumerate(arrays)]
    path = write_animation(tmp_path / f"a.{ending}", arrays)
    other = write_animation(tmp_path / f"b.{ending}", noisy)
    with opened_picture(str(path), Limits()) as file:
        assert file.count == len(arrays)
        for number in (3, 0, 2):  # in any order
            assert torch.equal(file.frame(number).pixels.permute(1, 2, 0), torch.from_numpy(arrays[number]))
    pair = scores(path, other, "--per-frame")["pairs"][0]
    assert [frame["frame"] for frame in pair["frames"]] == [0, 1, 2, 3]
    assert [frame["ssim"] == 1 for frame in pair["frames"]] == [True, True, False, True]
    chosen = scores(path, other, "--per-frame", "--frames", "1:4:2")["pairs"][0]["frames"]
    assert [frame["frame"] for frame in chosen] == [1, 3]
    with pytest.raises(PairError, match="has 4 frames"):
        read_picture(str(path))


def test_an_animation_meets_a_folder_of_frames_and_a_video(tmp_path):
    arrays = frames()
    path = animation(tmp_path / "a.gif", arrays)
    for number, array in enumerate(arrays):
        save(tmp_path / f"frames/{number}.png", array)
    assert scores(path, tmp_path / "frames", "--pool", "min")["pairs"][0]["ssim"] == 1
    video = write_video(tmp_path / "v.mkv", arrays, "ffv1", "bgr0")
    assert scores(video, path, "--pool", "min")["pairs"][0]["ssim"] == 1


def test_frames_of_another_number_are_named(tmp_path):
    path = animation(tmp_path / "a.gif", frames())
    still = save(tmp_path / "s.png", frames()[0])
    assert "has 4 frames" in error_of(path, animation(tmp_path / "b.gif", frames(3)))
    assert "s.png has 1;" in error_of(path, still)
    assert "still picture is expected" in error_of(still, still, "--mask", path)


def test_animations_among_pictures_of_a_folder_keep_their_place(tmp_path):
    for folder in ("a", "b"):
        for name in ("1.png", "3.png"):
            save(tmp_path / folder / name, FEW)
        animation(tmp_path / folder / "2.gif", frames())
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b", "--format", "csv", "--per-frame")
    assert code == 0
    assert [line.split(",")[2] for line in out.splitlines()[1:]] == ["0", "0", "1", "2", "3", "0"]


def test_a_default_image_is_no_frame_of_an_apng(tmp_path):
    hidden, *arrays = frames(4)
    path = animation(tmp_path / "a.png", [hidden, *arrays], default_image=True)
    with opened_picture(str(path), Limits()) as file:
        assert file.count == 3
        assert torch.equal(file.frame(0).pixels.permute(1, 2, 0), torch.from_numpy(arrays[0]))


# --- Ranges ------------------------------------------------------------------------------------------------------------


def float_pair(tmp_path, scale=1.0):
    noisy = np.clip(COLOR + np.random.default_rng(0).normal(0, 12, COLOR.shape), 0, 255)
    arrays = [(array / 255 * scale).astype(np.float32) for array in (COLOR, noisy)]
    paths = [written(tmp_path / f"{n}.tif", tiff(Page(a, raw.RGB))) for n, a in zip("xy", arrays, strict=True)]
    return paths, arrays


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float_pictures_are_scored_in_the_range_that_is_given(tmp_path, scale):
    paths, arrays = float_pair(tmp_path, scale)
    result = scores(*paths, "--data-range", scale, "--metric", "ssim,psnr")["pairs"][0]
    x, y = (torch.from_numpy(array).movedim(-1, 0)[None].double() for array in arrays)
    expected = ssim_fused.structural_similarity_index_measure(y, x, data_range=scale).item()
    assert result["ssim"] == pytest.approx(expected, abs=1e-6)
    assert result["psnr"] == pytest.approx(10 * np.log10(scale**2 / ((x - y) ** 2).mean().item()), abs=1e-4)


@pytest.mark.parametrize("name", ["tiff-float32-little", "tiff-float16-little", "tiff-float64-little", "pfm-little",
                                  "exr", "radiance"])  # fmt: skip
def test_float_pictures_need_a_range(tmp_path, name):
    case = next(case for case in every_case() if case.name == name)
    path = written(tmp_path / f"x.{case.ending}", case.data())
    assert "--data-range" in error_of(path, path)
    assert scores(path, path, "--data-range", "2")["pairs"][0]["ssim"] == 1


def test_float_beside_integers_is_scored_in_the_range_of_floats(tmp_path):
    (path, _), (array, _) = float_pair(tmp_path)
    eight = save(tmp_path / "e.png", COLOR)
    assert scores(path, eight, "--data-range", "1")["pairs"][0]["ssim"] == pytest.approx(1, abs=1e-6)
    deep = written(tmp_path / "d.png", pypng_of(COLOR.astype(np.uint16) * 257))
    assert scores(deep, path, "--data-range", "1", "--metric", "ssim")["pairs"][0]["ssim"] == pytest.approx(1, abs=1e-6)
    assert array.max() <= 1


def pypng_of(array):
    png = pytest.importorskip("png")
    file = io.BytesIO()
    png.Writer(array.shape[1], array.shape[0], greyscale=False, bitdepth=16).write(file, array.reshape(len(array), -1))
    return file.getvalue()


def test_not_a_number_is_refused(tmp_path):
    for value in (np.nan, np.inf):
        array = np.full((20, 20), 0.5, np.float32)
        array[3, 4] = value
        path = written(tmp_path / "x.tif", tiff(Page(array)))
        assert "infinite or not a number" in error_of(path, path, "--data-range", "1")


def test_12_bits_in_samples_of_16_have_the_range_that_is_given(tmp_path):
    """The file says 16 bits, so white is 65535 until the caller knows better."""
    x, y = (noise(12, 3, seed).astype(np.uint16) for seed in (1, 2))
    wide = [written(tmp_path / f"w{n}.tif", tiff(Page(p, raw.RGB, 16))) for n, p in enumerate((x, y))]
    packed = [written(tmp_path / f"p{n}.tif", tiff(Page(p, raw.RGB, 12))) for n, p in enumerate((x, y))]
    right = scores(*packed)["pairs"][0]["ssim"]
    assert scores(*wide, "--data-range", "4095")["pairs"][0]["ssim"] == right
    assert scores(*wide)["pairs"][0]["ssim"] != right
    assert scores(packed[0], wide[0], "--data-range", "4095")["pairs"][0]["ssim"] == 1
    assert "above --data-range 1000" in error_of(*wide, "--data-range", "1000")


def test_8_bits_keep_their_range(tmp_path):
    x, y = save(tmp_path / "x.png", COLOR), save(tmp_path / "y.png", COLOR[::-1])
    assert scores(x, y, "--data-range", "4095") == scores(x, y)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_data_range_is_above_0(tmp_path, value):
    x = save(tmp_path / "x.png", COLOR)
    assert "data_range" in error_of(x, x, "--data-range", value)


def test_integers_of_32_bits_are_read_where_floats_are_exact(tmp_path):
    array = noise(24) >> np.uint32(1)
    path = written(tmp_path / "x.tif", tiff(Page(array)))
    assert "--data-range" in error_of(path, path)
    assert np.array_equal(pixels_of(path, data_range=2.0**24)[..., 0], array)
    array[0, 0] = 2**25
    written(path, tiff(Page(array)))
    assert "lose digits" in error_of(path, path, "--data-range", "4e9")


def test_a_sample_above_maxval_is_refused(tmp_path):
    path = written(tmp_path / "x.pgm", raw.pnm("P5", np.full((9, 9), 101), 100))
    with pytest.raises(PairError, match="sample of 101 where the largest is 100"):
        read_picture(str(path))


def test_pictures_of_two_ranges_and_types_are_matched():
    eight = Picture(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8), 255)
    few = Picture(torch.tensor([[[0, 20, 100]]], dtype=torch.uint8), 100)
    ten = Picture(torch.tensor([[[0, 200, 1000]]], dtype=torch.uint16), 1000)
    floating = Picture(torch.tensor([[[0, 0.2, 1.0]]] * 3), 1.0)
    for x, y, dtype in [(eight, few, torch.uint8), (eight, ten, torch.uint16), (few, ten, torch.uint16),
                        (floating, eight, torch.float32), (ten, floating, torch.float32)]:  # fmt: skip
        a, b = matched(x, y, resize=False)
        assert a.pixels.dtype == b.pixels.dtype == dtype
        assert a.peak == b.peak
        assert a.pixels.shape == b.pixels.shape
        assert torch.allclose(a.pixels.double(), b.pixels.double(), atol=1e-7 if dtype == torch.float32 else 0)


def test_float_pictures_are_resized_without_rounding(tmp_path):
    (path, _), (array, _) = float_pair(tmp_path)
    small = written(tmp_path / "s.tif", tiff(Page(array[::2, ::2].copy(), raw.RGB)))
    assert 0.5 < scores(path, small, "--data-range", "1", "--resize")["pairs"][0]["ssim"] < 1


def test_maps_and_reports_of_float_pictures(tmp_path):
    paths, _ = float_pair(tmp_path)
    code, _, err = run("compare", *paths, "--data-range", "1", "--map", tmp_path / "m", "--report", tmp_path / "r.html",
                       "--luma", "bt601")  # fmt: skip
    assert code == 0, err
    assert len(list((tmp_path / "m").iterdir())) == 1


# --- Depth that would be lost ------------------------------------------------------------------------------------------


def test_what_would_lose_depth_is_refused(tmp_path):
    deep = noise(16, 3)
    cases = {
        "apng": pypng(deep, 16)[:33] + raw.png_chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + pypng(deep, 16)[33:],
        "ycbcr.tif": tiff(Page(deep, raw.YCBCR)),
        "lab.tif": tiff(Page(noise(8, 3), raw.LAB)),
        "sgi": b"\x01\xda\x00\x02" + b"\0\3" + b"\0\x04\0\x04\0\3" + b"\0" * 500 + b"\1" * 96,
        "jpg": b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x10\x01\x01\x11\x00\xff\xd9",
    }
    for name, content in cases.items():
        path = written(tmp_path / f"x.{name}", content)
        with pytest.raises(PairError, match="not read"):
            read_picture(str(path))


def test_thumbnails_alone_are_no_picture(tmp_path):
    path = written(tmp_path / "x.tif", tiff(Page(noise(8), tags={254: (raw.LONG, [1])})))
    with pytest.raises(PairError, match="without a page of full resolution"):
        read_picture(str(path))


def test_a_sparse_tiff_is_refused(tmp_path):
    """Its missing tiles would be read as zeros, and two of them as alike."""
    page = Page(noise(16, 3), raw.RGB, tile=(16, 32))
    tiles = 4
    page.tags = {324: (raw.LONG, [0] * tiles), 325: (raw.LONG, [0] * tiles)}
    path = written(tmp_path / "x.tif", tiff(page))
    with pytest.raises(PairError, match="left out"):
        read_picture(str(path))


# --- Orientation of formats whose writers have to be asked -------------------------------------------------------------


@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_of_jpeg_and_avif_is_applied_once(tmp_path, orientation):
    smooth = np.add.outer(np.arange(24) * 4, np.arange(40) * 3).astype(np.uint8)[..., None].repeat(3, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in (("x.jpg", {"quality": 100}), ("x.avif", {"quality": 100})):
        Image.fromarray(smooth).save(tmp_path / name, exif=exif, **options)
        read = pixels_of(tmp_path / name)
        turned = TURNS[orientation](smooth)
        assert read.shape == turned.shape
        assert np.abs(read - turned).max() <= 4


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_heif_keeps_its_depth_and_is_turned_once(tmp_path, bits, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = noise(bits, 3)
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    mode = "RGB" if bits == 8 else "RGB;16"
    stored = pixels if bits == 8 else pixels << (16 - bits)
    for orientation in (1, 5, 6):
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        picture = pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), stored.tobytes())
        picture.save(file, quality=-1, matrix_coefficients=0, chroma=444, exif=exif.tobytes())
        path = written(tmp_path / "x.heic", file.getvalue())
        assert read_picture(str(path)).peak == 2**bits - 1
        assert np.array_equal(pixels_of(path), TURNS[orientation](pixels))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_jpeg_xl_and_jpeg_2000_keep_their_depth(tmp_path, bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = noise(bits, 3)
    for ending, content in [
        ("jxl", imagecodecs.jpegxl_encode(pixels, lossless=True, bitspersample=bits)),
        ("jp2", imagecodecs.jpeg2k_encode(pixels, level=0, bitspersample=bits, reversible=True)),
    ]:
        path = written(tmp_path / f"x.{ending}", content)
        assert read_picture(str(path)).peak == 2**bits - 1
        assert np.array_equal(pixels_of(path), pixels)


# --- Limits ------------------------------------------------------------------------------------------------------------


def large_files(tmp_path):
    """Headers that announce 30000 x 30000 pixels, whatever lies behind them."""
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


def test_max_pixels_is_one_limit_for_all_readers(tmp_path, recwarn):
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


def test_pillows_own_limit_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for ending in ("png", "jpg", "bmp", "webp"):
        path = tmp_path / f"x.{ending}"
        Image.new("RGB", (90, 70)).save(path)
        assert read_picture(str(path)).size == "90x70"


# --- Broken and hostile files ------------------------------------------------------------------------------------------

# A decoder that crashes, hangs or raises on what the files say.
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


def test_a_poisoned_file_costs_one_line(tmp_path, poisonous):
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
    assert "2.tif: its decoder crashed (SIGSEGV)" in lines[0]
    assert "4.tif: its decoder took more than 2 s" in lines[1]
    assert "6.tif: its decoder ended with exit status 3" in lines[2]


@pytest.mark.parametrize("error", ["RuntimeError('x')", "struct.error('x')", "TypeError('x')", "AssertionError()",
                                   "MemoryError()", "KeyError('x')", "RecursionError('x')"])  # fmt: skip
def test_whatever_a_decoder_raises_is_one_line(tmp_path, monkeypatch, error):
    import struct  # noqa: F401

    from PIL import JpegImagePlugin

    def broken(*_):
        raise eval(error)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", broken)
    Image.fromarray(COLOR).save(tmp_path / "x.jpg")
    err = error_of(tmp_path / "x.jpg", tmp_path / "x.jpg")
    assert len(err.splitlines()) == 2  # the pair, and how many were not scored
    assert "x.jpg: " in err


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
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
            try:
                pixels = read()
            except PairError as error:
                assert "decoder took" not in str(error)
                assert "\n" not in str(error)
                continue
            if kind == "cut":  # Only what nothing depends on may be missing.
                assert len(pixels) == len(whole), case.name
                assert all(torch.equal(a.double(), b.double()) for a, b in zip(pixels, whole, strict=True)), case.name


def test_broken_files_are_errors_or_read_exactly(tmp_path):
    names = {"png-8-3", "png-8-4-interlaced", "png-16-3-interlaced", "png-palette-4", "png-2-1-trns", "tiff-16-3-little",
             "tiff-12-3-planar-tiled-big", "tiff-16-4-tiled-little-deflate", "tiff-lzw-16", "tiff-ccitt-1",
             "bigtiff-16-little", "tiff-palette-16", "netpbm-P3-1023", "netpbm-P6-4095", "netpbm-P4", "pam-rgba-255",
             "jpeg2000-16-3", "avif-10", "avif-8", "webp", "webp-alpha", "bmp", "gif", "qoi", "pfm-little", "exr",
             "radiance", "radiance-rle"}  # fmt: skip
    cases = [case for case in every_case() if case.name in names]
    assert len(cases) == len(names)
    check_broken(tmp_path / "x.bin", cases, 5)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(3))
def test_broken_files_of_the_whole_matrix(tmp_path, seed):
    check_broken(tmp_path / "x.bin", every_case(), 12, seed + 1)


def test_a_changed_byte_of_a_png_is_found(tmp_path):
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
                                     b"DDS |\0\0\0", b"BLP2", b"Image type: x\r\n", b"8BPS\0\1", b"\x01\xda"])  # fmt: skip
def test_a_signature_alone_is_one_line(tmp_path, content):
    path = written(tmp_path / "x.bin", content)
    assert len(error_of(path, path).splitlines()) == 2


# --- Workers -----------------------------------------------------------------------------------------------------------


def test_files_are_read_by_many_threads_at_once(tmp_path):
    arrays = [noise(16, 3, seed) for seed in range(24)]
    paths = [written(tmp_path / f"{n}.tif", tiff(Page(a, raw.RGB))) for n, a in enumerate(arrays)]
    with ThreadPoolExecutor(4) as threads:
        for pixels, array in zip(threads.map(pixels_of, paths), arrays, strict=True):
            assert np.array_equal(pixels, array)


def test_a_worker_loads_no_torch(tmp_path):
    path = written(tmp_path / "x.tif", tiff(Page(noise(16))))
    program = pool._PROGRAM.rstrip().removesuffix("main()") + f"""
from readers.formats import open_bytes
from readers.samples import Limits
open_bytes(open({str(path)!r}, "rb").read(), Limits()).frame(0)
assert "torch" not in sys.modules and "ssim_fused" not in sys.modules, "loaded"
"""
    arguments = [str(pool.Path(pool.__file__).parent), json.dumps(sys.path)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def test_reading_8_bit_jpeg_and_png_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "Worker", None)
    for ending in ("png", "jpg", "bmp", "ppm"):
        Image.fromarray(COLOR).save(tmp_path / f"x.{ending}")
        assert read_picture(str(tmp_path / f"x.{ending}")).size == "90x70"


def test_a_picture_from_a_pipe(tmp_path):
    import os
    import threading

    for content in (pypng(noise(8), 8), tiff(Page(noise(16)))):
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        writer = threading.Thread(target=fifo.write_bytes, args=(content,))
        writer.start()
        assert read_picture(str(fifo)).size == f"{WIDTH}x{HEIGHT}"
        writer.join()
        fifo.unlink()


def test_gif_of_another_library_animates_the_same(tmp_path):
    pyvips = pytest.importorskip("pyvips")
    stack = np.concatenate(frames())
    image = pyvips.Image.new_from_array(stack).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "page-height", len(FEW))
    path = written(tmp_path / "a.gif", image.gifsave_buffer(dither=0, effort=10))
    with opened_picture(str(path), Limits()) as file:
        assert file.count == 4
        for number, array in enumerate(frames()):
            assert torch.equal(file.frame(number).pixels.permute(1, 2, 0), torch.from_numpy(array))
