"""Collects what a bug report needs: versions, build options, and the devices and threads that would be used."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import ssim_fused
from ssim_fused.scoring.score import choose_device
from ssim_fused.scoring.settings import Settings, cores

PACKAGES = ("torch", "numpy", "pillow", "av", "tqdm", "jinja2", "matplotlib", "imagecodecs", "tifffile", "netpbmfile",
            "OpenEXR", "pi-heif")  # fmt: skip


def info() -> str:
    """Returns lines of a name and its value."""
    lines = {"ssim_fused": ssim_fused.__version__}
    lines |= {f"built: {name}": str(value) for name, value in ssim_fused.build_info().items()}
    used = choose_device("auto"), Settings().workers, torch.get_num_threads()
    lines["would use"] = "{}, {} decoding threads, {} computing threads".format(*used)
    lines |= {name: _version(name) for name in PACKAGES}
    lines["FFmpeg"] = _ffmpeg()
    lines |= _gpus()
    lines["Python"] = f"{platform.python_version()}, {platform.platform()}"
    lines["CPU"] = f"{processor()}, {cores()} of {os.cpu_count()} cores"
    lines |= {name: os.environ[name] for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES") if name in os.environ}
    return "\n".join(f"{name:<27} {value}" for name, value in lines.items())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing; pip install 'ssim_fused[scoring]'"


def _ffmpeg() -> str:
    try:
        import av
    except ModuleNotFoundError:
        return "missing, with av"
    return str(av.ffmpeg_version_info)


def _gpus() -> dict[str, str]:
    if not torch.cuda.is_available():
        return {"GPU": "none visible to torch"}
    gpus = {}
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        capability, memory = f"{about.major}.{about.minor}", about.total_memory / 2**30
        gpus[f"GPU {number}"] = f"{about.name}, compute capability {capability}, {memory:.0f} GiB"
    return gpus


def processor() -> str:
    """Returns the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):  # no /proc, or an architecture that names this line differently
        return platform.processor() or platform.machine()
