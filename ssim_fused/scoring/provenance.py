"""How results were made: what a score cannot be compared without, recorded with it in every format."""

from __future__ import annotations

import datetime
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from ssim_fused._version import __version__
from ssim_fused.scoring.results import Totals
from ssim_fused.scoring.settings import Settings, range_text

# Fields of the settings that change no score, or that the convention's entries restate.
_LEFT_OUT = {"metric", "batch", "workers", "channels", "keep", "device", "frames", "max_pixels"}


def describe(settings: Settings, device: str, pools: Sequence[str], mask: str | None = None) -> dict[str, Any]:
    """The version and every setting that scores depend on, as computed: the convention's where none was given.

    Args:
        settings: what was computed.
        device: where, from :func:`device_name`.
        pools: how frames became one number; the first makes a video's score.
        mask: the mask, or the folder of masks.

    """
    convention = asdict(settings.resolved())
    given = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in _LEFT_OUT | convention.keys()}
    convention.pop("kernel_size" if convention["window"] == "gaussian" else "sigma")

    return (
        {"version": __version__, "metric": list(settings.metric), "pool": list(pools)}
        | given
        | convention
        | {
            "convention": settings.convention or "torchmetrics",
            "ignore": [list(rectangle) for rectangle in settings.ignore],
            "frames": None if settings.frames == (0, None, 1) else range_text(settings.frames),
            "mask": mask,
            "device": device,
        }
    )


def with_range(made: dict[str, Any], peaks: Iterable[float]) -> dict[str, Any]:
    """The record with the data ranges L of what was scored."""
    return made | {"data_range": sorted(peaks)}


def of_run(made: dict[str, Any], totals: Totals) -> dict[str, Any]:
    """The record of a whole run."""
    return with_range(made, totals.peaks)


def device_name(name: str) -> str:
    """``cpu``, or ``cuda`` with the name of the GPU."""
    import torch

    from ssim_fused.scoring.score import choose_device

    device = choose_device(name)
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def sentence(made: dict[str, Any]) -> str:
    """The record in a line, for people."""
    window = f"Gaussian window of sigma {made['sigma']:g}" if "sigma" in made else (
        f"uniform window of {made['kernel_size']}x{made['kernel_size']}"
    )  # fmt: skip
    parts = [f"Convention {made['convention']}", window, f"{made['padding']} padding"]
    default = "RGB" if made["rgb"] else "RGB, of two videos Y, U and V"
    parts.append(f"luma {made['luma']}" if made["luma"] else default)
    if made.get("data_range"):
        parts.append("range " + " and ".join(f"{peak:g}" for peak in made["data_range"]))
    parts += [f"mask {made['mask']}"] if made["mask"] else []
    parts += [f"{made['crop']} pixels cropped"] if made["crop"] else []
    parts += [f"without x={x} y={y} w={w} h={h}" for x, y, w, h in made["ignore"]]
    parts += ["distorted scaled to the reference's size"] if made["resize"] else []
    parts += [f"frames {made['frames']}"] if made["frames"] else []
    parts += ["frames matched by time"] if made["align"] == "pts" else []
    parts += [f"bare pixels of {made['size']} {made['pix_fmt']}"] if made["size"] else []
    parts += [f"videos pooled by {made['pool'][0]}", f"on {made['device']}", f"ssim_fused {made['version']}"]
    return ", ".join(parts)


def command() -> str:
    """The command line, as a shell takes it."""
    program = "ssim-fused" if os.path.basename(sys.argv[0]) in ("__main__.py", "ssim-fused") else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])


def now() -> str:
    """The date and time; ``SOURCE_DATE_EPOCH`` sets it, for files that must not differ between runs."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    utc = datetime.timezone.utc
    when = datetime.datetime.fromtimestamp(int(epoch), utc) if epoch else datetime.datetime.now().astimezone()
    return when.strftime("%Y-%m-%d %H:%M %Z").strip()
