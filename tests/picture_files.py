"""The matrix of picture files: format, depth, layout, interlacing, alpha, orientation and color model.

The pixels of each file are known exactly. A file is written byte by byte, or by another library than the one that
reads it in ``ssim_fused.scoring.readers``.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import picture_bytes as raw
import pytest
from picture_bytes import Page, tiff

HEIGHT, WIDTH = 21, 37
TILE = (16, 32)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1), 7: lambda p: np.rot90(p.swapaxes(0, 1), 2), 8: np.rot90,
}  # fmt: skip


@dataclass
class Case:
    """A file and its expected pixels ``[H, W]`` or ``[H, W, 3]``.

    Attributes:
        name: the name of the case.
        ending: the extension of the file.
        data: returns the bytes of the file.
        expected: returns the pixels.
        white: the value of white.
        tolerance: 0, except where the result is defined only up to rounding.

    """

    name: str
    ending: str
    data: Callable[[], bytes]
    expected: Callable[[], np.ndarray]
    white: float = 255
    tolerance: float = 0


def noise(bits: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Returns noise that uses all bits, ``[H, W]`` or ``[H, W, C]``, including black and white."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    samples = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=np.uint64)
    samples.flat[:2] = 0, 2**bits - 1
    return samples.astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def over_white(color: np.ndarray, alpha: np.ndarray, white: float, opaque: float | None = None) -> np.ndarray:
    """Composites straight alpha over white, rounded to nearest."""
    a = alpha.astype(np.float64) / (opaque or white)
    a = a[..., None] if color.ndim == 3 else a
    return np.floor(color * a + white * (1 - a) + 0.5 + 1e-9)


def premultiplied_over_white(color: np.ndarray, alpha: np.ndarray, white: float) -> np.ndarray:
    a = alpha.astype(np.float64) / white
    return np.floor(color + white * (1 - (a[..., None] if color.ndim == 3 else a)) + 0.5 + 1e-9)


def every_case() -> list[Case]:
    makers = (png_cases, tiff_layouts, tiff_models, tiff_orientations, netpbm_cases, codec_cases, lossy_cases,
              common_cases, float_cases)  # fmt: skip
    return [case for maker in makers for case in maker()]


def pypng(samples: np.ndarray, bits: int, interlace: bool = False, **options) -> bytes:
    png = pytest.importorskip("png")
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    file = io.BytesIO()
    options = {"greyscale": channels < 3, "alpha": channels in (2, 4), "bitdepth": bits} | options
    if "palette" in options:
        del options["greyscale"], options["alpha"]
    writer = png.Writer(WIDTH, HEIGHT, interlace=interlace, **options)
    writer.write(file, samples.reshape(HEIGHT, -1).tolist())
    return file.getvalue()


def png_cases() -> Iterator[Case]:
    for interlace in (False, True):
        adam = "-interlaced" if interlace else ""
        for bits, channels in [(1, 1), (2, 1), (4, 1), *itertools.product((8, 16), (1, 2, 3, 4))]:
            pixels, top = noise(bits, channels), 2**bits - 1
            white, scale = (top, 1) if bits >= 8 else (255, 255 // top)

            def expected(pixels=pixels, channels=channels, white=white, scale=scale):
                if channels in (2, 4):
                    color = pixels[..., 0] if channels == 2 else pixels[..., :3]
                    return over_white(color, pixels[..., -1], white)
                return pixels.astype(int) * scale

            yield Case(f"png-{bits}-{channels}{adam}", "png",
                       lambda p=pixels, b=bits, i=interlace: pypng(p, b, i), expected, white)  # fmt: skip
        for bits, channels in [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]:
            pixels, top = noise(bits, channels), 2**bits - 1
            pixels[3:6] = pixels[2, 5]  # the transparent color
            if bits == 16:
                pixels[4, :, ...] ^= 1  # differs only in the lowest bit, so that it is opaque
            clear = pixels[2, 5].tolist()
            white, scale = (top, 1) if bits >= 8 else (255, 255 // top)

            def expected(pixels=pixels, clear=clear, white=white, scale=scale):
                seen = (pixels == np.array(clear)).all(-1, keepdims=True) if pixels.ndim == 3 else pixels == clear
                return np.where(seen, white, pixels.astype(int) * scale)

            yield Case(f"png-{bits}-{channels}-trns{adam}", "png",
                       lambda p=pixels, b=bits, i=interlace, c=clear: pypng(
                           p, b, i, transparent=tuple(c) if isinstance(c, list) else c), expected, white)  # fmt: skip
        for bits in (1, 2, 4, 8):
            index = noise(bits)
            for alpha in (False, True):
                palette = np.random.default_rng(1).integers(0, 256, (2**bits, 4 if alpha else 3))

                def expected(index=index, palette=palette):
                    colors = palette[index]
                    return colors if colors.shape[2] == 3 else over_white(colors[..., :3], colors[..., 3], 255)

                yield Case(f"png-palette-{bits}{'-trns' if alpha else ''}{adam}", "png",
                           lambda x=index, b=bits, p=palette, i=interlace: pypng(
                               x, b, i, palette=[tuple(map(int, c)) for c in p]), expected)  # fmt: skip
    deep = noise(16, 3)
    marked = lambda: raw.with_png_chunk(pypng(deep, 16), b"sBIT", bytes([10, 10, 10]))  # noqa: E731
    yield Case("png-16-3-sbit", "png", marked, lambda: deep, 65535)
    yield Case("png-16-3-gamma", "png", lambda: raw.with_png_chunk(pypng(deep, 16), b"gAMA", b"\0\0\xb1\x8f"),
               lambda: deep, 65535)  # fmt: skip
    shallow = noise(8, 3)
    yield Case("png-8-3-sbit", "png", lambda: raw.with_png_chunk(pypng(shallow, 8), b"sBIT", b"\5\6\5"),
               lambda: shallow)  # fmt: skip
    for bits, orientation in itertools.product((8, 16), TURNS):
        pixels = noise(bits, 3)
        yield Case(f"png-{bits}-orientation-{orientation}", "png",
                   lambda p=pixels, b=bits, o=orientation: raw.with_png_chunk(pypng(p, b), b"eXIf", raw.exif(o)),
                   lambda p=pixels, o=orientation: TURNS[o](p), 2**bits - 1)  # fmt: skip


def tiff_layouts() -> Iterator[Case]:
    layouts = itertools.product((8, 10, 12, 14, 16), (1, 3, 4), (False, True), (None, TILE), "<>", (False, True))
    for bits, channels, planar, tile, order, deflate in layouts:
        if channels == 1 and planar:
            continue
        pixels = noise(bits, channels)
        page = Page(
            pixels,
            raw.RGB if channels >= 3 else raw.MINISBLACK,
            bits,
            [raw.UNASSOCIATED] if channels == 4 else None,
            planar,
            tile,
            deflate=deflate,
        )
        name = f"tiff-{bits}-{channels}{'-planar' if planar else ''}{'-tiled' if tile else ''}-{order}"
        yield Case(
            name.replace("<", "little").replace(">", "big") + ("-deflate" if deflate else ""),
            "tif",
            lambda page=page, order=order: tiff(page, order=order),
            lambda p=pixels, w=2**bits - 1: over_white(p[..., :3], p[..., 3], w) if p.shape[2:] == (4,) else p,
            2**bits - 1,
        )
    for bits, tile, order in itertools.product((1, 2, 4), (None, TILE), "<>"):
        pixels = noise(bits)
        page = Page(pixels, raw.MINISBLACK, bits, tile=tile)
        yield Case(f"tiff-{bits}-{'tiled' if tile else 'strips'}-{'big' if order == '>' else 'little'}", "tif",
                   lambda p=page, o=order: tiff(p, order=o),
                   lambda p=pixels, b=bits: p.astype(int) * (255 // (2**b - 1)))  # fmt: skip
    for bits, order in itertools.product((8, 16), "<>"):
        pixels = noise(bits, 3)
        yield Case(f"bigtiff-{bits}-{'big' if order == '>' else 'little'}", "tif",
                   lambda p=pixels, o=order: tiff(Page(p, raw.RGB), order=o, big=True), lambda p=pixels: p,
                   2**bits - 1)  # fmt: skip


def tiff_models() -> Iterator[Case]:
    for bits, tile in itertools.product((1, 8, 12, 16), (None, TILE)):
        pixels, tiled, scale = noise(bits), "-tiled" if tile else "", 255 if bits == 1 else 1
        page = Page(pixels, raw.MINISWHITE, bits, tile=tile)
        yield Case(f"tiff-miniswhite-{bits}{tiled}", "tif", lambda p=page: tiff(p),
                   lambda p=pixels, b=bits, s=scale: (2**b - 1 - p.astype(int)) * s, scale * (2**bits - 1))  # fmt: skip
    for bits, planar, channels in itertools.product((8, 16), (False, True), (1, 3)):
        top = 2**bits - 1
        alpha = noise(bits, seed=2)
        color = noise(bits, channels)
        whole = np.dstack([color, alpha])
        scaled = np.dstack([(color * (alpha.astype(float) / top).reshape(HEIGHT, WIDTH, *[1] * (color.ndim - 2))),
                            alpha]).astype(whole.dtype)  # fmt: skip
        photometric = raw.RGB if channels == 3 else raw.MINISBLACK
        layout = f"{bits}-{channels}{'-planar' if planar else ''}"
        yield Case(f"tiff-straight-{layout}", "tif",
                   lambda w=whole, p=photometric, s=planar: tiff(Page(w, p, extra=[raw.UNASSOCIATED], planar=s)),
                   lambda c=color, a=alpha, t=top: over_white(c, a, t), top)  # fmt: skip
        yield Case(f"tiff-premultiplied-{layout}", "tif",
                   lambda w=scaled, p=photometric, s=planar: tiff(Page(w, p, extra=[raw.ASSOCIATED], planar=s)),
                   lambda w=scaled, c=color, a=alpha, t=top: premultiplied_over_white(
                       w[..., :-1].reshape(c.shape), a, t), top)  # fmt: skip
    for bits, planar, tile in itertools.product((8, 16), (False, True), (None, TILE)):
        ink, top = noise(bits, 4), 2**bits - 1
        name = f"tiff-cmyk-{bits}{'-planar' if planar else ''}{'-tiled' if tile else ''}"
        yield Case(name, "tif", lambda i=ink, s=planar, t=tile: tiff(Page(i, raw.CMYK, planar=s, tile=t)),
                   lambda i=ink, t=top: np.floor((t - i[..., :3].astype(float)) * (t - i[..., 3:].astype(float)) / t
                                                 + 0.5 + 1e-9), top)  # fmt: skip
    index, byte = noise(8), np.random.default_rng(3).integers(0, 256, (256, 3))
    deep = np.random.default_rng(4).integers(0, 65536, (256, 3))
    for name, palette, colors, white in [
        ("257", byte * 257, byte, 255), ("256", byte * 256, byte, 255), ("16", deep, deep, 65535),
    ]:  # fmt: skip
        yield Case(f"tiff-palette-{name}", "tif",
                   lambda p=palette: tiff(Page(index, raw.PALETTE, tags=raw.colormap(p))), lambda c=colors: c[index],
                   white)  # fmt: skip
    few = noise(4)
    yield Case("tiff-palette-4-bits", "tif",
               lambda: tiff(Page(few, raw.PALETTE, 4, tags=raw.colormap(byte[:16] * 257))),
               lambda: byte[few])  # fmt: skip
    pixels, thumbnail = noise(16, 3), noise(8, 3, seed=9)[:5, :7]
    for name, tags in [("new", {254: (raw.LONG, [1])}), ("old", {255: (raw.SHORT, [2])}), ("mask", {254: (4, [4])})]:
        small = Page(thumbnail[..., 0], raw.MASK, tags=tags) if name == "mask" else Page(thumbnail, raw.RGB, tags=tags)
        for first in (True, False):
            yield Case(f"tiff-thumbnail-{name}-{'first' if first else 'last'}", "tif",
                       lambda s=small, f=first: tiff(*sorted([s, Page(pixels, raw.RGB)], key=lambda p: (p is s) != f)),
                       lambda: pixels, 65535)  # fmt: skip


def tiff_orientations() -> Iterator[Case]:
    for bits, orientation, planar in itertools.product((8, 12, 16), TURNS, (False, True)):
        pixels = noise(bits, 3)
        page = Page(pixels, raw.RGB, bits, planar=planar, tags={274: (raw.SHORT, [orientation])})
        yield Case(f"tiff-{bits}-orientation-{orientation}{'-planar' if planar else ''}", "tif",
                   lambda p=page: tiff(p), lambda p=pixels, o=orientation: TURNS[o](p), 2**bits - 1)  # fmt: skip


def netpbm_cases() -> Iterator[Case]:
    for magic, maxval in itertools.product(("P2", "P3", "P5", "P6"), (100, 255, 1000, 1023, 4095, 65535)):
        pixels = noise(32, 3 if magic in ("P3", "P6") else 1) % np.uint32(maxval + 1)
        yield Case(f"netpbm-{magic}-{maxval}", "ppm", lambda m=magic, p=pixels, v=maxval: raw.pnm(m, p, v),
                   lambda p=pixels: p, maxval)  # fmt: skip
    for text in (False, True):
        ones = noise(1)
        yield Case(f"netpbm-{'P1' if text else 'P4'}", "pbm", lambda o=ones, t=text: raw.pbm(o, t),
                   lambda o=ones: 255 * (1 - o.astype(int)))  # fmt: skip
    for maxval in (255, 4095):
        pixels = (noise(32, 4) % np.uint32(maxval + 1)).astype(np.uint16)
        yield Case(f"pam-rgba-{maxval}", "pam", lambda p=pixels, v=maxval: raw.pam(p, v, "RGB_ALPHA"),
                   lambda p=pixels, v=maxval: over_white(p[..., :3], p[..., 3], v), maxval)  # fmt: skip


def by_av(codec: str, array: np.ndarray, pixels: str, **options: str) -> bytes:
    """Encodes a picture with one of FFmpeg's encoders."""
    import av

    frame = av.VideoFrame.from_ndarray(array, format=pixels)
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = array.shape[:2]
    context.pix_fmt, context.time_base, context.options = pixels, Fraction(1), options
    return b"".join(bytes(packet) for part in (frame, None) for packet in context.encode(part))


