"""What the launch planner plans, as a table for docs/kernels.md: every shape and device below, without a GPU.

    python benchmarks/plan.py

Compiles tests/simt/plan.cpp, which has the variants that ship, and asks it. Times are the planner's model at the H100's
clock; devices whose clock and occupancy were not measured have none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SIMT = Path(__file__).parent.parent / "tests" / "simt"
# SMs, bytes of shared memory and threads of one.
DEVICES = {
    "H100": (132, 228 * 1024, 2048),
    "RTX 4090": (128, 100 * 1024, 1536),
    "T4": (40, 64 * 1024, 1024),
}
SHAPES = {
    "16x3x1080x1920": (48, 1080, 1920),
    "64x3x256x256": (192, 256, 256),
    "32x3x512x512": (96, 512, 512),
    "1x3x1080x1920": (3, 1080, 1920),
    "128x3x64x64": (384, 64, 64),
    "8x1x64x64": (8, 64, 64),
}
H100_HERTZ = 1.97e9
# Radius of the window, maps of derivatives, instructions of a warp in a step.
CALLS = {
    "gradient": (5, 3, 2010),
    "value": (5, 0, 1110),
    "gradient, radius 3": (3, 3, 1590),
    "value, radius 3": (3, 0, 920),
    "gradient, radius 11": (11, 3, 3610),
    "value, radius 11": (11, 0, 2110),
}
PIXELS_OF_TURN, SCHEDULERS = 32 * 8, 4


def row(program: Path, device: str, shape: str, what: str) -> str:
    """The table's row of one plan."""
    sms, *_ = DEVICES[device]
    radius, derivatives, turn = CALLS[what]
    numbers = [derivatives, radius, *SHAPES[shape], *DEVICES[device]]
    ran = subprocess.run([program, *map(str, numbers)], capture_output=True, text=True, check=True)
    plan = json.loads(ran.stdout)
    planes, height, width = SHAPES[shape]
    pixels = planes * height * width
    useful = pixels / PIXELS_OF_TURN / (sms * SCHEDULERS) / plan["cost"]
    seconds = plan["cost"] * turn / H100_HERTZ
    predicted = f"{1e3 * seconds:.3f} ms, {pixels / seconds / 1e9:.0f} Gpix/s" if device == "H100" else ""
    cells = [
        *(device, shape, what, f"{plan['columns']}{', single' if plan['owned'] == 0 else ''}"),
        *(plan["blocks"], plan["rows"], plan["blocks_per_sm"]),
        *(f"{plan['blocks'] / (sms * plan['blocks_per_sm']):.2f}", f"{100 * useful:.0f} %", predicted),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "plan"
        command = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-Wno-unknown-pragmas", f"-I{SIMT}"]
        subprocess.run([*command, "-o", str(program), str(SIMT / "plan.cpp")], check=True)
        print("| device | shape | | columns | blocks | rows of a block | per SM | waves | useful | predicted |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for device in DEVICES:
            for shape in SHAPES:
                for what in CALLS:
                    print(row(program, device, shape, what))
    return 0


if __name__ == "__main__":
    sys.exit(main())
