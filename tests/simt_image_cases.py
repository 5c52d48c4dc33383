"""Cases of images for test_simt.py: edges of strips, padding modes, layouts, windows, types and pixel terms."""

from __future__ import annotations

from dataclasses import replace

import torch
from simt_cases import FULL, INTEGERS, LONG, PHI, Case

HEIGHTS = (6, 7, 10, 11, 12, 16, 19, 27, 33)  # around the window's reach, and steps of 8 rows


def strip_edges() -> list[Case]:
    """Widths around the edges of strips.

    Training has strips of 96 columns, which own 84 or, if they are the last, up to 91, and single strips of 64. Values
    have strips of 64. With symmetric windows derivatives are mirrored at the border, with others folded.
    """
    every: list[Case] = []
    widths = [6, 10, 11, 12, 59, 60, 63, 64, 65, 83, 84, 85, 91, 92, 96, 168, 176]
    for i, width in enumerate(widths):
        height = HEIGHTS[i % len(HEIGHTS)]
        every.append(Case((1, 2, height, width)))
        every.append(Case((1, 1, height, width), gradients="", seed=1))
        every.append(Case((1, 1, height, width), symmetric=True, seed=3))
        if width <= 64:
            every.append(Case((1, 1, height, width), symmetric=i % 4 != 0, single_strip=True, seed=4))
    # Wider strips: several of 128 columns (own 116, the last up to 123), of 256 (244, 251), and single ones.
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
    return every


def splits() -> list[Case]:
    """Strips split into blocks, and blocks that continue from strip to strip."""
    every: list[Case] = []
    every += [Case((1, 1, height, 24), seed=2) for height in HEIGHTS]
    every += [Case((2, 1, 37, 30), split_rows=rows) for rows in (1, 3, 4, 8, 12, 36)]
    every += [Case((2, 1, 37, 30), split_rows=rows, gradients="") for rows in (1, 6, 14)]
    # Blocks that begin and end in any row, with one strip or several.
    every += [
        Case((2, 2, 19, width), split_rows=rows, crossing=True) for width in (40, 100) for rows in (5, 13, 50, 999)
    ]
    every += [Case((2, 2, 19, 70), split_rows=rows, crossing=True, gradients="") for rows in (7, 38, 45)]
    every.append(Case((2, 2, 19, 70), split_rows=45, crossing=True, want_map=True, **FULL))
    every += [Case((1, 1, 30, 140)), Case((1, 1, 30, 140), strip_columns=128, gradients="")]
    every += [Case((1, 1, 30, 76), strip_columns=64, split_rows=12, **FULL)]
    every += [Case((1, 1, 30, 140), symmetric=True, padding_mode=mode) for mode in ("zero", "reflect")]
    return every


def variants() -> list[Case]:
    """Variants of the kernels: single strips of 256 columns, values, both gradients, contrast sensitivity."""
    every: list[Case] = []
    for width in (22, 130, 200, 248, 255, 256):
        every.append(Case((1, 1, 22, width), strip_columns=256, single_strip=True, symmetric=width != 200))
    every += [Case((1, 1, 22, width), strip_columns=128, gradients="") for width in (70, 128, 129, 260)]
    every += [Case((2, 1, 37, 48), single_strip=True, symmetric=True, split_rows=rows) for rows in (3, 12)]
    both = {"gradients": "preds target", "symmetric": True}
    every += [Case((1, 1, 20, 60), single_strip=True, **both), Case((1, 1, 20, 80), **both)]
    contrast = {"objective": "contrast_sensitivity", "symmetric": True}
    every += [Case((1, 1, 20, 60), single_strip=True, **contrast), Case((1, 1, 20, 130), strip_columns=128, **contrast)]
    every += [replace(case, gradients="preds target", strip_columns=64) for case in (every[-2], every[-1])]
    return every


