"""``--mask``: a picture for all pairs, or a folder of them, whose brightness weighs the pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import moving_picture, run, save, write_folders, write_video

import ssim_fused
from ssim_fused.scoring import compare

SIDE = 200


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    a, b = write_folders(folder, SIDE)
    disc = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2)) < 80
    return a, b, save(folder / "disc.png", (disc * 255).astype(np.uint8))


def expected(pair, mask, function, **arguments):
    x, y = (
        torch.from_numpy(np.array(Image.open(pair[k]))).movedim(-1, 0)[None].double()
        for k in ("reference", "distorted")
    )
    return function(y, x, data_range=255.0, mask=mask, **arguments).item()


def test_a_mask_for_all_pairs(files):
    a, b, path = files
    mask = torch.from_numpy(np.array(Image.open(path)))[None, None].double() / 255
    result = compare(str(a), str(b), mask=str(path), metric=("ssim", "ms-ssim", "psnr"))
    assert len(result["pairs"]) == 3
    for pair in result["pairs"]:
        assert pair["ssim"] == pytest.approx(
            expected(pair, mask, ssim_fused.structural_similarity_index_measure), abs=1e-6
        )
        multiscale = expected(pair, mask, ssim_fused.multiscale_structural_similarity_index_measure)
        assert pair["ms-ssim"] == pytest.approx(multiscale, abs=1e-6)
        x, y = (
            np.array(Image.open(pair[k])).astype(float)[mask[0, 0].bool().numpy()] for k in ("reference", "distorted")
        )
        assert pair["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((x - y) ** 2)), rel=1e-6)


def test_what_lies_under_the_mask_does_not_count(files, tmp_path):
    a, _, path = files
    mask = np.array(Image.open(path))
    spoiled = np.array(Image.open(a / "sub1/cat.png"))
    spoiled[mask == 0] = 255 - spoiled[mask == 0]
    other = save(tmp_path / "spoiled.png", spoiled)
    score = compare(str(a / "sub1/cat.png"), str(other), mask=str(path), metric=("ssim", "psnr"))["pairs"][0]
    assert (score["ssim"], score["psnr"]) == (1.0, None)
    assert compare(str(a / "sub1/cat.png"), str(other))["pairs"][0]["ssim"] < 0.8


def test_a_folder_of_masks(files, tmp_path):
    a, b, path = files
    white = np.full((SIDE, SIDE), 255, np.uint8)
    save(tmp_path / "m/sub1/cat.png", np.array(Image.open(path)))
    save(tmp_path / "m/sub0/coffee.png", white)
    code, out, _ = run("compare", a, b, "--mask", tmp_path / "m", "--format", "json")
    result = json.loads(out)
    assert code == 2
    assert [failure["error"] for failure in result["failed"]] == [f"--mask {tmp_path}/m has no picture 'astronaut'"]
    coffee, cat = result["pairs"]
    unmasked = {pair["reference"]: pair["ssim"] for pair in compare(str(a), str(b))["pairs"]}
    assert coffee["ssim"] == pytest.approx(unmasked[coffee["reference"]], abs=1e-6)
    same = compare(cat["reference"], cat["distorted"], mask=str(path))["pairs"][0]["ssim"]
    assert cat["ssim"] == same != unmasked[cat["reference"]]


def test_a_listed_mask_and_a_crop(files, tmp_path):
    a, b, path = files
    listing = tmp_path / "list.csv"
    listing.write_text(f"{a}/sub1/cat.png,{b}/sub1/cat.jpg,{path}\n{a}/sub1/cat.png,{b}/sub1/cat.jpg,\n")
    masked, unmasked = (pair["ssim"] for pair in compare(pairs=str(listing))["pairs"])
    assert masked == compare(f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg", mask=str(path))["pairs"][0]["ssim"]
    assert unmasked == compare(f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg")["pairs"][0]["ssim"]
    assert compare(pairs=str(listing), crop=10)["failed"] == []


def test_masks_that_do_not_fit(files, tmp_path):
    a, b, _ = files
    small, black = (save(tmp_path / f"{s}.png", np.zeros((s, s), np.uint8)) for s in (50, SIDE))
    pair = f"{a}/sub1/cat.png", f"{b}/sub1/cat.jpg"
    for mask, reason in ((small, "the mask has 50x50 pixels"), (black, "black everywhere")):
        assert reason in compare(*pair, mask=str(mask))["failed"][0]["error"]


def test_a_video_and_a_map_with_a_mask(tmp_path):
    frames = moving_picture(4)
    x, y = (str(write_video(tmp_path / f"{crf}.mp4", frames, crf=crf)) for crf in (8, 38))
    half = np.zeros(frames[0].shape[:2], np.uint8)
    half[:, 100:] = 255
    mask = str(save(tmp_path / "half.png", half))
    masked = compare(x, y, luma="bt601", mask=mask, map=str(tmp_path / "maps"))
    assert masked["failed"] == []
    assert masked["pairs"][0]["ssim"] != compare(x, y, luma="bt601")["pairs"][0]["ssim"]
    (drawn,) = (tmp_path / "maps").iterdir()
    heat = np.array(Image.open(drawn))[: half.shape[0], 2 * (half.shape[1] + 8) :]
    assert (heat[:, :90] == heat[0, 0]).all()  # windows that see nothing are alike
    assert not (heat[:, 120:] == heat[0, 0]).all()
