#!/usr/bin/env bash
# Compiles the CPU kernels with each compiler that is installed (g++, clang++, and g++ for 64-bit ARM), runs
# tests/march.cpp compiled by each (ARM code under qemu), and compares the results. Also counts the FMA instructions in
# the machine code: if there are few of a function's vector width, the compiler has ignored its target attribute.
# Usage: tests/compilers.sh [PYTHON with torch]
# On Debian: apt install clang g++-aarch64-linux-gnu qemu-user binutils
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
include=$("$python" -c 'from torch.utils.cpp_extension import include_paths; print(*("-isystem" + p for p in include_paths()))')
flags="-std=c++20 -fPIC -fvisibility=hidden -ffp-contract=fast -Wall -Werror -Wno-psabi -DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000 -Icsrc $include"

fmas() { # prints the number of FMA instructions of a vector width in an object file
  objdump -d --no-show-raw-insn "$1" | grep -cE "vfn?m(add|sub)[0-9]+p[sd] .*%$2" || true
}

for compiler in ${COMPILERS:-g++ clang++ aarch64-linux-gnu-g++}; do
  if ! command -v "$compiler" > /dev/null; then
    echo "SKIPPED $compiler: not installed"
    continue
  fi
  objects=()
  for source in csrc/api/schema.cpp $(find csrc/cpu -name '*.cpp'); do
    object="$place/$compiler-$(basename "$source").o"
    echo "$compiler -O3 $source"
    # shellcheck disable=SC2086
    $compiler $flags -O3 -c "$source" -o "$object"
    objects+=("$object")
  done
  if [[ $($compiler -dumpmachine) == x86_64* ]]; then
    for object in "$place/$compiler"-march_*.o; do
      wide=$(fmas "$object" zmm) narrow=$(fmas "$object" ymm)
      echo "$compiler $(basename "$object" .o): $wide FMAs for AVX-512, $narrow for AVX2"
      # The march in float64 has no instances for AVX-512.
      if ((narrow < 100)) || { ((wide < 100)) && [[ $object != *double* ]]; }; then
        echo "FAILED: $compiler has dropped the target of march_avx512 or march_avx2"
        exit 1
      fi
    done
  fi
  run=()
  if [[ $($compiler -dumpmachine) == aarch64* && $(uname -m) != aarch64 ]]; then
    if ! command -v qemu-aarch64 > /dev/null; then
      echo "SKIPPED running what $compiler made: qemu-aarch64 is not installed"
      continue
    fi
    run=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
  fi
  # Without contraction into FMAs, all compilers round at the same operations.
  # shellcheck disable=SC2086
  $compiler $flags -O1 -ffp-contract=off tests/march.cpp -o "$place/march"
  "${run[@]}" "$place/march" > "$place/$compiler.txt"
  first=${first:-$compiler}
  "$python" - "$place/$first.txt" "$place/$compiler.txt" <<'END'
import sys
one, other = ([float(word) for word in open(path).read().split()] for path in sys.argv[1:])
assert len(one) == len(other) > 1000, "other numbers of results"
worst = max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(one, other))
assert worst < 1e-4, f"results differ by {worst}"  # sums of some hundred pixels in float32, some of which cancel
END
  echo "OK $compiler"
done
