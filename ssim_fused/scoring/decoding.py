"""Decodes pairs to pixels. Pictures are read ahead in a thread pool, sequences in their own threads, in pair order.

A file that cannot be read yields a :class:`Failed` in its position, and decoding goes on with the next pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from ssim_fused.scoring.errors import PairError, lacks_extra, reading
from ssim_fused.scoring.ignored import without
from ssim_fused.scoring.luma import to_luma
from ssim_fused.scoring.meeting import Meeting
from ssim_fused.scoring.pairs import Pair
from ssim_fused.scoring.picture import Picture, SeveralFramesError, cropped, matched, read_picture
from ssim_fused.scoring.planes import Matched, rgb_of
from ssim_fused.scoring.readers.samples import Limits
from ssim_fused.scoring.sequence import Animation, Folder
from ssim_fused.scoring.settings import Settings, range_text
from ssim_fused.scoring.stream import is_stream
from ssim_fused.scoring.video import Video

if TYPE_CHECKING:
    from av import VideoFrame


@dataclass(frozen=True, slots=True)
class Frame:
    """A pair of pictures or frames, ready to be scored.

    Attributes:
        pair: the index of the pair, from 0.
        number: the number of the frame; 0 for a picture.
        reference: pixels ``[C, H, W]``.
        distorted: pixels of the same shape and dtype.
        mask: weights ``[H, W]`` in 0..1, or None.
        chroma: for two videos, the U planes of both frames, then their V planes; empty if chroma is not compared.
        in_color: for two videos, a function that converts both frames to RGB; otherwise None.
        channels: whether the scores of red, green and blue are reported as well, as for two RGB videos.

    """

    pair: int
    number: int
    reference: Picture
    distorted: Picture
    mask: Tensor | None = None
    chroma: tuple[tuple[Picture, Picture], ...] = ()
    in_color: Callable[[], tuple[Picture, Picture]] | None = None
    channels: bool = False

    def shown(self) -> tuple[Picture, Picture]:
        """Returns both pictures for display, in the size in which they are scored."""
        return self.in_color() if self.in_color else (self.reference, self.distorted)


@dataclass(frozen=True, slots=True)
class Failed:
    """A pair that could not be scored, or not to its end.

    Attributes:
        pair: the index of the pair, from 0.
        error: the reason, as a sentence.

    Example:
        >>> from ssim_fused.scoring import Pair, score
        >>> [[failed]] = score([Pair("clean/cat.png", "clean/no.png")])
        >>> "no.png" in failed.error
        True

    """

    pair: int
    error: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A note on a pair of videos that was scored, such as "alpha is not compared".

    Attributes:
        pair: the index of the pair, from 0.
        note: the note, as a sentence.

    Example:
        >>> from ssim_fused.scoring import Noted
        >>> Noted(0, "alpha is not compared").note
        'alpha is not compared'

    """

    pair: int
    note: str


Decoded = Frame | Failed | Noted


@dataclass(frozen=True, slots=True)
class Part:
    """A pair, its index, and the frames of a sequence to score: all requested ones, or the range of one process."""

    pair: Pair
    number: int
    frames: tuple[int, int | None, int]
    shared: bool = False


def whole(pairs: Iterable[Pair], settings: Settings) -> Iterator[Part]:
    """Yields each pair with all frames that the settings request."""
    return (Part(pair, number, settings.frames) for number, pair in enumerate(pairs))


def in_order(pool: ThreadPoolExecutor, work: Callable, elements: Iterable, depth: int) -> Iterator:
    """Yields ``map(work, elements)`` in order, computed in threads, with at most ``depth`` results pending."""
    waiting: deque[Future] = deque()
    try:
        for element in elements:
            waiting.append(pool.submit(work, element))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def decoded(parts: Iterable[Part], settings: Settings) -> Generator[Decoded]:
    """Yields the frames of all parts in order, with each failure in its position."""
    with ThreadPoolExecutor(settings.workers, "decode") as pool:
        still: list[Part] = []

        def pictures() -> Iterator[Part]:
            # Stops at the next sequence, which is decoded in its own threads.
            for part in stream:
                if part.pair.sequence and not part.pair.error:
                    still.append(part)
                    return
                yield part

        stream = iter(parts)
        while True:
            still.clear()
            for read in in_order(pool, lambda part: _read_pair(part, settings), pictures(), settings.workers):
                if isinstance(read, Part):
                    yield from _read_sequences(read, settings)
                else:
                    yield read
            if not still:
                return
            yield from _read_sequences(still[0], settings)


def _read_pair(part: Part, settings: Settings) -> Frame | Failed | Part:
    """Reads two still pictures. Returns the part itself if either file has several frames."""
    pair, limits = part.pair, settings.limits()
    try:
        if pair.error:
            raise PairError(pair.error)
        mask = read_mask(pair.mask, settings)
        pictures = [_read(path, limits) for path in (pair.reference, pair.distorted)]
        return _ready(part.number, 0, *pictures, mask, settings)
    except SeveralFramesError:
        return part
    except PairError as error:
        return Failed(part.number, str(error))


