"""Scores pairs: the kernel processes batches of pairs of equal size, while decoding threads read ahead.

At most ``2 workers + 2 batch`` pairs of pictures are in memory at any time, whatever the number of pairs.
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

# The largest number of values in a batch. Batches help small pictures, where a call costs more than its pixels; larger
# batches than this gain nothing.
BATCH_VALUES = {"cpu": 1 << 20, "cuda": 1 << 28}


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of a picture or frame.

    Attributes:
        pair: the index of the pair, from 0.
        frame: the number of the frame; 0 for a picture.
        scores: scores by metric, such as ``"ssim"``. Those of a plane or channel have names such as ``"ssim/Y"``.
        pixels: both pictures, if the settings keep them, or None.
        peak: the data range L of the scores.

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
    """Scores pairs in order and yields the results in batches.

    A pair that cannot be scored yields a :class:`Failed`, and scoring goes on with the next pair.

    Args:
        pairs: from :func:`find_pairs` or :func:`read_pairs`, or constructed directly. Files are read when needed.
        settings: the settings of the run.

    Yields:
        Lists of :class:`Scored`, one for each picture or frame, :class:`Failed`, and, for videos, :class:`Noted`.

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
    """Scores parts of pairs: like :func:`score`, but a part may be a range of the frames of a sequence."""
    device = choose_device(settings.device)
    measure = Measure(settings, device)
    threads = torch.get_num_threads()
    # On the CPU each thread scores its own batch. This scales better than sharing each picture among all threads.
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
    """Returns the device with a name. ``"auto"`` is a GPU if torch sees one and the package was built with CUDA.

    Raises:
        UsageError: the name is not that of a device, or there is no such GPU.

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
        last = torch.cuda.device_count() - 1
        raise UsageError(f"device is {name!r}; expected an index of at most {last}, the last GPU; use cuda:{last}.")
    return device


def ssim_fused_cuda() -> bool:
    """Returns whether the package was built with CUDA."""
    from ssim_fused import build_info

    return bool(build_info().get("cuda"))


def _batches(frames: Generator[Decoded], largest: int, values: int) -> Generator[list[Decoded]]:
    """Groups consecutive frames of equal size and type into batches. Failures stay in their position."""
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
        # All frames of a batch have the same size, so that one that is too small for the window fails all of them.
        failed = (str(error) or type(error).__name__).splitlines()[0]
        return [Failed(f.pair, failed) if isinstance(f, Frame) else f for f in batch]
    return [
        Scored(frame.pair, frame.number, next(scores), frame if keep else None, frame.reference.peak)
        if isinstance(frame, Frame)
        else frame
        for frame in batch
    ]


def _scores(measure: Measure, frames: Sequence[Frame]) -> list[dict[str, float]]:
    """Returns the scores of a batch of frames."""
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
