"""``python -m ssim_fused``: the command line, as ``ssim-fused``."""

import sys

from ssim_fused.scoring.cli import main

if __name__ == "__main__":
    sys.exit(main())
