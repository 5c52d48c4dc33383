"""Runs the command line ``ssim-fused`` as ``python -m ssim_fused``."""

import sys

from ssim_fused.scoring.cli import main

if __name__ == "__main__":
    sys.exit(main())
