"""A pair's result, put together from the scores of its frames, and the pooled results of each distorted input."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ssim_fused.scoring.decoding import Frame, Noted, Part
from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.pool import pool
from ssim_fused.scoring.score import Outcome, Scored


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
        input: the distorted input that the pair is part of.
        origin: the file and line that list the pair, or None.
        peak: the data range L of its frames, or None before one is scored.
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
    input: str | None = None
    origin: str | None = None
    peak: float | None = None
    notes: list[str] = field(default_factory=list)

    def pooled(self, name: str) -> dict[str, float]:
        """One score for all frames, by metric."""
        return {metric: pool(name, [scores[metric] for scores in self.scores]) for metric in self.scores[0]}

    def lowest(self, metric: str) -> float:
        return min(scores[metric] for scores in self.scores)

    def add(self, scored: Scored, metric: str) -> None:
        """Adds a frame. A score that is no number is an error: it would pass every bound."""
        if any(math.isnan(value) for value in scored.scores.values()):
            of_frame = f" of frame {scored.frame}" if self.sequence else ""
            self.error = self.error or f"the score{of_frame} is not a number; are there NaN pixels?"
            return
        self.peak = scored.peak if self.peak is None else self.peak
        if scored.pixels and (not self.scores or scored.scores[metric] < self.lowest(metric)):
            self.worst = scored.pixels
        self.sequence |= scored.frame > 0  # An animation is found out when it is opened.
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
    return PairResult(
        part.number, pair.reference, pair.distorted, pair.sequence, part.shared, input=pair.input, origin=pair.origin
    )


class Pooled:
    """The pooled result of the frames of one distorted input, or of several: every picture is one frame.

    Takes eight bytes a score.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.values = {metric: array("d") for metric in metrics}
        self.scored = self.failed = 0

    def add(self, result: PairResult) -> None:
        if result.error:
            self.failed += 1
            return
        self.scored += 1
        for scores in result.scores:
            for name, value in scores.items():
                self.values.setdefault(name, array("d")).append(value)

    def pooled(self, pools: Iterable[str]) -> dict[str, dict[str, float]]:
        """By pool, then by metric; empty where nothing was scored."""
        if not self.scored:
            return {}
        return {name: {metric: pool(name, v) for metric, v in self.values.items() if v} for name in pools}


class Totals:
    """What a run came to: a pooled result for each distorted input, in their order."""

    def __init__(self, metrics: Sequence[str], pools: Sequence[str]) -> None:
        self._metrics, self.pools = tuple(metrics), tuple(pools)
        self.inputs: dict[str | None, Pooled] = {}
        self.peaks: set[float] = set()

    def add(self, result: PairResult) -> None:
        if result.input not in self.inputs:
            self.inputs[result.input] = Pooled(self._metrics)
        self.inputs[result.input].add(result)
        if result.peak is not None:
            self.peaks.add(result.peak)

    @property
    def scored(self) -> int:
        return sum(pooled.scored for pooled in self.inputs.values())

    @property
    def failed(self) -> int:
        return sum(pooled.failed for pooled in self.inputs.values())

    def values(self, metric: str) -> list[float]:
        """The scores of all frames."""
        return [value for pooled in self.inputs.values() for value in pooled.values[metric]]


class Threshold:
    """The bound of ``--fail-under``, on the first metric of a pair by the first pool.

    Raises:
        UsageError: the bound lies outside of the metric's scale.

    """

    def __init__(self, metric: str, pool: str, least: float) -> None:
        if metric != "psnr" and not -1 <= least <= 1:
            raise UsageError(f"fail-under is {least:g}; {metric} is at most 1: give a number such as 0.9.")
        if not math.isfinite(least):
            raise UsageError(f"fail-under is {least:g}; expected a number of dB.")
        self.metric, self.pool, self.least = metric, pool, least
        self.below = 0
        self._lowest: tuple[float, str] | None = None

    def fails(self, result: PairResult) -> bool:
        """Whether the pair was scored and lies below."""
        return not result.error and not self._score(result) >= self.least

    def pair(self, result: PairResult) -> None:
        """Counts a pair."""
        if self.fails(result):
            self.below += 1
            entry = self._score(result), result.distorted
            self._lowest = min(self._lowest or entry, entry)

    def _score(self, result: PairResult) -> float:
        return result.pooled(self.pool)[self.metric]

    def sentence(self, scored: int) -> str | None:
        """How many lie below, and the lowest of them; None where all reach the bound."""
        if self._lowest is None:
            return None
        score, path = self._lowest
        count = f"{self.below} of {scored} scored pairs"
        return f"{count} have {self.metric} below --fail-under {self.least:g}; lowest {score:.6f}: {path}"
