"""Cases of the CUDA kernels: what runs one on the host, by the program of tests/simt, and what judges the results.

The oracle is a few lines of differentiable PyTorch in float64 (`exact`), itself held against torchmetrics in
test_simt.py. Every case runs through torch.ops, too: on the CPU, and where there is a GPU, there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from host_program import raw, run_case
from torch import Tensor
from torch.nn import functional

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
        words = run_case(self.driver, self.directory, fields, {"SSIM_SIMT_REVERSE": "1"} if reverse else {}).split()
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
