"""Pools the scores of frames to one number (means, percentiles), and converts scores to dB and DSSIM."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from ssim_fused.scoring.errors import UsageError

PLANES = "YUVRGB"  # the letters of planes in the names of scores

_NAMES = re.compile(r"mean|min|max|median|harmonic|p(\d{1,2}|100)")


def check_pools(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names as a tuple.

    Raises:
        UsageError: a name is unknown, or there is none.

    """
    for name in names:
        if not _NAMES.fullmatch(name):
            raise UsageError(f"pool is {name!r}; expected mean, min, max, median, harmonic or p0 to p100.")
    if not names:
        raise UsageError("pool is empty; expected mean, min, max, median, harmonic or p0 to p100.")
    return tuple(names)


def pool(name: str, values: Sequence[float]) -> float:
    """Pools one or more values to a number.

    Percentiles are interpolated between the two nearest values. The harmonic mean is that of ``1 + value``, minus 1,
    as in VMAF, so that it is defined for negative SSIM values as well.
    """
    if name == "mean":
        return math.fsum(values) / len(values)
    if name in ("min", "max"):
        return min(values) if name == "min" else max(values)
    if name == "harmonic":
        reciprocals = math.fsum(1 / (1 + value) if value != -1 else math.inf for value in values)
        return len(values) / reciprocals - 1 if reciprocals else math.inf
    return _percentile(values, 50 if name == "median" else int(name[1:]))


def _percentile(values: Sequence[float], percent: int) -> float:
    # Infinite values (the PSNR of identical frames) must not be interpolated, because their difference is NaN.
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))


def to_db(score: float) -> float:
    """Returns ``-10 log10(1 - score)``, as FFmpeg prints; infinite for 1."""
    return math.inf if score >= 1 else -10 * math.log10(1 - score)


def to_dssim(score: float) -> float:
    """Returns ``(1 - score) / 2``, which is 0 for identical pictures."""
    return (1 - score) / 2


class Columns:
    """The columns of a table of scores: each metric, followed by the values derived from it.

    Args:
        metrics: the metrics, in order.
        db: add a column in dB for each SSIM: ``ssim-db``.
        dssim: add a column for each DSSIM: ``dssim``, ``ms-dssim``.
        planes: the planes whose scores follow those of whole frames, if a video has them.

    """

    def __init__(self, metrics: Iterable[str], db: bool = False, dssim: bool = False, planes: str = PLANES) -> None:
        metrics = tuple(metrics)
        split = [metric for metric in metrics if metric != "ms-ssim"]
        self._planes = {f"{metric}/{plane}": f"{metric}-{plane.lower()}" for metric in split for plane in planes}
        self._columns: list[tuple[str, str, Callable[[float], float]]] = []
        for metric in metrics:
            self._columns.append((metric, metric, float))
            if db and metric != "psnr":
                self._columns.append((f"{metric}-db", metric, to_db))
            if dssim and metric != "psnr":
                self._columns.append((metric.replace("ssim", "dssim"), metric, to_dssim))

    @property
    def names(self) -> list[str]:
        """The names of the columns, without those of planes."""
        return [name for name, _, _ in self._columns]

    @property
    def planes(self) -> dict[str, str]:
        """The names of the columns of planes, by the score that they show."""
        return self._planes

    def of(self, scores: dict[str, float]) -> dict[str, float]:
        """Returns a row of the scores of a pair or frame, or of pooled scores. Derived values follow pooling."""
        row = {name: derive(scores[metric]) for name, metric, derive in self._columns}
        return row | {name: scores[score] for score, name in self._planes.items() if score in scores}
