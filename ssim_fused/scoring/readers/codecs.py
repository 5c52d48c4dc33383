"""Reads JPEG 2000, JPEG XL, AVIF and Radiance with imagecodecs, HEIF with pi-heif, and OpenEXR with its own library."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from .common import raw_of
from .exif import orientation_of
from .samples import Limits, Opened, Raw, ReadError


def jpeg2000(data: bytes, limits: Limits) -> Opened:
    """Opens a JPEG 2000 file with unsigned samples of up to 16 bits."""
    width, height, bits = _jpeg2000_header(data)
    limits.check_size(width, height)

    def frame(_: int) -> Raw:
        from imagecodecs import jpeg2k_decode

        samples = jpeg2k_decode(data)
        if samples.shape[:2] != (height, width):
            size = f"{samples.shape[1]}x{samples.shape[0]}"
            raise ReadError(
                f"broken JPEG 2000: decoded {size} pixels; expected {width}x{height}, the size in the header"
            )
        return _plain(samples, bits)

    return Opened(1, frame)


def _jpeg2000_header(data: bytes) -> tuple[int, int, int]:
    """Returns width, height and bit depth, from the SIZ segment of the codestream."""
    start = data.find(b"\xff\x4f\xff\x51")
    siz = data[start + 4 : start + 4 + 40 + 3 * 4]
    if start < 0 or len(siz) < 40:
        raise ReadError("broken JPEG 2000: the file has no codestream")
    right, bottom, left, top = (int.from_bytes(siz[at : at + 4], "big") for at in (4, 8, 12, 16))
    count = int.from_bytes(siz[36:38], "big")
    components = {siz[at] for at in range(38, 38 + 3 * count, 3)} if count <= 4 else set()
    if len(components) != 1:
        raise ReadError(
            f"JPEG 2000 with {count} components is not supported; expected 1 to 4 components of the same depth; "
            "convert it"
        )
    depth = components.pop()
    if depth & 0x80 or (depth & 0x7F) + 1 > 16:
        kind = "signed" if depth & 0x80 else "unsigned"
        raise ReadError(
            f"JPEG 2000 with {kind} samples of {(depth & 0x7F) + 1} bits is not supported; expected unsigned samples "
            "of at most 16 bits; convert it"
        )
    return right - left, bottom - top, (depth & 0x7F) + 1


def jpeg_xl(data: bytes, limits: Limits) -> Opened:
    """Opens a still JPEG XL picture, at the bit depth that the file states."""
    width, height, bits = _jpeg_xl_header(data)
    limits.check_size(width, height)

    def frame(_: int) -> Raw:
        from imagecodecs import jpegxl_decode

        return _plain(jpegxl_decode(data), bits)

    return Opened(1, frame)


def _jpeg_xl_header(data: bytes) -> tuple[int, int, int | None]:
    """Returns width, height and bits (None for floats), from the first fields of the codestream (ISO 18181-1)."""
    start = 0 if data[:2] == b"\xff\x0a" else data.find(b"\xff\x0a", data.find(b"jxl", 12))
    if start < 0 or len(data) < start + 12:
        raise ReadError("broken JPEG XL: the file has no codestream")
    bits, at = int.from_bytes(data[start + 2 : start + 34], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & (1 << count) - 1

    def side(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    def size() -> tuple[int, int]:
        small = take(1)
        height, ratio = side(small), take(3)
        ratios = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
        return (height * ratios[ratio - 1][0] // ratios[ratio - 1][1] if ratio else side(small)), height

    width, height = size()
    if take(1):  # all metadata has its default value
        return width, height, 8
    if take(1):
        take(3)  # orientation, which libjxl applies
        if take(1):
            size()  # intrinsic size, for display
        if take(1) or take(1):
            raise ReadError(
                "JPEG XL with an animation or a preview is not supported; expected a still picture; convert it"
            )
    if take(1):
        return width, height, None
    choice = take(2)
    return width, height, (8, 10, 12)[choice] if choice < 3 else take(6) + 1


def avif(data: bytes, limits: Limits) -> Opened:
    """Opens an AVIF: 8 bits with Pillow, more with imagecodecs, because Pillow reduces them to 8."""
    from PIL.AvifImagePlugin import AvifImageFile

    image = AvifImageFile(io.BytesIO(data))
    limits.check_size(*image.size)
    bits = _avif_bits(data)
    if bits > 8 and image.n_frames > 1:
        raise ReadError(
            f"animated AVIF of {bits} bits is not supported: the decoder reduces frames to 8 bits; convert it to video"
        )
    # Pillow returns the rotation and mirroring of the container as an EXIF orientation.
    orientation = orientation_of(image.info.get("exif"))

    def frame(number: int) -> Raw:
        if bits == 8:
            image.seek(number)
            raw = raw_of(image)
        else:
            from imagecodecs import avif_decode

            raw = _plain(avif_decode(data), bits)
        raw.orientation = orientation
        return raw

    return Opened(image.n_frames, frame)


def _avif_bits(data: bytes) -> int:
    """Returns the bit depth, 8, 10 or 12, from the configuration of the AV1 decoder."""
    at = data.find(b"av1C")
    if at < 0 or at + 7 > len(data):
        raise ReadError("broken AVIF: the file has no decoder configuration")
    high, twelve = data[at + 6] & 0x40, data[at + 6] & 0x20
    return 12 if high and twelve else 10 if high else 8


def heif(data: bytes, limits: Limits) -> Opened:
    """Opens the primary picture of a HEIF file. libheif returns it upright."""
    from pi_heif import open_heif

    file = open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    image = file[file.primary_index]  # the others are alternatives and bursts, which viewers do not show
    limits.check_size(*image.size)

    def frame(_: int) -> Raw:
        bits = int(image.info.get("bit_depth", 8))
        samples = np.asarray(image)
        if samples.dtype == np.uint16:
            samples = samples >> (16 - bits)
        raw = _plain(samples, bits)
        if raw.alpha and image.premultiplied_alpha:
            raw.alpha = "premultiplied"
        return raw

    return Opened(1, frame)


def _plain(samples: np.ndarray, bits: int | None) -> Raw:
    """Returns samples of 1 to 4 channels as grey, grey with alpha, RGB or RGBA."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if samples.ndim > 3 or channels > 4:
        raise ReadError(f"the decoded pixels have the shape {samples.shape}; expected [H, W] or [H, W, C] with C <= 4")
    return Raw(samples, "grey" if channels < 3 else "rgb", bits, alpha="straight" if channels in (2, 4) else None)


