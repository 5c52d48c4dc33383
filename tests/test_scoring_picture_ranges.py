"""Tests the range of pixels: floats, bit depths, and files that would lose depth; and orientation in lossy formats."""

from __future__ import annotations

import io

import numpy as np
import picture_bytes as raw
import pytest
import torch
from picture_bytes import Page, tiff
from picture_files import HEIGHT, TURNS, WIDTH, every_case, noise, pypng
from picture_helpers import COLOR, error_of, pixels_of, scores, written
from PIL import Image
from scoring_files import run, save

import ssim_fused
from ssim_fused.scoring import PairError
from ssim_fused.scoring.picture import Picture, matched, read_picture


def float_pair(tmp_path, scale=1.0):
    noisy = np.clip(COLOR + np.random.default_rng(0).normal(0, 12, COLOR.shape), 0, 255)
    arrays = [(array / 255 * scale).astype(np.float32) for array in (COLOR, noisy)]
    paths = [written(tmp_path / f"{n}.tif", tiff(Page(a, raw.RGB))) for n, a in zip("xy", arrays, strict=True)]
    return paths, arrays


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float_pictures_are_scored_in_the_given_range(tmp_path, scale):
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


def test_floats_and_integers_are_scored_in_the_range_of_the_floats(tmp_path):
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


def test_nan_pixels_are_refused(tmp_path):
    for value in (np.nan, np.inf):
        array = np.full((20, 20), 0.5, np.float32)
        array[3, 4] = value
        path = written(tmp_path / "x.tif", tiff(Page(array)))
        assert "infinite or NaN pixels" in error_of(path, path, "--data-range", "1")


def test_12_bits_in_16_bit_samples_have_the_given_range(tmp_path):
    """The file states 16 bits, so white is 65535 unless the caller gives another range."""
    x, y = (noise(12, 3, seed).astype(np.uint16) for seed in (1, 2))
    wide = [written(tmp_path / f"w{n}.tif", tiff(Page(p, raw.RGB, 16))) for n, p in enumerate((x, y))]
    packed = [written(tmp_path / f"p{n}.tif", tiff(Page(p, raw.RGB, 12))) for n, p in enumerate((x, y))]
    right = scores(*packed)["pairs"][0]["ssim"]
    assert scores(*wide, "--data-range", "4095")["pairs"][0]["ssim"] == right
    assert scores(*wide)["pairs"][0]["ssim"] != right
    assert scores(packed[0], wide[0], "--data-range", "4095")["pairs"][0]["ssim"] == 1
    assert "expected at most 1000, given by --data-range" in error_of(*wide, "--data-range", "1000")


def test_8_bits_keep_their_range(tmp_path):
    x, y = save(tmp_path / "x.png", COLOR), save(tmp_path / "y.png", COLOR[::-1])
    assert scores(x, y, "--data-range", "4095") == scores(x, y)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_data_range_must_be_positive(tmp_path, value):
    x = save(tmp_path / "x.png", COLOR)
    assert "data_range" in error_of(x, x, "--data-range", value)


def test_32_bit_integers_are_read_if_float32_represents_them(tmp_path):
    array = noise(24) >> np.uint32(1)
    path = written(tmp_path / "x.tif", tiff(Page(array)))
    assert "--data-range" in error_of(path, path)
    assert np.array_equal(pixels_of(path, data_range=2.0**24)[..., 0], array)
    array[0, 0] = 2**25
    written(path, tiff(Page(array)))
    assert "float32 cannot represent" in error_of(path, path, "--data-range", "4e9")


def test_a_sample_above_maxval_is_refused(tmp_path):
    path = written(tmp_path / "x.pgm", raw.pnm("P5", np.full((9, 9), 101), 100))
    with pytest.raises(PairError, match="sample of 101; expected at most 100"):
        read_picture(str(path))


def test_pictures_of_different_ranges_and_types_are_matched():
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


def test_files_that_would_lose_depth_are_refused(tmp_path):
    deep = noise(16, 3)
    cases = {
        "apng": pypng(deep, 16)[:33] + raw.png_chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + pypng(deep, 16)[33:],
        "ycbcr.tif": tiff(Page(deep, raw.YCBCR)),
        "lab.tif": tiff(Page(noise(8, 3), raw.LAB)),
        "sgi": b"\x01\xda\x00\x02" + b"\0\3" + b"\0\x04\0\x04\0\3" + b"\0" * 500 + b"\1" * 96,
        "jpg": b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x10\x01\x01\x11\x00"  # 12 bits
        b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9",
    }
    for name, content in cases.items():
        path = written(tmp_path / f"x.{name}", content)
        with pytest.raises(PairError, match="not supported"):
            read_picture(str(path))


@pytest.mark.parametrize("photometric", [raw.MINISBLACK, raw.RGB, raw.CMYK])
def test_extra_channels_are_refused(tmp_path, photometric):
    """The score would ignore extra channels, such as the bands of a satellite."""
    channels = {raw.MINISBLACK: 1, raw.RGB: 3, raw.CMYK: 4}[photometric]
    for extra in ([raw.UNSPECIFIED], [raw.UNSPECIFIED] * 2, [raw.UNASSOCIATED, raw.UNSPECIFIED]):
        pixels = np.dstack([noise(16, seed=seed) for seed in range(channels + len(extra))])
        path = written(tmp_path / "x.tif", tiff(Page(pixels, photometric, extra=extra)))
        with pytest.raises(PairError, match="extra samples"):
            read_picture(str(path))


def test_pixels_after_the_pages_of_a_tiff_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((5, 9, 8), np.uint16), truncate=True)
    with pytest.raises(PairError, match="pixels after its pages"):
        read_picture(str(tmp_path / "x.tif"))


def test_a_float_mask_has_weights_from_0_to_1(tmp_path):
    x, y = save(tmp_path / "x.png", COLOR), save(tmp_path / "y.png", COLOR[::-1])
    weights = np.linspace(0, 1, COLOR[..., 0].size, dtype=np.float32).reshape(COLOR.shape[:2])
    eight = save(tmp_path / "m.png", (weights * 255).round().astype(np.uint8))
    exact = written(tmp_path / "m.tif", tiff(Page((weights * 255).round() / np.float32(255))))
    assert scores(x, y, "--mask", exact)["pairs"][0]["ssim"] == scores(x, y, "--mask", eight)["pairs"][0]["ssim"]
    beyond = written(tmp_path / "b.tif", tiff(Page(weights * 2)))
    assert "outside of 0..1" in error_of(x, y, "--mask", beyond)


def test_a_tiff_with_only_thumbnails_is_refused(tmp_path):
    path = written(tmp_path / "x.tif", tiff(Page(noise(8), tags={254: (raw.LONG, [1])})))
    with pytest.raises(PairError, match="no full-resolution page"):
        read_picture(str(path))


def test_a_sparse_tiff_is_refused(tmp_path):
    """Missing tiles would be read as zeros, so that two such files would appear to be equal."""
    page = Page(noise(16, 3), raw.RGB, tile=(16, 32))
    tiles = 4
    page.tags = {324: (raw.LONG, [0] * tiles), 325: (raw.LONG, [0] * tiles)}
    path = written(tmp_path / "x.tif", tiff(page))
    with pytest.raises(PairError, match="omitted strips"):
        read_picture(str(path))


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
def test_heif_keeps_its_depth_and_is_rotated_once(tmp_path, bits, monkeypatch):
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
