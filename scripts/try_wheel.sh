#!/usr/bin/env bash
# Installs one wheel with several versions of torch, without a network, and runs the smoke test. Nothing may be
# compiled. Usage: scripts/try_wheel.sh dist/NAME.whl 2.10.0 2.12.0 2.15.0   (downloads these versions of torch) Instead
# of versions, TORCH_DIRS=/a:/b names folders that hold torch and its dependencies, such as a site-packages.
set -euo pipefail
cd "$(dirname "$0")/.."
wheel=$(realpath "$1") && shift
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
try() {  # try NAME FOLDER; FOLDER has torch, or is ""
  python3 -m venv "$place/$1"
  if [ -n "$2" ]; then
    realpath "$2" > "$place/$1/lib/$(ls "$place/$1/lib")/site-packages/torch_of_another.pth"
  else
    "$place/$1/bin/pip" install --quiet "torch==$1" numpy
  fi
  local begin=$SECONDS
  # Calling a compiler fails the test.
  CC=/bin/false CXX=/bin/false "$place/$1/bin/pip" install --quiet --no-index --no-deps "$wheel"
  echo "torch $1: installed in $((SECONDS - begin)) s"
  (cd "$place" && "$place/$1/bin/python" "$OLDPWD/scripts/smoke.py")
}
IFS=: read -ra folders <<<"${TORCH_DIRS:-}"
for folder in "${folders[@]}"; do [ -z "$folder" ] || try "$(basename "$(ls -d "$folder"/torch-*.dist-info)" .dist-info)" "$folder"; done
for version in "$@"; do try "$version" ""; done
