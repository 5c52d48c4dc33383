"""A whole run: pairs are scored, on this process's share of them, and the results go to whoever wants them."""

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
    """What a run hands out beside the scores.

    Attributes:
        pool: how frames become one number; the first makes a video's score.
        maps: folder of the heat maps, or None.
        exhibits: how many pairs, the worst, are kept to be looked at.

    """

    pool: tuple[str, ...] = ("mean",)
    maps: str | None = None
    exhibits: int = 0


class Sink(Protocol):
    """Takes the results in the order of the pairs."""

    def pair(self, result: PairResult) -> None: ...


class Ticker(Protocol):
    """Is told of every scored frame, or failed pair."""

    def update(self, n: int) -> Any: ...


def run(
    pairs: Sequence[Pair],
    settings: Settings,
    wanted: Wanted,
    sinks: Sequence[Sink],
    ticker: Ticker | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> tuple[Totals, bool]:
    """Scores pairs and hands every result to the sinks, in the process of rank 0.

    Args:
        pairs: what is compared.
        settings: how.
        wanted: what is made in addition to the scores.
        sinks: who takes the results.
        ticker: is told of every frame.
        enough: is asked after each pair whether nobody takes the others.

    Returns:
        What all pairs together came to, and whether the run was interrupted.

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
    """Who draws, where pictures are wanted."""
    if not settings.keep:
        return None
    from ssim_fused.scoring.gallery import Gallery  # with what it draws with

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
    map: str | None = None,  # the option's name
    **settings: Any,
) -> dict[str, Any]:
    """Scores files as ``ssim-fused compare --format json`` does, and returns what that prints.

    Args:
        reference: a picture, a folder or a video.
        distorted: one or several to compare with it.
        pairs: instead of both, pairs, or the path of a CSV file that lists them.
        mask: a picture that weighs the pixels, or a folder of them.
        pool: how frames become one number: mean, min, max, median, harmonic, p0 to p100; the first makes a video's.
        per_frame: return the scores of each frame, too.
        db: return each SSIM in dB, too.
        dssim: return each as DSSIM, too.
        map: folder for a heat map of each pair.
        **settings: those of :class:`Settings`.

    Returns:
        ``{"pairs": [...], "failed": [...], "pooled": {...}, "inputs": [...], "settings": {...}}``. With several
        distorted ones, ``"inputs"`` has the pooled scores of each, and there is no ``"pooled"``.

    Raises:
        UsageError: what was asked for cannot be meant, or a path does not exist.

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
    if (pairs is None) == (reference is None) or (reference is not None and not distorted):
        raise UsageError("give a reference and what is compared with it, or pairs.")
    if isinstance(pairs, str):
        return read_pairs(pairs, mask)
    if pairs is None:
        return find_pairs(str(reference), distorted, mask)
    check_any(pairs, "the list")
    return pairs


class Document:
    """The results as one dictionary."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._pairs: list[dict[str, Any]] = []
        self._failed: list[dict[str, Any]] = []

    def pair(self, result: PairResult) -> None:
        (self._failed if result.error else self._pairs).append(self._rows.pair(result))

    def complete(self, totals: Totals, made: dict[str, Any]) -> dict[str, Any]:
        return {"pairs": self._pairs, "failed": self._failed} | self._rows.summary(totals, made)
