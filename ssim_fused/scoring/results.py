"""A pair's result, put together from the scores of its frames, and the pooled result of all."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ssim_fused.scoring.pool import pool
from ssim_fused.scoring.score import Frame, Noted, Outcome, Part, Scored


@dataclass(slots=True)
class Exhibit:
    """A pair to be looked at, as image files: both pictures and the map, and which frame of a sequence it is."""

    frame: int
    reference: bytes
    distorted: bytes
    map: bytes


@dataclass(slots=True)
class PairResult:
    """What is known of a pair: its frames' scores, or why there are none.

    Attributes:
        number: of the pair.
        reference: path.
        distorted: path.
        numbers: of the frames; ``[0]`` for a picture.
        scores: of each frame, by name.
        error: why the pair was not scored, or not to its end; None where it was.
        worst: the frame of the lowest first score, where pixels are kept.
        shared: whether other processes score other frames of it.
        map: of a shared pair the heat map, a PNG file, until it is known whose frame is the worst.
        exhibit: it, for the report.
        notes: sentences on what is to be known of the score of videos.

    """

    number: int
    reference: str
    distorted: str
    sequence: bool
    shared: bool = False
    numbers: list[int] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None
    worst: Frame | None = None
    map: bytes | None = None
    exhibit: Exhibit | None = None
    notes: list[str] = field(default_factory=list)

    def pooled(self, name: str) -> dict[str, float]:
        """One score for all frames, by metric."""
        return {metric: pool(name, [scores[metric] for scores in self.scores]) for metric in self.scores[0]}

    def lowest(self, metric: str) -> float:
        return min(scores[metric] for scores in self.scores)

    def add(self, scored: Scored, metric: str) -> None:
        """Adds a frame."""
        if scored.pixels and (not self.scores or scored.scores[metric] < self.lowest(metric)):
            self.worst = scored.pixels
        self.numbers.append(scored.frame)
        self.scores.append(scored.scores)


def collect(batches: Iterable[Iterable[Outcome]], parts: Sequence[Part], metric: str) -> Iterator[PairResult]:
    """Results of the pairs, each once its last frame is scored, in order.

    When the run is interrupted, the pair that was being scored is handed on as far as it got.
    """
    by_number = {part.number: part for part in parts}
    current: PairResult | None = None
    try:
        for batch in batches:
            for outcome in batch:
                if current is None or outcome.pair != current.number:
                    if current:
                        yield current
                    current = _empty(by_number[outcome.pair])
                if isinstance(outcome, Scored):
                    current.add(outcome, metric)
                elif isinstance(outcome, Noted):
                    current.notes.append(outcome.note)
                else:
                    current.error = outcome.error
    except KeyboardInterrupt:
        if current:
            yield current
        raise
    if current:
        yield current


def _empty(part: Part) -> PairResult:
    """The result of a pair none of whose frames is scored yet."""
    pair = part.pair
    return PairResult(part.number, pair.reference, pair.distorted, pair.sequence, part.shared)


class Totals:
    """The pooled result of all frames: every picture is one frame. Eight bytes a score."""

    def __init__(self, metrics: Sequence[str], pools: Sequence[str]) -> None:
        self._values = {metric: array("d") for metric in metrics}
        self._pools = tuple(pools)
        self.scored = self.failed = 0

    def add(self, result: PairResult) -> None:
        if result.error:
            self.failed += 1
            return
        self.scored += 1
        for scores in result.scores:
            for name, value in scores.items():
                self._values.setdefault(name, array("d")).append(value)

    def take(self, others: Totals) -> None:
        """Has what the others have, pooled in its own way."""
        self._values, self.scored, self.failed = others._values, others.scored, others.failed

    def pooled(self) -> dict[str, dict[str, float]]:
        """By pool, then by metric; empty where nothing was scored."""
        if not self.scored:
            return {}
        return {name: {metric: pool(name, v) for metric, v in self._values.items() if v} for name in self._pools}

    def values(self, metric: str) -> Sequence[float]:
        return self._values[metric]
