"""Plans and predictions of the launch planner: `python -m benchmarks.plan` writes docs/kernel_predictions.md.

Needs no GPU. Asks the module `_C`, which knows the variants that ship, for every shape and device below. Times are the
planner's model at the H100's clock; devices whose clock and occupancy were not measured have none. Predictions that the
model alone does not make are computed here, from numbers that are named below.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssim_fused import _C

from .marks import rewrite

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kernel_predictions.md"
# The number of SMs, and the bytes of shared memory and the threads of each.
DEVICES = {
    "H100": (132, 228 * 1024, 2048),
    "RTX 4090": (128, 100 * 1024, 1536),
    "T4": (40, 64 * 1024, 1024),
}
LARGE = "16x3x1080x1920"
SHAPES = {
    LARGE: (48, 1080, 1920),
    "64x3x256x256": (192, 256, 256),
    "32x3x512x512": (96, 512, 512),
    "1x3x1080x1920": (3, 1080, 1920),
    "128x3x64x64": (384, 64, 64),
    "8x1x64x64": (8, 64, 64),
}
H100_HERTZ, H100_BYTES = 1.97e9, 2.97e12  # clock; memory bandwidth in bytes per second
L2_BYTES = 3.4e12  # per second, between L2 and the SMs of an H100; assumed, not measured
GRADIENT, VALUE = "gradient", "value"
# The radius of the window, the number of derivative maps, and the instructions of a warp per step.
CALLS = {
    GRADIENT: (5, 3, 2010),
    VALUE: (5, 0, 1110),
    "gradient, radius 3": (3, 3, 1590),
    "value, radius 3": (3, 0, 920),
    "gradient, radius 11": (11, 3, 3610),
    "value, radius 11": (11, 0, 2110),
}
PIXELS_OF_TURN, SCHEDULERS = 32 * 8, 4

# Medians of CUDA graph replays on an H100, measured 2026-11-23 with the kernels of version 0.1.0.
MEASURED = {
    (LARGE, GRADIENT): "1.141 ms",
    (LARGE, VALUE): "0.604 ms",
    ("64x3x256x256", GRADIENT): "0.176 ms",
    ("64x3x256x256", VALUE): "0.094 ms",
    ("32x3x512x512", GRADIENT): "0.389 ms",
    ("32x3x512x512", VALUE): "(256 columns: 0.166 ms)",
    ("1x3x1080x1920", GRADIENT): "0.093 ms",
    ("1x3x1080x1920", VALUE): "0.051 ms",
    ("128x3x64x64", GRADIENT): "0.051 ms",
    ("128x3x64x64", VALUE): "0.031 ms",
    ("8x1x64x64", GRADIENT): "0.018 ms",
    ("8x1x64x64", VALUE): "0.011 ms",
}
# Instructions per pixel of a step with 256 columns, from SASS for sm_90. Measured kernels: rows of whole vectors, and
# single pixels with an address each, which took SINGLE_MS. Current kernels: adjacent pixels, and pixels a stride apart.
VECTORS, SINGLE, DENSE, STRIDED = 251, 301, 265, 282
SINGLE_MS = 1.52
# Bytes that a pixel of interleaved channels moves between L2 and the SMs. The blocks of a channel read the sectors of
# all three channels of both images, for the moments and again for the gradient, and write a third of each sector.
INTERLEAVED_BYTES = 3 * (8 + 8 + 4)
# MS-SSIM: bytes per pixel of the finest level for halving, with two levels per launch, and for gathering gradients.
LEVELS, HALVED_BYTES, GATHERED_BYTES = 5, 11.2, 4 + 4 / 3 + 4
PYRAMIDS = {"8x3x1080x1920": (24, 1080, 1920), "16x3x512x512": (48, 512, 512)}


def plan(device: str, shape: tuple[int, int, int], call: str) -> dict[str, Any]:
    """Return the plan of a call on a device, for `shape` planes, rows and columns."""
    radius, derivatives, _ = CALLS[call]
    sms, shared_bytes, max_threads = DEVICES[device]
    made = _C.plan(
        shape,
        gradient=derivatives > 0,
        radius=radius,
        sms=sms,
        shared_bytes=shared_bytes,
        max_threads=max_threads,
    )
    if made is None:
        raise ValueError(f"call: {call!r} has no kernel that fits a {device}")
    return made


def milliseconds(shape: tuple[int, int, int], call: str) -> float:
    """The model's time on an H100."""
    return plan("H100", shape, call)["cost"] * CALLS[call][2] / H100_HERTZ * 1e3


