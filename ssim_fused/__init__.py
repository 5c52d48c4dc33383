"""SSIM as one fused kernel per device, with the numbers of torchmetrics and a handwritten backward."""

from ssim_fused._ops import build_info
from ssim_fused._version import __version__
from ssim_fused.functional import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

__all__ = [
    "__version__",
    "build_info",
    "multiscale_structural_similarity_index_measure",
    "structural_similarity_index_measure",
]