def by_vips(array: np.ndarray, save: str, interpretation: str = "srgb", **options) -> bytes:
    pyvips = pytest.importorskip("pyvips")
    image = pyvips.Image.new_from_array(np.ascontiguousarray(array)).copy(interpretation=interpretation)
    return getattr(image, save)(**options)


def codec_cases() -> Iterator[Case]:
    color = noise(8, 3)
    for bits in (8, 12, 16):
        grey = noise(bits)
        yield Case(f"jpeg2000-{bits}", "j2k",
                   lambda g=grey, b=bits: by_av("jpeg2000", g, {8: "gray", 12: "gray12le", 16: "gray16le"}[b], pred="1",
                                                format="j2k"),
                   lambda g=grey: g, 2**bits - 1)  # fmt: skip
    deep = noise(16, 3)
    yield Case("jpeg2000-16-3", "jp2", lambda: by_av("jpeg2000", deep, "rgb48le", pred="1"), lambda: deep, 65535)
    for bits in (10, 12):
        pixels = noise(bits, 3)
        yield Case(f"avif-{bits}", "avif",
                   lambda p=pixels, b=bits: by_vips(p << (16 - b), "heifsave_buffer", "rgb16", compression="av1",
                                                    lossless=True, bitdepth=b, subsample_mode="off", effort=0),
                   lambda p=pixels: p, 2**bits - 1)  # fmt: skip
    yield Case("avif-8", "avif", lambda: by_vips(color, "heifsave_buffer", compression="av1", lossless=True,
                                                 subsample_mode="off", effort=0), lambda: color)  # fmt: skip
    yield Case("webp", "webp", lambda: by_vips(color, "webpsave_buffer", lossless=True), lambda: color)
    for name, save, pixels, interpretation, options in [
        ("lzw-16", "tiffsave_buffer", deep, "rgb16", {"compression": "lzw", "predictor": "horizontal"}),
        ("zip-16-tiled", "tiffsave_buffer", deep, "rgb16",
         {"compression": "deflate", "tile": True, "tile_width": 32, "tile_height": 16}),
        ("packbits-8", "tiffsave_buffer", color, "srgb", {"compression": "packbits"}),
        ("ccitt-1", "tiffsave_buffer", noise(1) * np.uint8(255), "b-w", {"compression": "ccittfax4", "bitdepth": 1}),
        ("lzw-8-miniswhite", "tiffsave_buffer", noise(8), "b-w", {"compression": "lzw", "miniswhite": True}),
    ]:  # fmt: skip
        yield Case(f"tiff-{name}", "tif", lambda s=save, p=pixels, i=interpretation, o=options: by_vips(p, s, i, **o),
                   lambda p=pixels: p, 2 ** (8 * pixels.dtype.itemsize) - 1)  # fmt: skip


