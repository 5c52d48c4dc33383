"""Records how results were made: the version and settings needed to compare scores, in every output format."""

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

# Fields of the settings that do not affect scores, or that are recorded in another form.
_LEFT_OUT = {"metric", "batch", "workers", "channels", "keep", "device", "frames", "max_pixels"}


def describe(settings: Settings, device: str, pools: Sequence[str], mask: str | None = None) -> dict[str, Any]:
    """Returns the version and all settings that scores depend on, with the convention resolved.

    Args:
        settings: the settings of the run.
        device: the device, from :func:`device_name`.
        pools: the pools; the first makes the score of a video.
        mask: path of the mask, or of the folder of masks.

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
    """Adds the data ranges L of the scored pictures to a record."""
    return made | {"data_range": sorted(peaks)}


def of_run(made: dict[str, Any], totals: Totals) -> dict[str, Any]:
    """Returns the record of a whole run."""
    return with_range(made, totals.peaks)


def device_name(name: str) -> str:
    """Returns ``cpu``, or ``cuda`` with the name of the GPU."""
    import torch

    from ssim_fused.scoring.score import choose_device

    device = choose_device(name)
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def sentence(made: dict[str, Any]) -> str:
    """Returns a record as one readable line."""
    window = f"Gaussian window of sigma {made['sigma']:g}" if "sigma" in made else (
        f"uniform window of {made['kernel_size']}x{made['kernel_size']}"
    )  # fmt: skip
    parts = [f"Convention {made['convention']}", window, f"{made['padding']} padding"]
    default = "RGB" if made["rgb"] else "RGB (Y, U and V for two videos)"
    parts.append(f"luma {made['luma']}" if made["luma"] else default)
    if made.get("data_range"):
        parts.append("range " + " and ".join(f"{peak:g}" for peak in made["data_range"]))
    parts += [f"mask {made['mask']}"] if made["mask"] else []
    parts += [f"{made['crop']} pixels cropped from each side"] if made["crop"] else []
    parts += [f"without x={x} y={y} w={w} h={h}" for x, y, w, h in made["ignore"]]
    parts += ["distorted scaled to the size of the reference"] if made["resize"] else []
    parts += [f"frames {made['frames']}"] if made["frames"] else []
    parts += ["frames matched by time"] if made["align"] == "pts" else []
    parts += [f"raw video of {made['size']} {made['pix_fmt']}"] if made["size"] else []
    parts += [f"videos pooled by {made['pool'][0]}", f"on {made['device']}", f"ssim_fused {made['version']}"]
    return ", ".join(parts)


def command() -> str:
    """Returns the command line, quoted for a shell."""
    program = "ssim-fused" if os.path.basename(sys.argv[0]) in ("__main__.py", "ssim-fused") else sys.argv[0]
    return shlex.join([program, *sys.argv[1:]])


def now() -> str:
    """Returns the date and time, or that of ``SOURCE_DATE_EPOCH``, for reproducible files."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    utc = datetime.timezone.utc
    when = datetime.datetime.fromtimestamp(int(epoch), utc) if epoch else datetime.datetime.now().astimezone()
    return when.strftime("%Y-%m-%d %H:%M %Z").strip()