def valid_padding() -> list[Case]:
    """Valid padding: no output is centred on the last rows, so the last split may have no outputs.

    Each pixel counts once in the pixel term, with a gradient and without.
    """
    every: list[Case] = []
    for rows in (1, 3, 8, 12):
        for height in (11, 12, *(24 + more for more in (1, 4, 5, 6))):
            valid = Case((1, 2, height, 30), pad=(0, 0), split_rows=rows, pixels=[*PHI][height % 3])
            every += [valid, replace(valid, gradients="", want_map=True), replace(valid, gradients="preds target")]
    for rows in (5, 13, 27, 50):
        valid = Case((2, 2, 25, 70), pad=(0, 0), split_rows=rows, crossing=True, pixels="l1")
        every += [valid, replace(valid, gradients="", pixels="", want_map=True)]
    return every


def requests() -> list[Case]:
    """Padding modes, results, upstream gradients and layouts, on shapes of whole vectors and on others."""
    every: list[Case] = []
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
    return every


def other_sizes() -> list[Case]:
    """Windows of other sizes than the default, in the general kernels."""
    every: list[Case] = []
    # Shorter windows, also of two sizes, and in the smallest images.
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
    return every


def clipped_windows() -> list[Case]:
    """Windows as long as the image can reach, which see padding for a small or for the largest part.

    Some have a length for which there is a march, whose pivot among the pixels does not suit them.
    """
    every: list[Case] = []
    for edge in (0.05, 0.5, 0.999):
        for shape, sizes in (
            ((2, 2, 8, 9), (17, 19)), ((1, 1, 4, 5), (9, 11)), ((1, 1, 1, 1), (3, 3)), ((1, 1, 5, 70), (11, 7)),
            ((2, 1, 70, 2), (5, 5)), ((1, 1, 16, 16), (33, 33)),
        ):  # fmt: skip
            base = Case(shape, sizes=sizes, edge=edge, padding_mode="zero")
            every += [base, replace(base, gradients=""), replace(base, **LONG)]
        base = Case((1, 1, 7, 6), sizes=(15, 13), edge=edge, padding_mode="zero")
        every += [replace(base, offset=30.0), replace(base, dtype=torch.float64), replace(base, pixels="l1")]
        every.append(replace(base, types=(torch.int16,) * 2, gradients=""))
    return every


def exact_strips(size: int, inside: int, last: int) -> list[Case]:
    """Widths around the edges of strips, for windows whose kernels are compiled for exactly this size.

    Strips of 128 columns own `inside` of them or, if they are the last, up to `last`; those of 256 have 128 more.
    """
    every: list[Case] = []
    heights = (12, 13, 22, 23, 24, 31, 45, 46, 47, 54)
    exact_window = {"sizes": (size, size), "strip_columns": 128}
    for i, width in enumerate((12, size, 45, 46, inside, inside + 1, last, last + 1, 128, 129, 209, inside + last)):
        base = Case((1, 2, heights[i % len(heights)], width), **exact_window)
        every += [base, replace(base, symmetric=True, seed=1), replace(base, gradients="", seed=2)]
    for width in (inside + 128, inside + 129, last + 128, last + 129):
        wide = Case((1, 1, 30, width), sizes=(size, size), strip_columns=256, symmetric=width % 2 == 0)
        every += [wide, replace(wide, single_strip=True)] if width <= 256 else [wide]
    for width in (size, 200, 255, 256):
        single = Case((1, 1, 26, width), sizes=(size, size), strip_columns=256, single_strip=True)
        every += [single, replace(single, symmetric=True, split_rows=9)]
    return every


def exact_requests(size: int) -> list[Case]:
    """Splits, padding, layouts and types for these windows.

    Other requests than values and the gradient run the general kernel, or the kernels for wide windows.
    """
    every: list[Case] = []
    base = Case((2, 2, 57, 61), sizes=(size, size), strip_columns=128)
    every += [
        replace(base, split_rows=rows, gradients=gradients) for rows in (1, 7, 23, 40) for gradients in ("preds", "")
    ]
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
        replace(base, gradients="", pixels="l2"),
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
        replace(base, pixels="l1"),
        replace(base, objective="contrast_sensitivity"),
        replace(base, want_map=True, **FULL),
        replace(base, dtype=torch.float64),
        replace(base, sizes=(size, size - 2)),
        replace(base, sizes=(11, size)),
    ]
    return every


