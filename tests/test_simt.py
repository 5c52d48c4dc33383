"""The CUDA kernels of images, run on the host by tests/simt under AddressSanitizer and UBSan, against float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_program import host_program
from simt_cases import C1, C2, FULL, Case, check, exact, pictures, terms
from simt_host import Host
from simt_operators import check_operators, is_operators
from torchmetrics.functional.image import structural_similarity_index_measure as reference


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The kernels, compiled for the host; kept between runs until a source changes."""
    return host_program("images", request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("simt"))


@pytest.fixture
def host(driver: Path, tmp_path: Path) -> Host:
    return Host(driver, tmp_path)


def cases() -> list[Case]:
    every: list[Case] = []
    # Training has strips of 96 columns, which own 84 and up to 91 where they are the last, and single ones of 64;
    # values have strips of 64. Steps are of 8 rows. Symmetric windows have derivatives mirrored at the border, others
    # folded.
    widths = [6, 10, 11, 12, 59, 60, 63, 64, 65, 83, 84, 85, 91, 92, 96, 168, 176]
    heights = [6, 7, 10, 11, 12, 16, 19, 27, 33]
    for i, width in enumerate(widths):
        height = heights[i % len(heights)]
        every.append(Case((1, 2, height, width)))
        every.append(Case((1, 1, height, width), gradients="", seed=1))
        every.append(Case((1, 1, height, width), symmetric=True, seed=3))
        if width <= 64:
            every.append(Case((1, 1, height, width), symmetric=i % 4 != 0, single_strip=True, seed=4))
    # The wider ones: several strips of 128 (owning 116, at last 123) and of 256 (244, 251), and single ones.
    for columns, inside, last in ((128, 116, 123), (256, 244, 251)):
        for width in (inside + 1, last, last + 1, inside + last):
            for objective in ("similarity", "contrast_sensitivity"):
                if objective == "similarity" or (columns, width) == (128, last + 1):
                    every.append(Case((1, 1, 19, width), strip_columns=columns, symmetric=True, objective=objective))
        every.append(Case((1, 1, 21, last + 9), strip_columns=columns, split_rows=12))
    for width in (65, 100, 123, 127, 128):
        every.append(Case((1, 1, 22, width), strip_columns=128, single_strip=True, symmetric=width != 100))
    every.append(
        Case((1, 1, 20, 250), strip_columns=256, single_strip=True, objective="contrast_sensitivity", pad=(0, 0))
    )
    every += [Case((1, 1, height, 24), seed=2) for height in heights]
    every += [Case((2, 1, 37, 30), split_rows=rows) for rows in (1, 3, 4, 8, 12, 36)]
    every += [Case((2, 1, 37, 30), split_rows=rows, gradients="") for rows in (1, 6, 14)]
    # Blocks that begin and end anywhere, with one strip or several.
    every += [
        Case((2, 2, 19, width), split_rows=rows, crossing=True) for width in (40, 100) for rows in (5, 13, 50, 999)
    ]
    every += [Case((2, 2, 19, 70), split_rows=rows, crossing=True, gradients="") for rows in (7, 38, 45)]
    every.append(Case((2, 2, 19, 70), split_rows=45, crossing=True, want_map=True, **FULL))
    every += [Case((1, 1, 30, 140)), Case((1, 1, 30, 140), strip_columns=128, gradients="")]
    every += [Case((1, 1, 30, 76), strip_columns=64, split_rows=12, **FULL)]
    every += [Case((1, 1, 30, 140), symmetric=True, padding_mode=mode) for mode in ("zero", "reflect")]
    for width in (22, 130, 200, 248, 255, 256):
        every.append(Case((1, 1, 22, width), strip_columns=256, single_strip=True, symmetric=width != 200))
    every += [Case((1, 1, 22, width), strip_columns=128, gradients="") for width in (70, 128, 129, 260)]
    every += [Case((2, 1, 37, 48), single_strip=True, symmetric=True, split_rows=rows) for rows in (3, 12)]
    both = {"gradients": "preds target", "symmetric": True}
    every += [Case((1, 1, 20, 60), single_strip=True, **both), Case((1, 1, 20, 80), **both)]
    contrast = {"objective": "contrast_sensitivity", "symmetric": True}
    every += [Case((1, 1, 20, 60), single_strip=True, **contrast), Case((1, 1, 20, 130), strip_columns=128, **contrast)]
    every += [replace(case, gradients="preds target", strip_columns=64) for case in (every[-2], every[-1])]
    # Modes, on shapes that are whole vectors and that are not.
    for shape in ((2, 2, 21, 56), (1, 1, 18, 61)):
        for mode, pad in (
            ("reflect", None),
            ("zero", None),
            ("reflect", (0, 0)),
            ("reflect", (2, 5)),
            ("zero", (3, 1)),
        ):
            base = Case(shape, pad=pad, padding_mode=mode)
            every += [
                base,
                replace(base, gradients="preds target"),
                replace(base, gradients=""),
                replace(base, want_map=True, **FULL),
            ]
    every += [
        Case(gradients="target"),
        Case(gradients="target", upstream="map"),
        Case(gradients="constants", constants=1),
        Case((3, 1, 14, 20), gradients="preds constants", constants=2, as_distance=True),
        Case((3, 2, 14, 20), gradients="", as_distance=True, want_map=True),
        Case(gradients="", want_map=True),
        Case(gradients="preds constants", constants=1, shape=(3, 2, 14, 20)),
        Case(objective="contrast_sensitivity"),
        Case(objective="contrast_sensitivity", pad=(0, 0)),
        Case(objective="contrast_sensitivity", pad=(3, 1), padding_mode="zero"),
        Case((1, 1, 60, 130), objective="contrast_sensitivity", split_rows=12),
        Case(objective="contrast_sensitivity", gradients="preds target", shape=(2, 3, 13, 17)),
        Case(upstream="similarity", shape=(3, 1, 15, 20)),
        Case(upstream="contrast", shape=(3, 1, 15, 20)),
        Case(offset=250.0, gradients="preds target"),
    ]
    for layout in ("channels_last", "padded", "aligned", "sliced"):
        every += [Case((2, 3, 14, 56), layout=layout, gradients="preds target", want_map=True)]
        every += [Case((2, 3, 14, 56), layout=layout)]
    # Shorter windows, also of two sizes, in the smallest pictures, too.
    for size in (1, 3, 5, 7, 9):
        every.append(Case((1, 1, 20, 58), sizes=(size, size)))
        every.append(
            Case((1, 1, size // 2 + 1, size // 2 + 1), sizes=(size, size), want_map=True, gradients="preds target")
        )
        every.append(Case((1, 1, size, size), sizes=(size, size), pad=(0, 0), gradients="preds target constants"))
    every += [
        Case((1, 1, 19, 61), sizes=(3, 11), **FULL),
        Case((1, 1, 19, 61), sizes=(11, 5), padding_mode="zero", **FULL),
        Case((1, 1, 1, 1), sizes=(1, 1)),
    ]
    # Wider windows, and windows padded by more than their radius.
    every += [
        Case((2, 2, 30, 34), sizes=(13, 13)),
        Case((1, 1, 30, 34), sizes=(13, 13), gradients=""),
        Case((2, 1, 30, 34), sizes=(21, 15), want_map=True, **FULL),
        Case((1, 1, 30, 34), sizes=(21, 15), padding_mode="zero", **FULL),
        Case((1, 1, 30, 34), sizes=(21, 15), pad=(0, 0), gradients="preds target", upstream="map"),
        Case((1, 1, 12, 300), sizes=(5, 23), gradients="preds target"),
        Case((1, 1, 12, 20), sizes=(5, 5), pad=(2, 9), want_map=True, **FULL),
        Case((1, 1, 12, 20), sizes=(11, 11), pad=(5, 8), padding_mode="zero", gradients="preds target"),
        Case((1, 1, 12, 20), sizes=(3, 31), pad=(1, 15), dtype=torch.float64, **FULL),
        Case((1, 1, 10, 520), sizes=(3, 515), pad=(1, 3), objective="contrast_sensitivity"),
    ]
    # Windows of radius 3 and 11, whose values and gradients have marches of their own: strips of 128 columns, which
    # own 120 and up to 125 where they are the last (104 and 117), of 256 (248, 253; 232, 245), and single ones. What
    # else is asked has the kernels for shorter windows, or goes an axis at a time.
    heights = (12, 13, 22, 23, 24, 31, 45, 46, 47, 54)
    for size, inside, last in ((7, 120, 125), (23, 104, 117)):
        exact_window = {"sizes": (size, size), "strip_columns": 128}
        for i, width in enumerate((12, size, 45, 46, inside, inside + 1, last, last + 1, 128, 129, 209, inside + last)):
            base = Case((1, 2, heights[i % 10], width), **exact_window)
            every += [base, replace(base, symmetric=True, seed=1), replace(base, gradients="", seed=2)]
        for width in (inside + 128, inside + 129, last + 128, last + 129):
            wide = Case((1, 1, 30, width), sizes=(size, size), strip_columns=256, symmetric=width % 2 == 0)
            every += [wide, replace(wide, single_strip=True)] if width <= 256 else [wide]
        for width in (size, 200, 255, 256):
            single = Case((1, 1, 26, width), sizes=(size, size), strip_columns=256, single_strip=True)
            every += [single, replace(single, symmetric=True, split_rows=9)]
        base = Case((2, 2, 57, 61), **exact_window)
        every += [replace(base, split_rows=rows, gradients=asked) for rows in (1, 7, 23, 40) for asked in ("preds", "")]
        every += [replace(base, split_rows=rows, crossing=True, symmetric=True) for rows in (5, 31, 80)]
        radius = size // 2
        for mode, pad in (("zero", None), ("reflect", (0, 0)), ("reflect", (2, radius)), ("zero", (radius, 1))):
            for shape in ((1, 1, 30, 60), (1, 2, 25, 127)):
                some = replace(base, shape=shape, pad=pad, padding_mode=mode, symmetric=mode == "zero")
                every += [some, replace(some, gradients="")]
        layouts = ("channels_last", "padded", "sliced")
        every += [replace(base, shape=(2, 3, 30, 56), layout=layout) for layout in layouts]
        every += [
            replace(base, gradients="target"),
            replace(base, constants=2, as_distance=True),
            replace(base, offset=250.0),
            replace(base, gradients="", pixels=2),
            replace(base, gradients="", objective="contrast_sensitivity"),
        ]
        for dtype in (torch.float16, torch.bfloat16):
            every += [
                replace(base, dtype=dtype),
                replace(base, dtype=dtype, shape=(1, 1, 24, 136), symmetric=True),
                replace(base, dtype=dtype, shape=(1, 1, 24, 250), strip_columns=256, symmetric=True),
                replace(base, dtype=dtype, gradients=""),
            ]
        base = Case((1, 1, 25, 40), sizes=(size, size))
        every += [
            replace(base, gradients="preds target"),
            replace(base, pixels=1),
            replace(base, objective="contrast_sensitivity"),
            replace(base, want_map=True, **FULL),
            replace(base, dtype=torch.float64),
            replace(base, sizes=(size, size - 2)),
            replace(base, sizes=(11, size)),
        ]
    for types in ((torch.uint8,) * 2, (torch.uint16, torch.float32)):
        base = Case((2, 2, 25, 70), sizes=(7, 7), types=types, gradients="", seed=4)
        every += [base, replace(base, pixels=1), replace(base, sizes=(23, 23)), replace(base, want_map=True)]
        every += [replace(base, sizes=(size, size), layout="channels_last") for size in (7, 23)]
    every += [Case((1, 1, 25, width), sizes=(7, 7), single_strip=True, symmetric=True) for width in (6, 40, 64)]
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        for shape in ((2, 1, 14, 56), (1, 1, 13, 67)):
            every += [
                Case(shape, dtype=dtype),
                Case(shape, dtype=dtype, gradients=""),
                Case(shape, dtype=dtype, gradients="preds target"),
                Case(shape, dtype=dtype, want_map=True, constants=1, **FULL),
                Case(shape, dtype=dtype, sizes=(7, 5), **FULL),
                Case(shape, dtype=dtype, sizes=(13, 5), **FULL),
            ]
        if dtype != torch.float64:
            for width in (56, 61):
                every.append(Case((1, 1, 20, width), dtype=dtype, symmetric=True))
                every.append(Case((1, 1, 20, width), dtype=dtype, symmetric=True, single_strip=True))
            for width in (136, 251, 256):
                every.append(Case((1, 1, 20, width), dtype=dtype, symmetric=True, single_strip=True, strip_columns=256))
            every.append(Case((1, 1, 20, 136), dtype=dtype, gradients="", strip_columns=128))
            every.append(Case((1, 1, 20, 264), dtype=dtype, symmetric=True, strip_columns=256))
            every.append(Case((1, 1, 20, 130), dtype=dtype, strip_columns=128, objective="contrast_sensitivity"))
    # With a pixel term: strips of 128 and 256 columns, single ones, blocks that begin anywhere, and the kernels that
    # leave the sum to a pass of its own.
    for pixels in (1, 2, 3):
        base = Case((2, 2, 19, 70), pixels=pixels, symmetric=True, strip_columns=128)
        every += [
            base,
            replace(base, gradients=""),
            replace(base, gradients="preds target"),
            replace(base, shape=(1, 1, 21, 200), split_rows=7, crossing=True, symmetric=False),
            replace(base, sizes=(7, 5), gradients="preds target", strip_columns=64),
            replace(base, sizes=(13, 13), gradients="preds target", strip_columns=64),
            replace(base, dtype=torch.float64, strip_columns=64),
            replace(base, dtype=torch.float16),
            replace(base, dtype=torch.bfloat16, gradients="preds target", strip_columns=64),
        ]
    base = Case((2, 1, 18, 61), pixels=1, symmetric=True)
    every += [
        replace(base, gradients="target", strip_columns=128),
        replace(base, single_strip=True),
        replace(base, shape=(1, 1, 18, 252), single_strip=True, strip_columns=256),
        replace(base, shape=(1, 2, 18, 260), strip_columns=256),
        replace(base, pad=(0, 0), padding_mode="zero", strip_columns=128),
        replace(base, gradients="preds constants", constants=2, strip_columns=64),
    ]
    every += [replace(base, layout=layout, strip_columns=128) for layout in ("channels_last", "sliced")]
    # Integers, and floats beside them: the only gradient is that of the floats.
    for types in ((torch.uint8,) * 2, (torch.uint16,) * 2):
        for shape in ((2, 2, 21, 56), (1, 1, 18, 61)):
            base = Case(shape, types=types, gradients="", seed=4)
            every += [
                base,
                replace(base, layout="channels_last"),
                replace(base, want_map=True, pad=(0, 0)),
                replace(base, sizes=(7, 5), layout="padded", padding_mode="zero"),
                replace(base, sizes=(13, 5), want_map=True, layout="sliced"),
                replace(base, gradients="constants", constants=2),
                replace(base, pixels=2),
            ]
    for integer in (torch.uint8, torch.uint16):
        base = Case((2, 2, 21, 56), types=(torch.float32, integer), symmetric=True, seed=4)
        every += [
            base,
            replace(base, gradients=""),
            replace(base, pixels=1, split_rows=5, crossing=True),
            replace(base, shape=(1, 1, 18, 61), layout="padded", objective="contrast_sensitivity"),
            replace(base, gradients="target", types=(integer, torch.float32), layout="channels_last"),
            replace(base, sizes=(5, 7), upstream="map", want_map=True),
            replace(base, sizes=(13, 13), pixels=3),
        ]
    return list(dict.fromkeys(every))


@pytest.mark.parametrize("case", cases(), ids=Case.id)
def test_kernels_on_the_host(case: Case, host: Host) -> None:
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    if case.strip_columns > 64:  # what the case is about
        assert (host.plan["strip_columns"], host.plan["single"]) == (case.strip_columns, case.single_strip)


@pytest.mark.parametrize("gradients", ["", "preds target"])
def test_the_order_of_threads_does_not_matter(gradients: str, host: Host) -> None:
    """Threads that race would see one another's values in one order and not in the other."""
    case = Case((1, 2, 37, 61), gradients=gradients, split_rows=12)
    preds, target = pictures(case)
    forward, backward = host.run(case, preds, target), host.run(case, preds, target, reverse=True)
    assert all(torch.equal(forward[name], backward[name]) for name in forward)


# Parts of a strip; the whole of one; from strip to strip, of one image into the next.
ABREAST = {"split": {"split_rows": 16}, "whole": {}, "crossing": {"split_rows": 29, "crossing": True}}


@pytest.mark.parametrize("channels", [2, 3, 8])
@pytest.mark.parametrize("gradients", ["", "preds", "preds target"])
@pytest.mark.parametrize("way", ABREAST)
def test_interleaved_channels_side_by_side(way: str, gradients: str, channels: int, host: Host) -> None:
    """As many blocks for each channel; the numbers are those of planes one after the other."""
    case = Case((2, channels, 37, 130), gradients=gradients, layout="channels_last", **ABREAST[way])
    preds, target = pictures(case)
    results = host.run(case, preds, target)
    assert host.plan["abreast"] == channels
    assert host.plan["launched"] % channels == 0
    check(case, results, preds, target)
    planes = host.run(replace(case, layout="contiguous"), preds, target)
    assert host.plan["abreast"] == 1
    if way != "crossing":  # where blocks begin in other rows, they may have other pivots
        assert all(torch.equal(results[name], planes[name]) for name in planes)


def test_more_channels_than_a_sector_of_memory_are_planes(host: Host) -> None:
    case = Case((1, 9, 20, 30), layout="channels_last")
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert host.plan["abreast"] == 1


@pytest.mark.parametrize("sizes", [(11, 11), (7, 7), (7, 3), (13, 13), (23, 23)])
@pytest.mark.parametrize("asked", [{"gradients": "preds target", "want_map": True}, {}], ids=["all", "gradient"])
@pytest.mark.parametrize("pad", [None, (0, 0)], ids=["same", "valid"])
@pytest.mark.parametrize("place", [(14, 50), (0, 3), (29, 63), (5, 5)])
def test_nan_reaches_its_windows_only(
    sizes: tuple[int, int],
    asked: dict[str, object],
    pad: tuple[int, int] | None,
    place: tuple[int, int],
    host: Host,
) -> None:
    case = Case((1, 1, 30, 64), sizes=sizes, pad=pad, split_rows=12, **asked)
    preds, target = pictures(case)
    row, column = place
    preds[0, 0, row, column] = torch.nan
    check(case, host.run(case, preds, target), preds, target)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_the_pivot_is_neither_nan_nor_outlier(bad: float, host: Host) -> None:
    """Samples for the pivot lie at quarters; one bad image must not spoil the next."""
    case = Case((2, 1, 16, 48), want_map=True, offset=100.0)
    preds, target = pictures(case)
    clean = host.run(case, preds, target)
    target[0, 0, 8, 24] = bad
    spoilt = host.run(case, preds, target)
    assert all(torch.equal(clean[name][1], spoilt[name][1]) for name in clean if name != "batch_similarity")
    # Rows the bad pixel does not reach, with another pivot: nearly the same.
    assert (clean["map"][0, 0, :2] - spoilt["map"][0, 0, :2]).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(11, 11), (5, 5), (7, 7), (13, 13), (23, 23)])
