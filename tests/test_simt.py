"""The CUDA kernels of images, run on the host by tests/simt under AddressSanitizer and UBSan, against float64.

What runs a case and judges it serves volumes, too (test_simt_volumes.py). The oracle is a few lines of
differentiable PyTorch in float64 (`exact`), itself held against torchmetrics below. Every case runs through
torch.ops, too: on the CPU, and where there is a GPU, there.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from host_program import host_program
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure as reference

K = 0.01, 0.03
NO_PIXELS = "none", 1.0, 1e-3, False
SSIM_WEIGHT, PIXEL_EPS = 0.3, 0.1
# Numbers of the types that a kernel is told when it runs (`PixelType`).
TYPES = {torch.float32: 0, torch.uint8: 1, torch.uint16: 2}
C1, C2 = K[0] ** 2, K[1] ** 2

# Error allowed relative to the largest exact magnitude. float32: the sums of a window and its adjoint round a few
# dozen times at 6e-8. 16-bit results carry their own rounding, half an ulp of 2^-11 or 2^-8, on top.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 4e-6,
    torch.float16: 2.0**-10,
    torch.bfloat16: 2.0**-7,
}


@dataclass(frozen=True)
class Case:
    """One call of the kernels. `strip_columns` to `crossing` override the planner on the host: the narrowest compiled
    strip of at least so many columns, which is a single one, or not."""

    shape: tuple[int, ...] = (1, 1, 40, 44)
    sizes: tuple[int, ...] = (11, 11)
    pad: tuple[int, ...] | None = None  # None: "same"
    padding_mode: str = "reflect"
    dtype: torch.dtype = torch.float32
    gradients: str = "preds"  # any of: preds target constants
    want_map: bool = False
    objective: str = "similarity"
    upstream: str = ""  # any of: similarity contrast map; empty: the forward operator
    constants: int = 0  # c1 and c2 as a tensor: 1, of all images; 2, of each
    as_distance: bool = False  # one minus the means
    types: tuple[torch.dtype, ...] = ()  # of preds and target, where one has integers; results are float32
    pixels: int = 0  # a pixel term, with it: 1 L1, 2 L2, 3 Charbonnier
    strip_columns: int = 64
    single_strip: bool = False  # the variant for pictures of one strip
    split_rows: int = 0
    crossing: bool = False  # blocks go on from one strip to the next
    symmetric: bool = False  # the window
    sms: int = 4
    l2_bytes: int = 0
    layout: str = "contiguous"
    offset: float = 0.0
    seed: int = 0

    @property
    def padding(self) -> tuple[int, ...]:
        return self.pad if self.pad is not None else tuple(size // 2 for size in self.sizes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        inputs, sizes, pads = self.shape[2:], self.sizes, self.padding
        return self.shape[:2] + tuple(n + 2 * p - s + 1 for n, s, p in zip(inputs, sizes, pads, strict=True))

    def id(self) -> str:
        default = Case()
        changed = [
            f"{name}={value}".replace("torch.", "")
            for name, value in vars(self).items()
            if value != getattr(default, name)
        ]
        return " ".join(changed).replace(" ", "_") or "default"


def taps(size: int, uneven: bool = False) -> Tensor:
    """A Gaussian, or one that is not symmetric, which tells the window from its adjoint."""
    position = torch.arange(size, dtype=torch.float64) - size // 2
    window = torch.exp(-0.5 * (position / max(size / 7, 0.4)) ** 2)
    if uneven:
        window = window * (1 + 0.3 * torch.sin(position))
    return window / window.sum()


def pictures(case: Case) -> tuple[Tensor, Tensor]:
    """preds and target, rounded to the case's type, in float64."""
    generator = torch.Generator().manual_seed(case.seed)
    target = torch.rand(case.shape, generator=generator, dtype=torch.float64)
    preds = target + 0.2 * torch.randn(case.shape, generator=generator, dtype=torch.float64)
    if case.types:  # more than a byte holds, but for those of bytes
        offset = 10 if torch.uint8 in case.types else 300
        return tuple((20 * image + offset).round().clamp(min=0) for image in (preds, target))
    return (preds + case.offset).to(case.dtype).double(), (target + case.offset).to(case.dtype).double()


def pad(picture: Tensor, padding: tuple[int, ...], mode: str) -> Tensor:
    widths = [width for p in reversed(padding) for width in (p, p)]
    return functional.pad(picture, widths, mode="reflect") if mode == "reflect" else functional.pad(picture, widths)


def windows(case: Case) -> list[Tensor]:
    return [taps(size, uneven=not case.symmetric) for size in case.sizes]


