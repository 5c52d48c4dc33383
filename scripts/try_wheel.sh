#!/usr/bin/env bash
# Installs the wheel that fits next to several versions of torch, without the network, and runs the smoke test: nothing
# may be compiled.  Usage: scripts/try_wheel.sh dist 2.10.0 2.12.0 2.15.0   (torch's versions are downloaded)
# TORCH_DIRS=/a:/b in place of versions: folders that hold a torch with all it needs, such as a site-packages.
# PYTHON: the interpreter to try the wheels with (default: python3).
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
  # A compiler that is called ends the test.
  CC=/bin/false CXX=/bin/false "$place/$1/bin/pip" install --quiet --ignore-installed --no-index --no-deps --find-links "$wheels" ssim_fused
  echo "torch $1: installed in $((SECONDS - begin)) s"
  (cd "$place" && "$place/$1/bin/python" "$OLDPWD/scripts/smoke.py")
}
IFS=: read -ra folders <<<"${TORCH_DIRS:-}"
for folder in "${folders[@]}"; do [ -z "$folder" ] || try "$(basename "$(ls -d "$folder"/torch-*.dist-info)" .dist-info)" "$folder"; done
for version in "$@"; do try "$version" ""; done
