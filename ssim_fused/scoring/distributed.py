"""The same run in many processes, as ``torchrun`` starts them: pairs, or the frames of videos, are shared out.

Each process scores its share on its own device, and rank 0 gathers the results in the order of the pairs, so that what
it prints is what one process would. By ``torch.distributed`` alone, over gloo, since what travels is numbers.
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
    """One process."""

    rank, size = 0, 1

    def gathered(self, results: Iterable[PairResult], metric: str) -> Iterable[PairResult]:
        """The results as they come."""
        return results


class Group(Alone):
    """One of many processes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def gathered(self, results: Iterable[PairResult], metric: str) -> Iterable[PairResult]:
        """In rank 0 the results of all processes, in order; elsewhere none."""
        shares: list[list[PairResult]] | None = [[]] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(list(results), shares)
        return merged(shares or [], metric)


def rank() -> int:
    """The number of this process, known before it has joined the others."""
    return int(os.environ.get("RANK", 0))


@contextmanager
def joined(settings: Settings) -> Generator[tuple[Settings, Alone]]:
    """The group that ``torchrun`` made of this process and others, with each on a device of its own."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "MASTER_ADDR" not in os.environ:
        yield settings, Alone()
        return
    started = not torch.distributed.is_initialized()
    if started:
        torch.distributed.init_process_group("gloo")
    try:
        group = Group(torch.distributed.get_rank(), torch.distributed.get_world_size())
        yield _on_own_device(settings), group
        if started:  # not after an error, which the others could not hear of here
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
    """What this process scores: every size-th pair, and of sequences that are fewer than the processes a range each.

    Raises:
        UsageError: one of the pairs is a stream, which processes cannot share.

    """
    parts = list(whole(pairs, settings))
    if group.size == 1:
        return parts
    for path in {path for pair in pairs if pair.sequence for path in (pair.reference, pair.distorted)}:
        if is_stream(path):
            raise UsageError(f"{path!r} is a stream, which one process alone can read; under torchrun give files.")
    cut = [part for part in parts if part.pair.sequence and not part.pair.error]
    if len(cut) >= group.size:
        return parts[group.rank :: group.size]
    own = [part for part in parts if part not in cut][group.rank :: group.size]
    ranges = [piece for part in cut for piece in _range_of(part, group, settings)]
    return sorted([*own, *ranges], key=lambda part: part.number)


def _range_of(part: Part, group: Alone, settings: Settings) -> list[Part]:
    """The frames of a sequence for this process; the first takes one whole whose number of frames is unknown."""
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
    # The last process reads to the end, and so finds what one has more than the other.
    end = frames[last] if last < len(frames) else stop
    return [replace(part, frames=(frames[first], end, step), shared=True)]


def merged(shares: Sequence[Sequence[PairResult]], metric: str) -> Iterator[PairResult]:
    """All shares in the order of the pairs; the ranges of a sequence become one result."""
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
