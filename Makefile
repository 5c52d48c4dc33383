# Each target installs what it needs into the virtual environment $(VENV). The library is compiled once for all.
#   make check         format, lint, types and the quick tests: under three minutes once the library is built
#   make lint          format, lint and types alone; compiles nothing
#   make format        formats Python and C++ and applies the linter's fixes
#   make test          lint, the documentation and all tests: up to twenty minutes on two cores
#   make test-all      also the nightly tests, and the CPU kernels under sanitizers and with other compilers (tests/*.sh)
#   make demo          trains a small denoiser with the SSIM loss and draws the result
#   make demo-volume   trains a denoiser of volumes on brain scans and draws the result
#   make demo-score    makes JPEG files and a short video, scores them, and plots score against quality
#   make docs          builds the documentation site in docs/_build/html
#   make linkcheck     checks the external links of the site; needs a network
#   make accuracy      measures errors against float64, ours and other libraries', and writes docs/accuracy.md: a minute
#   make bench         measures against other libraries; writes plots, docs/benchmarks.md and the table of README.md
#   make bench-score   measures scoring files against decoding alone, pyiqa, scikit-image and FFmpeg: up to ten minutes
#   make gpu-bundle    packs what a machine with a GPU but no network needs to test and measure (scripts/on_gpu.py)
#   make wheel         builds a wheel for each Python, with CUDA if torch and nvcc support it, and the source package in dist/

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)
# The tests compile some CUDA kernels. If the machine has no nvcc, they use the one from PyPI.
NVCC := $(if $(CUDA_HOME)$(CUDA_PATH)$(shell command -v nvcc),,$(VENV)/installed-nvcc)
PARALLEL := --numprocesses $(shell nproc) --dist worksteal
CPP = find csrc tests benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'
# Build the CUDA library only for a wheel, or if there is a GPU to run it. The tests compile the kernels that they need.
export SSIM_FUSED_CUDA ?= $(if $(wildcard /dev/nvidia[0-9]*)$(filter wheel,$(MAKECMDGOALS)),,0)

.PHONY: check lint format test test-all demo demo-volume demo-score docs linkcheck accuracy gpu-bundle wheel bench bench-score clean

check: $(VENV)/installed-test lint
	$(BIN)/python -m pytest $(PARALLEL) --quick

demo: $(VENV)/installed-demo
	$(BIN)/python examples/train_denoiser.py

demo-volume: $(VENV)/installed-volume
	$(BIN)/python examples/train_volume_denoiser.py

demo-score: $(VENV)/installed-demo $(VENV)/installed-scoring
	$(BIN)/python examples/score_pictures.py

test: $(VENV)/installed-test $(NVCC) lint docs
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/installed-test $(VENV)/installed-frameworks $(VENV)/installed-demo $(VENV)/installed-volume $(NVCC) lint
	$(BIN)/python -m pytest $(PARALLEL) --nightly
	tests/sanitizers.sh $(BIN)/python
	tests/compilers.sh $(BIN)/python
	tests/platforms.sh $(BIN)/python

lint: $(VENV)/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(CPP) | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/ty check --python $(VENV)

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(CPP) | xargs $(BIN)/clang-format -i

docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html

linkcheck: $(VENV)/installed-docs
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/linkcheck

accuracy: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.accuracy

# ARCH=9.0 names the GPU to compile for. BEFORE=COMMIT is a second commit to compare with; default: the last tag.
gpu-bundle: $(VENV)/torch
	$(BIN)/python scripts/gpu_bundle.py $(if $(BEFORE),--before $(BEFORE)) $(if $(ARCH),--arch $(ARCH))

wheel: $(VENV)/installed-wheel
	$(BIN)/python scripts/make_wheels.py

# piq depends on torchvision, but its SSIM does not. Remove a torchvision that does not work with the installed torch.
bench: $(VENV)/installed-bench
	$(BIN)/python -c 'import torchvision' 2>/dev/null || $(BIN)/pip uninstall --quiet --yes torchvision
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.path
	$(BIN)/python -m benchmarks.peak
	if $(BIN)/python -c 'import torch; exit(not torch.cuda.is_available())'; then $(BIN)/python -m benchmarks.bench --device cuda; $(BIN)/python -m benchmarks.path --device cuda; fi
	$(BIN)/python -m benchmarks.plot

# pyiqa has many dependencies and is not installed here. To include it, set PYIQA=/path/to/pyiqa.
bench-score: $(VENV)/installed-demo $(VENV)/installed-scoring
	$(BIN)/python -m benchmarks.scoring $(if $(PYIQA),--pyiqa $(PYIQA))

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" numpy ninja pybind11 "setuptools>=77" wheel
	touch $@

# setup.py runs directly, so that its progress is visible. pip then finds nothing left to compile.
$(VENV)/built: $(VENV)/torch $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(PIP) --no-build-isolation --editable .
	touch $@

# The linters need no build: ty resolves imports from torch and from the packages of the group "lint".
$(VENV)/installed-lint: $(VENV)/torch pyproject.toml
	$(PIP) --upgrade "pip>=25.1"
	$(PIP) --group lint
	touch $@

# The package is installed already, so pip only adds the dependencies of the extra.
$(VENV)/installed-%: $(VENV)/built
	$(PIP) "ssim_fused[$*]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info ssim_fused/*.so
