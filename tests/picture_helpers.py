"""Helpers of the picture tests: a photograph, calls of the command line, and pixels as arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scoring_files import run
from skimage import data

from ssim_fused.scoring.picture import read_picture
from ssim_fused.scoring.readers.samples import Limits

COLOR = data.astronaut()[:70, :90]
FEW = (COLOR // 128 * 255).astype(np.uint8)  # colors that a GIF stores exactly


def pixels_of(path: Path, **limits: float) -> np.ndarray:
    """Reads the pixels of a file as float64 ``[H, W, C]``."""
    return read_picture(str(path), Limits(**limits)).pixels.double().permute(1, 2, 0).numpy()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def scores(*arguments: object) -> dict:
    """Returns the output of ``compare --format json``, which must succeed."""
    code, out, err = run("compare", *arguments, "--format", "json")
    assert code == 0, err
    return json.loads(out)


def error_of(*arguments: object) -> str:
    """Returns the standard error of ``compare``, which must fail."""
    code, out, err = run("compare", *arguments)
    assert code == 2
    assert "Traceback" not in err + out
    return err
