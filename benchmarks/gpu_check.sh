#!/usr/bin/env bash
# All that a machine with a GPU is needed for, in one go of under fifteen minutes:
#   benchmarks/gpu_check.sh DIR
# builds for that GPU, runs the tests of the CUDA operators, once more with NaN in all that torch allocates, runs small
# cases of every kernel under compute-sanitizer's four tools, and measures. DIR receives summary.txt, gpu_check.json, a log
# of each step and the benchmark's own files.
# Exit status: 0 if every step passed, 1 if one did not, 2 if there is nothing to run on.
# PYTHON chooses the interpreter: one with torch for CUDA, pytest with xdist and timeout, cmake and ninja. CUDACXX names
# nvcc where it is not on the path.
set -u

if [ $# -ne 1 ]; then
  echo "usage: benchmarks/gpu_check.sh DIR" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
PATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH
export PATH

if ! nvidia-smi -L > "$out/gpu.txt" 2>&1; then
  echo "gpu_check: no GPU here (nvidia-smi lists none): nothing was checked" | tee "$out/summary.txt" >&2
  exit 2
fi
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "gpu_check: $python has no torch that can use the GPU: nothing was checked" | tee "$out/summary.txt" >&2
  exit 2
fi
cuda=${CUDA_HOME:-/usr/local/cuda}
sanitizer=$(command -v compute-sanitizer || echo "$cuda/bin/compute-sanitizer")
nvcc=${CUDACXX:-$(command -v nvcc || echo "$cuda/bin/nvcc")}

: > "$out/summary.txt"
: > "$out/steps.tsv"

# step NAME SECONDS COMMAND...: runs it under its own time limit and records how it went. Steps may run side by side.
step() {
  local name=$1 limit=$2 begin=$SECONDS status verdict
  shift 2
  timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1
  status=$?
  case $status in
    0) verdict=passed ;;
    124 | 137) verdict="stopped after $limit s" ;;
    *) verdict="failed with status $status" ;;
  esac
  printf '%s\t%s\t%s\n' "$name" "$verdict" $((SECONDS - begin)) >> "$out/steps.tsv"
  printf '%-12s %-22s %4d s   %s\n' "$name" "$verdict" $((SECONDS - begin)) "$(tail -n 1 "$out/$name.log" | cut -c1-120)" |
    tee -a "$out/summary.txt"
}

# 0 is "every architecture that is visible", which cmake/cuda_architectures.cmake finds by itself.
unset TORCH_CUDA_ARCH_LIST
MAX_JOBS=$(nproc) step build 150 "$python" setup.py build_ext

# The folders whose tests run on a GPU where there is one; in the others cuda is but a word in a name.
on_gpu="tests/ops tests/nn tests/data"
small="tests/simt/test_kernels.py tests/simt/test_shard_kernels.py tests/simt/test_prefixes.py"
small+=" tests/simt/test_candidate_lists.py"
pytest=("$python" -m pytest -p no:cacheprovider)
step tests 150 "${pytest[@]}" -n 8 --dist worksteal -k cuda $on_gpu

# A read of what nobody wrote changes a result, or makes it NaN (tests/poison.py). The path is for plugins: older releases
# of pytest look for them before they read pyproject.toml.
export PYTHONPATH="$PWD/tests${PYTHONPATH:+:$PYTHONPATH}"
step poison 120 "${pytest[@]}" -p poison -n 8 --dist worksteal -k cuda $on_gpu
ISE_FAST_SIMT_VARIANT=cuda step poison-small 60 "${pytest[@]}" -p poison -n 8 --dist worksteal $small

# Kernels of ours only: those of the libraries are not ours to mend, and slow under these tools; but who looks for reads
# of what nobody wrote must see what they wrote. On Hopper two tools cannot follow the library's products, which therefore
# are formed by a plain kernel. PyTorch's cache would hide accesses out of bounds of a tensor but inside its block. Side by
# side: a tool keeps one core busy, and hardly the GPU.
step products 60 "$nvcc" -std=c++20 -arch=native -lineinfo -shared -Xcompiler=-fPIC -o "$out/plain_products.so" \
  tests/simt/plain_products.cu
export ISE_FAST_PLAIN_PRODUCTS="$out/plain_products.so"
for tool in memcheck racecheck initcheck synccheck; do
  kernels="--kernel-name kns=ise_fast" products=
  case $tool in
    racecheck) products="-p plain_products" ;;
    initcheck) products="-p plain_products" kernels= ;;
  esac
  ISE_FAST_SIMT_VARIANT=cuda PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "$tool" 150 \
    "$sanitizer" --tool "$tool" --error-exitcode 9 $kernels "${pytest[@]}" $products -n 0 $small &
done
wait

step clock 90 "$python" -m benchmarks.profile.clock "$out/clock.json" --until 40000
step benchmarks 90 "$python" -m benchmarks --device cuda --rounds 3 --budget 6 --out "$out/benchmarks"

failed=0
grep -qv "$(printf '\tpassed\t')" "$out/steps.tsv" && failed=1
"$python" - "$out" <<'PYTHON' || failed=1
import json, sys
from pathlib import Path

import torch

out = Path(sys.argv[1])
steps = [line.split("\t") for line in (out / "steps.tsv").read_text().splitlines()]
measured = out / "benchmarks" / "results.json"
record = {
    "gpu": torch.cuda.get_device_name(),
    "capability": ".".join(map(str, torch.cuda.get_device_capability())),
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "steps": [{"name": n, "verdict": v, "seconds": int(s)} for n, v, s in steps],
    "benchmarks": json.loads(measured.read_text()) if measured.exists() else None,
}
(out / "gpu_check.json").write_text(json.dumps(record, indent=1) + "\n")
PYTHON
rm "$out/steps.tsv"
echo "$([ "$failed" -eq 0 ] && echo 'all passed' || echo 'NOT all passed'), $SECONDS s; see $out" | tee -a "$out/summary.txt"
exit "$failed"
