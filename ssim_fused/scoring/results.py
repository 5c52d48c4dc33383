"""Assembles the result of each pair from the scores of its frames, and pools results per distorted input."""

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
    """The images of a pair for the report, as JPEG files: both pictures and the map; ``frame`` is the frame number."""

    frame: int
    reference: bytes
    distorted: bytes
    map: bytes


@dataclass(slots=True)
class PairResult:
    """The result of a pair: the scores of its frames, or an error.

    Attributes:
        number: the index of the pair, from 0.
        reference: path of the reference.
        distorted: path of the distorted picture or video.
        sequence: whether the pair is a sequence of frames.
        shared: whether other processes score other frames of the pair.
        numbers: the numbers of the frames; ``[0]`` for a picture.
        scores: the scores of each frame, by name.
        error: the reason why the pair was not scored, or not to its end, or None.
        worst: the frame with the lowest first score, if pixels are kept.
        map: the heat map of a shared pair, a PNG file. It is kept until it is known which process has the worst frame.
        exhibit: the images for the report, or None.
        input: the distorted input that the pair belongs to.
        origin: the file and line that list the pair, or None.
        peak: the data range L of the frames, or None before the first one is scored.
        notes: notes on the scores of videos, as sentences.

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
        """Pools the scores of all frames, by metric."""
        return {metric: pool(name, [scores[metric] for scores in self.scores]) for metric in self.scores[0]}

    def lowest(self, metric: str) -> float:
        """Returns the lowest score of all frames."""
        return min(scores[metric] for scores in self.scores)

    def add(self, scored: Scored, metric: str) -> None:
        """Adds a frame. A NaN score is an error, because NaN is not below any ``--fail-under``."""
        if any(math.isnan(value) for value in scored.scores.values()):
            of_frame = f" of frame {scored.frame}" if self.sequence else ""
            self.error = self.error or f"the score{of_frame} is NaN; expected a number; check the pixels for NaN"
            return
        self.peak = scored.peak if self.peak is None else self.peak
        if scored.pixels and (not self.scores or scored.scores[metric] < self.lowest(metric)):
            self.worst = scored.pixels
        self.sequence |= scored.frame > 0  # an animation is recognized only when it is opened
        self.numbers.append(scored.frame)
        self.scores.append(scored.scores)


def collect(batches: Iterable[Iterable[Outcome]], parts: Sequence[Part], metric: str) -> Iterator[PairResult]:
    """Yields the result of each pair, in order, when its last frame has been scored.

    If the run is interrupted, the frames scored so far of the current pair are yielded before the interrupt is raised.
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
    """Returns the result of a pair without any frames."""
    pair = part.pair
    return PairResult(
        part.number, pair.reference, pair.distorted, pair.sequence, part.shared, input=pair.input, origin=pair.origin
    )


class Pooled:
    """The pooled scores of all frames of one or more distorted inputs, where a picture counts as one frame.

    Uses eight bytes per score.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.values = {metric: array("d") for metric in metrics}
        self.scored = self.failed = 0

    def add(self, result: PairResult) -> None:
        """Adds the frames of a pair, or counts it as failed."""
        if result.error:
            self.failed += 1
            return
        self.scored += 1
        for scores in result.scores:
            for name, value in scores.items():
                self.values.setdefault(name, array("d")).append(value)

    def pooled(self, pools: Iterable[str]) -> dict[str, dict[str, float]]:
        """Returns pooled scores by pool, then by metric; empty if nothing was scored."""
        if not self.scored:
            return {}
        return {name: {metric: pool(name, v) for metric, v in self.values.items() if v} for name in pools}


class Totals:
    """The totals of a run: pooled scores of each distorted input, in order of appearance."""

    def __init__(self, metrics: Sequence[str], pools: Sequence[str]) -> None:
        self._metrics, self.pools = tuple(metrics), tuple(pools)
        self.inputs: dict[str | None, Pooled] = {}
        self.peaks: set[float] = set()

    def add(self, result: PairResult) -> None:
        """Adds the result of a pair."""
        if result.input not in self.inputs:
            self.inputs[result.input] = Pooled(self._metrics)
        self.inputs[result.input].add(result)
        if result.peak is not None:
            self.peaks.add(result.peak)

    @property
    def scored(self) -> int:
        """The number of pairs scored."""
        return sum(pooled.scored for pooled in self.inputs.values())

    @property
    def failed(self) -> int:
        """The number of pairs that could not be scored."""
        return sum(pooled.failed for pooled in self.inputs.values())

    def values(self, metric: str) -> list[float]:
        """Returns the scores of all frames."""
        return [value for pooled in self.inputs.values() for value in pooled.values[metric]]


class Threshold:
    """The threshold of ``--fail-under``. It applies to the first metric of a pair, pooled by the first pool.

    Raises:
        UsageError: the threshold is outside of the range of the metric.

    """

    def __init__(self, metric: str, pool: str, least: float) -> None:
        if metric != "psnr" and not -1 <= least <= 1:
            raise UsageError(f"fail-under is {least:g}; expected -1 to 1, the range of {metric}, such as 0.9.")
        if not math.isfinite(least):
            raise UsageError(f"fail-under is {least:g}; expected a finite number of dB.")
        self.metric, self.pool, self.least = metric, pool, least
        self.below = 0
        self._lowest: tuple[float, str] | None = None

    def fails(self, result: PairResult) -> bool:
        """Returns whether the pair was scored and is below the threshold."""
        return not result.error and not self._score(result) >= self.least

    def pair(self, result: PairResult) -> None:
        """Counts a pair if it is below the threshold."""
        if self.fails(result):
            self.below += 1
            entry = self._score(result), result.distorted
            self._lowest = min(self._lowest or entry, entry)

    def _score(self, result: PairResult) -> float:
        return result.pooled(self.pool)[self.metric]

    def sentence(self, scored: int) -> str | None:
        """Returns a sentence with the number of pairs below the threshold and the lowest score, or None if none is."""
        if self._lowest is None:
            return None
        score, path = self._lowest
        count = f"{self.below} of {scored} scored pairs"
        return f"{count} have {self.metric} below --fail-under {self.least:g}; lowest {score:.6f}: {path}"