def planned_rows() -> Iterator[list[str]]:
    """A row for each device, shape and call with the default window."""
    for device, (sms, *_) in DEVICES.items():
        for name, shape in SHAPES.items():
            for call in (GRADIENT, VALUE):
                made = plan(device, shape, call)
                planes, height, width = shape
                pixels = planes * height * width
                useful = pixels / PIXELS_OF_TURN / (sms * SCHEDULERS) / made["cost"]
                seconds = milliseconds(shape, call) / 1e3
                is_h100 = device == "H100"
                yield [
                    *(device, name, call, f"{made['columns']}{', single' if made['owned'] == 0 else ''}"),
                    *(str(made["blocks"]), str(made["rows"]), str(made["blocks_per_sm"])),
                    *(f"{made['blocks'] / (sms * made['blocks_per_sm']):.2f}", f"{100 * useful:.0f} %"),
                    f"{1e3 * seconds:.3f} ms, {pixels / seconds / 1e9:.0f} Gpix/s" if is_h100 else "",
                    MEASURED.get((name, call), "") if is_h100 else "",
                ]


def predicted_rows() -> Iterator[list[str]]:
    """A row for each call whose kernels no GPU has timed."""

    def between(first: float, second: float) -> str:
        low, high = sorted((first, second))
        return f"{low:.2f} ms" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f} ms"

    model = {call: milliseconds(SHAPES[LARGE], call) for call in CALLS}
    for call in list(CALLS)[2:]:
        yield [LARGE, call, f"{model[call]:.2f} ms", "the model"]
    pixels = 48 * 1080 * 1919
    yield [
        *("16x3x1080x1919", f"{GRADIENT}, rows that are no whole vectors"),
        between(model[GRADIENT] * DENSE / VECTORS, SINGLE_MS * DENSE / SINGLE),
        f"the model times {DENSE}/{VECTORS} instructions; {SINGLE_MS} ms, measured before, times {DENSE}/{SINGLE}",
    ]
    by_l2 = pixels * INTERLEAVED_BYTES / L2_BYTES * 1e3
    yield [
        *(LARGE, f"{GRADIENT}, channels_last"),
        between(model[GRADIENT] * STRIDED / VECTORS, by_l2),
        f"the model times {STRIDED}/{VECTORS} instructions; {pixels * INTERLEAVED_BYTES / 1e9:.1f} GB between L2 and "
        f"the SMs at {L2_BYTES / 1e12:.1f} TB/s, assumed",
    ]
    for name, (planes, height, width) in PYRAMIDS.items():
        pixels = planes * height * width
        halved, gathered = (pixels * b / H100_BYTES * 1e3 for b in (HALVED_BYTES, GATHERED_BYTES))
        for call, rest in ((GRADIENT, halved + gathered), (VALUE, halved)):
            levels = [(planes, height >> level, width >> level) for level in range(LEVELS)]
            marches = sum(milliseconds(level, call) for level in levels)
            text = f"the model's {marches:.2f} ms of marches over {LEVELS} levels, {halved:.2f} of halving"
            text += f", {gathered:.2f} of gathering, by memory" if call == GRADIENT else ", by memory"
            yield [name, f"MS-SSIM, {call}", f"{marches + rest:.2f} ms", text]


def markdown(header: list[str], rows: Iterator[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]) + "\n"


def tables() -> dict[str, str]:
    """The page's tables, by the names of their marks."""
    header = ["device", "shape", "", "columns", "blocks", "rows of a block", "per SM", "waves", "useful"]
    return {
        "plans": markdown([*header, "predicted", "measured, 0.1.0"], planned_rows()),
        "predictions": markdown(["shape", "", "predicted, not measured", "by"], predicted_rows()),
    }


def main() -> int:
    """Write the tables, and print them."""
    for name, text in tables().items():
        rewrite(PAGE, text, name)
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
