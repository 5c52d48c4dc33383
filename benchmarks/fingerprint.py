"""Fingerprints of the CPU's results, to check that a change keeps them: `python benchmarks/fingerprint.py --out FILE`.

They are hashes of the bits of values, maps, contrast sensitivities and gradients, for the suite's images and a few
larger ones, in all dtypes, with several windows and numbers of threads. `--against FILE` compares with an earlier run,
lists the differences, and exits with status 1 if there are any. Python imports the package to measure, so PYTHONPATH
can point to another checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ssim_fused

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from suite import suite, waves

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WANTED: dict[str, dict[str, Any]] = {
    "mean": {},
    "none": {"reduction": "none"},
    "sum": {"reduction": "sum"},
    "map": {"reduction": "none", "return_full_image": True},
    "contrast": {"reduction": "none", "return_contrast_sensitivity": True},
}
# For images and for volumes. Each takes a different path: precompiled sizes, other sizes, long windows, unequal axes.
WINDOWS: dict[int, dict[str, dict[str, Any]]] = {
    4: {
        "default": {},
        "uniform": {"gaussian_kernel": False, "kernel_size": 7},
        "wide": {"sigma": 3.1},
        "unequal": {"sigma": (0.8, 2.0)},
    },
    5: {
        "default": {},
        "uniform": {"gaussian_kernel": False, "kernel_size": 5},
        "wide": {"sigma": (0.5, 0.5, 2.0)},
        "unequal": {"sigma": (0.5, 0.8, 1.5), "kernel_size": 5},
    },
}
PYRAMIDS: dict[str, dict[str, Any]] = {
    "two levels": {"betas": (0.4, 0.6)},
    "three levels, simple": {"betas": (0.3, 0.3, 0.4), "kernel_size": 3, "sigma": 0.8, "normalize": "simple"},
    "uniform, none": {"betas": (0.4, 0.6), "kernel_size": 5, "gaussian_kernel": False, "normalize": None},
}
# Several strips wide and high, odd sizes, and more planes than threads.
LARGE = ((1, 3, 270, 1921), (5, 2, 176, 211), (1, 1, 700, 131), (2, 1, 40, 37, 150))
THREADS = (1, 2, 3)


def digest(result: Tensor) -> str:
    """A hash of a result's bits, shape and dtype, with all NaNs alike, and its mean, which hints at the difference."""
    result = result.detach().contiguous()
    if result.is_floating_point():
        result = torch.where(result.isnan(), torch.full_like(result, torch.nan), result)
    bits = hashlib.sha256(result.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()[:20]
    return f"{bits} {str(result.dtype)[6:]} {list(result.shape)} mean {result.double().nanmean().item():.9g}"


def fingerprints(name: str, function: Any, preds: Tensor, target: Tensor, **arguments: Any) -> Iterator[tuple]:
    """The outputs without gradient, with that of `preds`, and with both, or the exception that was raised."""
    for asked in ("", "preds", "preds target"):
        x = preds.detach().requires_grad_("preds" in asked)
        y = target.detach().requires_grad_("target" in asked)
        where = f"{name} | gradient of {asked or 'nothing'}"
        try:
            outputs = function(x, y, **arguments)
        except Exception as error:
            yield where, type(error).__name__
            return
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for i, output in enumerate(outputs):
            yield f"{where} | output {i}", digest(output)
        if asked:
            # Factors that are not powers of two and differ from element to element.
            upstream = [
                torch.linspace(0.3, 1.7, o.numel(), dtype=torch.float64).reshape(o.shape).to(o) for o in outputs
            ]
            images = [image for image in (x, y) if image.requires_grad]
            for i, gradient in enumerate(torch.autograd.grad(outputs, images, upstream)):
                yield f"{where} | gradient {i}", digest(gradient)


def small_pictures() -> Iterator[tuple]:
    """The suite, with every window, dtype and output."""
    for pair in suite().values():
        windows = WINDOWS[pair.preds.ndim]
        for dtype in DTYPES:
            preds, target = pair.preds.to(dtype), pair.target.to(dtype)
            name = f"{pair.name} {str(dtype)[6:]}"
            for window_name, window in windows.items():
                for wanted_name, wanted in WANTED.items():
                    if wanted_name in ("mean", "sum") and window_name != "default":
                        continue
                    yield from fingerprints(
                        f"ssim {name} | {window_name} | {wanted_name}",
                        ssim_fused.structural_similarity_index_measure, preds, target,
                        data_range=pair.data_range, **window, **wanted,
                    )  # fmt: skip
            for pyramid_name, pyramid in PYRAMIDS.items():
                yield from fingerprints(
                    f"ms_ssim {name} | {pyramid_name}",
                    ssim_fused.multiscale_structural_similarity_index_measure, preds, target,
                    data_range=pair.data_range, reduction="none", **pyramid,
                )  # fmt: skip


def large_pictures() -> Iterator[tuple]:
    """Larger images with several numbers of threads, in layouts that users have."""
    generator = torch.Generator().manual_seed(1)
    for shape in LARGE:
        clean = waves(*shape)
        noisy = clean + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
        layouts = {"contiguous": lambda image: image}
        if len(shape) == 4:
            layouts["channels last"] = lambda image: image.contiguous(memory_format=torch.channels_last)
            layouts["transposed"] = lambda image: image.mT.contiguous().mT
        for threads in THREADS:
            torch.set_num_threads(threads)
            for dtype in DTYPES[: 2 if threads != 2 else 4]:
                for layout_name, layout in layouts.items():
                    if layout_name != "contiguous" and (threads, dtype) != (2, torch.float32):
                        continue
                    preds, target = layout(noisy.to(dtype)), layout(clean.to(dtype))
                    name = f"{'x'.join(map(str, shape))} {str(dtype)[6:]} {layout_name}, {threads} threads"
                    for window_name, window in WINDOWS[len(shape)].items():
                        for wanted in ("none", "map", "contrast"):
                            if wanted != "none" and window_name != "default":
                                continue
                            yield from fingerprints(
                                f"ssim {name} | {window_name} | {wanted}",
                                ssim_fused.structural_similarity_index_measure, preds, target,
                                data_range=1.0, **window, **WANTED[wanted],
                            )  # fmt: skip
                    betas = {} if min(shape[2:]) >= 176 else {"betas": (0.4, 0.6)}
                    yield from fingerprints(
                        f"ms_ssim {name}", ssim_fused.multiscale_structural_similarity_index_measure, preds, target,
                        data_range=1.0, reduction="none", **betas,
                    )  # fmt: skip


def main() -> int:
    """Compute, write and compare the fingerprints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the fingerprints here, as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with the fingerprints of this file")
    parser.add_argument("--show", type=int, default=40, metavar="N", help="list at most N differences (default: 40)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")

    print(f"ssim_fused of {Path(ssim_fused.__file__).parent}, torch {torch.__version__}", file=sys.stderr)
    torch.set_num_threads(2)
    found = {"instruction set": ssim_fused.build_info()["instruction_set"]}
    found |= dict(small_pictures())
    found |= dict(large_pictures())
    print(f"{len(found)} fingerprints", file=sys.stderr)
    if args.out:
        args.out.write_text(json.dumps(found, indent=0))
    if not args.against:
        return 0
    before = json.loads(args.against.read_text())
    differing = [key for key in before | found if before.get(key) != found.get(key)]
    for key in differing[: args.show]:
        print(f"{key}\n  before  {before.get(key)}\n  now     {found.get(key)}")
    print(f"{len(differing)} of {len(before | found)} differ")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
