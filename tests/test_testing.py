"""`assert_similar`: what passes, what fails, what the failure message says, and which calls are refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from torch._subclasses import FakeTensorMode

from ssim_fused import ssim
from ssim_fused.testing import assert_similar

CAT = data.chelsea()[40:200, 60:260]
HEIGHT, WIDTH = CAT.shape[:2]
CLOCK = (20, 30, 40, 10)


def inverted(image: np.ndarray, x: int, y: int, w: int, h: int) -> np.ndarray:
    image = image.copy()
    image[y : y + h, x : x + w] = 255 - image[y : y + h, x : x + w]
    return image


def floats(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def saved(image: np.ndarray, path: Path) -> Path:
    Image.fromarray(image).save(path)
    return path


def parsed(message: str) -> tuple[float, tuple[int, int, int, int], float]:
    """The score, the worst region, and its score."""
    score = re.search(r"SSIM is (\S+), expected at_least=", message)
    region = re.search(r"worst region: x=(\d+), y=(\d+), w=(\d+), h=(\d+), with a local SSIM of (\S+)", message)
    assert score, message
    assert region, message
    x, y, w, h, local = region.groups()
    return float(score[1]), (int(x), int(y), int(w), int(h)), float(local)


def failed(actual: object, expected: object, **options: object) -> str:
    with pytest.raises(AssertionError) as raised:
        assert_similar(actual, expected, **options)
    return str(raised.value)


FORMS = {
    "array": lambda image, folder: image,
    "float array": lambda image, folder: floats(image),
    "float64 array": lambda image, folder: image / 255,
    "float16 array": lambda image, folder: floats(image).astype(np.float16),
    "tensor": lambda image, folder: tensor(image),
    "float tensor of a graph": lambda image, folder: tensor(floats(image)).requires_grad_(),
    "batch of one": lambda image, folder: tensor(image)[None],
    "PIL image": lambda image, folder: Image.fromarray(image),
    "palette": lambda image, folder: Image.fromarray(image).quantize(256),
    "path": lambda image, folder: saved(image, folder / "image.png"),
    "string": lambda image, folder: str(saved(image, folder / "image.png")),
    "big-endian": lambda image, folder: (image.astype(">u2") * 257).astype(">u2"),
    "opaque RGBA": lambda image, folder: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_in_any_form_is_the_same_image(form: str, tmp_path: Path) -> None:
    other = FORMS[form](CAT, tmp_path)
    least = 0.9 if form == "palette" else 0.9999
    assert assert_similar(other, CAT, at_least=least) >= least
    assert assert_similar(CAT, other, at_least=least) >= least
    changed = FORMS[form](inverted(CAT, 50, 60, 60, 40), tmp_path)
    assert parsed(failed(changed, CAT, heat_map=tmp_path / "heat_map.png"))[0] < 0.95


def test_a_matrix_is_an_array() -> None:
    assert assert_similar(np.asmatrix(CAT[..., 0]), CAT[..., 0], at_least=1) == 1


def test_the_score_is_that_of_ssim() -> None:
    noisy = (CAT + np.random.default_rng(0).normal(0, 12, CAT.shape)).clip(0, 255).astype(np.uint8)
    expected = float(ssim(tensor(noisy)[None].double(), tensor(CAT)[None].double(), data_range=255.0))
    assert assert_similar(noisy, CAT, at_least=0.5) == pytest.approx(expected, abs=1e-6)
    mask = np.random.default_rng(1).random((HEIGHT, WIDTH)).astype(np.float32)
    weights = torch.from_numpy(mask)[None, None]
    weighed = ssim(tensor(noisy)[None].double(), tensor(CAT)[None].double(), data_range=255.0, mask=weights)
    assert assert_similar(noisy, CAT, at_least=0.5, mask=mask) == pytest.approx(float(weighed), abs=1e-6)


def test_the_message_of_a_failure(tmp_path: Path) -> None:
    message = failed(inverted(CAT, 50, 60, 60, 40), CAT, at_least=0.98, heat_map=tmp_path / "new" / "heat.png")
    score, region, local = parsed(message)
    assert score < 0.98
    assert "at_least=0.98" in message
    assert region == (50, 60, 60, 40)
    assert local < 0.5
    path = Path(re.search(r"heat map: (.*)", message)[1])
    assert path == tmp_path / "new" / "heat.png"
    with Image.open(path) as sheet:
        pixels = np.array(sheet.convert("RGB"))
    assert (pixels[12 : 12 + HEIGHT, 12 : 12 + 40] == CAT[:, :40]).all()  # the panel of `expected`, left of the mark


def test_a_heat_map_is_written_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    path = Path(re.search(r"heat map: (.*)", failed(255 - CAT, CAT))[1])
    assert path.is_file()
    path.unlink()
    path.parent.rmdir()


def test_a_failure_is_reported_even_if_the_heat_map_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = failed(255 - CAT, CAT, heat_map=tmp_path / "file" / "heat.png")
    assert parsed(message)[0] < 0.5
    assert "heat map: not written" in message


def test_a_score_just_below_does_not_print_as_the_threshold() -> None:
    noisy = CAT.copy()
    noisy[0, 0] ^= 255
    score = assert_similar(noisy, CAT, at_least=0)
    above = float(np.nextafter(score, 2))
    message = failed(noisy, CAT, at_least=above)
    assert parsed(message)[0] < above


def test_a_small_change_fails_because_of_its_region(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 200, (600, 800)).astype(np.uint8)
    noisy = large + np.random.default_rng(1).integers(0, 3, large.shape).astype(np.uint8)
    assert assert_similar(noisy, large, region_at_least=0.9) > 0.99
    changed = noisy.copy()
    changed[300:310, 200:210] = 0
    assert assert_similar(changed, large, region_at_least=-1) > 0.99
    message = failed(changed, large, region_at_least=0.9, heat_map=tmp_path / "heat.png")
    score, local = re.search(r"SSIM is (\S+), but (\S+) in a region, expected region_at_least=0.9", message).groups()
    assert float(local) < 0.5 < 0.99 < float(score)
    assert "x=200, y=300, w=10, h=10" in message
    assert assert_similar(changed, large, region_at_least=0.9, ignore=[(200, 300, 10, 10)]) > 0.99


rectangles = st.tuples(st.integers(12, 40), st.integers(12, 40)).flatmap(
    lambda size: st.tuples(st.integers(0, WIDTH - size[0]), st.integers(0, HEIGHT - size[1]), *map(st.just, size))
)


@given(rectangles, st.sampled_from(["inverted", "grey", "noise"]))
def test_a_changed_rectangle_is_the_worst_region(rectangle: tuple[int, int, int, int], how: str) -> None:
    x, y, w, h = rectangle
    changed = inverted(CAT, *rectangle)
    if how == "grey":
        changed[y : y + h, x : x + w] = np.where(CAT[y : y + h, x : x + w] > 127, 0, 255)
    elif how == "noise":
        changed[y : y + h, x : x + w] = np.random.default_rng(0).integers(0, 256, (h, w, 3))
    message = failed(changed, CAT, at_least=1, heat_map="/dev/null/none.png")
    left, top, width, height = parsed(message)[1]
    assert x <= left
    assert y <= top
    assert left + width <= x + w
    assert top + height <= y + h
    assert width * height >= 0.5 * w * h


@given(rectangles)
def test_an_ignored_rectangle_does_not_count(rectangle: tuple[int, int, int, int]) -> None:
    x, y, w, h = rectangle
    changed = floats(inverted(CAT, *rectangle))
    assert assert_similar(changed, floats(CAT), at_least=1, ignore=[rectangle]) == 1
    changed[y : y + h, x : x + w] = np.nan
    assert assert_similar(changed, floats(CAT), at_least=1, ignore=[rectangle]) == 1
    mask = np.ones((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = False
    assert assert_similar(changed, floats(CAT), at_least=1, mask=mask) == 1


@given(rectangles, rectangles)
def test_ignored_pixels_do_not_affect_the_rest(
    ignored: tuple[int, int, int, int], changed: tuple[int, int, int, int]
) -> None:
    image = inverted(CAT, *changed)
    scores = {assert_similar(other, CAT, at_least=-1, ignore=[ignored]) for other in (image, inverted(image, *ignored))}
    assert len(scores) == 1


@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([np.uint8, np.uint16, np.float32]), st.booleans())
def test_images_of_any_size_can_be_compared(height: int, width: int, dtype: type, color: bool) -> None:
    image = (np.random.default_rng(0).random((height, width, 3) if color else (height, width))).astype(np.float64)
    image = (image * (1 if dtype is np.float32 else np.iinfo(dtype).max)).astype(dtype)
    assert assert_similar(image.copy(), image, at_least=1) == 1
    other = image.copy()
    other[-1, -1] = image.max() / 2 if image[-1, -1].max() < image.max() / 4 else 0
    assert assert_similar(other, image, at_least=-1) < 1


def test_equal_images_pass_without_computing_ssim(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise RuntimeError("SSIM is computed")

    monkeypatch.setattr("ssim_fused.testing.comparison.structural_similarity_index_measure", never)
    assert assert_similar(CAT.copy(), CAT, at_least=1) == 1
    assert assert_similar(inverted(CAT, *CLOCK), CAT, ignore=[CLOCK]) == 1
    with pytest.raises(RuntimeError, match="SSIM is computed"):
        assert_similar(inverted(CAT, *CLOCK), CAT)


def test_white_on_transparent_is_visible() -> None:
    """Composited over white alone, a white drawing on a transparent page would equal an empty page."""
    page = np.zeros((40, 60, 4), np.uint8)
    page[..., :3] = 255
    drawn = page.copy()
    drawn[10:30, 20:40, 3] = 255
    assert parsed(failed(drawn, page))[0] < 0.9
    assert parsed(failed(page, drawn))[1] == (20, 10, 20, 20)
    colors = page.copy()
    colors[..., 0] = 7  # the color of transparent pixels is invisible
    assert assert_similar(colors, page, at_least=1) == 1
    opaque = page.copy()
    opaque[..., 3] = 255
    assert parsed(failed(page, opaque))[0] < 0.5
    assert assert_similar(opaque, opaque[..., :3], at_least=1) == 1


def test_transparency_of_files(tmp_path: Path) -> None:
    page = np.zeros((40, 60, 4), np.uint8)
    page[..., :3] = 255
    drawn = page.copy()
    drawn[10:30, 20:40, 3] = 255
    for ending in ("png", "webp"):
        paths = [tmp_path / f"{name}.{ending}" for name in ("page", "drawn")]
        for path, image in zip(paths, (page, drawn), strict=True):
            Image.fromarray(image).save(path, lossless=True)
        assert parsed(failed(paths[1], paths[0]))[0] < 0.9
        assert assert_similar(drawn, paths[1], at_least=1) == 1


def test_sixteen_bit_files_keep_their_depth(tmp_path: Path) -> None:
    deep = (np.random.default_rng(0).integers(0, 2**16, (30, 40))).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert assert_similar(deep, tmp_path / "deep.png", at_least=1) == 1
    assert assert_similar(deep ^ 1, tmp_path / "deep.png", at_least=0) < 1
    assert "at_least=1" in failed(deep ^ 1, tmp_path / "deep.png", at_least=1)


def test_a_twelve_bit_file_has_its_own_range(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 2**12, (30, 40)).astype(np.uint16)
    (tmp_path / "deep.pgm").write_bytes(b"P5 40 30 4095\n" + deep.astype(">u2").tobytes())
    assert assert_similar(deep / 4095, tmp_path / "deep.pgm", at_least=1) == 1
    weights = np.where(deep > 2000, 4095, 0).astype(">u2")
    (tmp_path / "mask.pgm").write_bytes(b"P5 40 30 4095\n" + weights.tobytes())
    other = np.where(deep > 2000, deep, 0) / 4095
    assert assert_similar(other, tmp_path / "deep.pgm", at_least=1, mask=tmp_path / "mask.pgm") == 1


@pytest.mark.parametrize("white", [0.5, 1.0, 255.0, 1000.0])
def test_floating_point_files_have_the_given_range(tmp_path: Path, white: float) -> None:
    grey = np.random.default_rng(0).random((30, 40)).astype(np.float32) * np.float32(white)
    tifffile.imwrite(tmp_path / "grey.tif", grey)
    assert assert_similar(grey, tmp_path / "grey.tif", at_least=1, data_range=white) == 1
    clear = np.stack([grey, grey, grey, np.zeros_like(grey)], 2)
    tifffile.imwrite(tmp_path / "clear.tif", clear, photometric="rgb", extrasamples=["unassalpha"])
    page = np.full((30, 40, 3), np.float32(white))
    assert assert_similar(page, tmp_path / "clear.tif", at_least=1, data_range=white) == 1


def test_a_rotated_photograph_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(CAT).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(CAT, -1)
    assert assert_similar(tmp_path / "turned.png", upright, at_least=1) == 1
    with Image.open(tmp_path / "turned.png") as image:
        assert assert_similar(image, upright, at_least=1) == 1


def test_gray_compares_with_color() -> None:
    grey = CAT[..., 0]
    assert assert_similar(grey, grey[:, :, None].repeat(3, 2), at_least=1) == 1
    assert assert_similar(grey, grey[:, :, None], at_least=1) == 1
    assert parsed(failed(grey, CAT, at_least=0.999))[0] < 0.999


def test_ranges() -> None:
    signed = floats(CAT) * 2 - 1
    assert assert_similar(signed, signed.copy(), at_least=1, data_range=(-1, 1)) == 1
    changed = inverted(CAT, 50, 60, 60, 40)
    scores = [
        assert_similar(floats(changed) * 2 - 1, signed, at_least=0, data_range=(-1, 1)),
        assert_similar(changed.astype(np.float32), CAT.astype(np.float32), at_least=0, data_range=255),
        assert_similar(changed.astype(np.int64), CAT.astype(np.int32), at_least=0, data_range=255),
        assert_similar(changed.astype(np.float32), CAT, at_least=0, data_range=255),
        assert_similar(changed.astype(np.uint16) * 16, CAT.astype(np.uint16) * 16, at_least=0, data_range=255 * 16),
        assert_similar(changed, CAT, at_least=0),
    ]
    assert max(scores) - min(scores) < 1e-6


NESTED = torch.nested.nested_tensor([torch.zeros(3, 4, 5), torch.zeros(3, 5, 4)])
QUANTIZED = torch.quantize_per_tensor(torch.rand(9, 9), 0.1, 0, torch.quint8)
with FakeTensorMode():
    FAKE = torch.empty(9, 9)
BATCH = np.zeros((2, 8, 9, 3), np.uint8)
REFUSED = [
    ("a list", {"actual": [[0]]}, TypeError, ["`actual`", "list"]),
    ("a list of images", {"mask": [CAT]}, TypeError, ["`mask` is [", "list", "`mask[i]`", "`numpy.asarray(mask)`"]),
    ("no image", {"expected": None}, TypeError, ["`expected` is None; expected an image"]),
    ("a number", {"actual": 5}, TypeError, ["`actual` is 5 of type int; expected an image"]),
    ("the content of a file", {"actual": b"\x89PNG"}, TypeError, ["`actual`", "PIL.Image.open(io.BytesIO(actual))"]),
    ("a meta tensor", {"actual": torch.empty(3, 4, 5, device="meta")}, TypeError, ["`actual`", "without data", "meta"]),
    ("a fake tensor", {"expected": FAKE}, TypeError, ["`expected`", "without data"]),
    ("a sparse tensor", {"actual": torch.eye(9).to_sparse()}, TypeError, ["sparse_coo", "`actual.to_dense()`"]),
    ("a sparse mask", {"mask": torch.eye(9).to_sparse_csr()}, TypeError, ["sparse_csr", "`mask.to_dense()`"]),
    ("a nested tensor", {"actual": NESTED}, TypeError, ["`actual`", "nested", "`actual[i]`"]),
    ("a quantized tensor", {"actual": QUANTIZED}, TypeError, ["quint8", "`actual.dequantize()`"]),
    ("a path that is a number", {"heat_map": 5}, TypeError, ["`heat_map` is 5", "'failure.png'"]),
    ("an empty path", {"heat_map": ""}, ValueError, ["`heat_map` is ''", "'failure.png'"]),
    ("text", {"actual": "no.png"}, FileNotFoundError, ["`actual`", "no.png"]),
    ("an array as CHW", {"actual": CAT.transpose(2, 0, 1)}, ValueError, ["`actual`", "transpose(1, 2, 0)"]),
    ("a tensor as HWC", {"actual": torch.from_numpy(CAT)}, ValueError, ["`actual`", "permute(2, 0, 1)"]),
    ("a batch", {"actual": BATCH}, ValueError, ["`actual`", "(2, 8, 9, 3)", "loop"]),
    ("a batch of tensors", {"actual": torch.from_numpy(BATCH).permute(0, 3, 1, 2)}, ValueError, ["batch", "loop"]),
    ("two channels", {"actual": CAT[..., :2]}, ValueError, ["`actual`", "1, 3 or 4 channels"]),
    ("no pixel", {"actual": CAT[:0]}, ValueError, ["`actual`", "at least one pixel"]),
    ("int64", {"actual": CAT.astype(np.int64)}, TypeError, ["`actual`", "int64", "data_range=255"]),
    ("complex", {"actual": CAT.astype(np.complex64)}, TypeError, ["`actual`", "complex64"]),
    ("texts", {"actual": CAT.astype(str)}, TypeError, ["`actual`", "dtype"]),
    ("255 as float", {"actual": CAT.astype(np.float32)}, ValueError, ["`actual`", "data_range=255"]),
    ("negative", {"expected": floats(CAT) - 1}, ValueError, ["`expected`", "data_range=(-1"]),
    ("NaN expected", {"expected": floats(CAT) * np.nan}, ValueError, ["`expected`", "NaN", "x=0, y=0"]),
    ("NaN actual", {"actual": floats(CAT) * np.nan}, AssertionError, ["`actual`", "NaN", f"{HEIGHT * WIDTH} pixels"]),
    ("another size", {"actual": CAT[1:]}, AssertionError, [f"{WIDTH}x{HEIGHT - 1}", f"{WIDTH}x{HEIGHT}"]),
    ("turned", {"actual": CAT.transpose(1, 0, 2)}, AssertionError, [f"{HEIGHT}x{WIDTH}", "transposed"]),
    ("percent", {"at_least": 99}, ValueError, ["`at_least`", "99", "0.99"]),
    ("percent of a region", {"region_at_least": 90}, ValueError, ["`region_at_least`", "90"]),
    ("NaN", {"at_least": float("nan")}, ValueError, ["`at_least`", "nan"]),
    ("a word", {"at_least": "0.9"}, TypeError, ["`at_least`", "'0.9'"]),
    ("one rectangle", {"ignore": CLOCK}, TypeError, ["`ignore`", "[(20, 30, 40, 10)]"]),
    ("three numbers", {"ignore": [(1, 2, 3)]}, TypeError, ["`ignore`", "(1, 2, 3)"]),
    ("fractions", {"ignore": [(1, 2, 3.5, 4)]}, TypeError, ["`ignore`", "3.5"]),
    ("outside", {"ignore": [(WIDTH - 1, 0, 2, 1)]}, ValueError, ["`ignore`", f"x={WIDTH - 1}", f"{WIDTH}x{HEIGHT}"]),
    ("empty", {"ignore": [(0, 0, 0, 1)]}, ValueError, ["`ignore`", "w=0"]),
    ("everything", {"ignore": [(0, 0, WIDTH, HEIGHT)]}, ValueError, ["`ignore`", "no pixel"]),
    ("black mask", {"mask": np.zeros((HEIGHT, WIDTH), bool)}, ValueError, ["`mask`", "no pixel"]),
    ("small mask", {"mask": np.ones((4, 5), bool)}, ValueError, ["`mask`", "5x4", f"{WIDTH}x{HEIGHT}"]),
    ("colour mask", {"mask": CAT}, ValueError, ["`mask`", "several channels"]),
    ("wide mask", {"mask": np.full((HEIGHT, WIDTH), 2.0)}, ValueError, ["`mask`", "[0, 1]"]),
    ("reversed", {"data_range": (1, 0)}, ValueError, ["`data_range`", "(1, 0)"]),
    ("no range", {"data_range": "255"}, TypeError, ["`data_range`", "'255'"]),
]


@pytest.mark.parametrize(("change", "error", "expected"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_errors_name_the_argument(change: dict, error: type[Exception], expected: list[str]) -> None:
    with pytest.raises(error) as raised:
        assert_similar(**({"actual": CAT, "expected": CAT} | change))
    assert type(raised.value) is error
    for part in expected:
        assert part in str(raised.value)


def test_a_broken_file_names_the_argument(tmp_path: Path) -> None:
    path = saved(CAT, tmp_path / "cat.png")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"`expected`.*cat\.png"):
        assert_similar(CAT, path)


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(CAT, tmp_path / "cat.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"PIL is not installed; run: pip install 'ssim_fused\[scoring\]'"):
        assert_similar(CAT, path)
    monkeypatch.delitem(sys.modules, "ssim_fused.testing.drawing", raising=False)
    assert parsed(failed(tensor(255 - CAT), tensor(CAT)))[0] < 0.5
