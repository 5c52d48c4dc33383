#!/usr/bin/env bash
# Builds a wheel with one torch and tests it with another, both ways: the library depends on LibTorch's stable ABI
# alone. Downloads both versions.  Usage: tests/check_abi.sh [2.14.1 2.13.0]
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("${1:-2.14.1}" "${2:-2.13.0}")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for version in "${versions[@]}"; do
  python3 -m venv "$place/$version"
  "$place/$version/bin/pip" install --quiet "torch==$version" numpy ninja pybind11 'setuptools>=77' wheel \
    pytest hypothesis torchmetrics==1.9.0
  SSIM_FUSED_CUDA=0 "$place/$version/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$place/wheel-$version" .
done
cp -r tests "$place/tests"
for i in 0 1; do
  built=${versions[i]} used=${versions[1 - i]}
  "$place/$used/bin/pip" install --quiet --no-deps --force-reinstall "$place/wheel-$built"/*.whl
  (cd "$place" && "$used/bin/python" -m pytest -q --override-ini addopts= tests/test_operators.py tests/test_exactness.py)
  echo "built with torch $built, passed with torch $used"
done