@pytest.mark.parametrize("gradients", ["preds", "preds target"])
def test_identical_images_score_exactly_one(
    gradients: str, dtype: torch.dtype, sizes: tuple[int, int], host: Host
) -> None:
    case = Case((2, 1, 25, 40), sizes=sizes, dtype=dtype, gradients=gradients)
    _, target = pictures(case)
    results = host.run(case, target, target)
    assert (results["similarity"] == 1).all()
    assert (results["contrast_sensitivity"] == 1).all()
    assert all((results[f"grad_{name}"] == 0).all() for name in gradients.split())


@pytest.mark.parametrize("sizes", [(11, 11), (7, 7), (13, 13), (23, 23)])
def test_a_tiny_distance_has_digits(sizes: tuple[int, int], host: Host) -> None:
    """A loss of 1e-9, which subtracted from one would be 0 or 6e-8 in float32."""
    case = Case((1, 1, 40, 44), sizes=sizes, gradients="", as_distance=True)
    _, target = pictures(case)
    preds = (target.float() + torch.linspace(-1e-5, 1e-5, 44)).double()
    expected = exact(case, preds, target)["similarity"]
    assert 1e-12 < expected < 1e-8
    torch.testing.assert_close(host.run(case, preds, target)["similarity"], expected, rtol=1e-2, atol=0)


