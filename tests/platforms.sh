#!/usr/bin/env bash
# Compiles the libraries for other platforms, with the flags of setup.py, as far as the compilers are installed:
#
#   windows   the CPU library by Clang for x86_64-w64-windows-gnu. Under Wine, tests/march.cpp must print the same
#             numbers as on this machine. If TORCH_WINDOWS is the unpacked wheel of torch for Windows, the operators
#             (tests/operators.cpp) must do so too. Clang must also accept the flags for MSVC.
#   macos     the CPU library by Zig's Clang with the headers of macOS, for 64-bit ARM
#   rocm      the CUDA library by Clang's HIP front end for gfx90a, gfx942 and gfx1100
#
# Usage: tests/platforms.sh [PYTHON with torch].  PLATFORMS="windows rocm" selects platforms.
# On Debian: apt install clang-19 lld-19 g++-mingw-w64-x86-64-posix wine64 libamdhip64-dev; pip install ziglang
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
place=$(mktemp -d)
trap 'rm -rf "$place" 2> /dev/null || (sleep 5 && rm -rf "$place")' EXIT # Wine's server exits a little later
torch=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent)')
defines="-DNDEBUG -DTORCH_TARGET_VERSION=0x020a000000000000 -isystem $torch/include"
flags="-std=c++20 -ffp-contract=fast -fno-math-errno -fvisibility=hidden -Wall -Werror -Wno-psabi $defines"
cpu_sources="csrc/api/schema.cpp csrc/cuda/launch/planned.cpp $(find csrc/cpu -name '*.cpp')"

flags_of() { # prints the compile flags that setup.py uses on a system
  "$python" -c 'import sys; sys.path.insert(0, "scripts"); import toolchain; print(toolchain.system_of(sys.argv[1]).compile_flags)' "$1"
}

newest_clang() { # prints the name of the newest clang++ that is installed, or nothing
  local name
  for name in clang++ clang++-{22..14}; do
    if command -v "$name" > /dev/null; then echo "$("$name" -dumpversion | cut -d. -f1) $name"; fi
  done | sort -nrs | sed '1s/.* //;q'
}

compile_cpu() { # NAME COMPILER...: compiles the objects of the CPU library
  local name=$1 source
  shift
  for source in $cpu_sources; do
    echo "$name: $source"
    # shellcheck disable=SC2086
    "$@" $flags -Wno-unknown-pragmas -O1 -c "$source" -o "$place/$name-$(basename "$source").o"
  done
}

same_numbers() { # FILE FILE [ERROR]: compares numbers; ERROR is relative to their root mean square
  "$python" - "$1" "$2" "${3:-0}" <<'END_OF_PYTHON'
import math, sys
one, other = ([float(word) for word in open(path).read().split()] for path in sys.argv[1:3])
assert len(one) == len(other) > 1000, f"{len(one)} and {len(other)} results"
error = math.dist(one, other) / math.hypot(*one)
print(f"{len(one)} numbers, error {error:.1e}")
assert error <= float(sys.argv[3]), f"expected at most {sys.argv[3]}"
END_OF_PYTHON
}

