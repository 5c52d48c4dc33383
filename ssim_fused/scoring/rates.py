"""Bit rates of videos, for the plot of rate against distortion."""

from __future__ import annotations

from ssim_fused.scoring.errors import lacks_extra


def bit_rate(path: str) -> float | None:
    """The kilobits a second of a file's video stream, from its packets; None where their times are not known."""
    try:
        return _bit_rate(path)
    except Exception as error:  # a file that was scored and is gone, or whose packets cannot be listed
        if lacks_extra(error):
            raise
        return None


def _bit_rate(path: str) -> float | None:
    import av

    with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        packets = [(p.size, p.pts, p.duration or 0) for p in container.demux(stream) if p.size]
        size = sum(size for size, _, _ in packets)
        seconds = 0.0
        if packets and all(pts is not None for _, pts, _ in packets):
            begin, end = min(pts for _, pts, _ in packets), max(pts + length for _, pts, length in packets)
            seconds = float((end - begin) * stream.time_base)
        elif stream.average_rate:  # a raw stream has no times
            seconds = len(packets) / float(stream.average_rate)
        return 8 * size / seconds / 1000 if seconds > 0 else None
