# Two commands: make demo, make test. Both install into .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
# A make file target that is newer than what it was made from is up to date.
INSTALLED := .venv/.installed
NETWORKS := .venv/networks

.PHONY: help demo install networks lint test test-fast clean

help:
	@echo "make demo     train, prune, fine-tune and compare on built-in data (about 5 minutes)"
	@echo "make test     run all tests"
	@echo "make test-fast  run those of readers, models, evaluation and utilities: a minute or two"
	@echo "make lint     style, types and layers"
	@echo "make install  make .venv with the versions of constraints.txt"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		torch setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e ".[dev]"
	touch $@

# Other people's networks, for tests alone and in a folder apart: the wheel of torchvision does not
# import beside a PyTorch that it was not built for, and libraries that look for it would stumble.
networks: $(NETWORKS)/.installed

$(NETWORKS)/.installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-deps --target $(NETWORKS) timm torchvision
	touch $@

demo: $(INSTALLED)
	$(BIN)/python tools/quickstart.py

test: $(INSTALLED) networks
	# Exported files apart: their runtimes share a process with nothing else then.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=20 --ignore=tests/export \
		--ignore=tests/networks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=20 tests/export
	OMP_NUM_THREADS=1 PYTHONPATH=$(NETWORKS) $(BIN)/python -m pytest -n 2 tests/networks

test-fast: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow" \
		tests/data tests/models tests/evaluators tests/utils

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info YOLOX_outputs datasets/demo
