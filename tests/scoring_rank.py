"""A command line under torchrun in which rank 1 dies while it decodes; for the test of what the others do then."""

from __future__ import annotations

import importlib
import os
import sys

from ssim_fused.scoring import cli

if os.environ["RANK"] == "1":

    def read_picture(path: str, limits: object):
        print(f"rank 1 cannot go on with {path}", file=sys.stderr, flush=True)
        os._exit(9)  # as a crash in a decoder would; an exception would fail the pair alone

    importlib.import_module("ssim_fused.scoring.decoding").read_picture = read_picture

sys.exit(cli.main())