def terms(
    preds: Tensor, target: Tensor, window: list[Tensor], padding: tuple[int, ...], mode: str, constants: Tensor
) -> tuple[Tensor, Tensor]:
    """The maps of similarity and contrast sensitivity, textbook formula."""

    def convolve(picture: Tensor) -> Tensor:
        result = pad(picture, padding, mode)
        for dim, axis in enumerate(window, start=2):  # one axis after the other, moved to the end
            rows = result.movedim(dim, -1)
            filtered = functional.conv1d(rows.reshape(-1, 1, rows.shape[-1]), axis.view(1, 1, -1))
            result = filtered.view(*rows.shape[:-1], -1).movedim(-1, dim)
        return result

    # About the mean: the same numbers, with less to cancel.
    shift = target.mean().detach()
    x, y = preds - shift, target - shift
    if mode == "zero":  # zero is a value of the picture, so it has to stay zero
        shift, x, y = torch.zeros(()), preds, target
    mean_x, mean_y = convolve(x), convolve(y)
    variance_x = convolve(x * x) - mean_x**2
    variance_y = convolve(y * y) - mean_y**2
    covariance = convolve(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + shift, mean_y + shift
    luminance = (2 * mean_x * mean_y + constants[0]) / (mean_x**2 + mean_y**2 + constants[0])
    contrast = (2 * covariance + constants[1]) / (variance_x + variance_y + constants[1])
    return luminance * contrast, contrast


def upstream(case: Case) -> dict[str, Tensor]:
    """Upstream gradients, rounded to the case's type."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    batch = case.shape[0]
    result = {}
    if "similarity" in case.upstream:
        result["grad_similarity"] = torch.randn(batch, generator=generator, dtype=torch.float64)
    if "contrast" in case.upstream:
        result["grad_contrast"] = torch.randn(batch, generator=generator, dtype=torch.float64)
    if "map" in case.upstream:
        picture = torch.randn(case.output_shape, generator=generator, dtype=torch.float64)
        result["grad_map"] = picture.to(case.dtype).double()
    return result


def exact(case: Case, preds: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What the kernels should return, in float64."""
    dtype = preds.dtype  # float64, but for textbook_error
    preds, target = preds.clone().requires_grad_(), target.clone().requires_grad_()
    batch = case.shape[0]
    # One pair of constants for each image, so that each has a gradient of its own.
    constants = torch.tensor([[C1], [C2]], dtype=dtype).repeat(1, batch).requires_grad_()
    similarity, contrast = terms(
        preds,
        target,
        [window.to(dtype) for window in windows(case)],
        case.padding,
        case.padding_mode,
        constants.view(2, batch, *[1] * (preds.dim() - 1)),
    )
    cropped = contrast
    for dim, p in enumerate(case.padding, start=2):
        cropped = cropped.narrow(dim, p, max(cropped.shape[dim] - 2 * p, 0))
    means = similarity.flatten(1).mean(1), cropped.flatten(1).mean(1)
    if case.upstream:
        given = {name: value.to(dtype) for name, value in upstream(case).items()}
        objective = similarity.sum() * 0
        if "grad_similarity" in given:
            objective = objective + (means[0] * given["grad_similarity"]).sum()
        if "grad_contrast" in given:
            objective = objective + (means[1] * given["grad_contrast"]).sum()
        if "grad_map" in given:
            objective = objective + (similarity * given["grad_map"]).sum()
    else:
        objective = means[case.objective != "similarity"].sum()
    gradients = torch.autograd.grad(objective, (preds, target, constants), allow_unused=True)
    results = {"similarity": means[0], "contrast_sensitivity": means[1], "map": similarity}
    if case.pixels:
        difference = preds - target
        phi = (difference.abs(), difference**2, (difference**2 + PIXEL_EPS**2).sqrt())[case.pixels - 1]
        pixel_means, distance = phi.flatten(1).mean(1), 1 - means[0]
        value = (1 - SSIM_WEIGHT) * pixel_means + SSIM_WEIGHT * distance
        # The drivers' gradients are those of similarity, of which the pixels' are added.
        by_pixels = torch.autograd.grad((1 - SSIM_WEIGHT) * pixel_means.sum(), (preds, target))
        gradients = [
            SSIM_WEIGHT * g if added is None else SSIM_WEIGHT * g + added
            for g, added in zip(gradients, (*by_pixels, None), strict=True)
        ]
        means = value, means[1]
        results |= {"similarity": value, "contrast_sensitivity": 1 - means[1]}
        results |= {"pixel_means": pixel_means, "pixel_terms": torch.stack((pixel_means, distance), 1)}
    elif case.as_distance:
        results |= {"similarity": 1 - means[0], "contrast_sensitivity": 1 - means[1]}
    results["batch_similarity"] = results["similarity"].mean().view(1)
    results |= dict(zip(("grad_preds", "grad_target", "grad_constants"), gradients, strict=True))
    results["grad_constants"] = results["grad_constants"].T.contiguous()
    return {name: value.detach().double() for name, value in results.items()}


# ------------------------------------------------------------------------------------------------------------
# On the host


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The kernels, compiled for the host; kept between runs until a source changes."""
    return host_program("images", request.config.cache.mkdir("simt"), tmp_path_factory.mktemp("simt"))


def raw(picture: Tensor) -> bytes:
    return picture.contiguous().view(torch.uint8).numpy().tobytes()


def storage(case: Case, shape: tuple[int, ...]) -> tuple[list[int], int, int]:
    """Strides, offset and number of elements of a picture in the case's layout."""

    def dense(row: int) -> list[int]:
        """Strides of all axes but the columns', for rows so many elements apart."""
        strides = [row]
        for n in reversed(shape[1:-1]):
            strides.insert(0, strides[0] * n)
        return strides

    channels, width = shape[1], shape[-1]
    if case.layout == "channels_last":
        rows = [channels * width, channels]
        for n in reversed(shape[3:-1]):
            rows.insert(0, rows[0] * n)
        strides, offset = [rows[0] * shape[2], 1, *rows], 0
    elif case.layout == "padded":  # rows longer than the picture, an odd base
        strides, offset = [*dense(width + 3), 1], 1
    elif case.layout == "aligned":  # the same with every row at sixteen bytes
        strides, offset = [*dense((width + 31) // 16 * 16), 1], 16
    elif case.layout == "sliced":  # every second column
        strides, offset = [*dense(2 * width), 2], 1
    else:
        strides, offset = [*dense(width), 1], 0
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    return strides, offset, offset + last + 1


class Host:
    """Writes a case, runs the program, reads the results."""

    def __init__(self, driver: Path, directory: Path):
        self.driver, self.directory = driver, directory

    def run(
        self, case: Case, preds: Tensor, target: Tensor, reverse: bool = False, **more: object
    ) -> dict[str, Tensor]:
        """`more`: fields that the program knows beside the case's."""
        self.plan: dict[str, int] = {}
        fields: dict[str, object] = {
            "dtype": str(torch.uint8 if case.types else case.dtype).removeprefix("torch."),
            "shape": case.shape,
            "pad": case.padding,
            "padding_mode": case.padding_mode,
            "sizes": case.sizes,
            "taps": [f"{tap:.17g}" for window in windows(case) for tap in window.tolist()],
            "c1": C1,
            "c2": C2,
            "constants": case.constants,
            "as_distance": int(case.as_distance or case.pixels > 0),
            "pixels": case.pixels,
            "ssim_weight": SSIM_WEIGHT if case.pixels else 1.0,
            "pixel_eps": PIXEL_EPS,
            "strip_columns": case.strip_columns,
            "single_strip": int(case.single_strip),
            "split_rows": case.split_rows,
            "crossing": int(case.crossing),
            "sms": case.sms,
            "l2_bytes": case.l2_bytes,
            "want_grad_constants": int("constants" in case.gradients),
            **more,
        }
        compute = torch.float64 if case.dtype == torch.float64 else torch.float32
        batch = case.shape[0]
        outputs: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "similarity": ((batch,), compute),
            "batch_similarity": ((1,), compute),
            "contrast_sensitivity": ((batch,), compute),
        }
        if case.pixels:
            outputs |= {"pixel_means": ((batch,), compute), "pixel_terms": ((batch, 2), compute)}
        swapped = "target" in case.gradients and "preds" not in case.gradients
        if swapped:  # as the operator does: SSIM is symmetric
            preds, target = target, preds
        if case.want_map:
            outputs["map"] = (case.output_shape, case.dtype)
        if swapped or "preds" in case.gradients:
            outputs["grad_preds"] = (case.shape, case.dtype)
        if "target" in case.gradients and not swapped:
            outputs["grad_target"] = (case.shape, case.dtype)
        if "constants" in case.gradients:
            outputs["grad_constants"] = ((batch, 2), compute)
        for name, (shape, _) in outputs.items():
            if len(shape) > 2:
                fields[f"want_{name}"] = 1
        if case.upstream:
            for name, value in upstream(case).items():
                if name == "grad_map":
                    fields[name] = 1
                else:
                    fields[name] = [f"{number:.17g}" for number in value.tolist()]
        else:
            fields["objective"] = case.objective

        inputs = {"preds": preds, "target": target}
        if "map" in case.upstream:
            inputs["grad_map"] = upstream(case)["grad_map"]
        pictures = [*inputs, *(name for name, (shape, _) in outputs.items() if len(shape) > 2)]
        for name in pictures:
            shape = case.output_shape if name in ("map", "grad_map") else case.shape
            strides, offset, count = storage(case, shape)
            fields[f"{name}_stride"], fields[f"{name}_offset"] = strides, offset
            if name in inputs:
                dtype = case.dtype
                if case.types and name != "grad_map":
                    dtype = case.types[(name == "target") != swapped]
                    fields[f"{name}_type"] = TYPES[dtype]
                elements = torch.full((count,), torch.nan if dtype.is_floating_point else 255, dtype=dtype)
                elements.as_strided(shape, strides, offset).copy_(inputs[name])
                (self.directory / f"{name}.bin").write_bytes(raw(elements))
        lines = []
        for name, value in fields.items():
            words = value if isinstance(value, (list, tuple)) else [value]
            lines.append(" ".join([name, *map(str, words)]))
        (self.directory / "case.txt").write_text("\n".join(lines) + "\n")

        environment = dict(os.environ, **({"SSIM_SIMT_REVERSE": "1"} if reverse else {}))
        ran = subprocess.run(
            [self.driver, self.directory], capture_output=True, text=True, check=False, env=environment, timeout=120
        )
        assert ran.returncode == 0, ran.stderr[-4000:]
        words = ran.stdout.split()
        self.plan = {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

        results = {}
        for name, (shape, dtype) in outputs.items():
            elements = torch.frombuffer(bytearray((self.directory / f"{name}.bin").read_bytes()), dtype=dtype)
            if len(shape) > 2:
                strides, offset, count = storage(case, shape)
                picture = elements.as_strided(shape, strides, offset)
                # What lies between the pixels is not ours to write: still the bytes it was filled with.
                untouched = torch.ones(count, dtype=torch.bool)
                untouched.as_strided(shape, strides, offset).fill_(False)
                assert (elements.view(torch.uint8).view(count, -1)[untouched] == 255).all(), name
                results[name] = picture.double()
            else:
                results[name] = elements.view(shape).double()
        if swapped:
            results["grad_target"] = results.pop("grad_preds")
        return results


@pytest.fixture
def host(driver: Path, tmp_path: Path) -> Host:
    return Host(driver, tmp_path)


def textbook_error(case: Case, preds: Tensor, target: Tensor, expected: dict[str, Tensor]) -> dict[str, float]:
    """How far off the textbook formula is in float32: the project's rule allows as much."""
    if case.dtype == torch.float64:
        return {}
    results = exact(case, preds.float(), target.float())
    errors = {}
    for name, value in results.items():
        known = ~expected[name].isnan()
        largest = expected[name][known].abs().max().clamp(min=1e-30) if known.any() else 1
        errors[name] = ((value - expected[name]).nan_to_num().abs().max() / largest).item()
    return errors


def check(case: Case, results: dict[str, Tensor], preds: Tensor, target: Tensor) -> None:
    expected = exact(case, preds, target)
    textbook = textbook_error(case, preds, target, expected)
    for name, value in results.items():
        assert not value.isnan().any() or expected[name].isnan().any(), f"{name}: not every element was written"
        known = ~expected[name].isnan()
        assert torch.equal(known, ~value.isnan()), name
        if not known.any():
            continue
        scale = expected[name][known].abs().max().clamp(min=1e-30)
        error = ((value - expected[name])[known].abs().max() / scale).item()
        # Means are not rounded to the pictures' type.
        type_of_result = case.dtype if value.dim() > 2 or case.dtype == torch.float64 else torch.float32
        allowed = TOLERANCE[type_of_result] + textbook.get(name, 0)
        assert error <= allowed, f"{name}: off by {error:.2e}, textbook {textbook.get(name, 0):.2e}"


FULL = {"gradients": "preds target constants", "upstream": "similarity contrast map"}


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


@pytest.mark.parametrize("sizes", [(11, 11), (7, 3), (13, 13)])
@pytest.mark.parametrize("pad", [None, (0, 0)], ids=["same", "valid"])
@pytest.mark.parametrize("place", [(14, 50), (0, 3), (29, 63), (5, 5)])
def test_nan_reaches_its_windows_only(
    sizes: tuple[int, int], pad: tuple[int, int] | None, place: tuple[int, int], host: Host
) -> None:
    case = Case((1, 1, 30, 64), sizes=sizes, pad=pad, gradients="preds target", want_map=True, split_rows=12)
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
@pytest.mark.parametrize("sizes", [(11, 11), (5, 5), (13, 13)])
def test_identical_images_score_exactly_one(dtype: torch.dtype, sizes: tuple[int, int], host: Host) -> None:
    case = Case((2, 1, 20, 40), sizes=sizes, dtype=dtype, gradients="preds target")
    _, target = pictures(case)
    results = host.run(case, target, target)
    assert (results["similarity"] == 1).all()
    assert (results["contrast_sensitivity"] == 1).all()
    assert (results["grad_preds"] == 0).all()
    assert (results["grad_target"] == 0).all()


@pytest.mark.parametrize("sizes", [(11, 11), (13, 13)])
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


def is_operators(case: Case) -> bool:
    """Whether the operators offer it, with the same outputs: padding by half the window, or none."""
    return (
        (case.pad is None or not any(case.pad)) and not case.pixels and not case.types
    )  # test_losses.py, test_integers.py


def by_operators(case: Case, preds: Tensor, target: Tensor, device: str) -> dict[str, Tensor]:
    """The same case through the operators; the planner decides for itself."""
    import ssim_fused  # noqa: F401  (registers the operators)

    def place(picture: Tensor, shape: tuple[int, ...]) -> Tensor:
        strides, offset, count = storage(case, shape)
        elements = torch.full((count,), torch.nan, dtype=case.dtype, device=device)
        return elements.as_strided(shape, strides, offset).copy_(picture)

    batch = case.shape[0]
    compute = torch.float64 if case.dtype == torch.float64 else torch.float32
    constants = None
    if case.constants:
        constants = torch.tensor([C1, C2], dtype=compute, device=device)
        constants = constants if case.constants == 1 else constants.repeat(batch, 1)
    shared = [
        place(preds, case.shape),
        place(target, case.shape),
        [],  # sigma
        list(case.sizes),
        [tap for window in windows(case) for tap in window.tolist()],
        case.padding_mode if case.pad is None else "valid",
        1.0,
        *K,
        constants,
        None,
        "window",
    ]
    wanted = [name in case.gradients for name in ("preds", "target", "constants")]
    names = [name for name, want in zip(("grad_preds", "grad_target", "grad_constants"), wanted, strict=True) if want]
    # The forward's gradients are those of the similarity, summed up; everything else takes a pass of its own.
    is_backward = bool(case.upstream) or case.objective != "similarity"
    forward = torch.ops.ssim_fused.similarity(
        *shared, *NO_PIXELS, 0, case.as_distance, True, case.want_map, *([False] * 3 if is_backward else wanted)
    )
    results = dict(zip(("similarity", "contrast_sensitivity"), forward, strict=False))
    if case.want_map:
        results["map"] = forward[2]
    (mean,) = torch.ops.ssim_fused.similarity(*shared, *NO_PIXELS, 1, case.as_distance, *[False] * 5)
    results["batch_similarity"] = mean.view(1)
    if is_backward:
        given = upstream(case) or {"grad_contrast": torch.ones(batch, dtype=torch.float64)}
        scalars = [
            given[name].to(device, compute) if name in given else None for name in ("grad_similarity", "grad_contrast")
        ]
        picture = place(given["grad_map"], case.output_shape) if "grad_map" in given else None
        gradients = torch.ops.ssim_fused.similarity_backward(*shared, 0, False, *scalars, picture, *wanted)
        results |= zip(names, gradients, strict=True)
    else:  # of the distance
        ones = torch.ones(batch, dtype=compute, device=device)
        for name, gradient in zip(names, forward[3 if case.want_map else 2 :], strict=True):
            if name == "grad_constants":
                results[name] = -gradient
            else:
                results[name] = torch.ops.ssim_fused.multiply_gradient(gradient, ones, -1.0, 1.0, *K)
    return {name: result.double().cpu() for name, result in results.items()}


def check_operators(case: Case, device: str) -> None:
    preds, target = pictures(case)
    results = by_operators(case, preds, target, device)
    check(case, results, preds, target)
    again = by_operators(case, preds, target, device)
    for name, result in results.items():
        assert torch.equal(result.nan_to_num(7.0), again[name].nan_to_num(7.0)), f"{name} is not repeated bit by bit"


@pytest.mark.parametrize("case", [*filter(is_operators, cases())], ids=Case.id)
def test_operators(case: Case, device: str) -> None:
    """The same cases through torch.ops: the CPU's kernels, and where there is a GPU the CUDA kernels on it."""
    check_operators(case, device)
