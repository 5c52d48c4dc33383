"""Every 16-bit pixel value is converted as PyTorch converts it: exactly, and rounded to nearest even."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ssim_fused  # noqa: F401, loads the operators


def multiply(image: Tensor, factor: float) -> Tensor:
    """Reads, multiplies and writes `image` with the CPU kernel's row functions.

    A range of 0 does not change the factor.
    """
    upstream = torch.ones((), dtype=torch.float32)
    return torch.ops.ssim_fused.multiply_gradient(image, upstream, factor=factor, data_range=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 0.7, 1.01, 3e-3, 5e4, -1.0])
@pytest.mark.parametrize("is_strided", [False, True])
def test_every_value(dtype: torch.dtype, factor: float, is_strided: bool) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    image = every.reshape(1, 16, 16, 256)
    if is_strided:  # rows that are not a multiple of a vector, too
        image = image[..., :251].contiguous(memory_format=torch.channels_last)
    expected = (image.float() * factor).to(dtype)
    torch.testing.assert_close(multiply(image, factor), expected, rtol=0, atol=0, equal_nan=True)
    # Zeros keep their sign.
    assert torch.equal(multiply(image, factor).signbit()[~expected.isnan()], expected.signbit()[~expected.isnan()])
