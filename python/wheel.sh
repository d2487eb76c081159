#!/usr/bin/env bash
# Builds one wheel for other machines into dist/NAME. Usage: python/wheel.sh NAME [arguments for CMake]
# PYTHON: the interpreter to build for; default: python.
# The CUDA wheel takes the objects of the checkout's own build, which nvcc needs minutes for.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
python=${PYTHON:-python}
export ISE_FAST_CMAKE_ARGS="${*:2}"
[ "$name" = cuda ] || export ISE_FAST_BUILD_DIR=$PWD/build/wheel-$name
raw=$(mktemp -d)
rm -rf build/lib.* # libraries of the other kind would go into the wheel
trap 'rm -rf "$raw" build/lib.* build/bdist.*' EXIT
"$python" -m pip wheel -v --no-build-isolation --no-deps --disable-pip-version-check --wheel-dir "$raw" .
# torch's own libraries are found through torch, which is imported first.
"$python" -m auditwheel repair --exclude 'libtorch*.so' --exclude 'libc10*.so' --exclude 'libcuda*.so*' \
  --wheel-dir "dist/$name" "$raw"/*.whl
