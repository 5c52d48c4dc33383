"""Converts the images of tests (arrays, tensors, PIL images, paths) to one form.

An ambiguous layout or dtype is an error that names the argument and the conversion.
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

if TYPE_CHECKING:
    from ssim_fused.scoring.picture import Picture

# pytest omits the frames of modules that set __tracebackhide__ to this from the traceback of a failure or an invalid
# call. For any other exception, which is a bug, the frames are shown.
HIDDEN = operator.methodcaller("errisinstance", (AssertionError, TypeError, ValueError, OSError))
__tracebackhide__ = HIDDEN

Range = float | tuple[float, float] | None
Rectangle = tuple[int, int, int, int]  # x, y, width, height

# Accepted numbers of channels. Two channels are ambiguous: grey with alpha, optical flow, or a complex number.
CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}
# The range of each integer type without `data_range`. Wider types have no obvious range.
PEAKS = {torch.uint8: 255.0, torch.uint16: 65535.0, torch.bool: 1.0}
# The tolerance by which floats may be outside of their range. At 1, float16 rounds by up to half of it.
SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class Image:
    """An image passed as an argument.

    Attributes:
        name: the name of the argument, for messages.
        pixels: ``[C, H, W]`` with one or three channels, of any dtype, on the CPU.
        alpha: opacity ``[H, W]`` in [0, 1] as float64, or None for an opaque image.
        is_picture: whether it is a file or PIL image. The range of its integers does not depend on ``data_range``.
        described: kind, dtype, size and channels, for messages.
        white: the value of white of an integer file, or None for the largest value of its type.

    """

    name: str
    pixels: Tensor
    alpha: Tensor | None
    is_picture: bool
    described: str
    white: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]

    @property
    def is_integer(self) -> bool:
        """Whether the pixels are integers or bool."""
        return not self.pixels.is_floating_point()


def read(image: Any, name: str, data_range: Range = None) -> Image:
    """Converts an argument to an :class:`Image`.

    Args:
        image: the value of the argument.
        name: the name of the argument.
        data_range: the range of float images. The white over which a transparent float file is composited depends on
            it.

    Raises:
        TypeError: the value is not an image.
        ValueError: its shape is not that of an image, or the file cannot be read.
        FileNotFoundError: the path does not exist.

    """
    if isinstance(image, Tensor):
        return _from_tensor(image, name)
    if isinstance(image, str | os.PathLike):
        try:
            return _from_path(Path(os.fspath(image)), name, data_range)
        except ModuleNotFoundError as error:
            raise lacking(error) from error
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(image).__mro__}
    if "numpy.ndarray" in kinds:
        return _from_array(image, name)
    if "PIL.Image" in kinds:
        return _from_pil(image, name)
    if hasattr(image, "__array__"):  # an array of another library
        import numpy as np

        return _from_array(np.asarray(image), name)
    fix = ""
    if isinstance(image, list | tuple):
        fix = f"; use `numpy.asarray({name})` for numbers, or compare `{name}[i]` in a loop for images"
    elif isinstance(image, bytes | bytearray):
        fix = f"; use `PIL.Image.open(io.BytesIO({name}))` for the content of a file"
    kind = "" if image is None else f" of type {type(image).__name__}"
    raise TypeError(
        f"`{name}` is {reprlib.repr(image)}{kind}; expected an image: a NumPy array, a tensor, a PIL image or a path"
        f"{fix}."
    )


def lacking(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Returns the same error with the command that installs the module."""
    return ModuleNotFoundError(
        f"{error.name} is not installed; run: pip install 'ssim_fused[scoring]'", name=error.name
    )


def _from_tensor(tensor: Tensor, name: str) -> Image:
    _check_dtype(tensor, name)
    pixels = tensor.detach().cpu()
    if pixels.ndim == 4 and pixels.shape[0] == 1:
        pixels = pixels[0]
    shape = tuple(tensor.shape)
    if pixels.ndim == 4:
        raise ValueError(f"`{name}` has the shape {shape}, a batch; expected one image; compare `{name}[i]` in a loop.")
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] not in CHANNELS:
        hint = f"; use `{name}.permute(2, 0, 1)`" if pixels.ndim == 3 and pixels.shape[2] in CHANNELS else ""
        raise ValueError(
            f"`{name}` has the shape {shape}; expected a tensor [H, W] or [C, H, W] with 1, 3 or 4 channels{hint}."
        )
    return _image(name, pixels, "tensor", is_picture=False)


