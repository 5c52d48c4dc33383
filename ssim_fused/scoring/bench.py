"""Measures the scoring speed of this machine at 1080p: the kernels alone, decoding alone, and both together.

The test pictures are noise at all scales, which compresses about as well as photographs. They are written to a
temporary folder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from ssim_fused.scoring.decoding import decoded, whole
from ssim_fused.scoring.measure import Measure
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.score import choose_device, score
from ssim_fused.scoring.settings import Settings

WIDTH, HEIGHT = 1920, 1080
PAIRS, FRAMES = 16, 48
QUALITIES = (95, 60)  # JPEG quality of the reference and the distorted file
BITRATES = (16_000_000, 4_000_000)  # bits per second of the reference and the distorted video


def bench(seconds: float) -> None:
    """Measures and prints nine figures, spending about ``seconds`` on each."""
    device = choose_device("auto")
    settings = Settings()
    print(f"1920x1080 on {device}, {settings.workers} decoding threads, {torch.get_num_threads()} computing threads\n")
    with tempfile.TemporaryDirectory(prefix="ssim_fused") as folder:
        pictures, videos = write_pictures(Path(folder)), write_videos(Path(folder))
        for title, call in _kernels(device):
            print(f"{title:<40} {1e3 * _time(call, seconds):8.2f} ms per pair", flush=True)
        for title, pairs, frames, options in (
            ("JPEG, RGB", pictures, PAIRS, settings),
            ("H.264, luma", videos, FRAMES, replace(settings, luma="bt601")),
            ("H.264, Y, U and V", videos, FRAMES, settings),
        ):
            decode = _time(lambda p=pairs, o=options: exhaust(decoded(whole(p, o), o)), seconds) / frames
            every = _time(lambda p=pairs, o=options: exhaust(score(p, o)), seconds) / frames
            print(
                f"\n{title}: decoding alone {1e3 * decode:.2f} ms per pair, decoding and SSIM {1e3 * every:.2f} ms "
                f"({1 / every:.1f} pairs per second); decoding is {decode / every:.0%} of the time"
            )


def exhaust(elements: Iterator) -> int:
    """Consumes an iterator and returns the number of its elements."""
    return sum(1 for _ in elements)


def _kernels(device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    x, y = (torch.from_numpy(p).permute(2, 0, 1) for p in (picture(0), picture(1)))
    for name, metric, channels in (
        ("SSIM of RGB", "ssim", 3),
        ("SSIM of luma", "ssim", 1),
        ("MS-SSIM of RGB", "ms-ssim", 3),
    ):
        measure = Measure(Settings(metric=(metric,)), device)
        yield name, lambda m=measure, c=channels: m([x[:c]], [y[:c]], 255)


def _time(call: Callable[[], object], seconds: float) -> float:
    """Returns the median time of a call in seconds, over the calls that fit into ``seconds``, after a warm-up call."""
    call()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Returns noise whose amplitude falls with frequency, as in photographs: ``[height, width, 3]``, uint8."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 9):
        cells = generator.uniform(-1, 1, (2 + (2**octave) * 9 // 8, 2 + 2 ** (octave + 1), 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(cells[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(layer) / 1.6**octave
    return np.clip(128 + 100 * total, 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int = PAIRS) -> list[Pair]:
    """Writes ``count`` pairs of JPEG files of the two ``QUALITIES``."""
    from PIL import Image

    pairs = []
    for number in range(count):
        image, names = Image.fromarray(picture(number)), []
        for quality in QUALITIES:
            names.append(str(folder / f"{number:03d}_{quality}.jpg"))
            image.save(names[-1], quality=quality)
        pairs.append(Pair(*names))
    return pairs


def write_videos(folder: Path, count: int = FRAMES) -> list[Pair]:
    """Writes one pair of videos of ``count`` frames: a camera that moves over a picture."""
    large = picture(99, HEIGHT + count, WIDTH + 2 * count)
    frames = [np.ascontiguousarray(large[k : k + HEIGHT, 2 * k : 2 * k + WIDTH]) for k in range(count)]
    paths = [str(folder / f"{rate}.mp4") for rate in BITRATES]
    for path, rate in zip(paths, BITRATES, strict=True):
        _encode(path, frames, rate)
    return [Pair(paths[0], paths[1], sequence=True)]


def _encode(path: str, frames: Sequence[np.ndarray], rate: int) -> None:
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    av.logging.set_level(av.logging.ERROR)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", rate
        stream.options = {"preset": "veryfast"} if codec == "libx264" else {}
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
