"""Converts decoded video frames to pixels: the planes of two frames as they are, or RGB.

If the pixel format is planar and little-endian, planes are views of the decoder's memory. Packed formats are first
converted to planes by FFmpeg, which changes no value of the formats read here. Byte order and bit depth are converted
here, because FFmpeg would convert RGB to YUV and back for that. YUV to RGB is converted by FFmpeg.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from ssim_fused.scoring.errors import PairError
from ssim_fused.scoring.picture import Picture, channels_first

if TYPE_CHECKING:
    import numpy as np
    from av import VideoFormat, VideoFrame

    Array = np.ndarray[Any, Any]

Mode = Literal["planes", "luma", "rgb"]

# Formats whose planes are read as they are. Alpha is the last plane. "msb": values are in the high bits of a sample.
_PLANAR = re.compile(r"(yuv[aj]?4\d\dp|gbra?p|gray)(9|10|12|14|16)?(msb)?(le|be)?")
_DEEPEST = 16  # bits
# Log2 of the horizontal and vertical chroma subsampling, to FFmpeg's name.
_CHROMA = {(0, 0): "444", (1, 0): "422", (1, 1): "420", (0, 1): "440", (2, 0): "411", (2, 2): "410"}
_LIMITED, _FULL = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
_UNSPECIFIED = 2  # the same value for matrix, primaries and transfer
_BICUBIC = "BICUBIC"  # the interpolation that the ffmpeg program uses

# Code points of ITU-T H.273, with the names that ffprobe prints.
_MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
             10: "bt2020c", 14: "ictcp"}  # fmt: skip
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
              10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
              13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 17: "smpte428",
              18: "arib-std-b67"}  # fmt: skip
_RANGES = {_LIMITED: "tv", _FULL: "pc"}
_TAGS = (("matrix", "colorspace", _MATRICES), ("primaries", "color_primaries", _PRIMARIES),
         ("transfer", "color_trc", _TRANSFERS), ("range", "color_range", _RANGES))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Matched:
    """The planes of two frames, converted to the same chroma subsampling and bit depth.

    Attributes:
        reference: luma ``[1, H, W]``, or red, green and blue ``[3, H, W]``, of the reference.
        distorted: luma, or red, green and blue, of the distorted frame.
        chroma: the U planes of both frames, then their V planes, ``[1, h, w]``; empty if only luma is scored.
        frames: both decoded frames, from which RGB is converted for display.

    """

    reference: Picture
    distorted: Picture
    chroma: tuple[tuple[Picture, Picture], ...] = ()
    frames: tuple[VideoFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planar:
    """A frame in a planar format of FFmpeg.

    Attributes:
        frame: the frame, in a format that ``_PLANAR`` matches.
        full: whether the range is full: black is 0 and white the largest value.
        stored: bits of red, green and blue if they are fewer than 8, such as 5, 6 and 5. The frame has them as the
            high bits of each byte. Empty otherwise.

    """

    frame: VideoFrame
    full: bool
    stored: tuple[int, ...] = ()

    @property
    def rgb(self) -> bool:
        return self.frame.format.is_rgb

    @property
    def bits(self) -> int:
        return self.frame.format.components[0].bits

    @property
    def chroma(self) -> tuple[int, int] | None:
        """Log2 of the horizontal and vertical chroma subsampling, or None without chroma."""
        return _shifts(self.frame.format) if self.frame.format.name.startswith("yuv") else None


def matched_planes(reference: VideoFrame, distorted: VideoFrame, mode: Mode) -> Matched:
    """Returns the planes of two frames, at the larger of both bit depths.

    Planes of fewer bits are shifted up, as the standards for limited range specify. In full range, the high bits of
    luma and RGB are repeated in the low bits, so that white stays white. If one frame has less chroma, FFmpeg reduces
    the chroma of the other. If one has none, only luma is compared.

    Raises:
        PairError: one frame has full and the other limited range, or a format has no integer planes.

    """
    frames = [_planar(reference), _planar(distorted)]
    if frames[0].full != frames[1].full:
        names = [_range_name(frame) for frame in frames]
        raise PairError(
            f"the reference has {names[0]}, the distorted video has {names[1]}; expected the same range, or use --rgb "
            "to compare both as RGB"
        )
    if frames[0].rgb != frames[1].rgb:
        raise PairError("one frame is RGB and the other YUV; expected the same, or use --rgb to compare both as RGB")
    chroma = [frame.chroma for frame in frames]
    if mode == "planes" and None not in chroma and chroma[0] != chroma[1]:
        coarsest = tuple(max(shifts) for shifts in zip(*chroma, strict=True))
        if any(orientation(frame)[0] for frame in (reference, distorted)):
            coarsest = 1, 1  # a rotation by 90 degrees swaps the directions
        frames = [_with_chroma(frame, coarsest) for frame in frames]
    bits = max(frame.bits for frame in frames)
    x, y = (
        [turned(array, orientation(original)) for array in _arrays(frame, bits, mode)]
        for frame, original in zip(frames, (reference, distorted), strict=True)
    )
    full = frames[0].full
    if frames[0].rgb:
        return Matched(_picture(x, bits, full), _picture(y, bits, full))
    pairs = [(_picture([a], bits, full), _picture([b], bits, full)) for a, b in zip(x, y, strict=False)]
    return Matched(*pairs[0], tuple(pairs[1:]), (reference, distorted)) if len(pairs) == 3 else Matched(*pairs[0])


def _range_name(frame: _Planar) -> str:
    return "full range (0..255)" if frame.full else "limited range (16..235)"


def _picture(planes: Sequence[Array], bits: int, full: bool) -> Picture:
    tensors = [torch.from_numpy(plane) for plane in planes]
    return Picture(tensors[0][None] if len(tensors) == 1 else torch.stack(tensors), 2**bits - 1, full_range=full)


def _planar(frame: VideoFrame) -> _Planar:
    name = frame.format.name
    if name.startswith("yuvj"):  # "yuvj" formats have full range, whatever the frame's tag
        frame.color_range = _FULL
    laid_out = frame if _PLANAR.fullmatch(name) else _reformatted(frame, planar_format(frame.format))
    # FFmpeg treats grey without a range tag as full range, as in pictures.
    full = frame.color_range == _FULL or laid_out.format.is_rgb
    full |= laid_out.format.name.startswith("gray") and frame.color_range != _LIMITED
    stored = tuple(component.bits for component in frame.format.components[:3])
    few = frame.format.is_rgb and not frame.format.has_palette and min(stored) < 8
    return _Planar(laid_out, full, stored if few else ())


def _arrays(frame: _Planar, bits: int, mode: Mode) -> list[Array]:
    """Returns red, green and blue, or luma and the chroma that the mode requires, converted to ``bits``."""
    form = frame.frame.format
    order = (2, 0, 1) if form.is_rgb else (0, 1, 2) if form.name.startswith("yuv") and mode == "planes" else (0,)
    arrays = [_array(frame.frame.planes[place], form.name, frame.bits) for place in order]
    arrays = (
        [_stretched(array, few) for array, few in zip(arrays, frame.stored, strict=True)] if frame.stored else arrays
    )
    to_white = [frame.full and (frame.rgb or place == 0) for place in order]
    return [_deepened(array, frame.bits, bits, white) for array, white in zip(arrays, to_white, strict=True)]


def _array(plane: Any, name: str, bits: int) -> Array:
    """Returns a view of the decoder's memory, which it keeps alive, or a copy if bytes or bits must be moved."""
    import numpy as np

    values = np.frombuffer(plane, np.uint8 if bits == 8 else ">u2" if name.endswith("be") else "<u2")
    values = values.reshape(plane.height, -1)[:, : plane.width]
    if "msb" in name:
        values = values >> (_DEEPEST - bits)
    return values.astype(np.uint16) if name.endswith("be") else values


