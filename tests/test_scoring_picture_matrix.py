"""Tests that every picture file of the matrix is read exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_files import every_case

from ssim_fused.scoring.picture import read_picture
from ssim_fused.scoring.readers.samples import Limits

CASES = every_case()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_pixels_of_a_file_are_read_exactly(tmp_path, case):
    path = tmp_path / f"x.{case.ending}"
    path.write_bytes(case.data())
    picture = read_picture(str(path), Limits(data_range=1.5))
    expected = np.asarray(case.expected(), np.float64)
    pixels = picture.pixels.double().permute(1, 2, 0).numpy()
    assert picture.peak == case.white
    assert pixels.shape == (*expected.shape[:2], 1 if expected.ndim == 2 else 3)
    assert np.abs(pixels.reshape(expected.shape) - expected).max() <= case.tolerance
    integers = torch.uint8 if case.white < 256 else torch.uint16
    assert picture.pixels.dtype in ((torch.float32, torch.float64) if case.white == 1.5 else (integers,))


def test_the_cases_of_the_matrix_have_unique_names():
    assert len({case.name for case in CASES}) == len(CASES)
