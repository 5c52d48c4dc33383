"""Writes picture files byte by byte, so that their pixels are known without a library: TIFF, PNG, netpbm, HDR.

The TIFF writer covers features that libraries rarely write: planar and tiled layouts of any depth, packed bits, both
byte orders, BigTIFF, associated alpha, MinIsWhite, orientations, thumbnails.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16
_SIZES = {BYTE: 1, SHORT: 2, LONG: 4, LONG8: 8}
_CODES = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}

MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2


@dataclass
class Page:
    """A page of a TIFF: samples ``[H, W]`` or ``[H, W, C]`` and their layout.

    Attributes:
        samples: unsigned, signed or floating point.
        photometric: the photometric interpretation.
        bits: bits per sample. If they are fewer than those of the array's type, samples are packed.
        extra: the ExtraSamples tag; None omits it.
        planar: store one plane per channel.
        tile: ``(height, width)``, multiples of 16, or None for strips.
        rows: rows per strip.
        deflate: compress with zlib.
        tags: further tags, ``{code: (type, values)}``, which replace those with the same code.

    """

    samples: np.ndarray
    photometric: int = MINISBLACK
    bits: int | None = None
    extra: Sequence[int] | None = None
    planar: bool = False
    tile: tuple[int, int] | None = None
    rows: int = 7
    deflate: bool = False
    tags: dict[int, tuple[int, Sequence[int]]] = field(default_factory=dict)


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """Returns a TIFF or BigTIFF with these pages."""
    pointer = "Q" if big else "I"
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    out = bytearray(head)
    link = len(head) - struct.calcsize(pointer)  # position of the offset of the next directory
    for page in pages:
        tags = _tags(page, out, order, big)
        out += b"\0" * (len(out) % 2)
        struct.pack_into(order + pointer, out, link, len(out))
        link = _directory(tags, out, order, big)
    return bytes(out)


def _tags(page: Page, out: bytearray, order: str, big: bool) -> dict[int, tuple[int, Sequence[int]]]:
    """Appends the pixels of a page, and returns its tags."""
    samples = page.samples if page.samples.ndim == 3 else page.samples[..., None]
    height, width, channels = samples.shape
    bits = page.bits or samples.dtype.itemsize * 8
    offsets, counts = [], []
    for block in _blocks(samples, page):
        data = _packed(block, bits, order)
        data = zlib.compress(data) if page.deflate else data
        offsets.append(len(out))
        counts.append(len(data))
        out += data
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [bits] * channels),
        259: (SHORT, [8 if page.deflate else 1]), 262: (SHORT, [page.photometric]), 277: (SHORT, [channels]),
        284: (SHORT, [2 if page.planar else 1]),
        339: (SHORT, [{"u": 1, "i": 2, "f": 3}[samples.dtype.kind]] * channels),
    }  # fmt: skip
    if page.extra is not None:
        tags[338] = (SHORT, page.extra)
    address = LONG8 if big else LONG
    if page.tile:
        tags |= {322: (LONG, [page.tile[1]]), 323: (LONG, [page.tile[0]]), 324: (address, offsets), 325: (LONG, counts)}
    else:
        tags |= {278: (LONG, [page.rows]), 273: (address, offsets), 279: (LONG, counts)}
    return tags | page.tags


def _blocks(samples: np.ndarray, page: Page):
    planes = [samples[..., c : c + 1] for c in range(samples.shape[2])] if page.planar else [samples]
    for plane in planes:
        if not page.tile:
            for top in range(0, plane.shape[0], page.rows):
                yield plane[top : top + page.rows]
            continue
        height, width = page.tile
        for top in range(0, plane.shape[0], height):
            for left in range(0, plane.shape[1], width):
                block = plane[top : top + height, left : left + width]
                yield np.pad(block, [(0, height - block.shape[0]), (0, width - block.shape[1]), (0, 0)])


def _packed(block: np.ndarray, bits: int, order: str) -> bytes:
    """Packs samples: whole bytes in the byte order, other depths from the highest bit, with rows padded to bytes."""
    if bits == block.dtype.itemsize * 8:
        return block.astype(block.dtype.newbyteorder(order)).tobytes()
    if bits == 24:
        whole = block.astype(order + "u4").view(np.uint8).reshape(-1, 4)
        return (whole[:, :3] if order == "<" else whole[:, 1:]).tobytes()
    rows = block.reshape(block.shape[0], -1)
    digits = (rows[..., None].astype(np.uint64) >> np.arange(bits - 1, -1, -1).astype(np.uint64)) & 1
    return np.packbits(digits.reshape(block.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def _directory(tags: dict[int, tuple[int, Sequence[int]]], out: bytearray, order: str, big: bool) -> int:
    """Appends a directory, followed by its long values. Returns the position of the link to the next directory."""
    pointer, count, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    start = len(out) + struct.calcsize("=" + count) + len(tags) * (20 if big else 12) + struct.calcsize("=" + pointer)
    entries, behind = bytearray(struct.pack(order + count, len(tags))), bytearray()
    for code, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        entries += struct.pack(order + "HH" + pointer, code, kind, len(values))
        if len(data) <= inline:
            entries += data.ljust(inline, b"\0")
        else:
            entries += struct.pack(order + pointer, start + len(behind))
            behind += data + b"\0" * (len(data) % 2)
    link = len(out) + len(entries)
    out += entries + struct.pack(order + pointer, 0) + behind
    return link


def colormap(palette: np.ndarray) -> dict[int, tuple[int, Sequence[int]]]:
    """Returns the tag of a 16-bit palette ``[N, 3]``."""
    return {320: (SHORT, [int(v) for v in palette.T.ravel()])}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_png_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """Inserts a chunk into a PNG, before its palette and pixels."""
    return png[:33] + png_chunk(kind, data) + png[33:]


def exif(orientation: int) -> bytes:
    """Returns the content of an eXIf chunk with only an orientation."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, SHORT, 1, orientation, 0) + b"\0" * 4


