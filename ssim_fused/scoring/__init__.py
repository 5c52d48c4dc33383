"""Scores pictures, folders and videos: reads files, decodes them in threads, and runs the kernels in batches.

:func:`compare` returns what the command ``ssim-fused compare --format json`` prints. :func:`score` is the generator
below it, which yields scores as they are computed. Requires ``pip install 'ssim_fused[scoring]'``.
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
