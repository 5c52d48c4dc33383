"""A command line for torchrun in which rank 1 dies while decoding, to test how the job ends."""

from __future__ import annotations

import importlib
import os
import sys

from ssim_fused.scoring import cli

if os.environ["RANK"] == "1":

    def read_picture(path: str, limits: object):
        print(f"rank 1 cannot go on with {path}", file=sys.stderr, flush=True)
        os._exit(9)  # like a crash of a decoder; an exception would only fail the pair

    importlib.import_module("ssim_fused.scoring.decoding").read_picture = read_picture

sys.exit(cli.main())