def pnm(magic: str, samples: np.ndarray, maxval: int) -> bytes:
    """Returns a netpbm file: P2 and P3 as text, P5 and P6 as bytes, with 16-bit samples in big-endian order."""
    head = f"{magic}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{maxval}\n".encode()
    if magic in ("P2", "P3"):
        return head + b"\n".join(b" ".join(b"%d" % v for v in row.ravel()) for row in samples) + b"\n"
    return head + samples.astype(">u2" if maxval > 255 else "u1").tobytes()


def pam(samples: np.ndarray, maxval: int, kind: str) -> bytes:
    height, width, depth = samples.shape
    head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {depth}\nMAXVAL {maxval}\nTUPLTYPE {kind}\nENDHDR\n".encode()
    return head + samples.astype(">u2" if maxval > 255 else "u1").tobytes()


def pbm(ones: np.ndarray, text: bool = False) -> bytes:
    """Returns a netpbm bitmap, in which 1 is black."""
    head = f"{'P1' if text else 'P4'}\n{ones.shape[1]} {ones.shape[0]}\n".encode()
    if text:
        return head + b"\n".join(b" ".join(b"%d" % v for v in row) for row in ones) + b"\n"
    return head + np.packbits(ones.astype(np.uint8), axis=1).tobytes()


def pfm(samples: np.ndarray, order: str = "<") -> bytes:
    """Returns a PFM file of floats, last row first; a negative scale means little-endian."""
    head = f"{'PF' if samples.ndim == 3 else 'Pf'}\n{samples.shape[1]} {samples.shape[0]}\n"
    return head.encode() + (b"-1.0\n" if order == "<" else b"1.0\n") + samples[::-1].astype(order + "f4").tobytes()


def radiance(rgbe: np.ndarray, axes: str = "-Y {h} +X {w}", head: str = "FORMAT=32-bit_rle_rgbe") -> bytes:
    """Returns a Radiance picture without compression, of bytes ``[H, W, 4]``: three mantissas and the exponent."""
    height, width = rgbe.shape[:2]
    return f"#?RADIANCE\n{head}\n\n{axes.format(h=height, w=width)}\n".encode() + rgbe.astype(np.uint8).tobytes()


def radiance_values(rgbe: np.ndarray) -> np.ndarray:
    """Returns the values of RGBE bytes: ``mantissa 2^(exponent - 136)``."""
    scale = np.ldexp(1.0, rgbe[..., 3:].astype(int) - 136)
    return (rgbe[..., :3] * np.where(rgbe[..., 3:] > 0, scale, 0)).astype(np.float32)


def bmp(color: np.ndarray) -> bytes:
    """Returns a 24-bit Windows bitmap: bottom row first, blue first, rows padded to 32-bit words."""
    height, width = color.shape[:2]
    rows = np.pad(color[::-1, :, ::-1].reshape(height, -1), [(0, 0), (0, -3 * width % 4)])
    head = struct.pack("<2sIHHI", b"BM", 54 + rows.size, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, rows.size, 2835, 2835, 0, 0) + rows.tobytes()