def exact_windows() -> list[Case]:
    """Windows of radius 3 and 11, which have their own marches for values and for the gradient."""
    every: list[Case] = []
    for size, inside, last in ((7, 120, 125), (23, 104, 117)):
        every += exact_strips(size, inside, last) + exact_requests(size)
    for types in ((torch.uint8,) * 2, (torch.uint16, torch.float32), (torch.int16,) * 2):
        base = Case((2, 2, 25, 70), sizes=(7, 7), types=types, gradients="", seed=4)
        every += [base, replace(base, pixels="l1"), replace(base, sizes=(23, 23)), replace(base, want_map=True)]
        every += [replace(base, sizes=(size, size), layout="channels_last") for size in (7, 23)]
    every += [Case((1, 1, 25, width), sizes=(7, 7), single_strip=True, symmetric=True) for width in (6, 40, 64)]
    return every


def types() -> list[Case]:
    """Types other than float32."""
    every: list[Case] = []
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
    return every


def pixel_terms() -> list[Case]:
    """Pixel terms, in strips of 128 and 256 columns, single ones, and blocks that begin in any row.

    Some kernels leave the sum of the term to a separate pass.
    """
    every: list[Case] = []
    for pixels in PHI:
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
    base = Case((2, 1, 18, 61), pixels="l1", symmetric=True)
    every += [
        replace(base, gradients="target", strip_columns=128),
        replace(base, single_strip=True),
        replace(base, shape=(1, 1, 18, 252), single_strip=True, strip_columns=256),
        replace(base, shape=(1, 2, 18, 260), strip_columns=256),
        replace(base, pad=(0, 0), padding_mode="zero", strip_columns=128),
        replace(base, gradients="preds constants", constants=2, strip_columns=64),
    ]
    every += [replace(base, layout=layout, strip_columns=128) for layout in ("channels_last", "sliced")]
    return every


def integers() -> list[Case]:
    """Integers, also compared with floats, which then have the only gradient."""
    every: list[Case] = []
    for types in ((dtype,) * 2 for dtype in INTEGERS):
        for shape in ((2, 2, 21, 56), (1, 1, 18, 61)):
            base = Case(shape, types=types, gradients="", seed=4)
            every += [
                base,
                replace(base, layout="channels_last"),
                replace(base, want_map=True, pad=(0, 0)),
                replace(base, sizes=(7, 5), layout="padded", padding_mode="zero"),
                replace(base, sizes=(13, 5), want_map=True, layout="sliced"),
                replace(base, gradients="constants", constants=2),
                replace(base, pixels="l2"),
            ]
    for integer in INTEGERS:
        base = Case((2, 2, 21, 56), types=(torch.float32, integer), symmetric=True, seed=4)
        every += [
            base,
            replace(base, gradients=""),
            replace(base, pixels="l1", split_rows=5, crossing=True),
            replace(base, shape=(1, 1, 18, 61), layout="padded", objective="contrast_sensitivity"),
            replace(base, gradients="target", types=(integer, torch.float32), layout="channels_last"),
            replace(base, sizes=(5, 7), upstream="map", want_map=True),
            replace(base, sizes=(13, 13), pixels="charbonnier"),
        ]
    return every


def cases() -> list[Case]:
    """All cases, without repetitions."""
    groups = (
        strip_edges(), splits(), variants(), valid_padding(), requests(), other_sizes(), clipped_windows(),
        exact_windows(), types(), pixel_terms(), integers(),
    )  # fmt: skip
    return list(dict.fromkeys(case for group in groups for case in group))
