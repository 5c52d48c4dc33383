#!/usr/bin/env bash
# What the libraries of a wheel depend on: an operators' library may know LibTorch's stable C interface alone, no
# Python and no C++ of torch's. Prints sizes and the newest glibc and libstdc++ asked for.
# Usage: scripts/check_libraries.sh dist/NAME.whl
set -euo pipefail
wheel=$1 place=$(mktemp -d) failed=0
trap 'rm -rf "$place"' EXIT
python3 -m zipfile -e "$wheel" "$place"
echo "$(basename "$wheel"): $(stat --format %s "$wheel") bytes"
while read -r library; do
  name=$(basename "$library")
  undefined=$(nm --dynamic --undefined-only --without-symbol-versions "$library" | awk '{print $2}')
  newest() { objdump -T "$library" | grep -o "$1_[0-9.]*" | sort -uV | tail -1; }
  echo "$name: $(stat --format %s "$library") bytes, $(newest GLIBC), $(newest GLIBCXX), needs" \
    $(objdump -p "$library" | awk '/NEEDED/ {print $2}')
  case $name in
    _C.*) continue ;;  # pybind11's: of one Python, of no torch
  esac
  unstable=$(grep -E '^_Z.*(2at|3c10|5torch)|^_?Py' <<<"$undefined" || true)
  if [ -n "$unstable" ]; then
    echo "  NOT STABLE:" && c++filt <<<"$unstable" && failed=1
  else
    echo "  stable symbols: $(grep -cE '^(aoti_torch|torch_)' <<<"$undefined" || true); none of torch's C++, none of Python"
  fi
done < <(find "$place" -name '*.so*' -type f | sort)
exit $failed
