"""The CUDA kernels for volumes, run on the host by tests/simt with AddressSanitizer and UBSan, compared with float64.

test_simt.py has the same tests for images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from host_program import ORDERS, Program, program_fixture
from simt_cases import C1, C2, FULL, LONG, PHI, Case, check, pictures, terms
from simt_host import Host
from simt_operators import check_operators, is_operators
from torchmetrics.functional.image import structural_similarity_index_measure as reference

DEFAULT = Case((1, 1, 12, 14, 20), sizes=(11, 11, 11))


def volume(*shape: int, **changes: object) -> Case:
    return replace(DEFAULT, shape=shape, **changes)


def cases() -> list[Case]:
    every: list[Case] = []
    # Sides around the reach of the window and of reflection, steps of 4 slices and 8 rows, and strips of 64 and 128
    # columns; the latter own 116 or, if they are the last, up to 123.
    for i, depth in enumerate([6, 7, 9, 10, 11, 12, 13, 19, 24]):
        every.append(volume(1, 1, depth, 6 + i, 7 + 2 * i))
        every.append(volume(1, 1, depth, 14 - i, 66 - i, gradients="", seed=1))
    for width in (59, 60, 63, 64, 65, 116, 117, 123, 124):
        every += [volume(1, 1, 8, 9, width), volume(1, 1, 8, 9, width, symmetric=True)]
        if width <= 64:
            every.append(volume(1, 1, 8, 9, width, symmetric=width != 60, single_strip=True))
    every += [volume(1, 1, 6, 9, width, strip_columns=128, single_strip=True, symmetric=True) for width in (65, 127)]
    every += [volume(1, 1, 8, 37, 30, split_rows=rows) for rows in (1, 8, 12, 36)]
    every += [
        volume(1, 2, 6, 19, width, split_rows=rows, crossing=True, symmetric=rows > 9)
        for width in (40, 124)
        for rows in (5, 13, 50)
    ]
    wide = {"strip_columns": 256, "single_strip": True, "symmetric": True}
    every += [volume(1, 1, 6, 18, width, **wide) for width in (130, 251, 256)]
    every += [volume(1, 1, 6, 18, 140, gradients=gradients) for gradients in ("", "preds target")]
    every += [
        volume(1, 1, 6, 12, width, symmetric=True, single_strip=single, gradients="preds target")
        for width in (30, 60)
        for single in (False, True)
    ]
    every.append(volume(1, 1, 6, 18, 140, gradients="", strip_columns=128))
    # Values: with many SMs the depth is split.
    every += [volume(1, 2, 40, 7, 9, gradients="", sms=sms, want_map=sms > 8) for sms in (1, 4, 8, 200)]
    # Slabs of one volume, some volumes or all; and a number of volumes that slabs do not divide.
    every += [volume(3, 2, 9, 7, 40, sms=1, **{"l2_bytes": n * 9 * 7 * 40 * 16 * 3 // 2 + 8}) for n in (0, 1, 4, 9)]
    every += [volume(3, 1, 9, 7, 40, sms=1, want_map=True, **FULL), volume(3, 1, 9, 7, 40, sms=1, gradients="")]
    # "valid": no output is centred on the last rows or slices, so the last split may have no outputs.
    for rows in (1, 8, 12):
        for height in (11, 12, *(24 + more for more in (1, 4, 5, 6))):
            valid = volume(1, 1, 11 + height % 3, height, 20, pad=(0, 0, 0), split_rows=rows, pixels=[*PHI][height % 3])
            every += [valid, replace(valid, gradients="", want_map=True)]
            if rows == 8:
                every.append(replace(valid, gradients="preds target"))
    # Splits of the depth, which only values have: with many SMs, a few slices each.
    every += [
        volume(1, 2, depth, 11, 12, pad=(0, 0, 0), gradients="", sms=sms, want_map=True, pixels="l1")
        for depth in (11, 12, 21, 33, 37, 40, 41)
        for sms in (4, 200)
    ]
    # Padding modes, on shapes of whole vectors and on others.
    for shape in ((2, 2, 11, 13, 24), (1, 1, 14, 12, 19)):
        for mode, pad in (
            ("reflect", None),
            ("zero", None),
            ("reflect", (0, 0, 0)),
            ("reflect", (2, 4, 5)),
            ("reflect", (5, 5, 2)),
            ("zero", (3, 1, 5)),
            ("zero", (0, 5, 2)),
        ):
            base = volume(*shape, pad=pad, padding_mode=mode)
            every += [
                base,
                replace(base, gradients="preds target"),
                replace(base, gradients=""),
                replace(base, want_map=True, **FULL),
            ]
    every += [
        replace(DEFAULT, gradients="target"),
        replace(DEFAULT, gradients="target", upstream="map"),
        replace(DEFAULT, gradients="constants", constants=1),
        replace(DEFAULT, gradients="preds constants", constants=2, as_distance=True, shape=(3, 1, 7, 9, 10)),
        replace(DEFAULT, gradients="", want_map=True),
        replace(DEFAULT, gradients="preds constants", constants=1, shape=(2, 2, 7, 9, 10)),
        replace(DEFAULT, objective="contrast_sensitivity"),
        replace(DEFAULT, objective="contrast_sensitivity", pad=(0, 0, 0)),
        replace(DEFAULT, objective="contrast_sensitivity", pad=(3, 5, 1), padding_mode="zero"),
        replace(DEFAULT, objective="contrast_sensitivity", gradients="preds target", shape=(2, 2, 13, 13, 17)),
        replace(DEFAULT, upstream="similarity", shape=(3, 1, 7, 8, 20)),
        replace(DEFAULT, upstream="contrast", shape=(3, 1, 12, 12, 20)),
        replace(DEFAULT, offset=250.0, gradients="preds target"),
    ]
    for layout in ("channels_last", "padded", "aligned", "sliced"):
        every += [volume(2, 2, 7, 9, 32, layout=layout, gradients="preds target", want_map=True)]
        every += [volume(2, 2, 7, 9, 32, layout=layout)]
    # Shorter windows, also of three sizes, and in the smallest volumes.
    for size in (1, 3, 5, 7, 9):
        half = size // 2 + 1
        every.append(volume(1, 1, 11, 10, 30, sizes=(size,) * 3))
        every.append(volume(1, 1, half, half, half, sizes=(size,) * 3, want_map=True, gradients="preds target"))
        every.append(volume(1, 1, size, size, size, sizes=(size,) * 3, pad=(0, 0, 0), gradients="preds constants"))
    every += [
        volume(1, 1, 9, 11, 31, sizes=(3, 5, 11), **FULL),
        volume(1, 1, 9, 11, 31, sizes=(11, 3, 7), padding_mode="zero", **FULL),
        volume(1, 1, 9, 11, 31, sizes=(5, 11, 1), pad=(1, 5, 0), want_map=True, **FULL),
        volume(1, 1, 1, 11, 31, sizes=(1, 11, 11), want_map=True, **FULL),
    ]
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        for shape in ((2, 1, 9, 8, 24), (1, 1, 8, 13, 27)):
            every += [
                volume(*shape, dtype=dtype),
                volume(*shape, dtype=dtype, gradients=""),
                volume(*shape, dtype=dtype, gradients="preds target"),
                volume(*shape, dtype=dtype, want_map=True, constants=1, **FULL),
                volume(*shape, dtype=dtype, sizes=(3, 7, 5), **FULL),
            ]
    for pixels in PHI:
        base = volume(2, 2, 7, 9, 66, pixels=pixels, symmetric=True)
        every += [
            base,
            replace(base, gradients=""),
            replace(base, gradients="preds target", sms=1),
            replace(base, sizes=(5, 7, 3)),
            replace(base, sizes=(13, 5, 13), gradients="preds target"),
            replace(base, dtype=torch.float16),
        ]
    integers = ((torch.uint8,) * 2, (torch.uint16,) * 2, (torch.int16,) * 2)
    for types in (*integers, (torch.float32, torch.uint8), (torch.float32, torch.int8)):
        base = volume(2, 2, 7, 9, 66, types=types, gradients="preds" if types[0] == torch.float32 else "", seed=4)
        every += [
            base,
            replace(base, layout="sliced", want_map=True),
            replace(base, sizes=(5, 7, 3), layout="channels_last", pixels="l1"),
            replace(base, sizes=(13, 5, 13)),
        ]
    return list(dict.fromkeys([*every, *wide_cases()]))


def wide_cases() -> list[Case]:
    """Windows of radius above 5 on some axis, or padded by more than the radius on the last axis."""
    every: list[Case] = []
    # One axis, and all; padding as in the reference with sigma=1, kernel_size=11; windows longer than a chunk of taps.
    for sizes, pad in (
        ((13, 5, 5), None),
        ((5, 15, 3), None),
        ((3, 1, 17), None),
        ((13, 15, 13), None),
        ((7, 7, 7), (3, 3, 5)),
        ((1, 13, 1), None),
        ((3, 3, 139), (1, 1, 60)),
        ((3, 149, 3), (1, 74, 1)),
    ):
        # Wide enough that the crop of the last axis is not empty; on the other axes it may be.
        sides = (9, max(10, sizes[1] // 2 + 2), max(21, sizes[2] + 3))
        for mode in ("reflect", "zero"):
            base = volume(1, 1, *sides, sizes=sizes, pad=pad, padding_mode=mode)
            every += [
                replace(base, gradients=""),
                replace(base, gradients="preds target", want_map=True),
                replace(base, shape=(2, 2, *sides), want_map=True, constants=1, **FULL),
            ]
    # Sides around the runs of 8 outputs and the warps of 32 columns, and the smallest that reflection permits.
    for i, side in enumerate((7, 8, 15, 16, 17, 31, 33)):
        every.append(volume(1, 1, side, 40 - side, 7 + 9 * i, sizes=(13, 13, 13), offset=20.0 * i))
    every += [
        volume(1, 1, 9, 13, 1030, sizes=(3, 3, 13)),
        volume(1, 1, 13, 13, 13, sizes=(13, 13, 13), pad=(0, 0, 0), want_map=True, **FULL),
        volume(1, 1, 14, 9, 20, sizes=(13, 7, 3), pad=(0, 2, 1), padding_mode="zero", **FULL),
        volume(1, 1, 14, 9, 20, sizes=(13, 7, 3), pad=(4, 0, 2), **FULL),
        # Windows as long as the volume can reach, along one axis or all; also of lengths that have a march.
        volume(1, 2, 4, 5, 3, sizes=(9, 11, 7), edge=0.05, **LONG),
        volume(1, 2, 4, 5, 3, sizes=(9, 11, 7), edge=0.9, **LONG),
        volume(1, 1, 2, 9, 40, sizes=(5, 5, 5), edge=0.9, **LONG),
        volume(1, 1, 6, 8, 9, sizes=(13, 17, 19), edge=0.999, **LONG),
        volume(1, 1, 6, 8, 9, sizes=(13, 17, 19), edge=0.6, padding_mode="zero", dtype=torch.float64),
        # Windows that see nothing but padding.
        volume(1, 1, 7, 9, 12, sizes=(3, 5, 7), pad=(1, 2, 6), padding_mode="zero", want_map=True, **FULL),
        volume(1, 1, 9, 10, 21, sizes=(5, 5, 5), pad=(2, 2, 20), want_map=True, **FULL),
        volume(1, 1, 1, 9, 21, sizes=(1, 5, 13), want_map=True, **FULL),
        volume(1, 1, 9, 1, 21, sizes=(13, 1, 13), want_map=True, **FULL),
        volume(2, 1, 9, 10, 21, sizes=(3, 3, 13), objective="contrast_sensitivity"),
        volume(2, 1, 9, 10, 21, sizes=(3, 3, 13), pad=(0, 1, 8), objective="contrast_sensitivity"),
        volume(2, 1, 9, 10, 21, sizes=(3, 3, 13), gradients="target", upstream="map"),
        volume(2, 1, 9, 10, 21, sizes=(3, 3, 13), gradients="constants"),
        volume(3, 1, 9, 10, 21, sizes=(3, 3, 13), upstream="similarity"),
        volume(3, 1, 9, 10, 21, sizes=(3, 13, 3), upstream="contrast"),
        volume(1, 1, 20, 20, 20, sizes=(13, 13, 13), offset=250.0, gradients="preds target"),
    ]
    for layout in ("channels_last", "padded", "sliced"):
        every.append(volume(2, 2, 8, 9, 20, sizes=(13, 3, 5), layout=layout, gradients="preds target", want_map=True))
    # Chunks of one, some or all slices and columns.
    for l2_bytes in (1 << 12, 1 << 14, 1 << 24):
        every.append(volume(3, 2, 9, 8, 40, sizes=(13, 5, 3), l2_bytes=l2_bytes, want_map=True, **FULL))
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        base = volume(2, 1, 9, 8, 24, sizes=(13, 5, 7), dtype=dtype)
        every += [
            base,
            replace(base, gradients=""),
            replace(base, padding_mode="zero", gradients="preds target"),
            replace(base, want_map=True, constants=1, **FULL),
        ]
    return every


driver = program_fixture("volumes")


@pytest.fixture
def host(driver: Program, tmp_path: Path) -> Host:
    return Host(driver, tmp_path)


@pytest.mark.parametrize("case", cases(), ids=Case.id)
def test_kernels_on_the_host(case: Case, host: Host) -> None:
    preds, target = pictures(case)
    check(case, host.run(case, preds, target), preds, target)


@pytest.mark.parametrize("gradients", ["", "preds target"])
@pytest.mark.parametrize("sizes", [(11, 11, 11), (5, 13, 13)], ids=str)
def test_the_order_of_threads_does_not_matter(sizes: tuple[int, ...], gradients: str, host: Host) -> None:
    case = volume(1, 2, 13, 14, 61, gradients=gradients, split_rows=12, sizes=sizes)
    preds, target = pictures(case)
    first, *others = [host.run(case, preds, target, order) for order in ORDERS]
    assert all(torch.equal(results[name], first[name]) for results in others for name in first)


@pytest.mark.parametrize("sizes", [(11, 11, 11), (3, 5, 13)], ids=str)
def test_results_do_not_depend_on_slabs(sizes: tuple[int, ...], host: Host) -> None:
    """Volumes give the same bits whether they are processed one by one or all at once."""
    case = volume(3, 1, 11, 12, 20, sizes=sizes, gradients="preds target", want_map=True, sms=1)
    preds, target = pictures(case)
    one_by_one = host.run(case, preds, target)
    at_once = host.run(replace(case, l2_bytes=1 << 24), preds, target)
    assert all(torch.equal(one_by_one[name], at_once[name]) for name in at_once)


@pytest.mark.parametrize("sizes", [(11, 11, 11), (7, 3, 5), (13, 5, 3), (3, 15, 15)], ids=str)
@pytest.mark.parametrize("pad", [None, (0, 0, 0)], ids=["same", "valid"])
@pytest.mark.parametrize("place", [(12, 7, 20), (0, 0, 3), (24, 14, 29), (5, 5, 5), (20, 13, 1)], ids=str)
def test_nan_reaches_its_windows_only(
    sizes: tuple[int, ...], pad: tuple[int, ...] | None, place: tuple[int, int, int], host: Host
) -> None:
    case = volume(1, 1, 25, 15, 30, sizes=sizes, pad=pad, gradients="preds target", want_map=True, split_rows=12)
    preds, target = pictures(case)
    preds[0, 0][place] = torch.nan
    check(case, host.run(case, preds, target), preds, target)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
def test_the_pivot_is_neither_nan_nor_outlier(bad: float, host: Host) -> None:
    """The pivot is sampled at the quarters of the volume. A bad volume must not affect the next one."""
    case = volume(2, 1, 12, 12, 24, want_map=True, offset=100.0)
    preds, target = pictures(case)
    clean = host.run(case, preds, target)
    target[0, 0, 6, 6, 12] = bad
    spoilt = host.run(case, preds, target)
    assert all(torch.equal(clean[name][1], spoilt[name][1]) for name in clean if name != "batch_similarity")
    # A slice that the bad voxel does not reach has another pivot, so it is only nearly equal.
    assert (clean["map"][0, 0, :1] - spoilt["map"][0, 0, :1]).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(11, 11, 11), (5, 3, 5), (5, 11, 13)], ids=str)
@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_identical_volumes_score_exactly_one(dtype: torch.dtype, sizes: tuple[int, ...], mode: str, host: Host) -> None:
    case = volume(2, 1, 11, 12, 20, sizes=sizes, dtype=dtype, gradients="preds target", padding_mode=mode)
    _, target = pictures(case)
    results = host.run(case, target, target)
    assert (results["similarity"] == 1).all()
    assert (results["contrast_sensitivity"] == 1).all()
    assert (results["grad_preds"] == 0).all()
    assert (results["grad_target"] == 0).all()


def test_the_oracle_agrees_with_torchmetrics() -> None:
    case = volume(2, 2, 12, 13, 14)
    preds, target = pictures(case)
    position = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-0.5 * (position / 1.5) ** 2)
    window = window / window.sum()
    constants = torch.tensor([C1, C2], dtype=torch.float64)
    preds.requires_grad_()
    ours, _ = terms(preds, target, [window] * 3, (5, 5, 5), "reflect", constants)
    theirs = reference(preds, target, data_range=1.0)
    assert torch.allclose(ours.mean(), theirs, rtol=0, atol=1e-12)
    (our_gradient,) = torch.autograd.grad(ours.mean(), preds)
    (their_gradient,) = torch.autograd.grad(theirs, preds)
    assert torch.allclose(our_gradient, their_gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("case", [*filter(is_operators, cases())], ids=Case.id)
def test_operators(case: Case, device: str) -> None:
    """The same cases through torch.ops: the kernels for the CPU, and those for CUDA if a GPU is present."""
    check_operators(case, device)
