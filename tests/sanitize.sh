#!/usr/bin/env bash
# Builds the CPU operators under AddressSanitizer and UndefinedBehaviorSanitizer into a folder of their own and runs the
# operators' tests on them, a third of each test's cases. Usage: tests/sanitize.sh [pytest arguments]; PYTHON names the
# interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=$PWD/build/sanitize
package=$folder/package
mkdir -p "$package/ise_fast"
# The package without its ordinary libraries; the instrumented one is built beside it.
(cd ise_fast && find . -name '*.py' -exec cp --parents -t "$package/ise_fast" {} +)
cmake -S . -B "$folder/cmake" -G Ninja -DISE_FAST_CUDA=OFF -DISE_FAST_SANITIZE=address,undefined \
  -DISE_FAST_OUTPUT_DIR="$package/ise_fast" \
  -DISE_FAST_TORCH_DIR="$("$python" -c 'import torch; print(torch.__path__[0])')" \
  -DPython_EXECUTABLE="$("$python" -c 'import sys; print(sys.executable)')" \
  -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >"$folder/cmake.log"
cmake --build "$folder/cmake" --target _C --parallel "${MAX_JOBS:-2}"

libraries=
for name in libasan.so libubsan.so libstdc++.so.6; do
  libraries=$libraries${libraries:+:}$(g++ -print-file-name=$name)
done
# Python itself leaks. pytest's own pythonpath would put the checkout with its ordinary library first; conftest.py looks
# that it does not, and which tests run here.
cd tests
LD_PRELOAD=$libraries ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONPATH=$package ISE_FAST_TESTED=$package PYTHONDONTWRITEBYTECODE=1 \
  "$python" -m pytest -p no:cacheprovider -o pythonpath=tests --sanitized only "${@:-ops}"
