#!/usr/bin/env bash
# All that only a GPU can say, in one run, each part in a file of its own in OUT:
#   build      the CUDA library, in place
#   tests      every test that runs on CUDA, the nightly ones too
#   sanitizer  compute-sanitizer's memcheck, racecheck and initcheck, over cases of each kind of kernel
#   bench      beside another commit, in turns (benchmarks/against.py); then the host's part (benchmarks/path.py)
#   profile    what Nsight Compute says of MS-SSIM's small kernels, windows of radius 3, 7 and 11 and interleaved images
# A part that fails does not keep the next from running; the exit status tells. Without an nvidia device it stops.
#   [PARTS="build tests ..."] scripts/on_gpu.sh OUT [COMMIT to measure beside: the one before] [PYTHON with torch]
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
out=$(mkdir -p "${1:?usage: scripts/on_gpu.sh OUT [COMMIT] [PYTHON]}" && cd "$1" && pwd) || exit 2
commit=${2:-HEAD~1}
python=${3:-python3}
parts=${PARTS:-build tests sanitizer bench profile}
export SSIM_FUSED_CUDA=1 PYTHONPATH=$PWD
failed=()

"$python" -c 'import torch; exit(not torch.cuda.is_available())' || { echo "on_gpu.sh: torch sees no GPU" >&2; exit 2; }

# LABEL COMMAND...: its output goes to a file; a failure is told and remembered.
run() {
  local label=$1 begin=$SECONDS
  shift
  if "$@" >"$out/$label.log" 2>&1; then
    echo "OK    $label, $((SECONDS - begin)) s"
  else
    echo "FAILS $label, $((SECONDS - begin)) s: $out/$label.log"
    failed+=("$label")
  fi
}

build() {
  run build "$python" setup.py build_ext --inplace
}

tests() {
  run tests "$python" -m pytest -q --nightly -p no:cacheprovider -k "cuda or captured" tests
}

# One case of each kind: the tools slow a kernel down a hundredfold.
sanitizer() {
  local tool cases="(test_operators and cuda and (default or channels_last or pixels)) or side_stream"
  for tool in memcheck racecheck initcheck; do
    run "sanitizer-$tool" timeout 1200 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      "$python" -m pytest -q -x -k "$cases" tests/test_simt.py tests/test_simt_volumes.py tests/test_cuda_training.py
  done
}

bench() {
  local before
  before=$(mktemp -d)
  git worktree add --force --detach "$before" "$commit" >/dev/null 2>&1
  run bench-build env -C "$before" PYTHONPATH="$before" "$python" setup.py build_ext --inplace
  run bench-against "$python" -m benchmarks.bench --device cuda --against "$before"
  run bench-path "$python" -m benchmarks.path --device cuda
  git worktree remove --force "$before"
}

profile() {
  local kernels='regex:downsample_kernel|product_kernel|gather_kernel|wide_gradient_kernel|wide_filter_kernel|strip_kernel'
  run profile ncu --set full --kernel-name "$kernels" --launch-count 60 --target-processes all \
    --export "$out/profile" --force-overwrite "$python" -c "$PROFILED"
}
PROFILED='
import torch
from ssim_fused import multiscale_structural_similarity_index_measure as msssim, structural_similarity_index_measure as ssim
def step(function, x, y, **arguments):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (1 - function(x, y, data_range=1.0, **arguments)).backward()
x, y = (torch.rand(8, 3, 1080, 1920, device="cuda") for _ in range(2))
step(msssim, x, y)
step(ssim, x, y, sigma=3.0)
step(ssim, x, y, gaussian_kernel=False, kernel_size=7)
step(ssim, x, y, sigma=2.0)
step(ssim, *(image.contiguous(memory_format=torch.channels_last) for image in (x, y)))
torch.cuda.synchronize()
'

for part in $parts; do "$part"; done
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}"; exit 1; }
