"""Tests that animations and multi-page TIFF files are read as sequences of frames."""

from __future__ import annotations

import numpy as np
import picture_bytes as raw
import pytest
import torch
from picture_bytes import Page, tiff
from picture_helpers import FEW, error_of, scores, written
from PIL import Image
from scoring_files import run, save, write_video

from ssim_fused.scoring import PairError
from ssim_fused.scoring.picture import opened_picture, read_picture
from ssim_fused.scoring.readers.samples import Limits


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


def test_an_animation_is_compared_with_a_folder_of_frames_and_a_video(tmp_path):
    arrays = frames()
    path = animation(tmp_path / "a.gif", arrays)
    for number, array in enumerate(arrays):
        save(tmp_path / f"frames/{number}.png", array)
    assert scores(path, tmp_path / "frames", "--pool", "min")["pairs"][0]["ssim"] == 1
    video = write_video(tmp_path / "v.mkv", arrays, "ffv1", "bgr0")
    assert scores(video, path, "--pool", "min")["pairs"][0]["ssim"] == 1


def test_different_numbers_of_frames_are_an_error_with_both_counts(tmp_path):
    path = animation(tmp_path / "a.gif", frames())
    still = save(tmp_path / "s.png", frames()[0])
    assert "has 4 frames" in error_of(path, animation(tmp_path / "b.gif", frames(3)))
    assert "s.png has 1;" in error_of(path, still)
    assert "expected a still picture" in error_of(still, still, "--mask", path)


def test_animations_in_a_folder_keep_their_position_among_pictures(tmp_path):
    for folder in ("a", "b"):
        for name in ("1.png", "3.png"):
            save(tmp_path / folder / name, FEW)
        animation(tmp_path / folder / "2.gif", frames())
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b", "--format", "csv", "--per-frame")
    assert code == 0
    assert [line.split(",")[2] for line in out.splitlines()[1:]] == ["0", "0", "1", "2", "3", "0"]


def test_the_default_image_of_an_apng_is_not_a_frame(tmp_path):
    hidden, *arrays = frames(4)
    path = animation(tmp_path / "a.png", [hidden, *arrays], default_image=True)
    with opened_picture(str(path), Limits()) as file:
        assert file.count == 3
        assert torch.equal(file.frame(0).pixels.permute(1, 2, 0), torch.from_numpy(arrays[0]))


def test_a_gif_from_another_library_has_the_same_frames(tmp_path):
    pyvips = pytest.importorskip("pyvips")
    stack = np.concatenate(frames())
    image = pyvips.Image.new_from_array(stack).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "page-height", len(FEW))
    path = written(tmp_path / "a.gif", image.gifsave_buffer(dither=0, effort=10))
    with opened_picture(str(path), Limits()) as file:
        assert file.count == 4
        for number, array in enumerate(frames()):
            assert torch.equal(file.frame(number).pixels.permute(1, 2, 0), torch.from_numpy(array))


@pytest.mark.parametrize("magic", ["P2", "P5", "P6"])
def test_netpbm_with_several_images_each_with_its_own_header(tmp_path, magic):
    images = [frame if magic == "P6" else frame[..., 0] for frame in frames(3)]
    parts = [raw.pnm(magic, image, 255) for image in images]
    if magic == "P2":  # a plain-text netpbm file has a single image
        parts, images = parts[:1], images[:1]
    path = str(written(tmp_path / "x.pnm", b"".join(parts)))
    with opened_picture(path, Limits()) as file:
        read = [file.frame(number).pixels.numpy() for number in range(file.count)]
    assert len(read) == len(images)
    for pixels, image in zip(read, images, strict=True):
        assert np.array_equal(pixels, image.transpose(2, 0, 1) if magic == "P6" else image[None])
    if magic == "P5":
        # netpbmfile writes several images in this layout.
        bare = str(written(tmp_path / "y.pnm", parts[0] + images[1].tobytes()))
        with opened_picture(bare, Limits()) as file:
            assert file.count == 2
            assert np.array_equal(file.frame(1).pixels[0].numpy(), images[1])
        cut = str(written(tmp_path / "z.pnm", b"".join(parts)[:-1]))
        with pytest.raises(PairError, match="truncated"), opened_picture(cut, Limits()):
            pass
