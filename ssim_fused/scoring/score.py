"""From pairs to scores: the kernel takes batches of equally large pairs, while decoding runs ahead.

At any time at most ``2 workers + 2 batch`` pairs of pictures are in memory, whatever the number of pairs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import torch

from ssim_fused.scoring.decoding import Decoded, Failed, Frame, Noted, Part, decoded, in_order, whole
from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.measure import Measure
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.settings import Settings

# A batch is for small pictures, where a call costs more than its pixels; above this many values it gains nothing.
BATCH_VALUES = {"cpu": 1 << 20, "cuda": 1 << 28}


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a picture or frame.

    Attributes:
        pair: the number of the pair, from 0.
        frame: the number of the frame; 0 for a picture.
        scores: by the metric's name, those of planes or channels by ``ssim/Y``, ``ssim/R`` and so on.
        pixels: both pictures where the settings keep them, or None.
        peak: the data range L that the scores are relative to.

    Example:
        >>> from ssim_fused.scoring import Pair, score
        >>> [[scored]] = score([Pair("clean/cat.png", "clean/cat.png")])
        >>> scored.scores
        {'ssim': 1.0}

    """

    pair: int
    frame: int
    scores: dict[str, float]
    pixels: Frame | None = None
    peak: float | None = None


Outcome = Scored | Failed | Noted


def score(pairs: Iterable[Pair], settings: Settings | None = None) -> Generator[list[Outcome]]:
    """Scores pairs, a batch at a time, in their order.

    A pair that cannot be scored yields a :class:`Failed` and leaves the others alone.

    Args:
        pairs: from :func:`find_pairs`, or made by hand; read as they are needed.
        settings: what to compute.

    Yields:
        Batches of :class:`Scored`, one for each picture or frame, of :class:`Failed`, and for videos of
        :class:`Noted`.

    Example:
        >>> from ssim_fused.scoring import Settings, find_pairs, score
        >>> names = set()
        >>> for batch in score(find_pairs("clean", ["restored"]), Settings(metric=("ssim", "psnr"))):
        ...     names |= {name for outcome in batch for name in outcome.scores}
        >>> sorted(names)
        ['psnr', 'ssim']

    """
    settings = settings or Settings()
    return score_parts(whole(pairs, settings), settings)


def score_parts(parts: Iterable[Part], settings: Settings) -> Generator[list[Outcome]]:
    """As :func:`score`, of parts of sequences, too."""
    device = choose_device(settings.device)
    measure = Measure(settings, device)
    threads = torch.get_num_threads()
    # On the CPU each thread scores a batch of its own by itself, which scales better than to share every picture.
    scorers = threads if device.type == "cpu" else 1
    prepare = (lambda: torch.set_num_threads(1)) if device.type == "cpu" else None
    try:
        with ThreadPoolExecutor(scorers, "score", prepare) as pool:
            batches = _batches(decoded(parts, settings), settings.batch, BATCH_VALUES[device.type])
            with closing(batches):
                yield from in_order(pool, lambda batch: _scored(measure, batch, settings.keep), batches, scorers)
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str) -> torch.device:
    """The device of a name; ``"auto"`` is a GPU where torch sees one and the package was built for it.

    Raises:
        UsageError: the name is no device's, or there is no such GPU.

    """
    usable = torch.cuda.is_available() and bool(ssim_fused_cuda())
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N.") from error
    if device.type not in BATCH_VALUES:
        raise UsageError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and not usable:
        raise UsageError(f"device is {name!r}, but torch sees no GPU or the package was built without CUDA; use cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device is {name!r}, but there are {torch.cuda.device_count()} GPUs.")
    return device


def ssim_fused_cuda() -> bool:
    """Whether the package was built with CUDA."""
    from ssim_fused import build_info

    return bool(build_info().get("cuda"))


def _batches(frames: Generator[Decoded], largest: int, values: int) -> Generator[list[Decoded]]:
    """Neighbours of one size and type, as many as fit; failures go along."""
    batch: list[Decoded] = []
    kind: tuple | None = None
    with closing(frames):
        for frame in frames:
            if isinstance(frame, Frame):
                x = frame.reference.pixels
                fits = len(batch) < largest and (len(batch) + 1) * x.numel() <= values
                planes = len(frame.chroma), frame.channels
                same = (tuple(x.shape), x.dtype, frame.reference.peak, frame.mask is None, planes)
                if batch and kind is not None and (same != kind or not fits):
                    yield batch
                    batch = []
                kind = same
            batch.append(frame)
            if len(batch) >= largest:
                yield batch
                batch, kind = [], None
        if batch:
            yield batch


def _scored(measure: Measure, batch: list[Decoded], keep: bool) -> list[Outcome]:
    frames = [frame for frame in batch if isinstance(frame, Frame)]
    try:
        scores = iter(_scores(measure, frames) if frames else ())
    except (ValueError, RuntimeError, OverflowError) as error:
        # Equally large pictures fail alike: they are too small for the window.
        failed = (str(error) or type(error).__name__).splitlines()[0]
        return [Failed(f.pair, failed) if isinstance(f, Frame) else f for f in batch]
    return [
        Scored(frame.pair, frame.number, next(scores), frame if keep else None, frame.reference.peak)
        if isinstance(frame, Frame)
        else frame
        for frame in batch
    ]


def _scores(measure: Measure, frames: Sequence[Frame]) -> list[dict[str, float]]:
    """The scores of frames of one kind."""
    masks = [frame.mask for frame in frames if frame.mask is not None]
    peak = frames[0].reference.peak
    x, y = [f.reference.pixels for f in frames], [f.distorted.pixels for f in frames]
    if not frames[0].chroma:
        return measure(x, y, peak, masks or None, frames[0].channels)
    planes = [(x, y)]
    for place in range(len(frames[0].chroma)):
        both = [frame.chroma[place] for frame in frames]
        planes.append(([x.pixels for x, _ in both], [y.pixels for _, y in both]))
    return measure.planes(planes, peak, masks or None)
