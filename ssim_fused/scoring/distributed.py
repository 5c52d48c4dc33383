"""Distributes a run over the processes started by ``torchrun``: each scores some of the pairs, or of a video's frames.

Each process uses its own device. Rank 0 gathers the results in pair order, so that the output is the same as that of
one process. Communication uses ``torch.distributed`` with gloo, because only numbers are exchanged.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from ssim_fused.scoring.decoding import Part, frame_count, whole
from ssim_fused.scoring.errors import PairError, UsageError
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.results import PairResult
from ssim_fused.scoring.sequence import open_sequence
from ssim_fused.scoring.settings import Settings
from ssim_fused.scoring.stream import is_stream


class Alone:
    """A run in a single process."""

    rank, size = 0, 1

    def gathered(self, results: Iterable[PairResult], metric: str) -> Iterable[PairResult]:
        """Returns the results unchanged."""
        return results


class Group(Alone):
    """One process of a distributed run."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def gathered(self, results: Iterable[PairResult], metric: str) -> Iterable[PairResult]:
        """Returns the results of all processes in pair order on rank 0, and none on other ranks."""
        shares: list[list[PairResult]] | None = [[]] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(list(results), shares)
        return merged(shares or [], metric)


def rank() -> int:
    """Returns the rank of this process. It is known before the process group exists."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def joined(settings: Settings) -> Generator[tuple[Settings, Alone]]:
    """Joins the process group of ``torchrun``, if any, and yields the settings with this process's own device."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "MASTER_ADDR" not in os.environ:
        yield settings, Alone()
        return
    started = not torch.distributed.is_initialized()
    if started:
        torch.distributed.init_process_group("gloo")
    try:
        group = Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
        yield _on_own_device(settings), group
        if started:  # not after an error: this process then exits, and torchrun stops the others
            torch.distributed.destroy_process_group()
    except UsageError:
        if started:
            torch.distributed.destroy_process_group()
        raise


def _on_own_device(settings: Settings) -> Settings:
    if settings.device in ("auto", "cuda") and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", 0))
        return replace(settings, device=f"cuda:{local % torch.cuda.device_count()}")
    return settings


def share(pairs: Sequence[Pair], settings: Settings, group: Alone) -> list[Part]:
    """Returns the parts that this process scores.

    Each process takes every ``size``-th pair. If there are fewer sequences than processes, each process takes a range
    of frames of every sequence instead.

    Raises:
        UsageError: a pair has a stream, which only one process can read.

    """
    parts = list(whole(pairs, settings))
    if group.size == 1:
        return parts
    for path in {path for pair in pairs if pair.sequence for path in (pair.reference, pair.distorted)}:
        if is_stream(path):
            raise UsageError(f"{path!r} is a stream, which only one process can read; under torchrun give files.")
    cut = [part for part in parts if part.pair.sequence and not part.pair.error]
    if len(cut) >= group.size:
        return parts[group.rank :: group.size]
    own = [part for part in parts if part not in cut][group.rank :: group.size]
    ranges = [piece for part in cut for piece in _range_of(part, group, settings)]
    return sorted([*own, *ranges], key=lambda part: part.number)


def _range_of(part: Part, group: Alone, settings: Settings) -> list[Part]:
    """Returns this process's range of frames of a sequence. If the length is unknown, rank 0 takes all of it."""
    start, stop, step = part.frames
    try:
        paths = part.pair.reference, part.pair.distorted
        sequences = [open_sequence(path, 1, settings.limits(), settings.raw) for path in paths]
        counts = [] if settings.align == "pts" else [frame_count(sequence) for sequence in sequences]
    except PairError:
        counts = []
    ends = [min(count, stop or count) for count in counts if count]
    if len(ends) < 2 or ends[0] != ends[1] or ends[0] - start < group.size * step:
        return [part] if group.rank == 0 else []
    frames = range(start, ends[0], step)
    first, last = (len(frames) * (group.rank + i) // group.size for i in (0, 1))
    # The last process reads to the end, so that it detects sequences of unequal length.
    end = frames[last] if last < len(frames) else stop
    return [replace(part, frames=(frames[first], end, step), shared=True)]


def merged(shares: Sequence[Sequence[PairResult]], metric: str) -> Iterator[PairResult]:
    """Yields the results of all processes in pair order, and joins the ranges of a sequence to one result."""
    results = sorted((result for share in shares for result in share), key=lambda r: (r.number, r.numbers[:1]))
    whole: PairResult | None = None
    for result in results:
        if whole is None or result.number != whole.number:
            if whole:
                yield whole
            whole = result
        else:
            _append(whole, result, metric)
    if whole:
        yield whole


def _append(whole: PairResult, more: PairResult, metric: str) -> None:
    whole.error = whole.error or more.error
    whole.peak = more.peak if whole.peak is None else whole.peak
    if more.scores and (not whole.scores or more.lowest(metric) < whole.lowest(metric)):
        whole.map, whole.exhibit = more.map, more.exhibit
    whole.notes += [note for note in more.notes if note not in whole.notes]
    whole.numbers += more.numbers
    whole.scores += more.scores