def _from_array(array: Any, name: str) -> Image:
    import numpy as np

    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(f"`{name}` is a masked array; expected an array; pass `{name}.data` and `mask=~{name}.mask`.")
    array = np.asarray(array)  # a numpy.matrix stays two-dimensional under indexing
    hwc = array if array.ndim != 2 else array[:, :, None]
    if hwc.ndim != 3 or hwc.shape[2] not in CHANNELS:
        hint = ""
        if hwc.ndim == 3 and hwc.shape[0] in CHANNELS:
            hint = f"; use `{name}.transpose(1, 2, 0)`, or a tensor, which is read as [C, H, W]"
        elif hwc.ndim == 4:
            hint = f"; compare `{name}[i]` in a loop"
        raise ValueError(
            f"`{name}` has the shape {array.shape}; expected an array [H, W] or [H, W, C] with 1, 3 or 4 channels"
            f"{hint}."
        )
    native = np.ascontiguousarray(hwc.transpose(2, 0, 1)).astype(array.dtype.newbyteorder("="), copy=True)
    try:
        pixels = torch.from_numpy(native)
    except TypeError as error:
        raise TypeError(f"`{name}` has the dtype {array.dtype}; expected integers, floats or bool.") from error
    _check_dtype(pixels, name)
    return _image(name, pixels, "array", is_picture=False)


def _from_pil(image: Any, name: str, kind: str = "PIL image") -> Image:
    """Converts a PIL image, turned upright like a file read from its path."""
    import numpy as np
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if not image.mode.startswith("I;16") and image.mode not in ("1", "L", "I", "F", "RGB", "RGBA"):
        image = image.convert("RGBA" if has_alpha(image) else "RGB")
    elif has_alpha(image):
        image = image.convert("RGBA")
    array = np.array(image)
    if image.mode.startswith("I;16"):
        array = array.astype(np.uint16)
    pixels = torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1).contiguous()
    return _image(name, pixels, kind, is_picture=True)


def has_alpha(image: Any) -> bool:
    """Returns whether a PIL image may have transparent pixels."""
    return "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info


def _from_path(path: Path, name: str, data_range: Range) -> Image:
    from ssim_fused.scoring.errors import PairError

    if not path.exists():
        raise FileNotFoundError(f"`{name}` is {str(path)!r}, which does not exist; expected the path of a picture.")
    try:
        picture = _read_picture(path, data_range)
    except PairError as error:
        raise ValueError(f"`{name}` cannot be read: {error}.") from error
    # `read_picture` composites over white, which would hide white on transparent. Transparency is kept if possible.
    transparent = _with_alpha(path, name) if picture.pixels.dtype == torch.uint8 else None
    if transparent is not None:
        return transparent
    image = _image(name, picture.pixels.contiguous(), f"file {path}", is_picture=True)
    return replace(image, white=picture.peak) if image.is_integer else image


def _read_picture(path: Path, data_range: Range) -> Picture:
    from ssim_fused.scoring.picture import read_picture
    from ssim_fused.scoring.readers.samples import Limits

    picture = read_picture(str(path), Limits(data_range=1.0))  # the default of floats, which integer files ignore
    _, white = checked_range(data_range)
    if picture.pixels.is_floating_point() and white != 1:
        return read_picture(str(path), Limits(data_range=white))
    return picture


def _with_alpha(path: Path, name: str) -> Image | None:
    """Reads an 8-bit picture with its transparency, or returns None if Pillow finds none."""
    from PIL import Image as Pillow

    try:
        with Pillow.open(path) as image:
            return _from_pil(image, name, f"file {path}") if has_alpha(image) else None
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        return None  # a format that `read_picture` supports and Pillow does not


def _image(name: str, pixels: Tensor, kind: str, *, is_picture: bool) -> Image:
    if 0 in pixels.shape:
        raise ValueError(f"`{name}` has the shape {tuple(pixels.shape)}; expected at least one pixel.")
    height, width = pixels.shape[1:]
    dtype = str(pixels.dtype).removeprefix("torch.")
    described = f"{kind} of {dtype}, {width}x{height}, {CHANNELS[pixels.shape[0]]}"
    alpha = None
    if pixels.shape[0] == 4:
        alpha = pixels[3].double()
        alpha = alpha / PEAKS[pixels.dtype] if pixels.dtype in PEAKS else alpha
        if not ((alpha >= -SLACK) & (alpha <= 1 + SLACK)).all():
            raise ValueError(
                f"`{name}` has four channels, of which the last one, alpha, has values from {alpha.min():g} to "
                f"{alpha.max():g}; expected uint8, uint16, or floats in [0, 1]."
            )
        pixels = pixels[:3]
        if bool((alpha == 1).all()):
            alpha = None
    return Image(name, pixels, alpha, is_picture, described)


