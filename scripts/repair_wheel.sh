#!/usr/bin/env bash
# Tags a Linux wheel with the oldest platform that its symbols permit, and checks every library in it.
# Usage: scripts/repair_wheel.sh NAME.whl FOLDER   The renamed wheel is written to FOLDER.
set -euo pipefail
wheel=$1 folder=$2
# Exclude torch's libraries, because copies in the wheel would be loaded in addition to torch's own.
exclude=()
for library in libtorch.so libtorch_cpu.so libtorch_cuda.so libtorch_python.so libc10.so libc10_cuda.so; do
  exclude+=(--exclude "$library")
done
mkdir -p "$folder"
auditwheel show "$wheel"
for platform in manylinux_2_28 manylinux_2_34 manylinux_2_35 manylinux_2_39 none; do
  if [ $platform = none ]; then echo "no platform up to manylinux_2_39 permits this wheel's symbols" && exit 1; fi
  if auditwheel repair "${exclude[@]}" --plat "${platform}_$(uname -m)" --wheel-dir "$folder" "$wheel"; then break; fi
done
"$(dirname "$0")/check_libraries.sh" "$(ls -t "$folder"/*"$platform"*.whl | head -1)"
