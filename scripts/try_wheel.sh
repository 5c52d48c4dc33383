#!/usr/bin/env bash
# Installs the wheel for this Python next to several versions of torch, without the network and without compiling, and
# runs the smoke test. Usage: scripts/try_wheel.sh dist 2.10.0 2.12.0 2.15.0   (downloads these versions of torch)
# TORCH_DIRS=/a:/b, in addition to or instead of versions: folders with torch and its dependencies (a site-packages).
# PYTHON is the interpreter to use (default: python3).
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=$(realpath "$1") && shift
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
try() {  # name, folder with torch or ""
  "${PYTHON:-python3}" -m venv "$place/$1"
  if [ -n "$2" ]; then
    realpath "$2" > "$place/$1/lib/$(ls "$place/$1/lib")/site-packages/torch_of_another.pth"
  else
    "$place/$1/bin/pip" install --quiet "torch==$1" numpy
  fi
  local begin=$SECONDS
  # These compilers fail, so that the test ends if anything is compiled.
  CC=/bin/false CXX=/bin/false "$place/$1/bin/pip" install --quiet --ignore-installed --no-index --no-deps --find-links "$wheels" ssim_fused
  echo "torch $1: installed in $((SECONDS - begin)) s"
  (cd "$place" && "$place/$1/bin/python" "$OLDPWD/scripts/smoke.py")
}
IFS=: read -ra folders <<<"${TORCH_DIRS:-}"
for folder in "${folders[@]}"; do [ -z "$folder" ] || try "$(basename "$(ls -d "$folder"/torch-*.dist-info)" .dist-info)" "$folder"; done
for version in "$@"; do try "$version" ""; done
