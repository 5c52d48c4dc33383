# Each target sets up all it needs, in a virtual environment of its own; what is compiled is compiled once for all.
#   make demo          trains a small denoiser with the SSIM loss and draws the result
#   make demo-volume   the same for a volume, the image of a brain
#   make demo-score    scores JPEG files and a short video that it makes, and draws score against quality
#   make test          tests and lint, some twenty minutes on two cores
#   make test-all      more examples, and what is slow; under sanitizers and with other compilers (tests/*.sh)
#   make bench-score   what scoring files costs beside decoding them, pyiqa, scikit-image, FFmpeg: a minute or ten
#   make docs          the documentation site, in docs/_build/html
#   make accuracy      errors of this and of other libraries against float64, docs/accuracy.md: a minute
#   make linkcheck     the links out of the site: needs a network
#   make gpu-bundle    what a machine with a GPU and without a network needs to test and measure: scripts/on_gpu.py
#   make wheel         a wheel for each Python, and the sources, in dist/, with CUDA if torch and nvcc have it
#   make bench         measures against other libraries, draws plots, rewrites docs/benchmarks.md and the README's table

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)
# Where there is no nvcc, its wheel compiles the CUDA kernels that the tests ask for.
NVCC := $(if $(CUDA_HOME)$(CUDA_PATH)$(shell command -v nvcc),,$(VENV)/installed-nvcc)
PARALLEL := --numprocesses $(shell nproc) --dist worksteal
CPP = find csrc tests benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'
# Of the CUDA kernels, the tests compile what they need; the library is built where a GPU can run it, and for a wheel.
export SSIM_FUSED_CUDA ?= $(if $(wildcard /dev/nvidia[0-9]*)$(filter wheel,$(MAKECMDGOALS)),,0)

.PHONY: demo demo-volume demo-score test test-all lint format docs linkcheck accuracy gpu-bundle wheel bench bench-score clean

demo: $(VENV)/installed-demo
	$(BIN)/python examples/train_denoiser.py

demo-volume: $(VENV)/installed-volume
	$(BIN)/python examples/train_volume_denoiser.py

demo-score: $(VENV)/installed-demo $(VENV)/installed-scoring
	$(BIN)/python examples/score_pictures.py

test: $(VENV)/installed-test $(NVCC) lint docs
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/installed-test $(VENV)/installed-demo $(VENV)/installed-volume $(NVCC) lint
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

# For one kind of GPU, and of two commits: BEFORE=COMMIT (the last tag), ARCH=9.0.
gpu-bundle: $(VENV)/torch
	$(BIN)/python scripts/gpu_bundle.py $(if $(BEFORE),--before $(BEFORE)) $(if $(ARCH),--arch $(ARCH))

wheel: $(VENV)/installed-wheel
	$(BIN)/python scripts/make_wheels.py

# piq asks for a torchvision, which its SSIM does not use and which may not fit the torch that is installed.
bench: $(VENV)/installed-bench
	$(BIN)/python -c 'import torchvision' 2>/dev/null || $(BIN)/pip uninstall --quiet --yes torchvision
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.path
	$(BIN)/python -m benchmarks.peak
	if $(BIN)/python -c 'import torch; exit(not torch.cuda.is_available())'; then $(BIN)/python -m benchmarks.bench --device cuda; $(BIN)/python -m benchmarks.path --device cuda; fi
	$(BIN)/python -m benchmarks.plot

# pyiqa, which brings half of PyPI, is measured where its command is found: PYIQA=/path/to/pyiqa
bench-score: $(VENV)/installed-demo $(VENV)/installed-scoring
	$(BIN)/python -m benchmarks.scoring $(if $(PYIQA),--pyiqa $(PYIQA))

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" numpy ninja pybind11 "setuptools>=77" wheel
	touch $@

# Once here, where one can see it; pip finds nothing left to compile.
$(VENV)/built: $(VENV)/torch $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace
	$(PIP) --no-build-isolation --editable .
	touch $@

# The package is there, so pip adds what the extra asks for.
$(VENV)/installed-%: $(VENV)/built
	$(PIP) "ssim_fused[$*]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info ssim_fused/*.so
