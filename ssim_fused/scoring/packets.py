"""Reads the packets of a video without decoding them, to number frames and to find where decoding may start.

FFmpeg's seek does not land on an exact packet, and a packet is not always a frame. So frames are numbered by packets
only if these are regular: every packet has its own time stamp, and the stamps are equally spaced. Then the frame with
the k-th smallest stamp is frame k, and decoding may start at a key frame before it. In all other files frames are
counted from the first one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from ssim_fused.scoring.errors import PairError

_ANNEX_B_START = b"\0\0\1"
_IDR = 5  # nal_unit_type of a coded slice of an IDR picture, ITU-T H.264, table 7-1


class LostError(PairError):
    """A seek did not lead to the expected packets. The caller must count frames from the first one instead."""

    def __init__(self) -> None:
        super().__init__("the packets after a seek differ from those of the whole file; remux the video")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key frame: its index in decoding order, and its time stamp."""

    place: int
    stamp: int


@dataclass(slots=True)
class Index:
    """The packets of one video stream.

    Attributes:
        stamps: time stamps in decoding order.
        order: time stamps in display order.
        entries: key frames from which later frames are decoded exactly.
        regular: whether time stamps determine frame numbers.

    """

    stamps: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    regular: bool = False

    def number(self, stamp: int | None) -> int | None:
        """Returns the number of the frame with this time stamp, or None."""
        if stamp is None:
            return None
        place = bisect_right(self.order, stamp) - 1
        return place if place >= 0 and self.order[place] == stamp else None

    def entries_before(self, number: int) -> list[Entry]:
        """Returns the key frames from which frame ``number`` can be decoded, nearest first."""
        return [entry for entry in reversed(self.entries) if entry.stamp <= self.order[number]]

    def packets_from(self, container: Any, stream: Any, entry: Entry) -> Iterator[Any]:
        """Yields the packets from ``entry`` on, each checked against the index.

        Raises:
            LostError: no seek reaches the entry, or the packets after it differ from the index.

        """
        for place, packet in enumerate(self._sought(container, stream, entry), start=entry.place):
            if packet.size and place < len(self.stamps) and packet.pts != self.stamps[place]:
                raise LostError
            yield packet

    def _sought(self, container: Any, stream: Any, entry: Entry) -> Iterator[Any]:
        """Seeks to the entry and returns the packets from it on. Seeks to earlier times while FFmpeg lands after it."""
        import av

        places = {stamp: place for place, stamp in enumerate(self.stamps)}
        at, back = self.entries.index(entry), 0
        while True:
            try:
                container.seek(self.entries[at].stamp, stream=stream, backward=True)
            except av.FFmpegError as error:
                raise LostError from error
            packets = container.demux(stream)
            for packet in packets:
                place = places.get(packet.pts)  # None if the seek landed in the middle of a packet
                if packet.is_keyframe and place == entry.place:
                    return chain([packet], packets)
                if not packet.size or (place is not None and place > entry.place):
                    break
            if at == 0:
                raise LostError
            # In MPEG program and transport streams a seek lands late, so the next one requests an earlier time.
            back = 2 * back + 1
            at = max(0, at - back)


def read_index(container: Any, stream: Any) -> Index:
    """Reads all packets of a stream. Checks only their stamps; the caller must compare these with decoded frames."""
    stamps: list[int | None] = []
    keys: list[tuple[int, bool]] = []
    clean = _is_clean_of(stream)
    usable = True
    for packet in container.demux(stream):
        if not packet.size:
            continue
        usable &= not (packet.is_discard or packet.is_corrupt)
        if packet.is_keyframe:
            keys.append((len(stamps), clean(packet)))
        stamps.append(packet.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    order = sorted(known)
    regular = usable and len(known) == len(stamps) and _equally_far_apart(order)
    return Index(known, order, _entries(keys, stamps) if regular else [], regular)


def _entries(keys: list[tuple[int, bool]], stamps: list[int | None]) -> list[Entry]:
    entries: list[Entry] = []
    for (before, _), (place, clean) in zip(keys[:1] + keys, keys, strict=False):
        stamp = stamps[place]
        if stamp is None or (entries and stamp <= entries[-1].stamp):
            continue
        # After a key frame that is not an IDR frame, H.264 may refer to frames before it, but rarely to those before
        # the previous key frame.
        entries.append(Entry(place if clean else before, stamp))
    return entries


def _equally_far_apart(order: list[int]) -> bool:
    if len(order) < 2:
        return len(order) == 1
    apart = (order[-1] - order[0]) / (len(order) - 1)
    # Matroska rounds to milliseconds. In an irregular file, time stamps differ by a large part of a frame.
    slack = min(1.0, 0.25 * apart) + 1e-6
    expected = (order[0] + apart * number for number in range(len(order)))
    return all(a < b for a, b in pairwise(order)) and all(
        abs(stamp - place) <= slack for stamp, place in zip(order, expected, strict=True)
    )


def _is_clean_of(stream: Any) -> Any:
    """Returns a function that tells whether no frame after a key frame refers to frames before it."""
    context = stream.codec_context
    if context.name not in ("h264", "libx264"):
        return lambda packet: True
    extradata = bytes(context.extradata or b"")
    length = (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0
    return lambda packet: _IDR in (_lengthy_units(bytes(packet), length) if length else _started_units(bytes(packet)))


def _lengthy_units(data: bytes, length: int) -> Iterator[int]:
    """Yields the types of NAL units with a length prefix, as in MP4 and Matroska."""
    place = 0
    while place + length < len(data):
        yield data[place + length] & 31
        place += length + int.from_bytes(data[place : place + length], "big")


def _started_units(data: bytes) -> Iterator[int]:
    """Yields the types of NAL units after start codes, as in transport streams."""
    place = data.find(_ANNEX_B_START)
    while 0 <= place < len(data) - 3:
        yield data[place + 3] & 31
        place = data.find(_ANNEX_B_START, place + 3)
