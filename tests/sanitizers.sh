#!/usr/bin/env bash
# Runs tests/threads.cpp, which calls the CPU kernels as the operators do, under ThreadSanitizer and under
# AddressSanitizer with UBSan, with the best instruction set of this machine and with the baseline.
# Usage: tests/sanitizers.sh [PYTHON with torch]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
compiler=${CXX:-g++}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
include=$("$python" -c 'from torch.utils.cpp_extension import include_paths; print(*("-isystem" + p for p in include_paths()))')
torch=$("$python" -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent / "lib")')
flags="-std=c++20 -O1 -g1 -Wno-psabi -Wno-tsan  -DTORCH_TARGET_VERSION=0x020a000000000000 -Icsrc $include"
export TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1
# Leaks are not checked, because torch never frees its singletons.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1

for sanitizer in ${SANITIZERS:-thread address,undefined}; do
  for source in tests/threads.cpp csrc/cpu/march/march_*.cpp csrc/cpu/bytes/bytes.cpp; do
    echo "$compiler -fsanitize=$sanitizer $source"
    # shellcheck disable=SC2086
    $compiler $flags "-fsanitize=$sanitizer" -fno-sanitize-recover=all -c "$source" -o "$place/$(basename "$source").o"
  done
  $compiler "-fsanitize=$sanitizer" "$place"/*.o -L"$torch" -Wl,-rpath,"$torch" -ltorch_cpu -lc10 -o "$place/threads"
  for set in '' baseline; do
    SSIM_FUSED_INSTRUCTION_SET=$set "$place/threads"
    echo "OK $sanitizer, instruction set ${set:-of this machine}"
  done
done