def lossy_cases() -> Iterator[Case]:
    """Decodes a JPEG of smooth pixels with another decoder."""
    smooth = np.add.outer(np.arange(HEIGHT) * 7, np.arange(WIDTH) * 3)[..., None] + np.array([0, 20, 40])
    smooth = smooth.astype(np.uint8)
    for name, options in [
        ("444", {"subsample_mode": "off"}), ("420", {"subsample_mode": "on"}), ("progressive", {"interlace": True}),
    ]:  # fmt: skip
        for pixels, kind, model in ((smooth, "color", "srgb"), (smooth[..., 0], "grey", "b-w")):
            data = cache(lambda p=pixels, m=model, o=options: by_vips(p, "jpegsave_buffer", m, Q=90, **o))
            yield Case(f"jpeg-{kind}-{name}", "jpg", data, lambda d=data: by_imagecodecs("jpeg8_decode", d()))
    tables = cache(lambda: by_vips(smooth, "tiffsave_buffer", compression="jpeg", Q=90))
    yield Case("tiff-jpeg", "tif", tables, lambda: read_by_vips(tables()), tolerance=2)


def by_imagecodecs(decode: str, data: bytes) -> np.ndarray:
    return getattr(pytest.importorskip("imagecodecs"), decode)(data)


def read_by_vips(data: bytes) -> np.ndarray:
    return pytest.importorskip("pyvips").Image.new_from_buffer(data, "").numpy()


