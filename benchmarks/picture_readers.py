"""Measures which libraries read which image files correctly, and how fast. The choice of readers is based on it.

Each candidate reads every file of the tests' matrix as its documentation says, oriented, and composited over white if
it returns alpha. A file counts as correct if every pixel is, to a rounding. Each candidate runs in its own process,
which is restarted if it crashes. Times are medians of CPU time for 1920x1080, over rounds in which the candidates
alternate. Writes ``benchmarks/results/picture_readers.csv`` and prints Markdown tables.

    python -m benchmarks.picture_readers [--rounds 15]
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

RESULTS = Path(__file__).parent / "results" / "picture_readers.csv"
RIGHT, WRONG, REFUSED, CRASHED = "right", "wrong", "refused", "crashed"
Read = Callable[[str], np.ndarray]


def ours(path: str) -> np.ndarray:
    """The readers of this package."""
    from ssim_fused.scoring.picture import read_picture
    from ssim_fused.scoring.readers.samples import Limits

    pixels = read_picture(path, Limits(data_range=1.5)).pixels
    return np.moveaxis(pixels.numpy(), 0, -1)


def pillow(path: str) -> np.ndarray:
    """Pillow, with palettes and transparent colors converted."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode in ("1", "P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "L" if image.mode == "1" else "RGB")
    return np.array(image)


def pyav(path: str) -> np.ndarray:
    """FFmpeg through PyAV, with 16 bits if the file has more than 8."""
    import av

    with av.open(path) as container:
        frame = next(container.decode(video=0))
        components = frame.format.components
        deep = max(component.bits for component in components) > 8
        grey, alpha = len(components) < 3 and not frame.format.has_palette, any(c.is_alpha for c in components)
        name = "rgba" if alpha else "gray" if grey else "rgb"
        suffixes = {"rgba": "64le", "rgb": "48le", "gray": "16le"} if deep else {"rgba": "", "rgb": "24", "gray": ""}
        return frame.to_ndarray(format=name + suffixes[name], threads=1)


def opencv(path: str) -> np.ndarray:
    """OpenCV with IMREAD_UNCHANGED, converted from BGR to RGB."""
    import cv2

    pixels: Any = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("not read")
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def vips(path: str) -> np.ndarray:
    """libvips, oriented upright."""
    import pyvips

    image: Any = pyvips.Image.new_from_buffer(Path(path).read_bytes(), "")
    return np.asarray(image.autorot().numpy())


def tifffile_alone(path: str) -> np.ndarray:
    """The first page, read by tifffile."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        pixels = page.asarray()
        return pixels.transpose(1, 2, 0) if page.planarconfig == 2 and pixels.ndim == 3 else pixels


def imagecodecs_alone(path: str) -> np.ndarray:
    """The image that imagecodecs returns for the file."""
    from imagecodecs import imread

    return np.asarray(imread(path))


CANDIDATES: dict[str, Read] = {
    "ssim_fused": ours, "Pillow": pillow, "PyAV": pyav, "OpenCV": opencv, "libvips": vips,
    "tifffile": tifffile_alone, "imagecodecs": imagecodecs_alone,
}  # fmt: skip


def group_of(name: str) -> str:
    """The row of the table that a case belongs to."""
    kinds = {
        "png-16": "PNG, 16 bits", "png": "PNG, 1 to 8 bits", "tiff-float": "TIFF, float16 to float64",
        "tiff-miniswhite": "TIFF, MinIsWhite", "tiff-premultiplied": "TIFF, premultiplied alpha",
        "tiff-straight": "TIFF, straight alpha",
        "tiff-cmyk": "TIFF, CMYK", "tiff-palette": "TIFF, palette", "tiff-thumbnail": "TIFF, thumbnail pages",
        "bigtiff": "BigTIFF", "netpbm": "PBM, PGM, PPM, PAM", "pam": "PBM, PGM, PPM, PAM",
        "jpeg2000": "JPEG 2000", "jpeg-": "JPEG",
        "avif": "AVIF, 8 to 12 bits", "webp": "WebP", "pfm": "PFM", "exr": "OpenEXR", "radiance": "Radiance",
    }  # fmt: skip
    if name.startswith("tiff") and "orientation" in name:
        return "TIFF, orientations"
    layouts = {"tiff-10-": "10, 12, 14", "tiff-12-": "10, 12, 14", "tiff-14-": "10, 12, 14", "tiff-16-": "16"}
    for start, bits in layouts.items():
        if name.startswith(start):
            return f"TIFF, {bits} bits, strips and tiles, planar and not"
    if name.startswith("tiff") and not any(name.startswith(kind) for kind in kinds):
        return "TIFF, 1 to 8 bits, and compressed"
    return next((title for kind, title in kinds.items() if name.startswith(kind)), "BMP, GIF, QOI")


def verdict(case: Any, pixels: np.ndarray) -> str:
    """Whether the pixels equal the case's, to a rounding, in whatever range the candidate returns them."""
    expected = np.asarray(case.expected(), np.float64)
    whites = {case.white} if pixels.dtype.kind == "f" else {float(np.iinfo(pixels.dtype).max), case.white} \
        if pixels.dtype.kind != "b" else {1.0}  # fmt: skip
    for white in whites:
        color = pixels.astype(np.float64) / white
        if color.ndim == 3 and color.shape[2] in (2, 4):
            color, alpha = color[..., :-1], color[..., -1:]
            color = color * alpha + 1 - alpha
        if color.ndim == 3 and expected.ndim == 2:
            color = color[..., 0] if (color == color[..., :1]).all() else color
        if color.ndim == 2 and expected.ndim == 3:
            color = color[..., None].repeat(3, 2)
        rounding = 0.501 if case.white > 2 else 1e-6
        if color.shape == expected.shape and np.abs(color * case.white - expected).max() <= rounding + case.tolerance:
            return RIGHT
    return WRONG


