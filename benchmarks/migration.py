"""Measure what changes in a score when a user migrates to ssim_fused: `python -m benchmarks.migration`.

For each library, on scikit-image's astronaut (512x512) with noise and blurred: its value, the difference to the public
functions with their defaults, the difference to the line that keeps the old numbers, and the relative differences of
the gradients. Writes the tables of docs/migration.md. If a library is not installed, its module in `compat` stands in
for it, and the row is marked.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssim_fused import ms_ssim, ssim
from ssim_fused.compat import ffmpeg, fused_ssim, kornia, matlab, monai, piq, pytorch_msssim, skimage

from .marks import rewrite
from .peers import PIQ

PAGE = Path(__file__).resolve().parents[1] / "docs/migration.md"
Measure = Callable[[Tensor, Tensor], Any]


class Row(NamedTuple):
    """A library's measure, and what may replace it: the public function `plain`, or the drop-in `kept`."""

    name: str
    theirs: Callable[[], Measure]
    plain: Measure
    kept: Measure
    line: str
    has_gradient: bool = True


def plain(x: Tensor, y: Tensor) -> Tensor:
    """SSIM by the public function with its defaults."""
    return ssim(x, y, data_range=1.0)


def plain_multiscale(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM by the public function with its defaults."""
    return ms_ssim(x, y, data_range=1.0)


def images() -> dict[str, tuple[Tensor, Tensor]]:
    """The distorted and the clean photograph `[1, 3, 512, 512]` in [0, 1], float64, by the name of the distortion."""
    from scipy.ndimage import gaussian_filter
    from skimage import data

    photograph = data.astronaut() / 255.0
    noise = np.random.default_rng(0).normal(0, 0.1, photograph.shape)
    changed = {"noise": (photograph + noise).clip(0, 1), "blur": gaussian_filter(photograph, (2, 2, 0)).clip(0, 1)}
    target = torch.from_numpy(photograph).permute(2, 0, 1)[None].contiguous()
    return {name: (torch.from_numpy(i).permute(2, 0, 1)[None].contiguous(), target) for name, i in changed.items()}


def imported(module: str, name: str) -> Any:
    """A function of a library."""
    if module.startswith("piq") and "piq" not in sys.modules:
        PIQ()  # loads the package without its feature extractors, which need torchvision
    return getattr(importlib.import_module(module), name)


def called(module: str, name: str, **arguments: Any) -> Callable[[], Measure]:
    """A library's function with these arguments; the mean, if it returns a map."""

    def found() -> Measure:
        function = imported(module, name)
        return lambda x, y: function(x, y, **arguments).mean()

    return found


def of_odd_sides(function: Measure) -> Measure:
    """A measure of the first 511x509 pixels, which the packages' MS-SSIM halves differently from ours."""
    return lambda x, y: function(x[..., :511, :509], y[..., :511, :509])


def on_cuda() -> Measure:
    """fused-ssim in float32; it has no CPU kernel."""
    function = imported("fused_ssim", "fused_ssim")
    return lambda x, y: function(x.float().cuda(), y.float().cuda()).double().cpu()


def matlab_itself() -> Measure:
    """Raise ModuleNotFoundError: MATLAB cannot be called from Python here."""
    raise ModuleNotFoundError("matlab")


def of_arrays(function: Callable[..., Any], **arguments: Any) -> Measure:
    """scikit-image's function on the first image of a batch."""

    def measure(x: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(function(x[0].numpy(), y[0].numpy(), channel_axis=0, data_range=1.0, **arguments))

    return measure


def luma_bytes(image: Tensor) -> Tensor:
    """The luma ``[1, 1, H, W]`` in 0..255, rounded to integers."""
    return matlab.rgb2gray((255 * image).round().to(torch.uint8))


def of_luma(function: Measure) -> Measure:
    """SSIM of gray images with a range of 255."""
    return lambda x, y: function(luma_bytes(x), luma_bytes(y)).mean()


def told_by_ffmpeg(x: Tensor, y: Tensor) -> Tensor:
    """FFmpeg's score of both lumas, written as files."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise ModuleNotFoundError("ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, image in (("main", x), ("reference", y)):
            frame = luma_bytes(image)[0, 0].to(torch.uint8).numpy()
            files.append(Path(folder) / f"{name}.pgm")
            files[-1].write_bytes(b"P5 %d %d 255\n" % frame.shape[::-1] + frame.tobytes())
        command = [program, "-i", str(files[0]), "-i", str(files[1]), "-lavfi", "ssim", "-f", "null", "-"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"SSIM Y:(\d\.\d+)", told)
    if found is None:
        raise RuntimeError(f"{' '.join(command)} printed no SSIM: {told}")
    return torch.tensor(float(found[1]), dtype=torch.float64)


def rows() -> list[Row]:
    """The measures of all libraries."""
    wang = {"gaussian_weights": True, "use_sample_covariance": False}
    valid = '`ssim(x, y, data_range=1.0, padding="valid")`'
    of_bytes = of_luma(lambda x, y: ssim(x, y, data_range=255))
    distance = partial(kornia.ssim_loss, window_size=11)
    return [
        Row(
            "torchmetrics SSIM",
            called("torchmetrics.functional.image", "structural_similarity_index_measure", data_range=1.0),
            plain, plain, "`ssim(x, y, data_range=1.0)`",
        ),
        Row(
            "torchmetrics MS-SSIM",
            called("torchmetrics.functional.image", "multiscale_structural_similarity_index_measure", data_range=1.0),
            plain_multiscale, plain_multiscale, "`ms_ssim(x, y, data_range=1.0)`",
        ),
        Row(
            "pytorch-msssim `ssim`", called("pytorch_msssim", "ssim", data_range=1.0), plain,
            partial(pytorch_msssim.ssim, data_range=1.0), "`from ssim_fused.compat.pytorch_msssim import ssim`",
        ),
        Row(
            "pytorch-msssim `ms_ssim`", called("pytorch_msssim", "ms_ssim", data_range=1.0), plain_multiscale,
            partial(pytorch_msssim.ms_ssim, data_range=1.0), "`from ssim_fused.compat.pytorch_msssim import ms_ssim`",
        ),
        Row(
            "pytorch-msssim `ms_ssim`, 511x509",
            lambda: of_odd_sides(called("pytorch_msssim", "ms_ssim", data_range=1.0)()), of_odd_sides(plain_multiscale),
            of_odd_sides(partial(pytorch_msssim.ms_ssim, data_range=1.0)),
            "`from ssim_fused.compat.pytorch_msssim import ms_ssim`",
        ),
        Row(
            "fused-ssim", on_cuda, plain, fused_ssim.fused_ssim,
            "`from ssim_fused.compat.fused_ssim import fused_ssim`",
        ),
        Row(
            "piq `ssim`", called("piq.ssim", "ssim"), plain, piq.ssim, "`from ssim_fused.compat.piq import ssim`",
        ),
        Row(
            "piq `ssim(downsample=False)`", called("piq.ssim", "ssim", downsample=False), plain,
            lambda x, y: ssim(x, y, data_range=1.0, padding="valid"), valid,
        ),
        Row(
            "piq `multi_scale_ssim`", called("piq.ms_ssim", "multi_scale_ssim"), plain_multiscale,
            piq.multi_scale_ssim, "`from ssim_fused.compat.piq import multi_scale_ssim`",
        ),
        Row(
            "piq `multi_scale_ssim`, 511x509", lambda: of_odd_sides(called("piq.ms_ssim", "multi_scale_ssim")()),
            of_odd_sides(plain_multiscale), of_odd_sides(piq.multi_scale_ssim),
            "`from ssim_fused.compat.piq import multi_scale_ssim`",
        ),
        Row(
            "kornia `metrics.ssim(11).mean()`", called("kornia.metrics", "ssim", window_size=11), plain,
            lambda x, y: kornia.ssim(x, y, 11).mean(), "`from ssim_fused.compat.kornia import ssim`",
        ),
        Row(
            "kornia `ssim_loss(11)`", called("kornia.losses", "ssim_loss", window_size=11),
            lambda x, y: 1 - plain(x, y), distance, "`from ssim_fused.compat.kornia import ssim_loss`",
        ),
        Row(
            "MONAI `SSIMLoss(2)`", lambda: imported("monai.losses.ssim_loss", "SSIMLoss")(2),
            lambda x, y: 1 - plain(x, y), monai.SSIMLoss(2), "`from ssim_fused.compat.monai import SSIMLoss`",
        ),
        Row(
            "scikit-image, defaults", lambda: of_arrays(imported("skimage.metrics", "structural_similarity")), plain,
            of_arrays(skimage.structural_similarity),
            "`from ssim_fused.compat.skimage import structural_similarity`", has_gradient=False,
        ),
        Row(
            "scikit-image as Wang", lambda: of_arrays(imported("skimage.metrics", "structural_similarity"), **wang),
            plain, lambda x, y: ssim(x, y, data_range=1.0, padding="valid"), valid, has_gradient=False,
        ),
        Row(
            "MATLAB `ssim.m`, luma", matlab_itself, of_bytes, of_luma(matlab.ssim),
            "`from ssim_fused.compat.matlab import ssim`", has_gradient=False,
        ),
        Row(
            "MATLAB `ssim_index.m`, luma", matlab_itself, of_bytes, of_luma(matlab.ssim_index),
            "`from ssim_fused.compat.matlab import ssim_index`", has_gradient=False,
        ),
        Row(
            "ffmpeg's `ssim`, luma", lambda: told_by_ffmpeg, of_bytes, of_luma(ffmpeg.ssim),
            "`from ssim_fused.compat.ffmpeg import ssim`", has_gradient=False,
        ),
    ]  # fmt: skip


def gradient(measure: Measure, x: Tensor, y: Tensor) -> Tensor:
    """The gradient with respect to the first image."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(measure(x, y), x)[0]


def relative(found: Tensor, expected: Tensor) -> str:
    """The norm of the difference, relative to that of the expected gradient."""
    return f"{float((found - expected).norm() / expected.norm()):.0e}"


class Measured(NamedTuple):
    """A row of the page, with numbers as text. Lists have an element for each image."""

    name: str
    line: str  # the line of code that keeps the numbers
    theirs: list[str]
    plain: list[str]  # difference to theirs
    kept: list[str]  # difference to theirs
    plain_gradient: str
    kept_gradient: str


def measured(row: Row, pictures: dict[str, tuple[Tensor, Tensor]]) -> Measured:
    """Compare the package with the public function (plain) and with the line that keeps its numbers (kept)."""
    try:
        theirs, mark = row.theirs(), ""
    except (ImportError, OSError):
        theirs, mark = row.kept, " *"
    values, plain, kept = [], [], []
    for x, y in pictures.values():
        value = float(theirs(x, y))
        values.append(f"{value:.6f}")
        plain.append(f"{float(row.plain(x, y)) - value:+.1e}")
        kept.append("" if mark else f"{float(row.kept(x, y)) - value:+.0e}")
    gradients = ["", ""]
    if row.has_gradient:
        x, y = pictures["noise"]
        exact = gradient(theirs, x, y)
        gradients[0] = relative(gradient(row.plain, x, y), exact)
        gradients[1] = "" if mark else relative(gradient(row.kept, x, y), exact)
    return Measured(row.name + mark, row.line, values, plain, kept, *gradients)


def markdown(header: list[str], rows: list[list[str]], texts: int) -> str:
    """A table, whose first columns are text and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows]) + "\n"


def tables(rows: list[Measured], pictures: list[str]) -> str:
    """Return both tables: the changes with the public functions, and with the lines that keep the numbers."""
    of = [f"{name}: {{}}" for name in pictures]
    changed = markdown(
        ["from", *(name.format("ours - theirs") for name in of), "gradient", *(name.format("theirs") for name in of)],
        [[row.name, *row.plain, row.plain_gradient, *row.theirs] for row in rows],
        1,
    )
    kept = markdown(
        ["from", "the line that keeps the numbers", *(name.format("kept - theirs") for name in of), "gradient"],
        [[row.name, row.line, *row.kept, row.kept_gradient] for row in rows],
        2,
    )
    return f"With the public functions:\n\n{changed}\nWith the line that keeps the numbers:\n\n{kept}"


def main() -> None:
    """Measure, print, and rewrite the page."""
    pictures = images()
    text = tables([measured(row, pictures) for row in rows()], list(pictures))
    print(text)
    rewrite(PAGE, text)


if __name__ == "__main__":
    main()
