"""Runs the scoring of pairs: scores those of this process and passes the results to sinks. Also :func:`compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ssim_fused.scoring import distributed
from ssim_fused.scoring.decoding import Noted
from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.listing import read_pairs
from ssim_fused.scoring.output import Rows
from ssim_fused.scoring.pairs import Pair, check_any, find_pairs
from ssim_fused.scoring.pool import Columns, check_pools
from ssim_fused.scoring.provenance import describe, device_name
from ssim_fused.scoring.results import PairResult, Totals, collect
from ssim_fused.scoring.score import choose_device, score_parts
from ssim_fused.scoring.settings import Settings

if TYPE_CHECKING:
    from ssim_fused.scoring.gallery import Gallery


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The outputs of a run in addition to scores.

    Attributes:
        pool: the pools; the first makes the score of a video.
        maps: the folder for heat maps, or None.
        exhibits: the number of worst pairs whose images are kept for the report.

    """

    pool: tuple[str, ...] = ("mean",)
    maps: str | None = None
    exhibits: int = 0


class Sink(Protocol):
    """Receives the results in pair order."""

    def pair(self, result: PairResult) -> None: ...


class Ticker(Protocol):
    """Receives the number of scored frames and failed pairs, such as a ``tqdm`` bar."""

    def update(self, n: int) -> Any: ...


def run(
    pairs: Sequence[Pair],
    settings: Settings,
    wanted: Wanted,
    sinks: Sequence[Sink],
    ticker: Ticker | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[Totals, bool]:
    """Scores pairs and passes each result to the sinks. Only rank 0 of a distributed run has results.

    Args:
        pairs: the pairs to score.
        settings: the settings of the run.
        wanted: the outputs in addition to scores.
        sinks: receive the results, in pair order.
        ticker: receives the number of frames scored.
        enough: called after each pair; if it returns True, the remaining pairs are not scored.

    Returns:
        The totals of all pairs, and whether the run was interrupted.

    """
    settings = replace(settings, keep=bool(wanted.maps or wanted.exhibits))
    totals, interrupted = Totals(settings.metric, check_pools(wanted.pool)), False
    try:
        with distributed.joined(settings) as (settings, group):
            parts, gallery = distributed.share(pairs, settings, group), _gallery(len(pairs), settings, wanted)
            with closing(score_parts(parts, settings)) as batches:
                results = collect(_ticked(batches, ticker), parts, settings.metric[0])
                shown = gallery.shown(results) if gallery else results
                for result in group.gathered(shown, settings.metric[0]):
                    if gallery:
                        gallery.write(result)
                    totals.add(result)
                    for sink in sinks:
                        sink.pair(result)
                    if enough():
                        break
    except KeyboardInterrupt:
        interrupted = True
    return totals, interrupted


def _ticked(batches: Iterator[list], ticker: Ticker | None) -> Iterator[list]:
    for batch in batches:
        if ticker is not None:
            ticker.update(sum(not isinstance(outcome, Noted) for outcome in batch))
        yield batch


def _gallery(pairs: int, settings: Settings, wanted: Wanted) -> Gallery | None:
    """Returns the gallery if maps or exhibits are requested."""
    if not settings.keep:
        return None
    from ssim_fused.scoring.gallery import Gallery  # imported late, because it imports Pillow and matplotlib

    return Gallery(settings, choose_device(settings.device), wanted.maps, wanted.exhibits, pairs)


def compare(
    reference: str | None = None,
    distorted: str | Sequence[str] = (),
    *,
    pairs: str | Sequence[Pair] | None = None,
    mask: str | None = None,
    pool: Sequence[str] = ("mean",),
    per_frame: bool = False,
    db: bool = False,
    dssim: bool = False,
    map: str | None = None,  # named after the option
    **settings: Any,
) -> dict[str, Any]:
    """Scores files and returns the dictionary that ``ssim-fused compare --format json`` prints.

    Args:
        reference: path of a picture, a folder or a video.
        distorted: one or more paths to compare with the reference.
        pairs: instead of ``reference`` and ``distorted``, a list of pairs, or the path of a CSV file that lists them.
        mask: path of a picture that weights the pixels, or of a folder of such pictures.
        pool: pools of the scores of frames: mean, min, max, median, harmonic, p0 to p100. The first makes the score of
            a video.
        per_frame: include the scores of each frame.
        db: include each SSIM in dB.
        dssim: include each DSSIM.
        map: folder to write a heat map of each pair to.
        **settings: fields of :class:`Settings`.

    Returns:
        ``{"pairs": [...], "failed": [...], "pooled": {...}, "inputs": [...], "settings": {...}}``. ``"inputs"`` has
        the pooled scores of each distorted input. ``"pooled"`` is present only if there is a single one.

    Raises:
        UsageError: an argument is invalid, or a path does not exist.

    Example:
        >>> from ssim_fused.scoring import compare
        >>> results = compare("clean", "restored", metric=("ssim", "psnr"))
        >>> 0 < results["pooled"]["ssim"]["mean"] < 1
        True

    """
    options = Settings(**settings)
    pools = check_pools(pool)
    found = _found(reference, [distorted] if isinstance(distorted, str) else distorted, pairs, mask)
    document = Document(Rows(Columns(options.metric, db, dssim), pools[0], per_frame))
    made = describe(options, device_name(options.device), pools, mask)
    totals, interrupted = run(found, options, Wanted(pool=pools, maps=map), [document])
    if interrupted:
        raise KeyboardInterrupt
    return document.complete(totals, made)


def _found(
    reference: str | None, distorted: Sequence[str], pairs: str | Sequence[Pair] | None, mask: str | None
) -> Sequence[Pair]:
    if pairs is not None and reference is not None:
        raise UsageError(f"reference is {reference!r} and pairs is given as well; give only one of the two.")
    if pairs is None and (reference is None or not distorted):
        raise UsageError(f"reference is {reference!r} and distorted is {distorted!r}; expected both, or pairs.")
    if isinstance(pairs, str):
        return read_pairs(pairs, mask)
    if pairs is None:
        return find_pairs(str(reference), distorted, mask)
    check_any(pairs, "pairs")
    return pairs


class Document:
    """A sink that collects the results in one dictionary."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._pairs: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []

    def pair(self, result: PairResult) -> None:
        (self._failed if result.error else self._pairs).append(self._rows.pair(result))

    def complete(self, totals: Totals, made: dict[str, Any]) -> dict[str, Any]:
        return {"pairs": self._pairs, "failed": self._failed} | self._rows.summary(totals, made)
