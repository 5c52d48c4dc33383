"""SASS instructions by class, registers and spilled bytes of the training kernels. Needs no GPU.

Compiles tests/simt/strips.cu and pyramid.cu for one architecture. A change that should not affect the kernels must keep
these numbers. For one that should, they show by how much:

    python benchmarks/sass.py --out before.json
    python benchmarks/sass.py --against before.json     # prints the differences; exits with status 1 if there are any
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

SIMT = Path(__file__).parent.parent / "tests/simt"
SOURCES = SIMT / "strips.cu", SIMT / "pyramid.cu"
# These classes of instructions are counted separately; all others are "other".
CLASSES = (
    *("FFMA", "FMUL", "FADD", "MUFU", "DADD", "IMAD", "IADD3", "LEA", "ISETP", "FSETP", "SEL"),
    *("LDS", "STS", "LDG", "STG", "LDGSTS", "LDC", "LDCU", "LDL", "STL", "BAR", "BRA", "S2R"),
)
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)")
RESOURCES = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
    re.DOTALL,
)


def tool(name: str) -> str:
    """The path of a CUDA tool, or of triton's copy of it."""
    found = shutil.which(name)
    triton = importlib.util.find_spec("triton")
    if found is None and triton is not None and triton.origin is not None:
        found = shutil.which(name, path=str(Path(triton.origin).parent / "backends/nvidia/bin"))
    if found is None:
        raise SystemExit(f"sass.py: no {name}, neither on PATH nor in a triton package")
    return found


def short_names(symbols: list[str]) -> dict[str, str]:
    """Maps mangled symbols to `strip_kernel<StripConfig<float, 64, 3, ...>>`, without namespaces."""
    demangled = subprocess.run(["c++filt", *symbols], capture_output=True, text=True, check=True).stdout.splitlines()
    names = {}
    for symbol, name in zip(symbols, demangled, strict=True):
        without_parameters = name.removeprefix("void ").split(">(")[0] + ">"
        names[symbol] = re.sub(r"\w+::", "", without_parameters).replace(" >", ">")
    return names


def measure(architecture: str, source: Path) -> dict[str, dict[str, int]]:
    """The counts of every kernel, by its name."""
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory) / "kernels.cubin"
        command = [tool("nvcc"), "-std=c++20", "-O3", f"-arch={architecture}", "-cubin", "-Xptxas", "-v"]
        built = subprocess.run([*command, "-o", str(cubin), str(source)], capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise SystemExit(built.stderr)
        listing = subprocess.run([tool("cuobjdump"), "-sass", str(cubin)], capture_output=True, text=True, check=True)
    kernels: dict[str, dict[str, int]] = {}
    for symbol, stores, loads, registers in RESOURCES.findall(built.stderr):
        kernels[symbol] = {"registers": int(registers), "spilled": int(stores) + int(loads)}
    for part in listing.stdout.split("Function : ")[1:]:
        symbol, *lines = part.splitlines()
        found = Counter(match[1] for line in lines if (match := INSTRUCTION.match(line)))
        del found["NOP"]  # padding at the end
        numbers = kernels[symbol.strip()]
        numbers["instructions"] = sum(found.values())
        numbers |= {name: found[name] for name in CLASSES if found[name]}
        numbers["other"] = numbers["instructions"] - sum(found[name] for name in CLASSES)
    names = short_names(list(kernels))
    return dict(sorted((names[symbol], numbers) for symbol, numbers in kernels.items()))


def differences(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> list[str]:
    """A line for every kernel that is gone or new, or whose numbers changed."""
    lines = [f"- {name}: gone" for name in before if name not in after]
    lines += [f"- {name}: new" for name in after if name not in before]
    for name in before:
        if name not in after or before[name] == after[name]:
            continue
        old, new = before[name], after[name]
        changed = [
            f"{key} {old.get(key, 0)} -> {new.get(key, 0)}"
            for key in dict.fromkeys([*old, *new])
            if old.get(key, 0) != new.get(key, 0)
        ]
        lines.append(f"- {name}: {', '.join(changed)}")
    return lines


def main() -> int:
    """Measure, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--against", type=Path, help="compare with the numbers of this file")
    arguments = parser.parse_args()
    kernels = {name: numbers for source in SOURCES for name, numbers in measure(arguments.arch, source).items()}
    if arguments.out:
        arguments.out.write_text(json.dumps({"arch": arguments.arch, "kernels": kernels}, indent=1) + "\n")
    if not arguments.against:
        for name, numbers in kernels.items():
            print(f"{numbers['instructions']:6} {numbers['registers']:4} {numbers['spilled']:4}  {name}")
        return 0
    before = json.loads(arguments.against.read_text())
    if before["arch"] != arguments.arch:
        raise SystemExit(f"sass.py: {arguments.against} is of {before['arch']}, not of {arguments.arch}")
    lines = differences(before["kernels"], kernels)
    print("\n".join(lines) if lines else f"{len(kernels)} kernels, no difference")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