def _stretched(array: Array, bits: int) -> Array:
    """Scales values of fewer than 8 bits, stored in the high bits, to 0..255. FFmpeg makes 248 of 31 in 5 bits."""
    import numpy as np

    values = np.arange(1 << bits) * 255 / ((1 << bits) - 1)
    return np.round(values).astype(np.uint8)[array >> (8 - bits)]


def _deepened(array: Array, few: int, bits: int, to_white: bool) -> Array:
    """Converts values to more bits. With ``to_white``, the high bits are repeated below, so that white stays white."""
    import numpy as np

    if few == bits:
        return array
    wide = array.astype(np.uint16)
    return (wide << (bits - few)) | (wide >> (2 * few - bits)) if to_white else wide << (bits - few)


def planar_format(form: VideoFormat) -> str:
    """Returns the planar format that holds the values of this one, without alpha.

    Raises:
        PairError: there is none, because values are floats or are not stored as integer planes.

    """
    bits = max((component.bits for component in form.components), default=0)  # 0 for frames on a GPU
    if not bits or bits > _DEEPEST or form.is_bayer or form.name.startswith("xyz") or "f16" in form.name:
        raise PairError(f"pixel format {form.name} is not supported; expected integer planes; convert the video")
    depth = next(d for d in (8, 9, 10, 12, 14, 16) if d >= bits)
    suffix = "" if depth == 8 else f"{depth}le"
    if form.is_rgb or form.has_palette:
        return f"gbrp{suffix}"
    if len(form.components) < 3:
        return f"gray{suffix}"
    shifts = _shifts(form)
    if shifts not in _CHROMA:
        raise PairError(f"pixel format {form.name} has an unsupported chroma subsampling; convert the video")
    return f"yuv{_CHROMA[shifts]}p{suffix}"


