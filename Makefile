# Two commands on a fresh machine: make demo, make test. All set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE  # where it is set, each process of the tests would compile the package anew
READY := $(VENV)/.ready

.PHONY: help demo test pytest lint docs bench soak clean

help: ## what there is to make
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable '.[dev,docs]'
	touch $@

demo: $(READY) ## install, then compare seven models offline on the built-in data
	HF_HUB_OFFLINE=1 $(BIN)/hierderm demo --out runs/demo

test: $(READY) ## lint, types and all tests
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: $(READY) ## the tests alone
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist worksteal  # some wait

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## build the documentation site into build/site; warnings are errors
	HF_HUB_OFFLINE=1 NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(READY) ## time the benchmarks' rows and compare them with benchmarks/bench.json, about 10 minutes
	HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/guard.py

soak: $(READY) ## kills, damaged inputs, leaks and load, about 20 minutes; writes benchmarks/soak.json
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak --out benchmarks/soak.json

clean: ## remove the environment and the caches, not the runs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
