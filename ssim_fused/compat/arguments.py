"""Argument checks of the drop-ins, with messages in the words of the function that was called.

Every public function checks its arguments here before it computes, so that messages have its own argument names and
the shapes that the caller passed. :func:`speaks_of` translates errors that the library itself raises later.
"""

from __future__ import annotations

import functools
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from ssim_fused._core._ops import TYPE_RANGES
from ssim_fused._core.window import DefaultRange as DefaultRange

P = ParamSpec("P")
R = TypeVar("R")

IMAGES = {4: "[N, C, H, W]"}
VOLUMES = {5: "[N, C, D, H, W]"}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def speaks_of(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function so that the library's errors have its argument names.

    ``speaks_of(preds="X")`` replaces ```preds``` by ```X``` in the message of any exception.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            try:
                return function(*args, **kwargs)
            except Exception as error:  # of any type: only its message changes
                told = _translated(str(error), names)
                if told == str(error) or error.args != (str(error),):
                    raise
                raise type(error)(told) from error

        return call

    return decorate


def _translated(message: str, names: Mapping[str, str]) -> str:
    return re.sub(r"`(\w+)([^`]*)`", lambda found: f"`{names.get(found[1], found[1])}{found[2]}`", message)


def check_images(x: Any, y: Any, names: tuple[str, str], shapes: Mapping[int, str] = IMAGES) -> None:
    """Checks that both images are dense tensors of real numbers with the same shape and device.

    ``shapes`` maps each accepted number of dimensions to its description for messages.
    """
    for name, image in zip(names, (x, y), strict=True):
        if not isinstance(image, Tensor):
            raise TypeError(f"`{name}` is a {type(image).__name__}, expected a torch.Tensor.")
    for name, image in zip(names, (x, y), strict=True):
        if image.layout != torch.strided or image.is_nested:
            kind = "a nested tensor" if image.is_nested else f"of layout {image.layout}"
            raise NotImplementedError(f"`{name}` is {kind}, expected a dense tensor: convert it by `.to_dense()`.")
        if image.is_complex():
            raise NotImplementedError(
                f"`{name}` has the dtype {image.dtype}, expected real numbers: pass `.real` and `.imag`, or `.abs()`."
            )
        if image.is_floating_point() and image.dtype not in _FLOATS:
            raise NotImplementedError(
                f"`{name}` has the dtype {image.dtype}, expected float32, float64, float16 or bfloat16: convert it by "
                "`.float()`."
            )
    check_same(x.shape, y.shape, names)
    if x.ndim not in shapes:
        hint = f" For a single image, pass `{names[0]}.unsqueeze(0)`." if x.ndim == 3 and 4 in shapes else ""
        expected = " or ".join(shapes.values())
        raise ValueError(f"`{names[0]}` has the shape {tuple(x.shape)}, expected {expected}.{hint}")
    if x.shape[1] == 0:
        raise ValueError(f"`{names[0]}` has the shape {tuple(x.shape)}, expected at least one channel.")
    if x.device != y.device:
        raise RuntimeError(
            f"`{names[0]}` is on {x.device} and `{names[1]}` on {y.device}, expected one device: move one of them by "
            "`.to(...)`."
        )


def check_same(first: Sequence[int], second: Sequence[int], names: tuple[str, str]) -> None:
    """Checks that two shapes are equal."""
    if tuple(first) != tuple(second):
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` have the shapes {tuple(first)} and {tuple(second)}, expected the same "
            "shape: crop or resize one of them."
        )


def check_range(
    name: str, value: Any, x: Tensor, y: Tensor, names: tuple[str, str], takes_wide_integers: bool = False
) -> float:
    """Returns the range of the images: the given one, or for integers that of their dtype.

    Args:
        name: The name of the range argument.
        value: The value that the caller passed, or the :class:`DefaultRange` of the signature.
        x: The first image.
        y: The second image.
        names: The names of the image arguments.
        takes_wide_integers: Whether int32, int64 and bool images are accepted if a range is given.

    """
    is_given = not isinstance(value, DefaultRange)
    number = check_positive(name, value)
    if x.is_floating_point() and y.is_floating_point():
        return number
    for image, its in zip((x, y), names, strict=True):
        if not image.is_floating_point() and image.dtype not in TYPE_RANGES and not (is_given and takes_wide_integers):
            others = f", or pass `{name}`" if takes_wide_integers else ""
            raise NotImplementedError(
                f"`{its}` has the dtype {image.dtype}, expected uint8, uint16, int8, int16 or floating point, because "
                f"this dtype does not define the range of the pixels: convert it, for instance by `{its}.float()` or, "
                f"if its pixels lie in 0 to 255, by `{its}.to(torch.uint8)`{others}."
            )
    if x.dtype == y.dtype:
        return number if is_given else TYPE_RANGES[x.dtype]
    kinds = f"`{names[0]}` has the dtype {x.dtype} and `{names[1]}` {y.dtype}"
    fix = "convert the integers to the range of the other image, for instance by `.float() / 255`"
    if not is_given:
        raise ValueError(f"{kinds}, and `{name}` is not given, expected the range of both: {fix}, or pass `{name}`.")
    if (x.is_floating_point() or y.is_floating_point()) and number < 255:
        raise ValueError(f"{kinds}, and `{name}` is {number:g}, expected the range of both images: {fix}.")
    return number


def check_positive(name: str, value: Any) -> float:
    """Checks a finite number above zero; returns it as a float."""
    number = check_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"`{name}` is {number}, expected a finite number above zero.")
    return number


def check_number(name: str, value: Any) -> float:
    """Checks a real number, or a zero-dimensional tensor or array of one; returns it as a float."""
    if isinstance(value, torch.SymFloat | torch.SymInt):
        return value  # in a trace the number stays symbolic
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number:
        of_one = getattr(value, "ndim", None) == 0 and not getattr(value, "is_meta", False)
        if not (of_one and not isinstance(item := value.item(), complex | bool)):
            raise TypeError(f"`{name}` is {value!r}, a {type(value).__name__}, expected a number.")
        value = item
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"`{name}` is too large for a float, expected a smaller number.") from error


def check_constants(**constants: Any) -> list[float]:
    """Checks that constants such as ``k1`` and ``k2`` are finite and not negative; returns them as floats."""
    found = []
    for name, value in constants.items():
        number = check_number(name, value)
        if not 0 <= number < math.inf:
            raise ValueError(f"`{name}` is {number}, expected a finite number >= 0.")
        found.append(number)
    return found


def check_pair(name: str, value: Any) -> tuple[float, float]:
    """Checks a sequence of two constants; returns them as floats."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"`{name}` is {value!r}, expected a sequence of two numbers.")
    first, second = (check_constants(**{name: constant})[0] for constant in value)
    return first, second


def check_exponents(name: str, value: Any) -> list[float]:
    """Checks the exponents of the levels of MS-SSIM, a sequence with one number per level."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) == 0:
        raise ValueError(f"`{name}` is {value!r}, expected a sequence of numbers, one per level.")
    return [check_number(name, exponent) for exponent in value]


def check_size(name: str, value: Any, odd: bool = True) -> int:
    """Checks a number of taps."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"`{name}` is {value!r}, a {type(value).__name__}, expected an integer.")
    if value < 1 or (odd and value % 2 == 0):
        raise ValueError(f"`{name}` is {value}, expected {'an odd number' if odd else 'a number'} above zero.")
    return int(value)


def check_choice(name: str, value: Any, choices: Sequence[str], kind: type[Exception] = ValueError) -> str:
    """Checks that a value is one of the words in ``choices``, or an enumeration member with such a value."""
    word = getattr(value, "value", value)
    if not isinstance(word, str) or word not in choices:
        words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise kind(f"`{name}` is {value!r}, expected {words}.")
    return word


def per_axis(name: str, value: Any, axes: int) -> tuple:
    """Returns one value per axis; a single value applies to all axes."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(f"`{name}` is {value!r}, expected a number or a sequence of {axes}, one per axis.")
    return tuple(value)


def check_room(
    name: str,
    shape: Sequence[int],
    least: Sequence[int],
    why: str,
    words: Sequence[str] = ("depth", "height", "width"),
    passed: Sequence[int] | None = None,
) -> None:
    """Checks that images are large enough.

    Args:
        name: The name of the image argument.
        shape: The shape of the images.
        least: The least lengths of the last axes.
        why: The reason for the message, with the name of its argument: "the window of `win_size` 11".
        words: The names of the last axes.
        passed: The shape that the caller passed, if it differs from ``shape``.

    """
    given = tuple(shape if passed is None else passed)
    for word, n, needed in zip(words[-len(least) :], shape[-len(least) :], least, strict=True):
        if n < needed:
            hint = ""
            if given[-1] in (1, 2, 3, 4) and len(given) >= 4 and given[1] > 4:
                order = ", ".join(map(str, (0, len(given) - 1, *range(1, len(given) - 1))))
                hint = f" If the channels come last, pass `{name}.permute({order})`."
            raise ValueError(
                f"`{name}` has the shape {given}: its {word} {n} must be at least {needed} for {why}.{hint}"
            )