def common_cases() -> Iterator[Case]:
    color = noise(8, 3)
    yield Case("bmp", "bmp", lambda: raw.bmp(color), lambda: color)
    few = (noise(2, 3) * np.uint8(85)).astype(np.uint8)
    yield Case("gif", "gif", lambda: by_vips(few, "gifsave_buffer", dither=0, effort=10), lambda: few)
    clear = np.dstack([few, np.where(noise(1, seed=5) == 1, 255, 0)]).astype(np.uint8)
    yield Case("gif-transparent", "gif", lambda: by_vips(clear, "gifsave_buffer", dither=0, effort=10),
               lambda: np.where(clear[..., 3:] > 0, few, 255))  # fmt: skip
    alpha = noise(8, 4)
    yield Case("webp-alpha", "webp", lambda: by_vips(alpha, "webpsave_buffer", lossless=True, exact=True),
               lambda: over_white(alpha[..., :3], alpha[..., 3], 255))  # fmt: skip
    yield Case("qoi", "qoi", lambda: by_av("qoi", color, "rgb24"), lambda: color)
    for orientation in TURNS:
        yield Case(f"webp-orientation-{orientation}", "webp",
                   lambda o=orientation: with_webp_exif(
                       by_vips(color, "webpsave_buffer", lossless=True, keep="none"), o),
                   lambda o=orientation: TURNS[o](color))  # fmt: skip