def serve(candidate: str, folder: str) -> None:
    """Read the number of a case from each line of standard input, and print the verdict."""
    from picture_files import every_case

    cases, read = every_case(), CANDIDATES[candidate]
    for line in sys.stdin:
        case = cases[int(line)]
        try:
            answer = verdict(case, read(str(Path(folder, f"{int(line)}.{case.ending}"))))
        except Exception:  # readers raise exceptions of any type; all count as a refusal
            answer = REFUSED
        print(answer, flush=True)


class Candidate:
    """A process that reads cases, restarted when it dies."""

    def __init__(self, name: str, folder: Path) -> None:
        self._arguments = [sys.executable, "-m", "benchmarks.picture_readers", "--serve", name, str(folder)]
        self._process: subprocess.Popen[str] | None = None

    def verdict(self, number: int) -> str:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                cwd=ROOT,
            )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer:
            self._process.wait()
        return answer or CRASHED

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def correctness(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The verdicts for each group of cases and each candidate."""
    from picture_files import every_case

    cases = every_case()
    for number, case in enumerate(cases):
        Path(folder, f"{number}.{case.ending}").write_bytes(case.data())
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in CANDIDATES:
        candidate = Candidate(name, folder)
        for number, case in enumerate(cases):
            found[group_of(case.name)][name].append(candidate.verdict(number))
        candidate.close()
    return found


def large_files(folder: Path) -> dict[str, Path]:
    """A photograph of 1920x1080 in the most common formats."""
    import tifffile
    from imagecodecs import avif_encode, png_encode
    from PIL import Image
    from skimage import data

    photograph = np.tile(data.astronaut(), (3, 4, 1))[:1080, :1920]
    deep = photograph.astype(np.uint16) * 257 + np.random.default_rng(0).integers(0, 99, photograph.shape, np.uint16)
    image = Image.fromarray(photograph)
    files = {name: folder / name for name in ("8.jpg", "8.png", "16.png", "8.webp", "16.tif", "16-deflate.tif",
                                              "10.avif")}  # fmt: skip
    for name in ("8.jpg", "8.png", "8.webp"):
        image.save(files[name], quality=90)
    files["16.png"].write_bytes(png_encode(deep))
    tifffile.imwrite(files["16.tif"], deep, photometric="rgb")
    tifffile.imwrite(files["16-deflate.tif"], deep, photometric="rgb", compression="zlib", predictor=True)
    files["10.avif"].write_bytes(avif_encode(deep >> 6, bitspersample=10, level=90, speed=9))
    return files


def speed(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The median milliseconds of wall time for each file and candidate, with single-threaded decoders."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    import cv2
    import pyvips
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pyvips.cache_set_max(0)
    for file, path in large_files(folder).items():
        able = {name: read for name, read in CANDIDATES.items() if _works(read, str(path))}
        for _ in range(rounds):
            for name, read in able.items():
                start = time.perf_counter()
                read(str(path))
                times[file][name].append(1e3 * (time.perf_counter() - start))
    return {file: {name: statistics.median(t) for name, t in row.items()} for file, row in times.items()}


def _works(read: Read, path: str) -> bool:
    try:
        return read(path).shape[:2] == (1080, 1920)
    except Exception:  # a reader that raises any exception cannot be timed
        return False


def table(rows: dict[str, dict[str, str]]) -> str:
    """A Markdown table with a row for each candidate."""
    out = io.StringIO()
    print("| |", " | ".join(CANDIDATES), "|", file=out)
    print("|---|" + "---|" * len(CANDIDATES), file=out)
    for name, row in rows.items():
        print(f"| {name} |", " | ".join(row.get(candidate, "") for candidate in CANDIDATES), "|", file=out)
    return out.getvalue()


def summary(verdicts: list[str]) -> str:
    """``right/all``, with the number of crashes."""
    crashes = verdicts.count(CRASHED)
    wrong = verdicts.count(WRONG)
    text = f"{verdicts.count(RIGHT)}/{len(verdicts)}"
    return text + (f", {wrong} wrong" if wrong else "") + (f", {crashes} crashed" if crashes else "")


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", nargs=2, metavar=("CANDIDATE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with tempfile.TemporaryDirectory(prefix="ssim_fused") as name:
        found = correctness(Path(name))
        times = speed(Path(name), options.rounds)
    with open(RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "candidate", "right", "wrong", "refused", "crashed", "ms"])
        for group, row in found.items():
            for candidate, verdicts in row.items():
                writer.writerow([group, candidate, *(verdicts.count(v) for v in (RIGHT, WRONG, REFUSED, CRASHED)), ""])
        for path, row in times.items():
            for candidate, value in row.items():
                writer.writerow([f"1920x1080 {path}", candidate, "", "", "", "", f"{value:.1f}"])
    print(table({group: {name: summary(v) for name, v in row.items()} for group, row in found.items()}))
    print(table({file: {name: f"{v:.0f}" for name, v in row.items()} for file, row in times.items()}))


if __name__ == "__main__":
    main()