windows() {
  local clang wine
  clang=$(newest_clang)
  if [[ -z $clang ]] || ! command -v x86_64-w64-mingw32-g++-posix > /dev/null; then
    echo "SKIPPED windows: clang++ and MinGW's libraries are not both installed"
    return
  fi
  # shellcheck disable=SC2046,SC2086
  echo 'int number;' | "$clang" --target=x86_64-pc-windows-msvc $(flags_of win32) $flags -Werror=unused-command-line-argument \
    -MMD -MF "$place/depfile" -x c++ -c - -o "$place/msvc.obj"
  local gnu="$clang --target=x86_64-w64-windows-gnu"
  # shellcheck disable=SC2086
  compile_cpu windows $gnu
  # Use lld, because the GNU linker fails on Clang's type names.
  wine=$(command -v wine64 || command -v /usr/lib/wine/wine64 || true)
  if ! "$clang" -fuse-ld=lld --version > /dev/null 2>&1 || [[ -z $wine ]]; then
    echo "OK windows; SKIPPED running it: lld and wine64 are not both installed"
    return
  fi
  export WINEPREFIX="$place/wine" WINEDEBUG=-all
  # Without contraction into FMAs, all compilers round at the same operations.
  local march="-std=c++20 -O1 -ffp-contract=off -Wno-psabi $defines -Icsrc tests/march.cpp"
  # shellcheck disable=SC2086
  c++ $march -o "$place/march"
  # shellcheck disable=SC2086
  $gnu $march -fuse-ld=lld -static -lwinpthread -o "$place/march.exe"
  "$place/march" > "$place/here.txt"
  "$wine" "$place/march.exe" | tr -d '\r' > "$place/windows.txt"
  same_numbers "$place/here.txt" "$place/windows.txt"
  if [[ -z ${TORCH_WINDOWS:-} ]]; then
    echo "OK windows, and its march under Wine; SKIPPED its operators: TORCH_WINDOWS is not set"
    return
  fi
  # Put the libraries next to torch's DLLs, where the loader finds their dependencies.
  mkdir "$place/lib"
  cp "$TORCH_WINDOWS"/torch/lib/{c10,torch_cpu}.lib "$TORCH_WINDOWS"/torch/lib/*.dll "$place/lib"
  local link="-fuse-ld=lld -static -L$place/lib -ltorch_cpu -lc10 -lwinpthread"
  # shellcheck disable=SC2086
  $gnu -shared "$place"/windows-*.o $link -o "$place/lib/_operators.dll"
  local program="-std=c++20 -O1 -DTORCH_TARGET_VERSION=0x020d000000000000 -isystem $torch/include tests/operators.cpp"
  # shellcheck disable=SC2086
  $gnu $program $link -o "$place/lib/operators.exe"
  # shellcheck disable=SC2086
  c++ $program -L"$torch/lib" -Wl,-rpath,"$torch/lib" -ltorch_cpu -lc10 -ldl -o "$place/operators"
  # The baseline has no FMA. Wine 8 lacks the function by which OpenMP pins threads.
  export SSIM_FUSED_INSTRUCTION_SET=baseline KMP_AFFINITY=disabled
  "$place/operators" "$(ls "$PWD"/ssim_fused/_operators_*.so)" > "$place/here.txt"
  "$wine" "$place/lib/operators.exe" "$place/lib/_operators.dll" | tr -d '\r' > "$place/windows.txt"
  same_numbers "$place/here.txt" "$place/windows.txt"
  # With FMA, Clang and GCC contract different operations, so float32 results differ by rounding.
  unset SSIM_FUSED_INSTRUCTION_SET
  "$place/operators" "$(ls "$PWD"/ssim_fused/_operators_*.so)" > "$place/here.txt"
  "$wine" "$place/lib/operators.exe" "$place/lib/_operators.dll" | tr -d '\r' > "$place/windows.txt"
  same_numbers "$place/here.txt" "$place/windows.txt" 1e-6
  echo "OK windows, its march and its operators under Wine"
}

macos() {
  if ! "$python" -c 'import ziglang' 2> /dev/null; then
    echo "SKIPPED macos: the package ziglang is not installed"
    return
  fi
  local clang="$python -m ziglang c++ -target aarch64-macos"
  # shellcheck disable=SC2046
  compile_cpu macos $clang $(flags_of darwin)
  # The process that loads the library provides the symbols of torch, as in setup.py.
  $clang -shared -undefined dynamic_lookup "$place"/macos-*.o -o "$place/_operators.so"
  echo "OK macos"
}

rocm() {
  local clang gpu lanes source
  clang=$(newest_clang)
  if [[ -z $clang ]] || (($("$clang" -dumpversion | cut -d. -f1) < 17)) || [[ ! -e /usr/include/hip/hip_runtime.h ]]; then
    echo "SKIPPED rocm: Clang 17 or newer and HIP's headers are not both installed"
    return
  fi
  # torch's header of complex numbers includes this file of ROCm's Thrust. These declarations are all that it uses.
  mkdir -p "$place/include/thrust"
  cat > "$place/include/thrust/complex.h" <<'END_OF_HEADER'
#pragma once
namespace thrust {
template <class T>
struct complex {
  __host__ __device__ complex(T real = T(), T imag = T()) : parts{real, imag} {}
  __host__ __device__ T real() const { return parts[0]; }
  __host__ __device__ T imag() const { return parts[1]; }
  T parts[2];
};
template <class T>
__host__ __device__ complex<T> polar(T r, T theta);
}
END_OF_HEADER
  for gpu in gfx90a gfx942 gfx1100; do
    local hip
    hip=$("$python" -c 'import sys; sys.path.insert(0, "scripts"); import toolchain
print(toolchain.Hip(toolchain.Path("/usr"), (sys.argv[1],)).compile_flags(""))' "$gpu")
    for source in csrc/cuda/*.cu; do
      echo "$gpu: $source"
      # shellcheck disable=SC2086
      "$clang" $hip -nogpulib --rocm-path=/usr -Wall -Werror $defines -isystem "$place/include" -fsyntax-only "$source"
    done
    # Compile one source to machine code, to find errors that the front end does not detect.
    # shellcheck disable=SC2086
    "$clang" $hip -nogpulib --rocm-path=/usr $defines -isystem "$place/include" --cuda-device-only -S csrc/cuda/pyramid.cu -o "$place/$gpu.s"
    if grep -E 'vgpr_spill_count: *[1-9]' "$place/$gpu.s"; then
      echo "FAILED: a kernel of pyramid.cu spills registers on $gpu"
      exit 1
    fi
    echo "OK $gpu"
  done
}

for platform in ${PLATFORMS:-windows macos rocm}; do
  "$platform"
done
