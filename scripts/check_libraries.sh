#!/usr/bin/env bash
# Checks the libraries of a wheel. The operators' libraries may use only the part of LibTorch's stable C interface that
# torch 2.10 has: no Python, no C++ symbols of torch, and no CUDA runtime except the one linked in. Prints sizes, the
# newest required glibc and libstdc++, and the GPU architectures. Needs binutils and torch-abi-audit (the extra
# `wheel`), and cuobjdump for CUDA. Usage: scripts/check_libraries.sh dist/NAME.whl
set -euo pipefail
wheel=$1 place=$(mktemp -d) failed=0
trap 'rm -rf "$place"' EXIT
fail() { echo "  WRONG: $*" && failed=1; }
python3 -m zipfile -e "$wheel" "$place"
echo "$(basename "$wheel"): $(stat --format %s "$wheel") bytes"
while read -r library; do
  name=$(basename "$library")
  undefined=$(nm --dynamic --undefined-only --without-symbol-versions "$library" | awk '{print $2}')
  newest() { objdump -T "$library" | grep -o "$1_[0-9.]*" | sort -uV | tail -1; }
  needed=$(objdump -p "$library" | awk '/NEEDED/ {print $2}')
  echo "$name: $(stat --format %s "$library") bytes, $(newest GLIBC), $(newest GLIBCXX), needs" $needed
  case $name in
    _C.*) continue ;;  # works with any Python and uses no torch
    _cuda_*)
      if grep -q cudart <<<"$needed"; then fail "it needs a CUDA runtime in addition to its own"; fi
      seen=$(nm --dynamic --defined-only "$library" | grep -cE ' cu(da)?[A-Z]' || true)
      if [ "$seen" -gt 0 ]; then fail "$seen names of its CUDA runtime can be seen by others"; fi
      if command -v cuobjdump >/dev/null; then
        kinds() { cuobjdump "$1" "$library" | grep -oE "sm_[0-9]+[a-z]?" | sort -u | tr '\n' ' '; }
        echo "  machine code for $(kinds --list-elf); PTX of $(kinds --list-ptx)"
      fi ;;
  esac
  unstable=$(grep -E '^_Z.*(2at|3c10|5torch)|^_?Py' <<<"$undefined" || true)
  if [ -n "$unstable" ]; then
    fail "it asks for $(c++filt <<<"$unstable" | tr '\n' ' ')"
  else
    echo "  stable symbols: $(grep -cE '^(aoti_torch|torch_)' <<<"$undefined" || true); none of torch's C++, none of Python"
  fi
done < <(find "$place" -name '*.so*' -type f | sort)
# Check again against the list of stable symbols that torch publishes, with the version that introduced each.
torch-abi-audit --json --check torch "$place/ssim_fused" > "$place/audit.json" || fail "torch-abi-audit: $(cat "$place/audit.json")"
python3 - "$place/audit.json" <<'PYTHON' || failed=1
import json
import sys

report = json.load(open(sys.argv[1]))
for library in report["bundled_libs"] + report["extensions"]:
    torch, name = library["torch"], library["path"].split("/")[-1]
    oldest = torch["min_torch_version"]
    print(f"torch-abi-audit: {name}: {'torch ' + oldest + ' or newer' if torch['uses_torch'] else 'no torch'}")
    if torch["uses_torch"] and (not torch["stable"] or tuple(map(int, oldest.split("."))) > (2, 10, 0)):
        sys.exit(f"  WRONG: {name} does not run with torch 2.10.0")
PYTHON
exit $failed