def test_the_planner_cuts_the_picture(host: Host) -> None:
    """Left to itself, on a device of four SMs, it uses several splits; with the right results."""
    case = Case((1, 1, 70, 70), strip_columns=0)
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert host.plan["blocks"] > host.plan["strips"]


@pytest.mark.parametrize(
    ("shape", "asked", "marches"),
    [
        ((1, 1, 64, 64), {}, True),
        ((1, 1, 63, 70), {}, False),
        ((1, 1, 70, 63), {"gradients": ""}, False),
        ((1, 1, 64, 64), {"dtype": torch.float16}, False),
        ((1, 1, 64, 64), {"gradients": "preds target"}, False),
    ],
    ids=str,
)
def test_small_pictures_take_long_windows_an_axis_at_a_time(
    shape: tuple[int, ...], asked: dict[str, object], marches: bool, host: Host
) -> None:
    case = Case(shape, sizes=(23, 23), strip_columns=0, **asked)
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)
    assert ("strip_columns" in host.plan) == marches


def test_the_oracle_agrees_with_torchmetrics() -> None:
    case = Case((2, 3, 24, 30))
    preds, target = pictures(case)
    position = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-0.5 * (position / 1.5) ** 2)
    window = window / window.sum()
    constants = torch.tensor([C1, C2], dtype=torch.float64)
    preds.requires_grad_()
    ours, _ = terms(preds, target, [window, window], (5, 5), "reflect", constants)
    theirs = reference(preds, target, data_range=1.0)
    assert torch.allclose(ours.mean(), theirs, rtol=0, atol=1e-12)
    (our_gradient,) = torch.autograd.grad(ours.mean(), preds)
    (their_gradient,) = torch.autograd.grad(theirs, preds)
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------------------------------------
# On a GPU


@pytest.mark.parametrize("case", [*filter(is_operators, cases())], ids=Case.id)
def test_operators(case: Case, device: str) -> None:
    """The same cases through torch.ops: the CPU's kernels, and where there is a GPU the CUDA kernels on it."""
    check_operators(case, device)
