"""Tests ``--convention`` against the installed libraries, on a photograph and its JPEG."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_files import save
from skimage import data

from ssim_fused.scoring import compare

SIZES = {"even": (slice(20, 260), slice(40, 264)), "odd": (slice(20, 271), slice(40, 263))}


@pytest.fixture(scope="module", params=SIZES)
def pair(request, tmp_path_factory):
    """Returns the paths of both files, and their pixels ``[H, W, 3]``."""
    folder = tmp_path_factory.mktemp("conventions")
    array = data.astronaut()[SIZES[request.param]]
    paths = save(folder / "x.png", array), save(folder / "y.jpg", array, quality=20)
    return [str(path) for path in paths], [np.array(Image.open(path)) for path in paths]


def batches(pixels):
    return [torch.from_numpy(p).movedim(-1, 0)[None].double() for p in pixels]


def scored(paths, *metric, **settings):
    scores = compare(*paths, metric=metric, **settings)["pairs"][0]
    return [scores[name] for name in metric]


# Our scores are float32 means of about 150 000 pixels, printed with seven digits.
CLOSE = {"abs": 2e-6, "rel": 0}


def test_torchmetrics(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    paths, pixels = pair
    x, y = batches(pixels)
    ssim, multiscale, psnr = scored(paths, "ssim", "ms-ssim", "psnr", convention="torchmetrics")
    assert ssim == pytest.approx(image.structural_similarity_index_measure(y, x, data_range=255.0).item(), **CLOSE)
    theirs = image.multiscale_structural_similarity_index_measure(y, x, data_range=255.0).item()
    assert multiscale == pytest.approx(theirs, **CLOSE)
    assert psnr == pytest.approx(image.peak_signal_noise_ratio(y, x, data_range=255.0).item(), rel=1e-6)


def test_pytorch_msssim(pair):
    package = pytest.importorskip("pytorch_msssim")
    paths, pixels = pair
    x, y = batches(pixels)
    # The window of pytorch-msssim is rounded to float32 and sums to 1 - 3e-8, which causes an error of 3e-6.
    ssim, multiscale = scored(paths, "ssim", "ms-ssim", convention="pytorch-msssim")
    assert ssim == pytest.approx(package.ssim(y, x, data_range=255).item(), abs=5e-6)
    theirs = package.ms_ssim(y, x, data_range=255).item()
    assert multiscale == pytest.approx(theirs, abs=5e-6)


def test_skimage(pair):
    metrics = pytest.importorskip("skimage.metrics")
    paths, pixels = pair
    (ours,) = scored(paths, "ssim", convention="skimage")
    assert ours == pytest.approx(metrics.structural_similarity(*pixels, channel_axis=-1), **CLOSE)
    (ours,) = scored(paths, "ssim", convention="skimage", kernel_size=9)
    assert ours == pytest.approx(metrics.structural_similarity(*pixels, channel_axis=-1, win_size=9), **CLOSE)
    (ours,) = scored(paths, "ssim", convention="skimage", window="gaussian", sigma=1.5)
    theirs = metrics.structural_similarity(*pixels, channel_axis=-1, gaussian_weights=True)
    assert ours == pytest.approx(theirs, **CLOSE)


def test_matlab(pair):
    """Wang's ssim_index.m equals scikit-image's function with his settings, applied to luma without rounding."""
    metrics = pytest.importorskip("skimage.metrics")
    paths, pixels = pair
    grey = [p @ np.array([0.299, 0.587, 0.114]) for p in pixels]
    (ours,) = scored(paths, "ssim", convention="matlab")
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ours == pytest.approx(metrics.structural_similarity(*grey, **wang), **CLOSE)


def test_basicsr(pair):
    """Compares with BasicSR if it is installed, and otherwise with its formula, written with scipy's filter."""
    paths, pixels = pair
    for crop, luma in ((0, None), (4, "matlab")):
        ours = scored(paths, "ssim", "psnr", convention="basicsr", crop=crop, luma=luma)
        assert ours[0] == pytest.approx(basicsr_ssim(*pixels, crop, bool(luma)), **CLOSE)
        if not luma:
            inner = [p.astype(float) for p in pixels]
            assert ours[1] == pytest.approx(10 * np.log10(255**2 / np.mean((inner[0] - inner[1]) ** 2)), rel=1e-6)


def basicsr_ssim(x, y, crop, luma):
    try:
        from basicsr.metrics.psnr_ssim import calculate_ssim
    except ImportError:
        return restated_basicsr_ssim(x, y, crop, luma)
    return calculate_ssim(x[..., ::-1], y[..., ::-1], crop, test_y_channel=luma)  # calculate_ssim expects BGR


def restated_basicsr_ssim(x, y, crop, luma):
    from scipy.ndimage import correlate1d

    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(image):
        return correlate1d(correlate1d(image, taps, axis=0), taps, axis=1)[5:-5, 5:-5]

    def ssim(a, b):
        mu_a, mu_b = mean(a), mean(b)
        var_a, var_b, cov = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        return np.mean((2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)))

    x, y = (p[crop : p.shape[0] - crop, crop : p.shape[1] - crop].astype(float) for p in (x, y))
    if luma:
        x, y = (16 + p @ [[65.481 / 255], [128.553 / 255], [24.966 / 255]] for p in (x, y))
    return np.mean([ssim(x[..., c], y[..., c]) for c in range(x.shape[2])])
