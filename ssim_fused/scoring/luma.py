"""Luma of RGB pixels. A video's luma is its own first plane, which no formula here touches."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ssim_fused.scoring.picture import Picture

Luma = Literal["bt601", "bt709", "matlab"]

# Weights of red, green and blue, and what is added, of 1.
WEIGHTS = {
    "bt601": ((0.299, 0.587, 0.114), 0.0),  # ITU-R BT.601, full range; MATLAB's rgb2gray
    "bt709": ((0.2126, 0.7152, 0.0722), 0.0),  # ITU-R BT.709, full range
    # MATLAB's rgb2ycbcr, BasicSR's test_y_channel: BT.601 in the limited range, black at 16 of 255, white at 235.
    "matlab": ((65.481 / 255, 128.553 / 255, 24.966 / 255), 16 / 255),
}


def to_luma(picture: Picture, formula: Luma) -> Picture:
    """One channel of float32, not rounded, in 0..peak; a plane of a video as it is."""
    weights, offset = WEIGHTS[formula]
    if not picture.full_range:
        return picture
    if picture.pixels.shape[0] == 1:
        if formula != "matlab":
            return picture
        grey = picture.pixels.float() * sum(weights) + offset * picture.peak
        return replace(picture, pixels=grey)
    red, green, blue = (channel.float() for channel in picture.pixels)
    luma = weights[0] * red + weights[1] * green + weights[2] * blue
    return replace(picture, pixels=(luma + offset * picture.peak)[None])
