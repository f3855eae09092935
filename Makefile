# Two commands: make demo, make test. Both install into .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
# A make file target that is newer than what it was made from is up to date.
INSTALLED := .venv/.installed
NETWORKS := .venv/networks
# Two processes, each through a half of the files in their order; who is done first takes of the
# other's half. What a file makes once for all its tests is seldom made twice then.
TEST := $(BIN)/python -m pytest -n 2 --dist worksteal

.PHONY: help demo docs figures install networks lint test test-fast test-gpu clean

help:
	@echo "make demo     train, prune, fine-tune and compare on built-in data (about 5 minutes)"
	@echo "make test     run all tests"
	@echo "make test-fast  run those of readers, models, evaluation and utilities: a minute or two"
	@echo "make test-gpu check the GPU of this machine, in at most eight minutes"
	@echo "make docs     build the documentation into site/, broken links being errors"
	@echo "make figures  draw the pictures of the documentation again"
	@echo "make lint     style, types and layers"
	@echo "make install  make .venv with the versions of constraints.txt"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		torch setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-build-isolation -e ".[dev]"
	# Ultralytics without torchvision, whose wheels bring another torch: its tests have a stub.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		--no-deps ultralytics ultralytics-thop polars polars-runtime-32
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
	$(TEST) --durations=20 --ignore=tests/export --ignore=tests/networks
	$(TEST) --durations=20 tests/export
	PYTHONPATH=$(NETWORKS) $(TEST) tests/networks

test-fast: $(INSTALLED)
	$(TEST) -m "not slow" tests/data tests/models tests/evaluators tests/utils

test-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu_check.py

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict
	$(BIN)/mkdocs build --strict -f mkdocs.zh.yml
	$(BIN)/python docs/translations.py

# The charts are drawn from benchmarks/results; what measures those again takes hours.
figures: $(INSTALLED)
	$(BIN)/python docs/figures.py --demo

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info YOLOX_outputs datasets/demo site