def with_webp_exif(data: bytes, orientation: int) -> bytes:
    """Converts a WebP file of one chunk to an extended one with EXIF."""
    body = data[12:]
    exif = raw.exif(orientation)
    head = b"VP8X" + (10).to_bytes(4, "little") + bytes([8, 0, 0, 0])
    head += (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBP" + head + body + b"EXIF" + len(exif).to_bytes(4, "little") + exif
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def float_cases() -> Iterator[Case]:
    """Yields cases of floating-point files, which are read with ``data_range=1.5``."""
    white = 1.5
    values = (np.random.default_rng(6).random((HEIGHT, WIDTH, 3)) * 2).astype(np.float32)
    half = values.astype(np.float16)
    for order, planar, tile in itertools.product("<>", (False, True), (None, TILE)):
        name = f"{'-planar' if planar else ''}{'-tiled' if tile else ''}-{'big' if order == '>' else 'little'}"
        for kind, pixels in (("32", values), ("16", half), ("64", values.astype(np.float64) / 3)):
            yield Case(f"tiff-float{kind}{name}", "tif",
                       lambda p=pixels, s=planar, t=tile, o=order: tiff(Page(p, raw.RGB, planar=s, tile=t), order=o),
                       lambda p=pixels: p.astype(float), white)  # fmt: skip
    alpha = np.random.default_rng(7).random((HEIGHT, WIDTH)).astype(np.float32)
    a = alpha[..., None].astype(float)
    whole = np.dstack([values, alpha])
    yield Case("tiff-float32-straight", "tif", lambda: tiff(Page(whole, raw.RGB, extra=[raw.UNASSOCIATED])),
               lambda: values * a + white * (1 - a), white, 1e-6)  # fmt: skip
    yield Case("tiff-float32-premultiplied", "tif", lambda: tiff(Page(whole, raw.RGB, extra=[raw.ASSOCIATED])),
               lambda: values + white * (1 - a), white, 1e-6)  # fmt: skip
    yield Case("tiff-float32-miniswhite", "tif", lambda: tiff(Page(values[..., 0], raw.MINISWHITE)),
               lambda: white - values[..., 0].astype(float), white, 1e-6)  # fmt: skip
    for order in "<>":
        yield Case(f"pfm-{'little' if order == '<' else 'big'}", "pfm", lambda o=order: raw.pfm(values, o),
                   lambda: values, white)  # fmt: skip
        yield Case(f"pfm-grey-{'little' if order == '<' else 'big'}", "pfm", lambda o=order: raw.pfm(values[..., 1], o),
                   lambda: values[..., 1], white)  # fmt: skip
    yield Case("exr", "exr", lambda: by_av("exr", values, "gbrpf32le", compression="zip1"), lambda: values, white)
    yield Case("exr-half", "exr", lambda: by_av("exr", half.astype(np.float32), "gbrpf32le", format="half"),
               lambda: half.astype(float), white)  # fmt: skip
    yield Case("exr-grey", "exr", lambda: by_av("exr", values[..., 0], "grayf32le"), lambda: values[..., 0], white)
    yield Case("exr-alpha", "exr", lambda: by_av("exr", whole, "gbrapf32le"), lambda: values + white * (1 - a), white,
               1e-6)  # fmt: skip
    rgbe = np.random.default_rng(8).integers(0, 256, (HEIGHT, WIDTH, 4))
    rgbe[..., 3] = 120 + rgbe[..., 3] % 12
    rgbe[..., 0] |= 128  # normalized mantissas, which cannot be mistaken for run-length codes
    yield Case("radiance", "hdr", lambda: raw.radiance(rgbe), lambda: raw.radiance_values(rgbe), white)
    yield Case("radiance-rle", "hdr", lambda: by_av("hdr", values, "gbrpf32le"), lambda: values, white, 2 / 256)
