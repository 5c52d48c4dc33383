"""Compares the scikit-image drop-in with the package, and the MATLAB drop-in with a transcription of Wang's files."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textbook
import torch
from compat_support import assert_same
from scipy import ndimage, signal
from skimage import data
from skimage.metrics import structural_similarity as theirs
from torch.nn import functional as F  # noqa: N812

from ssim_fused.compat import ffmpeg, matlab
from ssim_fused.compat.skimage import structural_similarity as ours


def arrays(*shape: int, dtype: Any = np.float64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    first = generator.random(shape)
    second = np.clip(first + 0.1 * generator.standard_normal(shape), 0, 1)
    if np.issubdtype(dtype, np.integer):
        first, second = (np.round(image * np.iinfo(dtype).max) for image in (first, second))
    return first.astype(dtype), second.astype(dtype)


def assert_like_skimage(im1: np.ndarray, im2: np.ndarray, tolerance: float = 1e-10, **arguments: Any) -> None:
    found, expected = ours(im1, im2, **arguments), theirs(im1, im2, **arguments)
    found, expected = (r if isinstance(r, tuple) else (r,) for r in (found, expected))
    assert len(found) == len(expected)
    for mine, their in zip(found, expected, strict=True):
        assert np.shape(mine) == np.shape(their)
        assert np.max(np.abs(mine - their)) <= tolerance * np.max(np.abs(their))
        assert np.asarray(mine).dtype == np.asarray(their).dtype


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"win_size": 5},
    {"use_sample_covariance": False},
    {"gaussian_weights": True},
    {"gaussian_weights": True, "sigma": 1.0, "use_sample_covariance": False},
    {"gaussian_weights": True, "win_size": 7},
    {"K1": 0.05, "K2": 0.1, "data_range": 2.0},
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("shape", [(40,), (21, 24), (13, 12, 14)], ids=str)
def test_skimage(shape: tuple[int, ...], arguments: dict[str, Any], full: bool) -> None:
    assert_like_skimage(*arrays(*shape), **{"data_range": 1.0, "full": full, **arguments})


@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
def test_skimage_channels(channel_axis: int) -> None:
    for full in (False, True):
        assert_like_skimage(*arrays(15, 16, 17), data_range=1.0, channel_axis=channel_axis, full=full)
    assert_like_skimage(
        *arrays(15, 16, 17), data_range=1.0, channel_axis=channel_axis, gradient=True, use_sample_covariance=False
    )


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("gaussian_weights", [False, True])
@pytest.mark.parametrize("shape", [(40,), (21, 24), (13, 12, 14)], ids=str)
def test_skimage_gradient(shape: tuple[int, ...], gaussian_weights: bool, full: bool) -> None:
    images = arrays(*shape)
    options = {"data_range": 1.0, "gradient": True, "full": full, "gaussian_weights": gaussian_weights}
    for use_sample_covariance in (False, True):
        assert_like_skimage(*images, use_sample_covariance=use_sample_covariance, **options)
    # With sample covariance, the package's gradient is not the derivative of its own map. The corrected one is.
    gradient = ours(*images, corrected=True, **options)[1]
    where, step = tuple(n // 2 for n in shape), 1e-5
    nudged = [images[1].copy(), images[1].copy()]
    nudged[0][where] += step
    nudged[1][where] -= step
    of_maps = [theirs(images[0], image, **options | {"full": True, "gradient": False})[1].mean() for image in nudged]
    assert gradient[where] == pytest.approx((of_maps[0] - of_maps[1]) / (2 * step), rel=1e-6)
    assert theirs(*images, **options)[1][where] != pytest.approx(gradient[where], rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float16])
def test_skimage_dtypes(dtype: Any) -> None:
    images = arrays(21, 24, dtype=dtype)
    planes = arrays(21, 24, 3, dtype=dtype)
    given = {} if np.issubdtype(dtype, np.integer) else {"data_range": 1.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for full in (False, True):
            # In float32 the package's own variances round.
            tolerance = 1e-10 if given == {} else 1e-4
            assert_like_skimage(*images, tolerance=tolerance, full=full, **given)
            for gradient in (False, True):  # the mean over channels has the images' dtype
                more = {"channel_axis": 2, "full": full, "gradient": gradient} | given
                assert_like_skimage(*planes, tolerance=10 * tolerance, **more)
    of_ours = [w for w in caught if "data_range" in str(w.message)]
    assert bool(of_ours) == (dtype in (np.uint16, np.int16))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, np.int16])
@pytest.mark.parametrize("window", [{}, {"win_size": 15}, {"win_size": 17}, {"gaussian_weights": True}], ids=str)
def test_skimage_integers_of_any_layout(window: dict[str, Any], dtype: Any) -> None:
    """Arrays as decoders and slices leave them: interleaved, read-only, reversed, of another byte order."""
    limits = np.iinfo(dtype)
    images = [
        np.random.default_rng(seed).integers(limits.min, limits.max, (40, 53, 3), dtype=dtype, endpoint=True)
        for seed in (1, 2)
    ]
    images[1][:20] = images[0][:20] // 2
    for image in images:
        image.flags.writeable = False
    layouts: list[tuple[Callable[[np.ndarray], np.ndarray], int | None]] = [
        (lambda image: image, 2),
        (lambda image: image.transpose(2, 0, 1), 0),
        (lambda image: image[::-1, ::-2], -1),
        (lambda image: np.asfortranarray(image), 2),
        (lambda image: image.astype(image.dtype.newbyteorder(">")), 2),
        (lambda image: image[..., 1], None),
        (lambda image: image[7, :, 0] if "gaussian_weights" not in window else image[:, 7, 0], None),
    ]
    for layout, channel_axis in layouts:
        for full in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                given = {"channel_axis": channel_axis, "data_range": float(limits.max - limits.min), "full": full}
                assert_like_skimage(*map(layout, images), **given, **window)


def test_skimage_of_a_photograph() -> None:
    photograph = data.astronaut()
    noisy = np.clip(photograph + np.random.default_rng(0).normal(0, 25, photograph.shape), 0, 255).astype(np.uint8)
    assert_like_skimage(photograph, noisy, channel_axis=-1)
    assert_like_skimage(photograph, noisy, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False)


@pytest.mark.parametrize(
    ("change", "arguments", "match"),
    [
        (lambda x: x[1:], {"data_range": 1.0}, "same"),
        (lambda x: x, {}, "`data_range`"),
        (lambda x: x, {"data_range": 1.0, "win_size": 4}, "odd"),
        (lambda x: x, {"data_range": 1.0, "win_size": 23}, "exceeds"),
        (lambda x: x, {"data_range": 1.0, "K1": -1}, "`K1`"),
        (lambda x: x, {"data_range": 1.0, "sigma": -1}, "`sigma`"),
        (lambda x: x + 1j, {"data_range": 1.0}, "`im1` has the dtype complex128"),
    ],
)
def test_skimage_mistakes(change: Any, arguments: dict[str, Any], match: str) -> None:
    first, second = arrays(21, 24)
    with pytest.raises(ValueError, match=match):
        ours(change(first), second, **arguments)
    with pytest.raises(ValueError):  # noqa: PT011 - with the package's own message
        theirs(change(first), second, **arguments)


@pytest.mark.parametrize("gaussian_weights", [False, True])
def test_skimage_of_a_window_of_one_pixel(gaussian_weights: bool) -> None:
    """A single pixel has no sample covariance. Without it, SSIM is the luminance."""
    images, given = arrays(21, 24), {"data_range": 1.0, "gaussian_weights": gaussian_weights}
    for function in (ours, theirs):
        with pytest.raises(ZeroDivisionError):
            function(*images, win_size=1, **given)
    with pytest.raises(ValueError, match="`use_sample_covariance=False`"):
        ours(*images, win_size=1, **given)
    assert_like_skimage(*images, win_size=1, use_sample_covariance=False, **given)
    assert_like_skimage(*images, use_sample_covariance=False, sigma=0, data_range=1.0, gaussian_weights=True)


def test_skimage_refuses_what_it_cannot_compare() -> None:
    first, second = arrays(21, 24)
    with pytest.raises(ValueError, match="`im2` has the dtype complex128"):
        ours(first, second + 1j, data_range=1.0)
    with pytest.raises(IndexError, match="`channel_axis` is 2"):
        ours(first, second, data_range=1.0, channel_axis=2)
    for data_range in (-1.0, 0, float("nan")):
        with pytest.raises(ValueError, match="`data_range`"):
            ours(first, second, data_range=data_range)
    with pytest.raises(TypeError, match="`win_size`"):
        ours(first, second, data_range=1.0, win_size=7.5)
    with pytest.raises(ValueError, match="one to three axes"):
        ours(first.reshape(1, 1, 1, 21, 24), second.reshape(1, 1, 1, 21, 24), data_range=1.0, win_size=1)


# ----------------------------------------------------------------------------------------------------------------------
# MATLAB


def fspecial(size: int, sigma: float) -> np.ndarray:
    y, x = np.mgrid[-(size // 2) : size // 2 + 1, -(size // 2) : size // 2 + 1]
    window = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return window / window.sum()


def transcribed(
    img1: np.ndarray,
    img2: np.ndarray,
    k: Any = (0.01, 0.03),
    window: Any = None,
    data_range: float = 255,
    downsample: bool = True,
) -> tuple[float, np.ndarray]:
    """`ssim.m` line by line, with scipy's filters instead of MATLAB's."""
    window = fspecial(11, 1.5) if window is None else window
    img1, img2 = img1.astype(float), img2.astype(float)
    f = max(1, int(np.floor(min(img1.shape) / 256 + 0.5))) if downsample else 1
    if f > 1:
        lpf = np.ones((f, f)) / f**2
        # imfilter correlates around the one-based index floor((f + 1) / 2), scipy around the zero-based f // 2.
        origin = (f - 1) // 2 - f // 2
        img1, img2 = (ndimage.correlate(i, lpf, mode="reflect", origin=origin)[::f, ::f] for i in (img1, img2))
    c1, c2 = (k[0] * data_range) ** 2, (k[1] * data_range) ** 2
    window = window / window.sum()

    def filter2(image: np.ndarray) -> np.ndarray:
        return signal.correlate2d(image, window, mode="valid")

    mu1, mu2 = filter2(img1), filter2(img2)
    sigma1_sq, sigma2_sq = filter2(img1 * img1) - mu1**2, filter2(img2 * img2) - mu2**2
    sigma12 = filter2(img1 * img2) - mu1 * mu2
    ssim_map = ((2 * mu1 * mu2 + c1) * (2 * sigma12 + c2)) / ((mu1**2 + mu2**2 + c1) * (sigma1_sq + sigma2_sq + c2))
    return ssim_map.mean(), ssim_map


@pytest.mark.parametrize("sides", [(40, 45), (383, 390), (384, 390), (511, 515), (640, 701), (900, 641)], ids=str)
def test_matlab(sides: tuple[int, int]) -> None:
    """Sides of one to three pixels test the rounding of sides, centers and borders in `imfilter`."""
    first, second = (255 * image for image in arrays(*sides))
    for function, downsample in ((matlab.ssim, True), (matlab.ssim_index, False)):
        value, picture = function(torch.from_numpy(first), torch.from_numpy(second), full=True)
        expected, full = transcribed(first, second, downsample=downsample)
        assert float(value) == pytest.approx(expected, rel=1e-10)
        assert np.max(np.abs(picture.numpy() - full)) < 1e-10


def test_matlab_windows_and_constants() -> None:
    first, second = arrays(40, 45)
    images = torch.from_numpy(first), torch.from_numpy(second)
    for window in (fspecial(7, 1.0), np.ones((8, 8)), 2 * np.outer([1, 2, 1], [1.0, 1, 1, 1, 1]), fspecial(9, 2.0)):
        expected, _ = transcribed(first, second, (0.02, 0.05), window, data_range=1)
        assert float(matlab.ssim(*images, (0.02, 0.05), window, 1)) == pytest.approx(expected, rel=1e-10)
    one_axis = fspecial(7, 1.0).sum(0)
    assert float(matlab.ssim(*images, window=one_axis, L=1)) == pytest.approx(
        transcribed(first, second, window=fspecial(7, 1.0), data_range=1)[0], rel=1e-10
    )
    for arguments, match in [
        ({"window": np.eye(3)}, "product"),
        ({"window": -np.ones(3)}, "sum"),
        ({"K": (0, 0.03)}, "`K`"),
    ]:
        with pytest.raises(ValueError, match=match):
            matlab.ssim(*images, **arguments)
    with pytest.raises(ValueError, match="expected"):
        matlab.ssim(images[0][None], images[1][None])
    with pytest.raises(ValueError, match=r"`img1` .* its height 10 must be at least 11 for the `window`"):
        matlab.ssim(images[0][:10], images[1][:10])


def test_matlab_luma() -> None:
    """The weights are the linear combination of NTSC. uint8 stays uint8."""
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None]
    luma = matlab.rgb2gray(photograph)
    expected = np.floor(data.astronaut().astype(float) @ np.array([0.2989360213, 0.5870430745, 0.1140209043]) + 0.5)
    assert np.array_equal(luma[0, 0].numpy(), expected)
    blurred = torch.from_numpy(ndimage.gaussian_filter(data.astronaut(), (2, 2, 0))).permute(2, 0, 1)[None]
    value = matlab.ssim(photograph, blurred)
    assert value.dtype == torch.float64
    expected, _ = transcribed(luma[0, 0].numpy(), matlab.rgb2gray(blurred)[0, 0].numpy())
    assert float(value) == pytest.approx(expected, rel=1e-10)
    assert float(matlab.rgb2gray(torch.ones(1, 3, 1, 1, dtype=torch.float64))) == pytest.approx(1, abs=1e-6)


def test_matlab_gradients() -> None:
    x, y = (torch.from_numpy(image)[None, None] for image in arrays(385, 390))
    windows = [textbook.gaussian(11, 1.5)] * 2

    def expected(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y = (F.avg_pool2d(F.pad(i, (0, 1, 0, 1), mode="replicate"), 2) for i in (x, y))
        return textbook.ssim_maps(x, y, windows, 0.01**2, 0.03**2, "valid")[0].flatten(1).mean(1)

    assert_same(lambda x, y: matlab.ssim(x, y, L=1), expected, x, y, 1e-9)


# ----------------------------------------------------------------------------------------------------------------------
# FFmpeg


@pytest.mark.parametrize("sides", [(64, 64), (63, 70), (17, 9), (24, 24), (101, 131)], ids=str)
def test_ffmpeg(sides: tuple[int, int], tmp_path: Path) -> None:
    """FFmpeg's x86 code is disabled: it counts the SSIM of some windows as 1 if width / 4 is 2 modulo 4."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed")
    frames = arrays(*sides, dtype=np.uint8)
    files = []
    for name, frame in zip(("main", "reference"), frames, strict=True):
        files.append(tmp_path / f"{name}.pgm")
        files[-1].write_bytes(b"P5 %d %d 255\n" % sides[::-1] + frame.tobytes())
    told = subprocess.run(
        [program, "-cpuflags", "0", "-i", str(files[0]), "-i", str(files[1]), "-lavfi", "ssim", "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    found = re.search(r"SSIM Y:(\d\.\d+)", told)
    assert found, told
    value = ffmpeg.ssim(*(torch.from_numpy(frame)[None, None].double() for frame in frames))
    assert float(value) == pytest.approx(float(found[1]), abs=6e-7)  # FFmpeg prints six digits


def test_ffmpeg_of_planes_and_its_mistakes() -> None:
    frames = [torch.from_numpy(frame)[None] for frame in arrays(3, 24, 32, dtype=np.uint8)]
    value = ffmpeg.ssim(*frames)
    assert value.shape == (1, 3)
    for plane in range(3):
        torch.testing.assert_close(ffmpeg.ssim(*(f[:, plane : plane + 1] for f in frames))[0], value[:, plane])
    with pytest.raises(ValueError, match="`data_range` is 1"):
        ffmpeg.ssim(*frames, data_range=1)
    with pytest.raises(ValueError, match=r"`main` .* its width 7 must be at least 8"):
        ffmpeg.ssim(*(f[..., :7] for f in frames))