def read_mask(path: str | None, settings: Settings) -> Tensor | None:
    """Reads a mask: the luma of a picture in 0..1, cropped like the pictures, as weights ``[H, W]``."""
    if path is None:
        return None
    limits = replace(settings.limits(), data_range=1.0)  # white of a floating-point mask
    picture = _read(path, limits)
    if picture.pixels.is_floating_point() and (picture.pixels.min() < 0 or picture.pixels.max() > 1):
        raise PairError(f"{path}: the mask has values outside of 0..1; expected weights, where 1 counts fully")
    picture = cropped(to_luma(picture, "bt601"), settings.crop)
    return picture.pixels[0].float() / picture.peak


def _read(path: str, limits: Limits) -> Picture:
    """Reads a picture. Any exception of a decoder becomes an error of the file, so that the run goes on."""
    try:
        return read_picture(path, limits)
    except Exception as error:
        raise reading(path, error) from error.__cause__


def frame_count(sequence: Video | Folder | Animation) -> int | None:
    """Returns the number of frames, or None if it is unknown, or known only after decoding."""
    try:
        return None if is_stream(sequence.path) else sequence.count()
    except Exception as error:
        if lacks_extra(error):
            raise
        return None  # decoding reports the reason


def _ready(
    pair: int, number: int, reference: Picture, distorted: Picture, mask: Tensor | None, settings: Settings
) -> Frame:
    reference, distorted = matched(reference, distorted, settings.resize)
    luma = settings.resolved().luma
    if luma:
        reference, distorted = to_luma(reference, luma), to_luma(distorted, luma)
    return _finished(pair, number, reference, distorted, mask, settings)


def _finished(
    pair: int, number: int, reference: Picture, distorted: Picture, mask: Tensor | None, settings: Settings
) -> Frame:
    """Crops two pictures of the same size and applies the mask and the ignored rectangles."""
    reference, distorted = cropped(reference, settings.crop), cropped(distorted, settings.crop)
    if mask is not None and mask.shape != reference.pixels.shape[1:]:
        raise PairError(
            f"the mask has {mask.shape[1]}x{mask.shape[0]} pixels, the pictures have {reference.size}; expected a mask "
            "of the same size"
        )
    if mask is not None and not mask.any():
        raise PairError("the mask is black everywhere, so that no pixel is scored; expected some white pixels")
    size = reference.pixels.shape[1], reference.pixels.shape[2]
    mask = without(mask, settings.ignore, size, settings.crop)
    return Frame(pair, number, reference, distorted, mask)


def _read_sequences(part: Part, settings: Settings) -> Iterator[Decoded]:
    meeting: Meeting | None = None
    try:
        mask = read_mask(part.pair.mask, settings)
        meeting = Meeting(part.pair.reference, part.pair.distorted, settings)
        none = True
        for number, pixels in meeting.frames(part.frames):
            none = False
            if isinstance(pixels, Matched):
                yield _planes_ready(part.number, number, pixels, mask, settings)
            else:
                yield _ready(part.number, number, *pixels, mask, settings)
        if none:
            raise PairError(f"--frames {range_text(settings.frames)} selects no frame; expected at least one")
    except PairError as error:
        yield Failed(part.number, str(error))
    finally:
        if meeting:
            meeting.close()
    if meeting:
        yield from (Noted(part.number, note) for note in meeting.take_notes())


def _planes_ready(pair: int, number: int, planes: Matched, mask: Tensor | None, settings: Settings) -> Frame:
    """Makes a frame of matched planes, cropped and masked like pictures."""
    reference, distorted = matched(planes.reference, planes.distorted, settings.resize)
    frame = _finished(pair, number, reference, distorted, mask, settings)
    chroma = []
    for both in planes.chroma:
        height, width = planes.reference.pixels.shape[1:]
        steps = [round(whole / part) for whole, part in zip((height, width), both[0].pixels.shape[1:], strict=True)]
        if any(settings.crop % step for step in steps):
            raise PairError(
                f"--crop {settings.crop} cuts through chroma pixels, which cover {steps[1]}x{steps[0]} luma pixels; "
                "give a multiple, or --luma"
            )
        x, y = matched(*both, settings.resize)
        chroma.append(tuple(_cropped(p, settings.crop // steps[0], settings.crop // steps[1]) for p in (x, y)))
    in_color = partial(_colored, planes.frames, settings) if settings.keep and chroma else None
    channels = frame.reference.pixels.shape[0] == 3
    return replace(frame, chroma=tuple(chroma), in_color=in_color, channels=channels)


def _colored(frames: Sequence[VideoFrame], settings: Settings) -> tuple[Picture, Picture]:
    x, y = matched(*(rgb_of(frame) for frame in frames), settings.resize)
    return cropped(x, settings.crop), cropped(y, settings.crop)


def _cropped(picture: Picture, rows: int, columns: int) -> Picture:
    height, width = picture.pixels.shape[1:]
    return replace(picture, pixels=picture.pixels[:, rows : height - rows, columns : width - columns])
