"""Measures the cost of a call outside the kernels: `python -m benchmarks.path [--device cuda]`.

On small images, with one thread on the CPU, it measures: values and steps of ssim_fused, of every other library, of
`F.mse_loss` and of a trivial `autograd.Function`, which show the framework's own cost; the time of each layer; and the
operators and allocations that torch's profiler counts in a step. Rounds are interleaved, and the minimum counts,
because the length of the code path is the quantity of interest. Writes benchmarks/results/path/DEVICE.csv and, from the
files of all devices, the tables of docs/path.md.
"""

from __future__ import annotations

import argparse
import csv
import platform
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

import ssim_fused
from ssim_fused._core import _ops, autograd, prepared
from ssim_fused._core.spec import Spec
from ssim_fused._core.window import Window

from . import peers
from .cases import GRADIENT, MS_SSIM, SSIM, VALUE, Case, make_inputs, make_step
from .marks import rewrite

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "benchmarks/results/path", ROOT / "docs/path.md"
SHAPES = {"cpu": [(SSIM, (1, 1, 16, 16)), (MS_SSIM, (1, 1, 176, 176))],
          "cuda": [(SSIM, (8, 1, 64, 64)), (SSIM, (64, 3, 256, 256))]}  # fmt: skip
MSE, TRIVIAL = "F.mse_loss", "a trivial Function"
# Modules, measured in addition to the functions, and PyTorch's own module for comparison.
MODULES = {"nn.MSELoss": torch.nn.MSELoss, "SSIMLoss": ssim_fused.SSIMLoss}
COUNTED = ("aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty")


class Trivial(torch.autograd.Function):
    """The minimum cost of a loss with its own gradient: two allocations, one stored image, one multiplication."""

    @staticmethod
    def forward(ctx: Any, preds: Tensor) -> Tensor:
        value, gradient = preds.new_empty(()), torch.empty_like(preds)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream[0])


def microseconds(calls: dict[str, Callable[[], Any]], device: str, rounds: int) -> dict[str, float]:
    """The minimum time of each call, over interleaved rounds."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    least: dict[str, float] = {}
    for call in calls.values():
        for _ in range(3):  # the third call with the same arguments is prepared
            call()
    repeats = {name: max(3, int(0.003 / max(timeit.timeit(call, number=2) / 2, 1e-7))) for name, call in calls.items()}
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            start = timeit.default_timer()
            for _ in range(repeats[name]):
                call()
            wait()
            spent = (timeit.default_timer() - start) / repeats[name] * 1e6
            least[name] = min(spent, least.get(name, spent))
    return least


def graph_replay(step: Callable[[], Any]) -> Callable[[], Any]:
    """The step as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def module_step(case: Case, loss: torch.nn.Module, preds: Tensor, target: Tensor) -> Callable[[], Any]:
    """The value of a loss, or a step as in a training loop, without a subtraction from 1."""

    def step() -> None:
        torch.autograd.grad(loss(preds, target), preds)

    return step if case.mode == GRADIENT else make_step(case, loss, preds, target)


def calls_of(op: str, shape: tuple[int, ...], device: str, libraries: list[peers.Peer]) -> dict[str, Callable[[], Any]]:
    """Values and steps of every library, and of the framework itself."""
    calls: dict[str, Callable[[], Any]] = {}
    for mode in (VALUE, GRADIENT):
        case = Case(op, shape, mode)
        preds, target = make_inputs(case, device)
        calls[f"{MSE} | {mode}"] = make_step(case, F.mse_loss, preds, target)
        if op == SSIM:
            for name, module in MODULES.items():
                calls[f"{name} | {mode}"] = module_step(case, module(), preds, target)
        if mode == GRADIENT:
            calls[f"{TRIVIAL} | {mode}"] = make_step(case, lambda x, y: Trivial.apply(x), preds, target)
        for library in libraries:
            if library.supports(case):
                calls[f"{library.name} | {mode}"] = make_step(case, library.case_function(case, device), preds, target)
        if device == "cuda":
            calls[f"ssim_fused, CUDA graph | {mode}"] = graph_replay(calls[f"{peers.OURS} | {mode}"])
    return calls


