"""Scores of pictures, folders and videos: the kernels, fed by decoders that keep up.

What the command ``ssim-fused compare`` prints, :func:`compare` returns; :func:`score` is the generator beneath. Needs
the extra ``[scoring]``.
"""

from ssim_fused.scoring.decoding import Failed, Noted
from ssim_fused.scoring.errors import OutputError, PairError, UsageError
from ssim_fused.scoring.listing import read_pairs
from ssim_fused.scoring.pairs import Pair, find_pairs
from ssim_fused.scoring.run import compare
from ssim_fused.scoring.score import Scored, score
from ssim_fused.scoring.settings import CONVENTIONS, Settings

__all__ = [
    "CONVENTIONS",
    "Failed",
    "Noted",
    "OutputError",
    "Pair",
    "PairError",
    "Scored",
    "Settings",
    "UsageError",
    "compare",
    "find_pairs",
    "read_pairs",
    "score",
]
