"""Plans of the CUDA launch planner (csrc/cuda/launch/plan.h), by `_C.plan`: valid, balanced, not wasteful."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import pytest

from benchmarks import plan as planned
from ssim_fused import _C

ROWS_OF_STEP, SCHEDULERS, WARP = 8, 4, 32


@dataclass(frozen=True)
class Machine:
    sms: int
    shared_bytes: int  # of an SM
    max_threads: int  # of an SM


MACHINES = {
    "H100": Machine(132, 228 * 1024, 2048),
    "A100": Machine(108, 164 * 1024, 2048),
    "RTX 4090": Machine(128, 100 * 1024, 1536),
    "T4": Machine(40, 64 * 1024, 1024),
}

# planes, height, width: the least share of the issue slots that useful pixels may get by the planner's own model,
# for H100, A100, RTX 4090, T4. What is lost goes to warm-up rows, strip margins, the last wave and latency; a 64x64
# picture cannot fill a GPU.
SHAPES = {
    "1x1x64x64": ((1, 64, 64), 0.003, 0.003, 0.003, 0.01),
    "8x1x64x64": ((8, 64, 64), 0.025, 0.025, 0.025, 0.055),
    "128x3x64x64": ((384, 64, 64), 0.29, 0.30, 0.30, 0.22),
    "1x3x1080x1920": ((3, 1080, 1920), 0.47, 0.47, 0.40, 0.34),
    "64x3x256x256": ((192, 256, 256), 0.50, 0.48, 0.43, 0.32),
    "32x3x512x512": ((96, 512, 512), 0.45, 0.44, 0.38, 0.31),
    "16x3x1080x1920": ((48, 1080, 1920), 0.60, 0.58, 0.48, 0.36),
}
ODD_SHAPES = [(1, 1, 1), (1, 1, 5000), (1, 5000, 1), (100_000, 11, 11), (1, 100_000, 11), (7, 33, 1_000_003)]


def plan(shape: tuple[int, int, int], machine: Machine, gradient: bool, radius: int = 5) -> dict[str, float]:
    made = _C.plan(shape, gradient=gradient, radius=radius, **asdict(machine))
    assert made is not None
    return made


def check_valid(chosen: dict[str, float], shape: tuple[int, int, int], machine: Machine) -> None:
    planes, height, width = shape
    assert chosen["blocks_per_sm"] > 0
    assert chosen["blocks_per_sm"] * chosen["columns"] <= machine.max_threads
    # The strips cover the width and none is empty; so do the splits the height.
    owned_before_last = (chosen["strips"] - 1) * chosen["owned"]
    assert owned_before_last < width <= owned_before_last + chosen["last"]
    rows = planes * chosen["strips"] * chosen["rows_of_strip"]
    assert (chosen["blocks"] - 1) * chosen["rows"] < rows <= chosen["blocks"] * chosen["rows"]
    # A strip's rows are the picture's, or where they are shared among blocks, whole blocks'.
    assert height <= chosen["rows_of_strip"] < height + chosen["rows"]
    assert chosen["rows_of_strip"] == height or chosen["rows_of_strip"] % chosen["rows"] == 0


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "value"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("machine_name", MACHINES)
def test_planned_launches(machine_name: str, name: str, gradient: bool) -> None:
    machine, (shape, *bounds) = MACHINES[machine_name], SHAPES[name]
    chosen = plan(shape, machine, gradient)
    check_valid(chosen, shape, machine)
    planes, height, width = shape

    # Every SM has work, or else every block has so little that more would only repeat the warm-up.
    assert chosen["blocks"] >= 0.9 * machine.sms or chosen["rows"] <= 20

    useful_turns = planes * height * width / (WARP * ROWS_OF_STEP) / (machine.sms * SCHEDULERS)
    bound = bounds[list(MACHINES).index(machine_name)]
    assert useful_turns / chosen["cost"] >= bound


@pytest.mark.parametrize("radius", [3, 5, 11])
@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "value"])
@pytest.mark.parametrize("shape", [*ODD_SHAPES, SHAPES["1x3x1080x1920"][0]])
@pytest.mark.parametrize("machine_name", MACHINES)
def test_any_shape_gets_a_valid_plan(
    machine_name: str, shape: tuple[int, int, int], gradient: bool, radius: int
) -> None:
    check_valid(plan(shape, MACHINES[machine_name], gradient, radius), shape, MACHINES[machine_name])


def test_no_plan_where_no_kernel_fits() -> None:
    assert _C.plan((1, 64, 64), gradient=True, sms=1, shared_bytes=8 * 1024, max_threads=1024) is None


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"radius": 4}, ValueError, "radius: 4, expected 3, 5 or 11"),
        ({"sms": 0}, ValueError, "sms: 0, expected a positive number"),
        ({"shape": (1, -64, 64)}, ValueError, "height: -64, expected a positive number"),
        ({"shape": (1, 64)}, TypeError, "incompatible function arguments"),
        ({"shared_bytes": "many"}, TypeError, "incompatible function arguments"),
        ({"sms": 2**40}, TypeError, "incompatible function arguments"),
    ],
)
def test_wrong_arguments_are_refused(changed: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _C.plan(**({"shape": (1, 64, 64), "gradient": True} | asdict(MACHINES["T4"]) | changed))


def test_the_page_has_the_planners_numbers() -> None:
    """docs/kernels.md is what `python -m benchmarks.plan` writes; what its prose predicts is in these tables."""
    page = planned.PAGE.read_text()
    made = planned.tables()
    assert all(f"<!-- {name}:begin -->\n{text}<!-- {name}:end -->" in page for name, text in made.items())
    prose = re.sub(r"<!-- (plans|predictions):begin -->.*?<!-- \1:end -->", "", page, flags=re.DOTALL)
    cells = {cell.strip() for line in made["predictions"].splitlines() for cell in line.split("|")}
    for predicted in ("1.28 to 1.34 ms", "1.36 to 1.76 ms", "1.27 ms", "0.43 ms"):
        assert predicted in prose
        assert predicted in cells