def layers() -> dict[str, Callable[[], Any]]:
    """A value and a step of 1x1x16x16, each cut off at successive layers, and the alternatives that were considered."""
    case = Case(SSIM, (1, 1, 16, 16), VALUE)
    x, y = make_inputs(case, "cpu")
    x = x.detach()
    spec = Spec(Window((1.5,), (11,)))
    entry = prepared.prepare(spec)
    assert entry is not None
    gradient, one = torch.empty_like(x), torch.ones(())
    none = (False, False, False)
    outputs = autograd._outputs
    whole = make_step(case, peers.create(peers.OURS).function(case, "cpu"), x, y)
    return {
        "value: the function": whole,
        "value: a prepared call": lambda: prepared.run(entry, x, y),
        "value: the prepared operator, pixels included": lambda: _ops.prepared_value(x, y, entry.number),
        "value: autograd.evaluate, not prepared": lambda: autograd.evaluate(spec, x, y),
        "value: the full operator": lambda: outputs(spec, x, y, None, none),
        "value: the full operator through register_autograd": lambda: spec.outputs(x, y, None, none),
        "step: the prepared operator with one gradient": lambda: _ops.prepared(x, y, entry.number, True, False),
        "step: the full operator with one gradient": lambda: outputs(spec, x, y, None, (True, False, False)),
        "step: the prepared multiplication, factor minus one": lambda: _ops.prepared_multiply_(
            gradient, one, entry.number
        ),
        "one empty tensor": lambda: torch.empty(1),
    }


def counts(step: Callable[[], Any]) -> tuple[int, int]:
    """The numbers of tensor allocations and of operators in a step."""
    step()
    with torch.profiler.profile() as profile:
        step()
    names = [event.name for event in profile.events() or () if "::" in event.name]
    return sum(name in COUNTED for name in names), len(names)


def measure(device: str, rounds: int) -> list[dict[str, Any]]:
    """All rows of a device."""
    libraries, *_ = peers.load(device, [])
    rows: list[dict[str, Any]] = []
    for op, shape in SHAPES[device]:
        calls = calls_of(op, shape, device, libraries)
        found = microseconds(calls, device, rounds)
        for key, spent in found.items():
            who, mode = key.split(" | ")
            floor = found[f"{MSE} | {VALUE}" if mode == VALUE else f"{TRIVIAL} | {GRADIENT}"]
            if who in MODULES:
                floor = found[f"nn.MSELoss | {mode}"]
            allocations, operators = (0, 0) if "graph" in who else counts(calls[key])
            rows.append(
                {"table": f"{op} {'x'.join(map(str, shape))}", "mode": mode, "what": who, "us": round(spent, 2),
                 "ratio": round(spent / floor, 2), "allocations": allocations, "operators": operators}
            )  # fmt: skip
    if device == "cpu":
        for what, spent in microseconds(layers(), device, rounds).items():
            rows.append({"table": "layers", "mode": "", "what": what, "us": round(spent, 2)})
    return rows


def page(paths: list[Path]) -> str:
    """The tables of docs/path.md."""
    parts = []
    for path in paths:
        with path.open() as file:
            first = file.readline().strip("# \n")
            rows = list(csv.DictReader(file))
        parts.append(f"**{first}**")
        for table in dict.fromkeys(row["table"] for row in rows):
            mine = [row for row in rows if row["table"] == table]
            if table == "layers":
                parts.append("Where a call's time goes, 1x1x16x16:\n\n| | us |\n| --- | ---: |\n" + "\n".join(
                    f"| {row['what']} | {row['us']} |" for row in mine))  # fmt: skip
                continue
            parts.append(
                f"{table}; the ratio of a value is to `{MSE}`, of a step to {TRIVIAL}, of a module to `nn.MSELoss`:\n\n"
                "| | | us | ratio | allocations | operators |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
                + "\n".join(
                    f"| {row['what']} | {row['mode']} | {row['us']} | {row['ratio']} | {row['allocations']} | "
                    f"{row['operators']} |"
                    for row in mine
                )
            )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure, write the CSV, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(arguments.device, arguments.rounds)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{platform.machine()}, one thread"
    path = RESULTS / f"{arguments.device}.csv"
    with path.open("w", newline="") as file:
        file.write(f"# {machine}, torch {torch.__version__}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    rewrite(PAGE, page([file for device in SHAPES if (file := RESULTS / f"{device}.csv").exists()]))


if __name__ == "__main__":
    main()
