"""Pixels of one picture or frame, as they are in the file, and how two of them are made comparable.

``[C, H, W]`` of uint8 or uint16, or of float32 or float64 from files of floating point, with one channel (grey, or a
video's luma) or three (RGB). ``readers/`` has the readers of all formats.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ssim_fused.scoring.errors import PairError, lacks_extra
from ssim_fused.scoring.readers import formats, png
from ssim_fused.scoring.readers.pool import POOL
from ssim_fused.scoring.readers.samples import Limits, ReadError, Samples

if TYPE_CHECKING:
    import numpy as np


NO_LIMITS = Limits()  # Pillow's number of pixels, and no range for floating point


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels ``[C, H, W]`` and what the largest of them means.

    Attributes:
        pixels: uint8, uint16, float32 or float64, in 0..peak, those of floating point also outside; of any strides.
        peak: the value of white: 255, 65535, ``2 ** bits - 1``, or ``--data-range``.
        full_range: False for a plane of a video whose black is 16 and white 235 (of 255).

    """

    pixels: Tensor
    peak: float
    full_range: bool = True

    @property
    def size(self) -> str:
        return f"{self.pixels.shape[2]}x{self.pixels.shape[1]}"


class SeveralFramesError(PairError):
    """A file of several frames where a still picture is expected."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file whose header was read.

    Attributes:
        path: its name.
        count: the number of frames: more than one for animations, and for TIFF of several pages.

    """

    path: str
    count: int
    _samples: Callable[[int], Samples]

    def frame(self, number: int) -> Picture:
        """Decodes a frame.

        Raises:
            PairError: the file is broken, or has pixels without a range.

        """
        with _named(self.path):
            samples = self._samples(number)
        return Picture(channels_first(samples.pixels), samples.white)


@contextmanager
def opened_picture(path: str, limits: Limits) -> Generator[PictureFile]:
    """Opens a picture file of any format, in a worker process where its decoder may crash.

    Raises:
        PairError: the file is missing, broken, too large, or has what its reader does not read.

    """
    with ExitStack() as stack:
        with _named(path):
            data = Path(path).read_bytes()  # Read at once: one call for the operating system.
            name = formats.format_of(data)
            if name in formats.IN_PROCESS and not (name == "PNG" and png.interlaced(data)):
                from ssim_fused.scoring.readers.rules import finished

                opened = formats.open_bytes(data, limits)
                count = opened.count

                def samples(number: int) -> Samples:
                    return formats.guarded(lambda: finished(opened.frame(number), limits), name)

            else:
                worker = stack.enter_context(POOL.lease())
                count, samples = worker.open(data, limits), worker.frame
        yield PictureFile(path, count, samples)


def is_picture(path: str) -> bool:
    """Whether a regular file starts as one of the picture formats does; a file that cannot be read is none."""
    try:
        if not Path(path).is_file():
            return False
        with open(path, "rb") as file:
            return formats.format_of(file.read(64)) is not None
    except (OSError, ValueError):
        return False


def is_animation(path: str) -> bool:
    """Whether a picture file has several frames; a file that cannot be read is none."""
    try:
        with opened_picture(path, NO_LIMITS) as file:
            return file.count > 1
    except PairError:
        return False


def read_picture(path: str, limits: Limits = NO_LIMITS) -> Picture:
    """The pixels of a still picture, upright, opaque, grey or RGB, at the depth of the file.

    Raises:
        SeveralFramesError: the file is an animation, or has several pages.
        PairError: the file is missing or broken, or has pixels without a range.

    """
    with opened_picture(path, limits) as file:
        if file.count != 1:
            raise SeveralFramesError(f"{path}: has {file.count} frames; a still picture is expected here")
        return file.frame(0)


@contextmanager
def _named(path: str) -> Generator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except ReadError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and lacks_extra(error.__cause__):
            raise error.__cause__ from None  # the run's trouble, not the file's
        raise PairError(f"{path}: {error}") from error
    except OSError as error:
        raise PairError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a path with a null byte
        raise PairError(f"{path!r}: {error}") from error