def radiance(data: bytes, limits: Limits) -> Opened:
    """Opens a Radiance picture, with values as they are stored; EXPOSURE is not applied."""
    found = re.search(rb"\n([-+][XY]) (\d+) ([-+][XY]) (\d+)\n", data[:65536])
    if not found:
        raise ReadError("broken Radiance picture: the file has no resolution line")
    if (found[1], found[3]) != (b"-Y", b"+X"):
        order = f"{found[1].decode()} {found[3].decode()}"
        raise ReadError(f"Radiance pixel order {order} is not supported; expected -Y +X; convert the file")
    if re.search(rb"^FORMAT=32-bit_rle_xyze", data[: found.start()], re.MULTILINE):
        raise ReadError("Radiance with XYZ pixels is not supported; convert it to RGB")
    limits.check_size(int(found[4]), int(found[2]))

    def frame(_: int) -> Raw:
        from imagecodecs import rgbe_decode

        return Raw(rgbe_decode(data), "rgb", None)

    return Opened(1, frame)


def openexr(data: bytes, limits: Limits) -> Opened:
    """Opens an OpenEXR file: one part with channels R, G, B or Y, and optionally A, which is premultiplied."""
    from OpenEXR import File

    header: Any = File(io.BytesIO(data), header_only=True).header()
    (left, top), (right, bottom) = header["dataWindow"]
    if not np.array_equal(header["dataWindow"], header["displayWindow"]):
        raise ReadError("OpenEXR with a data window other than its display window is not supported; crop or pad it")
    limits.check_size(int(right - left + 1), int(bottom - top + 1))

    def frame(_: int) -> Raw:
        file: Any = File(io.BytesIO(data), separate_channels=True)
        if len(file.parts) != 1:
            raise ReadError(f"OpenEXR with {len(file.parts)} parts is not supported; expected one; save a single part")
        return _exr_raw({name: channel.pixels for name, channel in file.channels().items()})

    return Opened(1, frame)


def _exr_raw(channels: dict[str, np.ndarray]) -> Raw:
    colors = next((names for names in (("R", "G", "B"), ("Y",)) if set(names) <= channels.keys()), None)
    if colors is None or {"RY", "BY"} & channels.keys():
        raise ReadError(f"OpenEXR with channels {', '.join(sorted(channels))} is not supported; expected R, G, B or Y")
    names = [*colors, *(["A"] if "A" in channels else [])]
    planes = [channels[name] for name in names]
    if len({plane.shape for plane in planes}) > 1 or any(plane.dtype.kind != "f" for plane in planes):
        raise ReadError(
            "OpenEXR with subsampled or integer channels is not supported; convert them to full-size floats"
        )
    samples = np.stack([plane.astype(np.float32) for plane in planes], axis=-1)
    return Raw(samples, "rgb" if len(colors) == 3 else "grey", None, alpha="premultiplied" if "A" in names else None)