def _shifts(form: VideoFormat) -> tuple[int, int]:
    width, height = form.chroma_width(64), form.chroma_height(64)
    return 7 - width.bit_length(), 7 - height.bit_length()


def _with_chroma(frame: _Planar, shifts: tuple[int, ...]) -> _Planar:
    sampling = _CHROMA.get(shifts, "410")
    suffix = "" if frame.bits == 8 else f"{frame.bits}le"
    return _Planar(_reformatted(frame.frame, f"yuv{sampling}p{suffix}"), frame.full)


def _sampling(name: str) -> str:
    """Returns a planar format's name without bit depth and alpha, such as ``yuv420p``, or ``gray``."""
    return "gray" if name.startswith("gray") else f"yuv{name[name.index('4') :][:3]}p"


def _reformatted(frame: VideoFrame, name: str) -> VideoFrame:
    try:
        # One thread only: swscale writes a few pixels past the end of a row, while another thread writes the next row.
        # The first pixels of a slice are then sometimes wrong.
        return frame.reformat(format=name, interpolation=_BICUBIC, threads=1)
    except (ValueError, OSError) as error:
        raise PairError(
            f"pixel format {frame.format.name} cannot be converted to {name}: {error}; convert the video first"
        ) from error


def rgb_of(frame: VideoFrame) -> Picture:
    """Returns RGB as the ffmpeg program writes it to PNG files: 16 bits if the frame has more than 8."""
    deep = max(component.bits for component in frame.format.components) > 8
    array = _reformatted(frame, "rgb48le" if deep else "rgb24").to_ndarray()
    return Picture(channels_first(turned(array, orientation(frame))), 65535 if deep else 255)