def channels_first(array: np.ndarray) -> Tensor:
    """Pixels ``[H, W]`` or ``[H, W, C]`` as ``[C, H, W]``."""
    import numpy as np

    if array.ndim == 3:
        # A plane a channel: the copy takes less than what the kernel loses on pixels that lie three apart. NumPy makes
        # it, since PyTorch would start threads of its own in each thread that decodes.
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    pixels = torch.from_numpy(array if array.flags.writeable else array.copy())
    return pixels[None] if pixels.ndim == 2 else pixels


def cropped(picture: Picture, border: int) -> Picture:
    """The picture less ``border`` pixels at each side."""
    if not border:
        return picture
    height, width = picture.pixels.shape[1:]
    if min(height, width) <= 2 * border:
        raise PairError(f"--crop {border} leaves nothing of {picture.size} pixels")
    return replace(picture, pixels=picture.pixels[:, border:-border, border:-border])


def matched(reference: Picture, distorted: Picture, resize: bool) -> tuple[Picture, Picture]:
    """Both pictures with as many channels, as many bits and of one size.

    Grey with RGB becomes RGB, the smaller range of integers is scaled to the larger one, and integers with floating
    point are scaled to its range. With ``resize`` the distorted picture becomes as large as the reference, by a bicubic
    filter with antialiasing.

    Raises:
        PairError: the sizes differ, or one is a plane of full and the other of limited range.

    """
    if reference.full_range != distorted.full_range:
        raise PairError(
            "one video's luma is of full range (0..255), the other's of limited range (16..235); without --luma both "
            "are compared as RGB"
        )
    channels = max(reference.pixels.shape[0], distorted.pixels.shape[0])
    peak, dtype = _common_range(reference, distorted)
    reference, distorted = (_converted(_widened(p, channels), peak, dtype) for p in (reference, distorted))
    if reference.size == distorted.size:
        return reference, distorted
    if not resize:
        raise PairError(
            f"sizes differ: {reference.size} and {distorted.size}; --resize scales the distorted one to the "
            "reference's size"
        )
    height, width = reference.pixels.shape[1:]
    scaled = interpolate(_wide(distorted.pixels)[None], (height, width), mode="bicubic", antialias=True)[0]
    if dtype.is_floating_point:
        return reference, replace(distorted, pixels=scaled.to(dtype))
    return reference, replace(distorted, pixels=_rounded(scaled, peak, dtype))


def _widened(picture: Picture, channels: int) -> Picture:
    return replace(picture, pixels=picture.pixels.expand(channels, -1, -1))


def _common_range(reference: Picture, distorted: Picture) -> tuple[float, torch.dtype]:
    """The larger range of two, or that of floating point, and the type that holds both pictures' pixels."""
    floating = [p for p in (reference, distorted) if p.pixels.is_floating_point()]
    peak = max(p.peak for p in floating or (reference, distorted))
    types = {reference.pixels.dtype, distorted.pixels.dtype}
    # Scaled integers, and those of two types, are of the wider one.
    return peak, max(types, key=(torch.uint8, torch.uint16, torch.float32, torch.float64).index)


def _converted(picture: Picture, peak: float, dtype: torch.dtype) -> Picture:
    if picture.peak == peak:
        return picture if picture.pixels.dtype == dtype else replace(picture, pixels=picture.pixels.to(dtype))
    # Full range maps white to white; of a video's limited range every bit more doubles the numbers, by its standard.
    scale = peak / picture.peak if picture.full_range else (peak + 1) // (picture.peak + 1)
    scaled = picture.pixels.double() * scale
    pixels = scaled.to(dtype) if dtype.is_floating_point else _rounded(scaled, peak, dtype)
    return replace(picture, pixels=pixels, peak=peak)


def _wide(pixels: Tensor) -> Tensor:
    return pixels if pixels.dtype == torch.float64 else pixels.float()


def _rounded(pixels: Tensor, peak: float, dtype: torch.dtype) -> Tensor:
    return pixels.clamp(0, peak).round().to(dtype)
