"""Runs a case through the CUDA kernels on the host, with a program of tests/simt."""

from __future__ import annotations

from pathlib import Path

import torch
from host_program import Program, raw, run_case
from simt_cases import C1, C2, PIXEL_EPS, SSIM_WEIGHT, Case, type_name, upstream, windows
from torch import Tensor


def storage(case: Case, shape: tuple[int, ...]) -> tuple[list[int], int, int]:
    """Return strides, offset and number of elements of an image in the layout of the case."""

    def dense(row: int) -> list[int]:
        """Return the strides of all axes except the columns, for rows `row` elements apart."""
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
    elif case.layout == "padded":  # rows longer than the image, from an odd offset
        strides, offset = [*dense(width + 3), 1], 1
    elif case.layout == "aligned":  # rows longer than the image, aligned to 16 bytes
        strides, offset = [*dense((width + 31) // 16 * 16), 1], 16
    elif case.layout == "sliced":  # every second column
        strides, offset = [*dense(2 * width), 2], 1
    else:
        strides, offset = [*dense(width), 1], 0
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    return strides, offset, offset + last + 1


class Host:
    """Writes a case, runs the program and reads the results."""

    def __init__(self, program: Program, directory: Path):
        self.program, self.directory = program, directory

    def run(
        self, case: Case, preds: Tensor, target: Tensor, order: str | None = None, **more: object
    ) -> dict[str, Tensor]:
        """Run a case. `order` is one of host_program.ORDERS; `more` are additional fields of the case."""
        self.plan: dict[str, int] = {}
        fields: dict[str, object] = {
            "dtype": type_name(torch.uint8 if case.types else case.dtype),
            "shape": case.shape,
            "pad": case.padding,
            "padding_mode": case.padding_mode,
            "sizes": case.sizes,
            "taps": [f"{tap:.17g}" for window in windows(case) for tap in window.tolist()],
            "c1": C1,
            "c2": C2,
            "constants": case.constants,
            "as_distance": int(case.as_distance or case.pixels != ""),
            "pixels": case.pixels or "none",
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
            outputs["pixel_terms"] = (batch, 2), compute
        swapped = "target" in case.gradients and "preds" not in case.gradients
        if swapped:  # as the operators do, since SSIM is symmetric
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
                    fields[f"{name}_type"] = type_name(dtype)
                elements = torch.full(
                    (count,), torch.nan if dtype.is_floating_point else torch.iinfo(dtype).max, dtype=dtype
                )
                elements.as_strided(shape, strides, offset).copy_(inputs[name])
                (self.directory / f"{name}.bin").write_bytes(raw(elements))
        words = run_case(self.program, self.directory, fields, order).split()
        self.plan = {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

        results = {}
        for name, (shape, dtype) in outputs.items():
            elements = torch.frombuffer(bytearray((self.directory / f"{name}.bin").read_bytes()), dtype=dtype)
            if len(shape) > 2:
                strides, offset, count = storage(case, shape)
                picture = elements.as_strided(shape, strides, offset)
                # Elements between the pixels must not be written: they still have the initial bytes.
                untouched = torch.ones(count, dtype=torch.bool)
                untouched.as_strided(shape, strides, offset).fill_(False)
                assert (elements.view(torch.uint8).view(count, -1)[untouched] == 255).all(), name
                results[name] = picture.double()
            else:
                results[name] = elements.view(shape).double()
        if not case.upstream and not case.pixels:  # the program returns gradients of the distance
            results |= {name: -value for name, value in results.items() if name.startswith("grad_")}
        if swapped:
            results["grad_target"] = results.pop("grad_preds")
        return results
