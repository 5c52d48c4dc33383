"""Runs the command line by ``python -m ssim_fused``, the same as ``ssim-fused``."""

import sys

from ssim_fused.scoring.cli import main

if __name__ == "__main__":
    sys.exit(main())
