"""Wrong arguments of a drop-in raise an exception that names them, in the terms of the function that was called."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compat_calls import DROP_INS, DropIn, pair

from ssim_fused.compat.arguments import speaks_of

EXPECTED = (ValueError, TypeError, NotImplementedError, RuntimeError, IndexError)
# Names from the library's own functions, unknown to users of a drop-in. Names in backquotes are compared below.
FOREIGN = re.compile(r"\b(preds|betas|gaussian_kernel|_Loss|_NoTensorError)\b")


@pytest.fixture(params=DROP_INS)
def drop_in(request: pytest.FixtureRequest) -> DropIn:
    return DROP_INS[request.param]


def refused(drop_in: DropIn, x: Any, y: Any, **arguments: Any) -> str:
    """The message of the exception, after checking that it mentions only arguments of the called function."""
    with pytest.raises(EXPECTED) as raised:
        drop_in(x, y, **arguments)
    message = str(raised.value)
    assert not FOREIGN.search(message), message
    named = set(re.findall(r"`([A-Za-z_]\w*)", message))
    assert named, message
    assert named <= drop_in.names, message
    passed = [str(tuple(image.shape)) for image in (x, y) if hasattr(image, "shape")]
    told = "|".join(drop_in.images)
    for shape in re.findall(rf"`(?:{told})`[^`]* the shapes? (\([^)]*\))", message):
        assert shape in passed, f"{message}\nwas passed {passed}"
    return message


def of_tensors(change: Callable[[torch.Tensor], Any]) -> Callable[[Any], Any]:
    """Applies a change of tensors to arrays, too."""

    def changed(image: Any) -> Any:
        if isinstance(image, torch.Tensor):
            return change(image)
        found = change(torch.from_numpy(image))
        return found.numpy() if isinstance(found, torch.Tensor) else found

    return changed


IMAGES: dict[str, Callable[[Any], Any]] = {
    "complex": of_tensors(lambda i: i.to(torch.complex64)),
    "complex128": of_tensors(lambda i: i.to(torch.complex128)),
    "too small": of_tensors(lambda i: i[..., :3]),
    "no pixels": of_tensors(lambda i: i[..., :0]),
    "seven dimensions": of_tensors(lambda i: i.expand(2, 2, 2, *i.shape)),
    "one dimension": lambda i: i.flatten() if isinstance(i, torch.Tensor) else i.flatten()[None, None, None, None],
}
OF_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "list": lambda i: i.tolist(),
    "array": lambda i: i.numpy(),
    "None": lambda i: None,
    "number": lambda i: 1.0,
    "sparse": lambda i: i.to_sparse(),
    "float8": lambda i: i.to(torch.float8_e4m3fn),
    "no channels": lambda i: i[:, :0],
}


@pytest.mark.parametrize("kind", [*IMAGES, *OF_TENSORS])
def test_values_that_are_not_images(drop_in: DropIn, kind: str) -> None:
    if drop_in.is_of_arrays and kind in OF_TENSORS:
        pytest.skip("a case of tensors only")
    change = IMAGES.get(kind) or OF_TENSORS[kind]
    x, y = pair(drop_in)
    if kind in ("too small", "no pixels") and drop_in.target.__name__.lower() == "ssim" and not drop_in.windows:
        pytest.skip("the drop-in has a separate test")
    if (
        kind == "too small"
        and drop_in.target.__module__.endswith("pytorch_msssim")
        and "MS" not in drop_in.target.__name__.upper()
    ):
        with pytest.warns(UserWarning, match="An axis of `X` .* is not filtered"):
            drop_in(change(x), change(y))
        return
    if kind == "number" and drop_in.target.__name__.endswith("Metric"):
        change = lambda i: "images"  # noqa: E731
    refused(drop_in, change(x), change(y))
    if kind not in ("too small", "no pixels", "one dimension", "seven dimensions", "no channels"):
        for images in ((change(x), y), (x, change(y))):
            refused(drop_in, *images)


def test_shapes_that_differ(drop_in: DropIn) -> None:
    x, y = pair(drop_in)
    first, second = drop_in.images
    for other in (y[..., 1:], y[1:], y[None]):
        message = refused(drop_in, x, other)
        assert f"`{first}` and `{second}` have the shapes" in message
        assert "expected the same" in message


def test_devices_that_differ(drop_in: DropIn) -> None:
    if drop_in.is_of_arrays:
        pytest.skip("arrays have no device")
    x, y = pair(drop_in)
    assert "meta" in refused(drop_in, x, y.to("meta"))
    assert "meta" in refused(drop_in, x.to("meta"), y)


@pytest.mark.parametrize(
    "value", [-1.0, 0, 0.0, float("nan"), float("inf"), 10**400, "1", (0.0, 1.0), 1j, True, [], torch.ones(3)], ids=str
)
def test_invalid_ranges(drop_in: DropIn, value: Any) -> None:
    if drop_in.ranges is None:
        pytest.skip("the drop-in has no data range")
    message = refused(drop_in, *pair(drop_in), **{drop_in.ranges: value})
    assert message.startswith(f"`{drop_in.ranges}` is ")


def test_windows_larger_than_any_image_are_not_built() -> None:
    """They would have a gigabyte of taps, but only their size is compared with the image."""
    for name, drop_in in DROP_INS.items():
        if drop_in.windows and not name.startswith("pytorch_msssim"):
            size = 2**30 + 1
            value = (size, size) if name == "monai.compute_ssim_and_cs" else size
            refused(drop_in, *pair(drop_in), **{drop_in.windows: value})
    drop_in = DROP_INS["pytorch_msssim.ssim"]
    with pytest.warns(UserWarning, match="is not filtered"):
        assert torch.isfinite(drop_in(*pair(drop_in), win_size=2**30 + 1))


@pytest.mark.parametrize("value", [0, -3, 4, "5", 5.5, None, True, 99], ids=str)
def test_windows_that_do_not_fit(drop_in: DropIn, value: Any) -> None:
    package, name = drop_in.target.__module__.rsplit(".", 1)[1], drop_in.target.__name__
    takes_even, skips_short = package == "monai", package == "pytorch_msssim" and name.lower() == "ssim"
    if drop_in.windows is None or (value == 4 and takes_even) or (value == 99 and skips_short):
        pytest.skip("the drop-in accepts this window")
    if drop_in.is_of_arrays and value is None:
        pytest.skip("None is the default")
    if name == "compute_ssim_and_cs":
        value = (value, value)
    assert f"`{drop_in.windows}`" in refused(drop_in, *pair(drop_in), **{drop_in.windows: value})


OTHERS: list[tuple[str, list[Any]]] = [
    ("reduction", ["batch", 1, None, ["mean"]]),
    ("padding", ["zero", 1, None]),
    ("K", [(0.01,), 0.01, (0.01, -1), (0.01, "x"), "ab", (0.01, float("nan"))]),
    ("k1", [-0.1, "x", None, float("nan"), 1j]),
    ("k2", [-0.1, "x", None, float("inf")]),
    ("K1", [-0.1, "x", None]),
    ("K2", [-0.1, "x", None]),
    ("eps", [-1.0, "x", None, float("nan")]),
    ("win_sigma", [0.0, -1.0, "x", None, float("nan")]),
    ("kernel_sigma", [0.0, -1.0, "x", None, float("nan"), float("inf")]),
    ("sigma", [-1.0, "x", None, float("nan")]),
    ("weights", [[], "ab", 3, [None], ["x"]]),
    ("scale_weights", [[0.5, 0.5], torch.ones(2, 2), torch.tensor(1.0), 1.0]),
    ("spatial_dims", [1, 4, "2", None]),
    ("kernel_type", ["box", 1, None]),
    ("channel_axis", [5, -4, "x"]),
    ("window", [torch.eye(3), -torch.ones(3), torch.ones(2, 2, 2)]),
    ("win", ["x", torch.ones(3, 1, 1, 5), torch.ones(1, 1, 1, 4), torch.ones(5), -torch.ones(1, 1, 1, 5)]),
]


@pytest.mark.parametrize(("argument", "values"), OTHERS, ids=[name for name, _ in OTHERS])
def test_other_arguments(drop_in: DropIn, argument: str, values: list[Any]) -> None:
    if argument not in drop_in.names:
        pytest.skip("the drop-in has no such argument")
    if argument == "spatial_dims" and "pytorch_msssim" in drop_in.target.__module__:
        pytest.skip("the drop-in takes the number of axes from the images")
    for value in values:
        if argument == "padding" and value is None and "kornia" in drop_in.target.__module__:
            continue  # "none" is a valid string there
        message = refused(drop_in, *pair(drop_in), **{argument: value})
        assert f"`{argument}`" in message, message


RANGES = {torch.uint8: 255, torch.int8: 255, torch.uint16: 65535, torch.int16: 65535}


@pytest.mark.parametrize("dtype", RANGES, ids=str)
def test_integers_have_the_range_of_their_type(drop_in: DropIn, dtype: torch.dtype) -> None:
    """The result is that of the same values in float64, whether the range is given or not."""
    if drop_in.is_of_arrays:
        pytest.skip("the drop-in is compared with the package instead")
    data_range = RANGES[dtype]
    low = 0 if drop_in.target.__module__.endswith("piq") else torch.iinfo(dtype).min  # piq refuses negative pixels
    high = min(torch.iinfo(dtype).max, low + data_range)
    x, y = ((low + (high - low) * image).round().to(dtype) for image in pair(drop_in))
    found = drop_in(x, y)
    if drop_in.ranges is None:
        scaled = drop_in(x.double() / data_range, y.double() / data_range)
        torch.testing.assert_close(found.double(), scaled, rtol=1e-4, atol=1e-4)
        return
    given = {drop_in.ranges: data_range}
    for other in (drop_in(x, y, **given), drop_in(x.double(), y.double(), **given)):
        for ours, theirs in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, other)), strict=True):
            assert ours.dtype == (torch.float64 if "matlab" in drop_in.target.__module__ else torch.float32)
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=2e-4)


INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.uint8, torch.uint16]


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_a_float_image_with_an_integer_one(drop_in: DropIn, dtype: torch.dtype) -> None:
    if drop_in.is_of_arrays:
        pytest.skip("the drop-in needs an explicit range for both images")
    x, y = pair(drop_in)
    integers = (100 * y).to(dtype)
    for images in ((x, integers), (integers, x)):
        message = refused(drop_in, *images)
        assert f"{dtype}" in message
        assert ".float()" in message
        if drop_in.ranges:
            refused(drop_in, *images, **{drop_in.ranges: 2.0})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.bool], ids=str)
def test_integers_of_other_dtypes(drop_in: DropIn, dtype: torch.dtype) -> None:
    if drop_in.is_of_arrays:
        pytest.skip("the drop-in accepts them, like the package")
    x, y = ((200 * image).to(dtype) for image in pair(drop_in))
    assert f"{dtype}" in refused(drop_in, x, y)


def test_channels_that_come_last() -> None:
    for name, drop_in in DROP_INS.items():
        if name in ("piq.ssim", "kornia.ssim", "fused_ssim.fused_ssim", "monai.SSIMLoss"):
            message = refused(drop_in, *(image[:, 0, ..., None].expand(2, 20, 21, 3) for image in pair(drop_in)))
            assert f"`{drop_in.images[0]}.permute(0, 3, 1, 2)`" in message
    drop_in = DROP_INS["kornia.ssim"]
    assert "`img1.unsqueeze(0)`" in refused(drop_in, *(image[0] for image in pair(drop_in)))


@pytest.mark.parametrize("name", ["matlab.ssim", "matlab.ssim_index", "ffmpeg.ssim"])
def test_images_smaller_than_the_window(name: str) -> None:
    drop_in = DROP_INS[name]
    x, y = pair(drop_in)
    for n in (0, 1, 7):
        assert f"its width {n} must be at least" in refused(drop_in, x[..., :n], y[..., :n])


def test_errors_of_the_library_use_the_drop_ins_names() -> None:
    @speaks_of(preds="X", target="Y", kernel_size="win_size")
    def call(error: Exception) -> None:
        raise error

    with pytest.raises(RuntimeError, match=r"^`X` is on cuda:0, move it by `Y\.to\(X\.device\)`; `win_size`$"):
        call(RuntimeError("`preds` is on cuda:0, move it by `Y.to(X.device)`; `kernel_size`"))
    untouched = KeyError("preds", 1)
    with pytest.raises(KeyError) as raised:
        call(untouched)
    assert raised.value is untouched


def test_refused_calls_do_not_change_images(drop_in: DropIn) -> None:
    x, y = pair(drop_in)
    arrays = [np.asarray(image) for image in (x, y)]
    copies = [array.copy() for array in arrays]
    refused(drop_in, x, y[..., 1:])
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)