def deep_rgb_of(frame: VideoFrame) -> Picture:
    """Returns 16-bit RGB, converted the same way for all bit depths, so that equal planes give equal pixels.

    FFmpeg interpolates 8-bit chroma differently from deeper chroma, so all planes are converted to 16 bits first.
    """
    planar = _planar(frame)
    if planar.rgb:
        arrays = [turned(array, orientation(frame)) for array in _arrays(planar, _DEEPEST, "rgb")]
        return _picture(arrays, _DEEPEST, full=True)
    sampling, deep = _sampling(planar.frame.format.name), planar.frame
    if sampling in ("yuv440p", "yuv411p", "yuv410p"):  # FFmpeg has no 16-bit format of these
        sampling = "yuv444p"
        deep = _reformatted(deep, sampling if planar.bits == 8 else f"{sampling}{planar.bits}le")
    array = _reformatted(_reformatted(deep, f"{sampling}{_DEEPEST}le"), "rgb48le").to_ndarray()
    return Picture(channels_first(turned(array, orientation(frame))), 65535)


Turn = tuple[bool, bool, bool]  # transpose, then reverse the rows, then reverse the columns
UPRIGHT: Turn = (False, False, False)


def orientation(frame: VideoFrame) -> Turn:
    """Returns the rotation and mirroring that the display matrix requests from players.

    Raises:
        PairError: the rotation is not a multiple of 90 degrees.

    """
    import numpy as np
    from av.sidedata.sidedata import SideDataContainer

    # frame.side_data would create a reference cycle: frames would pile up until the garbage collector runs.
    container: Any = SideDataContainer  # its type stub lacks the argument
    data = container(frame).get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    straight, crossed = min(abs(a), abs(d)), min(abs(b), abs(c))
    if max(abs(b), abs(c)) * 100 < straight:
        return False, d < 0, a < 0
    if max(abs(a), abs(d)) * 100 < crossed:
        return True, b < 0, c < 0
    raise PairError("the display matrix rotates the video by an angle that is not a multiple of 90 degrees; convert it")


def turned(array: Array, turn: Turn) -> Array:
    """Returns the array ``[H, W, ...]`` upright, without a copy if it is upright already."""
    import numpy as np

    if turn == UPRIGHT:
        return array
    exchange, rows, columns = turn
    if exchange:
        array = array.swapaxes(0, 1)
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def differences(reference: VideoFrame, distorted: VideoFrame) -> Iterator[str]:
    """Yields a sentence for each difference of the frames' headers that pixels do not show, such as color tags."""
    tags = [
        [f"{what} {_tag(getattr(frame, name), names)}" for what, name, names in _TAGS]
        for frame in (reference, distorted)
    ]
    if tags[0] != tags[1]:
        ours, theirs = (
            ", ".join(tag for tag, other in zip(*both, strict=True) if tag != other) for both in (tags, tags[::-1])
        )
        yield f"the color tags differ: {ours} in the reference, {theirs} in the distorted video"
    if reference.interlaced_frame != distorted.interlaced_frame:
        which = "reference" if reference.interlaced_frame else "distorted video"
        yield f"the {which} is interlaced and the other is not; frames are compared with both fields interleaved"
    formats = [frame.format for frame in (reference, distorted)]
    if any(component.is_alpha for form in formats for component in form.components):
        yield "alpha is not compared"


def conversions(reference: VideoFrame, distorted: VideoFrame) -> Iterator[str]:
    """Yields a sentence for each conversion that makes the planes comparable."""
    frames = [_planar(reference), _planar(distorted)]
    names = f"{reference.format.name} and {distorted.format.name}"
    chroma = [frame.chroma for frame in frames]
    if not any(frame.rgb for frame in frames) and chroma[0] != chroma[1]:
        kept = "only luma is compared" if None in chroma else "chroma is compared at the lower resolution of both"
        yield f"the pixel formats are {names}; {kept}"
    if frames[0].bits != frames[1].bits:
        yield f"the pixel formats are {names}; the smaller bit depth is scaled to the larger one"


def _tag(value: int, names: dict[int, str]) -> str:
    if value in (0, _UNSPECIFIED) and value not in names:
        return "unknown"
    return names.get(value, str(value))
