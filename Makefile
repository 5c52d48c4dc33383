# Each target sets up all it needs, in a virtual environment of its own.
#   make demo    trains a small denoiser with the SSIM loss and draws the result
#   make demo-volume   the same for a volume, the image of a brain
#   make test    tests and lint
#   make bench   measures against other libraries, draws plots, rewrites the README's table

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: demo demo-volume test lint format bench clean

demo: $(VENV)/installed-demo
	$(BIN)/python examples/train_denoiser.py

demo-volume: $(VENV)/installed-volume
	$(BIN)/python examples/train_volume_denoiser.py

test: $(VENV)/installed-test lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format -i

# piq asks for a torchvision, which its SSIM does not use and which may not fit the torch that is installed.
bench: $(VENV)/installed-bench
	$(BIN)/python -c 'import torchvision' 2>/dev/null || $(BIN)/pip uninstall --quiet --yes torchvision
	$(BIN)/python -m benchmarks.bench
	if $(BIN)/python -c 'import torch; exit(not torch.cuda.is_available())'; then $(BIN)/python -m benchmarks.bench --device cuda; fi
	$(BIN)/python -m benchmarks.plot

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)" numpy ninja pybind11 "setuptools>=77" wheel
	touch $@

# The extension is rebuilt where a source changed; what did not change is not compiled again.
$(VENV)/installed-%: $(VENV)/torch $(SOURCES)
	$(PIP) --no-build-isolation --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info ssim_fused/*.so
