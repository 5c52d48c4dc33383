"""Writes pictures and videos for the scoring tests: photographs, and their JPEG and H.264 versions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data

from ssim_fused.scoring import cli

PHOTOGRAPHS = {"astronaut": data.astronaut, "cat": data.chelsea, "coffee": data.coffee}


def run(*arguments: object) -> tuple[int, str, str]:
    """Runs the command line in this process. Returns the exit status, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # raised by argparse
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def save(path: Path, array: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_folders(root: Path, side: int = 200) -> tuple[Path, Path]:
    """Writes folders ``a`` of PNG and ``b`` of JPEG files, with one picture in a subfolder."""
    for number, (name, photograph) in enumerate(PHOTOGRAPHS.items()):
        array = photograph()[40 : 40 + side, 60 : 60 + side]
        save(root / f"a/sub{number % 2}/{name}.png", array)
        save(root / f"b/sub{number % 2}/{name}.jpg", array, quality=30 + 20 * number)
    return root / "a", root / "b"


def moving_picture(count: int, width: int = 208, height: int = 192) -> list[np.ndarray]:
    """Returns the frames of a camera that moves over a photograph."""
    photograph = data.astronaut()
    return [np.ascontiguousarray(photograph[k : k + height, 2 * k : 2 * k + width]) for k in range(count)]


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    prepare: Callable[[av.VideoFrame], None] = lambda frame: None,
    **options: object,
) -> Path:
    """Writes a video of uint8 frames ``[H, W, 3]`` or ``[H, W]``."""
    made = []
    for array in frames:
        frame = av.VideoFrame.from_ndarray(array, format="rgb24" if array.ndim == 3 else "gray")
        frame = frame.reformat(format=pixels, threads=1)
        prepare(frame)
        made.append(frame)
    return write_frames(path, made, codec, pixels, **options)


def write_frames(
    path: Path,
    frames: Sequence[av.VideoFrame],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 25,
    times: Sequence[int] | None = None,
    prepare: Callable[[av.VideoStream], None] = lambda stream: None,
    **options: object,
) -> Path:
    """Writes a video of frames in their own pixel format. ``times`` are their presentation times, in frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames[0].height, frames[0].width, pixels
        stream.options = {name.replace("_", "-"): str(value) for name, value in options.items()}
        prepare(stream)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