def _check_dtype(pixels: Tensor, name: str) -> None:
    kind = fix = None
    if pixels.is_nested:
        kind, fix = "a nested tensor", f"compare `{name}[i]` in a loop"
    elif pixels.layout != torch.strided:
        kind, fix = f"a tensor of layout {pixels.layout}", f"use `{name}.to_dense()`"
    elif pixels.is_meta or isinstance(pixels, FakeTensor):
        kind, fix = f"a tensor without data, on the device {pixels.device}", "compare a tensor with data"
    elif pixels.is_quantized:
        kind, fix = f"a quantized tensor, {pixels.dtype}", f"use `{name}.dequantize()`"
    elif pixels.is_complex():
        kind, fix = f"a tensor of {pixels.dtype}", f"use `{name}.abs()`, or compare `{name}.real` and `{name}.imag`"
    if kind:
        raise TypeError(f"`{name}` is {kind}; expected a dense tensor of integers, floats or bool; {fix}.")


def bounds(image: Image, other: Image, data_range: Range) -> tuple[float, float]:
    """Returns the values of black and white of an image.

    Raises:
        TypeError: the image has integers of more than 16 bits, and no range is given.
        ValueError: ``data_range`` is invalid.

    """
    low, high = checked_range(data_range)
    given = data_range is not None and (not image.is_integer or other.is_integer)
    if image.pixels.dtype in PEAKS and (image.is_picture or not given):
        return 0.0, image.white or PEAKS[image.pixels.dtype]
    if image.is_integer and not given:
        dtype = str(image.pixels.dtype).removeprefix("torch.")
        raise TypeError(
            f"`{image.name}` has the dtype {dtype}, which has no default range; convert it to uint8, or give the range "
            "of both images, such as `data_range=255`."
        )
    return low, high


def checked_range(data_range: Range) -> tuple[float, float]:
    """Returns the lowest and the highest value of a range, 0 and 1 if it is None."""
    if data_range is None:
        return 0.0, 1.0
    if isinstance(data_range, str | bytes):
        raise TypeError(f"`data_range` is {data_range!r}, expected a positive number or a tuple (low, high).")
    try:
        low, high = (float(v) for v in (data_range if isinstance(data_range, tuple | list) else (0.0, data_range)))
    except (TypeError, ValueError):
        low = high = 0.0
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"`data_range` is {data_range!r}, expected a positive number or a tuple (low, high).")
    return low, high


def scaled(image: Image, limits: tuple[float, float], seen: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Scales the pixels of an image to floats, 0 for black and 1 for white.

    Args:
        image: an image with one or three channels.
        limits: the values of black and white.
        seen: the pixels ``[H, W]`` that are compared, or None for all. The others may have any value.
        dtype: the dtype of the result.

    Raises:
        AssertionError: ``actual`` has a NaN or infinity in a compared pixel.
        ValueError: another argument has one, or a compared pixel is outside of the limits.

    """
    low, high = limits
    values = image.pixels.to(dtype)
    _check_finite(image, values, seen)
    counted = values if seen is None else values[:, seen]
    least, most = (float(v) for v in counted.aminmax())
    slack = SLACK * (high - low)
    if least < low - slack or most > high + slack:
        integer = "" if image.is_integer else ", or pass integers without converting them to floats"
        raise ValueError(
            f"`{image.name}` has values from {least:g} to {most:g}; expected {low:g} to {high:g}; give their range, "
            f"such as `data_range={_suggested(least, most)}`{integer}."
        )
    return values if limits == (0.0, 1.0) else (values - low) / (high - low)


def _check_finite(image: Image, values: Tensor, seen: Tensor | None) -> None:
    finite = values.isfinite().all(0)
    bad = ~finite if seen is None else ~finite & seen
    if not bad.any():
        return
    y, x = (int(v) for v in bad.nonzero()[0])
    kind = AssertionError if image.name == "actual" else ValueError
    raise kind(
        f"`{image.name}` is NaN or infinite in {int(bad.sum())} pixels, the first at x={x}, y={y}; expected finite "
        "values; fix them, or exclude them by `ignore` or `mask`."
    )


def _suggested(least: float, most: float) -> str:
    for peak in (255, 1023, 4095, 65535):
        if least >= 0 and most <= peak:
            return str(peak)
    return f"({math.floor(least)}, {math.ceil(most)})"
