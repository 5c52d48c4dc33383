"""SSIM as one fused kernel per device, with the numbers of torchmetrics and a handwritten backward."""

from ssim_fused._core import registration as registration  # registers derivatives and shapes with PyTorch
from ssim_fused._core._ops import build_info
from ssim_fused._version import __version__
from ssim_fused.functional import (
    fitting_betas,
    ms_ssim,
    multiscale_structural_similarity_index_measure,
    ssim,
    structural_similarity_index_measure,
)
from ssim_fused.losses import L1SSIMLoss, MultiScaleSSIMLoss, PixelSSIMLoss, SSIMLoss

__all__ = [
    "L1SSIMLoss",
    "MultiScaleSSIMLoss",
    "PixelSSIMLoss",
    "SSIMLoss",
    "__version__",
    "build_info",
    "fitting_betas",
    "ms_ssim",
    "multiscale_structural_similarity_index_measure",
    "ssim",
    "structural_similarity_index_measure",
]
