"""The settings of a scoring run, validated once, and presets that match the definitions of other libraries."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from ssim_fused.scoring import ignored
from ssim_fused.scoring.errors import UsageError
from ssim_fused.scoring.luma import Luma
from ssim_fused.scoring.readers.samples import MAX_PIXELS, Limits
from ssim_fused.scoring.video import Raw

Metric = Literal["ssim", "ms-ssim", "psnr"]
Padding = Literal["reflect", "zero", "valid"]
WindowShape = Literal["gaussian", "uniform"]

METRICS: tuple[str, ...] = get_args(Metric)
PADDINGS: tuple[str, ...] = get_args(Padding)
WINDOWS: tuple[str, ...] = get_args(WindowShape)
LUMAS: tuple[str, ...] = get_args(Luma)
LARGEST_SIDE = 2**31 - 1  # pixels of a window; no picture is larger
MOST_WORKERS = 1024  # threads; each holds a pair of pictures in memory
ALIGNMENTS = ("number", "pts")


def cores() -> int:
    """Returns the number of cores this process may use, or, on macOS, which has no affinity, of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The definition of SSIM of another library.

    Attributes:
        padding: ``"reflect"``, ``"zero"``, or ``"valid"``: no padding, only windows inside the picture.
        window: the shape of the window; ``"gaussian"`` uses ``sigma``, ``"uniform"`` uses ``kernel_size``.
        sigma: standard deviation of the Gaussian window in pixels.
        kernel_size: side of the uniform window in pixels.
        sample_covariance: divide variances by n - 1 instead of n, the default of scikit-image.
        luma: the luma formula, if the library scores a single channel.
        multiscale: whether the MS-SSIM of the library is implemented here.
        padded_pooling: multiply the MS-SSIM levels per channel, and pad odd sides by zeros before 2x2 averaging.
        blocks: use FFmpeg's filter: 8x8 windows at every fourth pixel, and its own constants.

    """

    padding: Padding = "valid"
    window: WindowShape = "gaussian"
    sigma: float = 1.5
    kernel_size: int = 11
    sample_covariance: bool = False
    luma: Luma | None = None
    multiscale: bool = False
    padded_pooling: bool = False
    blocks: bool = False


CONVENTIONS = {
    "torchmetrics": Convention(padding="reflect", multiscale=True),
    "pytorch-msssim": Convention(multiscale=True, padded_pooling=True),
    "skimage": Convention(window="uniform", kernel_size=7, sample_covariance=True),
    "matlab": Convention(luma="bt601"),  # Wang's ssim_index.m, applied to the output of rgb2gray
    "basicsr": Convention(),
    "ffmpeg": Convention(window="uniform", kernel_size=8, blocks=True),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a scoring run. Those that are None take the value of the convention.

    Attributes:
        metric: metrics to compute, of ``"ssim"``, ``"ms-ssim"`` and ``"psnr"``. The first ranks the pairs and is
            compared with ``--fail-under``.
        convention: a key of ``CONVENTIONS``; None means ``"torchmetrics"``.
        padding: ``"reflect"``, ``"zero"`` or ``"valid"``.
        window: ``"gaussian"``, with ``sigma``, or ``"uniform"``, with ``kernel_size``.
        sigma: standard deviation of the Gaussian window in pixels; its side is ``2 int(3.5 sigma + 0.5) + 1``.
        kernel_size: side of the uniform window in pixels, an odd number.
        luma: score luma only, by this formula: ``"bt601"`` (or True), ``"bt709"`` or ``"matlab"``. For two videos,
            luma is the Y plane and the formula is not used.
        rgb: score two videos as RGB instead of by plane (Y, U, V).
        crop: pixels removed from each side before scoring.
        ignore: rectangles ``(x, y, w, h)`` to exclude, in pixels of the picture before ``crop``.
        resize: scale the distorted picture to the size of the reference. Otherwise a different size is an error.
        frames: frames of a video to score, ``(start, stop, step)``; with ``align="pts"`` of the distorted video.
        align: match the frames of two videos by ``"number"``, or by presentation time, ``"pts"``.
        size: frame size of raw video files, such as ``"1920x1080"``.
        pix_fmt: pixel format of raw video files, an FFmpeg name such as ``"yuv420p"``.
        data_range: the value of white of floating-point pictures, and of pictures that store fewer bits than their
            samples have, such as 12 bits in 16.
        max_pixels: refuse pictures of more pixels before they are decoded.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        batch: the largest number of pairs of equal size scored by one kernel call.
        workers: number of decoding threads.
        channels: also return the SSIM of each channel.
        keep: return the pixels with the scores, for heat maps and reports.

    Raises:
        UsageError: a value is out of range, or two settings contradict each other.

    Example:
        >>> from ssim_fused.scoring import Settings
        >>> Settings(convention="skimage", luma="bt601").resolved().kernel_size
        7

    """

    metric: tuple[str, ...] = ("ssim",)
    convention: str | None = None
    padding: str | None = None
    window: str | None = None
    sigma: float | None = None
    kernel_size: int | None = None
    luma: str | bool | None = None
    rgb: bool = False
    crop: int = 0
    ignore: tuple[ignored.Rectangle, ...] = ()
    resize: bool = False
    frames: tuple[int, int | None, int] = (0, None, 1)
    align: str = "number"
    size: str | None = None
    pix_fmt: str | None = None
    data_range: float | None = None
    max_pixels: int = MAX_PIXELS
    device: str = "auto"
    batch: int = 8
    workers: int = field(default_factory=cores)
    channels: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.luma, bool):
            object.__setattr__(self, "luma", "bt601" if self.luma else None)
        _check_choices("metric", self.metric, METRICS)
        if not self.metric or len(set(self.metric)) < len(self.metric):
            raise UsageError(
                f"metric is {','.join(self.metric)!r}; expected one or more of {', '.join(METRICS)}, each at most once."
            )
        for name, choices in (("convention", tuple(CONVENTIONS)), ("padding", PADDINGS), ("window", WINDOWS),
                              ("luma", LUMAS), ("align", ALIGNMENTS)):  # fmt: skip
            if getattr(self, name) is not None:
                _check_choices(name, (getattr(self, name),), choices)
        for name, least in (("crop", 0), ("max_pixels", 1), ("batch", 1), ("workers", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least {least}.")
        if self.workers > MOST_WORKERS:
            raise UsageError(f"workers is {self.workers}; expected at most {MOST_WORKERS}.")
        if self.data_range is not None and not (self.data_range > 0 and math.isfinite(self.data_range)):
            raise UsageError(f"data_range is {self.data_range}; expected a number above 0.")
        object.__setattr__(self, "ignore", tuple(tuple(rectangle) for rectangle in self.ignore))
        ignored.check(self.ignore)
        start, stop, step = self.frames
        if start < 0 or step < 1 or (stop is not None and stop <= start):
            raise UsageError(f"frames is {range_text(self.frames)}; expected A:B:STEP with 0 <= A < B and STEP >= 1.")
        if self.rgb and self.luma:
            raise UsageError(f"rgb is True and luma is {self.luma!r}; expected at most one of them; remove the other.")
        self._check_window()
        self.raw  # noqa: B018 - raises if size or pix_fmt is invalid

    @property
    def raw(self) -> Raw | None:
        """The size and pixel format of raw video files, or None if they are not given.

        Raises:
            UsageError: one of ``size`` and ``pix_fmt`` is missing or invalid.

        """
        if self.size is None and self.pix_fmt is None:
            return None
        if self.size is None or self.pix_fmt is None:
            raise UsageError(
                f"size is {self.size!r} and pix_fmt is {self.pix_fmt!r}; raw video files need both, such as size "
                "1920x1080 and pix_fmt yuv420p."
            )
        sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", self.size)
        if sides is None:
            raise UsageError(f"size is {self.size!r}; expected WIDTHxHEIGHT, such as 1920x1080.")
        return Raw(int(sides[1]), int(sides[2]), self.pix_fmt)

    def _check_window(self) -> None:
        preset = self._preset()
        window = self.window or preset.window
        if preset.blocks and any(
            value is not None for value in (self.padding, self.window, self.sigma, self.kernel_size)
        ):
            raise UsageError(
                "convention is 'ffmpeg', which has a fixed window; remove padding, window, sigma and kernel_size."
            )
        if preset.blocks and self.ignore:
            raise UsageError("convention is 'ffmpeg', which does not support ignore; remove one of the two.")
        if self.sigma is not None and window == "uniform":
            raise UsageError(
                f"sigma is {self.sigma}, but the window is uniform; give kernel_size instead, or window gaussian."
            )
        if self.kernel_size is not None and window == "gaussian":
            raise UsageError(
                f"kernel_size is {self.kernel_size}, but the window is Gaussian, whose size follows from sigma; give "
                "sigma instead, or window uniform."
            )
        if self.kernel_size is not None and (self.kernel_size < 1 or self.kernel_size % 2 == 0):
            raise UsageError(f"kernel_size is {self.kernel_size}; expected an odd number.")
        if self.sigma is not None and not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise UsageError(f"sigma is {self.sigma}; expected a number above 0.")
        if max(self.kernel_size or 0, 7 * (self.sigma or 0)) > LARGEST_SIDE:
            name = "sigma" if self.sigma else "kernel_size"
            raise UsageError(f"{name} is {getattr(self, name)}; expected a window of at most {LARGEST_SIDE} pixels.")
        if "ms-ssim" in self.metric and not preset.multiscale:
            raise UsageError(f"convention is {self.convention!r}, which has no ms-ssim here; remove one of the two.")

    def limits(self) -> Limits:
        """Returns the limits that picture readers apply."""
        return Limits(self.data_range, self.max_pixels)

    def _preset(self) -> Convention:
        return CONVENTIONS[self.convention or "torchmetrics"]

    def resolved(self) -> Convention:
        """Returns the definition that is computed: the settings that are given, and the convention for the others."""
        preset = self._preset()
        given = {f.name: getattr(self, f.name, None) for f in fields(preset)}
        return replace(preset, **{name: value for name, value in given.items() if value is not None})

    def k2(self) -> float:
        """Returns the contrast constant K2.

        Sample covariances are n/(n - 1) times the population covariances. Dividing the numerator and the denominator
        of CS by n/(n - 1) leaves population covariances, and C2 = (K2 L)^2 divided by n/(n - 1).
        """
        convention = self.resolved()
        if not convention.sample_covariance:
            return 0.03
        gaussian = convention.window == "gaussian"
        side = 2 * int(3.5 * convention.sigma + 0.5) + 1 if gaussian else convention.kernel_size
        return 0.03 * math.sqrt((side**2 - 1) / side**2)


def range_text(frames: tuple[int, int | None, int]) -> str:
    """Returns a range of frames as the option ``--frames`` takes it, ``A:B:STEP``."""
    start, stop, step = frames
    return f"{start}:{'' if stop is None else stop}:{step}"


def _check_choices(name: str, given: Any, choices: tuple[str, ...]) -> None:
    for value in given:
        if value not in choices:
            raise UsageError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")
