"""Tests reading of pictures: 8 and 16 bits, grey, palettes, transparency, orientation; and refused files."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import run, save
from skimage import data

from ssim_fused.scoring import PairError, compare
from ssim_fused.scoring.picture import Picture, matched, read_picture

COLOR = data.astronaut()[:70, :90]
DEEP = COLOR.astype(np.uint16) * 257 - (COLOR > 0) * np.uint16(3)  # uses the low bits as well


def write_16_bits(path, array, pixels):
    """Writes a PNG with 16 bits per color, which Pillow cannot write."""
    frame = av.VideoFrame.from_ndarray(array, format=pixels + "le").reformat(format=pixels + "be", threads=1)
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = array.shape[:2]
    codec.pix_fmt, codec.time_base = pixels + "be", Fraction(1)
    path.write_bytes(b"".join(bytes(packet) for part in (frame, None) for packet in codec.encode(part)))
    return str(path)


def pixels_of(path):
    picture = read_picture(str(path))
    return picture.pixels.to(torch.int32).permute(1, 2, 0).numpy(), picture.peak, picture.pixels.dtype


def test_8_bit_color_and_grey(tmp_path):
    pixels, peak, dtype = pixels_of(save(tmp_path / "c.png", COLOR))
    assert (peak, dtype) == (255, torch.uint8)
    assert np.array_equal(pixels, COLOR)
    pixels, peak, dtype = pixels_of(save(tmp_path / "g.png", COLOR[..., 0]))
    assert (peak, dtype) == (255, torch.uint8)
    assert np.array_equal(pixels, COLOR[..., :1])
    bilevel = COLOR[..., 0] > 100
    Image.fromarray(bilevel).save(tmp_path / "1.png")
    assert np.array_equal(pixels_of(tmp_path / "1.png")[0][..., 0], bilevel * 255)


def test_16_bit_grey_and_color_keep_their_bits(tmp_path):
    for ending in ("png", "tif"):
        Image.fromarray(DEEP[..., 0]).save(tmp_path / f"g.{ending}")
        pixels, peak, dtype = pixels_of(tmp_path / f"g.{ending}")
        assert (peak, dtype) == (65535, torch.uint16)
        assert np.array_equal(pixels, DEEP[..., :1])
    pixels, peak, dtype = pixels_of(write_16_bits(tmp_path / "c.png", DEEP, "rgb48"))
    assert (peak, dtype) == (65535, torch.uint16)
    assert np.array_equal(pixels, DEEP)


def test_a_palette_is_converted_to_rgb(tmp_path):
    image = Image.fromarray(COLOR).quantize(64)
    image.save(tmp_path / "p.png")
    assert np.array_equal(pixels_of(tmp_path / "p.png")[0], np.array(image.convert("RGB")))


def test_transparency_is_composited_over_white(tmp_path):
    opacity = np.linspace(0, 255, COLOR[..., 0].size).round().astype(np.uint8).reshape(COLOR.shape[:2])
    save(tmp_path / "a.png", np.dstack([COLOR, opacity]))
    over_white = COLOR * (opacity[..., None] / 255) + 255 * (1 - opacity[..., None] / 255)
    assert np.abs(pixels_of(tmp_path / "a.png")[0] - over_white).max() <= 0.5 + 1e-9
    save(tmp_path / "o.png", np.dstack([COLOR, np.full_like(opacity, 255)]))
    assert np.array_equal(pixels_of(tmp_path / "o.png")[0], COLOR)
    deep = opacity.astype(np.uint16) * 257
    path = write_16_bits(tmp_path / "d.png", np.dstack([DEEP, deep]), "rgba64")
    over_white = DEEP * (deep[..., None] / 65535) + 65535 * (1 - deep[..., None] / 65535)
    assert np.abs(pixels_of(path)[0] - over_white).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, orientation, depth):
    image = Image.fromarray(COLOR[..., 0] if depth == 8 else DEEP[..., 0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "o.png", exif=exif)
    turned = {
        1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: np.transpose,
        6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.T, 2), 8: np.rot90,
    }  # fmt: skip
    assert np.array_equal(pixels_of(tmp_path / "o.png")[0][..., 0], turned[orientation](np.array(image)))


def test_cmyk_is_converted_to_rgb(tmp_path):
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    pixels, peak, _ = pixels_of(tmp_path / "c.jpg")
    assert (peak, pixels.shape) == (255, COLOR.shape)
    assert np.abs(pixels - COLOR.astype(int)).mean() < 4


def test_pictures_without_a_range_or_with_several_frames_are_refused(tmp_path):
    Image.fromarray(COLOR[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(PairError, match="float32 pixels have no range; give --data-range"):
        read_picture(str(tmp_path / "f.tif"))
    frames = [Image.fromarray(COLOR), Image.fromarray(COLOR[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(PairError, match="has 2 frames"):
        read_picture(str(tmp_path / "a.gif"))
    with pytest.raises(PairError, match="No such file"):
        read_picture(str(tmp_path / "gone.png"))


def test_a_folder_named_like_a_picture_is_an_error(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(PairError, match="Is a directory"):
        read_picture(str(tmp_path / "x.png"))


def test_grey_with_color_and_8_with_16_bits(tmp_path):
    grey, color = np.repeat(COLOR[..., :1], 3, 2), COLOR
    one = compare(str(save(tmp_path / "g.png", grey[..., 0])), str(save(tmp_path / "c.png", color)), metric=("psnr",))
    two = compare(str(save(tmp_path / "g3.png", grey)), str(tmp_path / "c.png"), metric=("psnr",))
    assert one["pairs"][0]["psnr"] == two["pairs"][0]["psnr"]
    deep = write_16_bits(tmp_path / "d.png", COLOR.astype(np.uint16) * 257, "rgb48")
    same = compare(deep, str(tmp_path / "c.png"), metric=("ssim", "psnr"))["pairs"][0]
    assert (same["ssim"], same["psnr"]) == (1.0, None)


def test_8_and_16_bits_have_the_same_score(tmp_path):
    """The same pictures in 8 and in 16 bits have the same scores."""
    noisy = np.clip(COLOR + np.random.default_rng(0).normal(0, 12, COLOR.shape), 0, 255).astype(np.uint8)
    eight = compare(str(save(tmp_path / "x.png", COLOR)), str(save(tmp_path / "y.png", noisy)), metric=("ssim", "psnr"))
    deep = [
        write_16_bits(tmp_path / f"{n}.png", a.astype(np.uint16) * 257, "rgb48")
        for n, a in (("X", COLOR), ("Y", noisy))
    ]
    sixteen = compare(*deep, metric=("ssim", "psnr"))
    assert eight["pairs"][0]["ssim"] == pytest.approx(sixteen["pairs"][0]["ssim"], abs=2e-6)  # rounding of float32
    assert eight["pairs"][0]["psnr"] == pytest.approx(sixteen["pairs"][0]["psnr"], abs=1e-5)


def test_resize_keeps_type_and_range():
    step = torch.zeros(1, 8, 8, dtype=torch.uint8)
    step[..., 4:] = 255
    large = Picture(torch.zeros(1, 16, 16, dtype=torch.uint8), 255)
    _, scaled = matched(large, Picture(step, 255), resize=True)
    assert (scaled.pixels.dtype, scaled.size) == (torch.uint8, "16x16")
    assert (scaled.pixels[0, 0, 0], scaled.pixels[0, 0, -1]) == (0, 255)


def test_planes_of_different_ranges_are_not_compared():
    plane = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(PairError, match="without --luma both"):
        matched(Picture(plane, 255, True), Picture(plane, 255, False), resize=False)
    # In limited range, each additional bit doubles the values: black is 16 in 8 bits and 64 in 10.
    ten = torch.full((1, 8, 8), 64, dtype=torch.uint16)
    x, y = matched(Picture(plane + 16, 255, False), Picture(ten, 1023, False), resize=False)
    assert torch.equal(x.pixels.int(), y.pixels.int())


def test_a_broken_file_is_one_error_line(tmp_path):
    good = save(tmp_path / "g.png", COLOR)
    listing = tmp_path / "list.csv"
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(good.read_bytes()[: 300 * number])
    listing.write_text("\n".join(f"{good},{tmp_path}/{name}.png" for name in ("0", "1", "g", "2")))
    code, out, err = run("compare", "--pairs", listing, "--format", "jsonl")
    assert code == 2
    assert ["error" in json.loads(line) for line in out.splitlines()] == [True, True, False, True]
    assert len(err.splitlines()) == 4
