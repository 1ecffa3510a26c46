# Everything runs in .venv, which is made with uv where it is installed and with venv + pip elsewhere.
# Two stamps: the package alone (enough for `make demo`), and with the tools of developers.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)
PACKAGE := $(VENV)/.package
DEV := $(VENV)/.dev
WORKERS ?= 2
# worksteal: neighbours share compiled functions, and no worker ends idle beside a queue.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

# Set-up is offline-proof for libraries that look for a display or an accelerator.
export MPLBACKEND ?= Agg

.PHONY: help demo test slow lint format types notebooks notebooks-check wheel wheel-check docs \
	bench check clean

help:
	@echo "make demo       solve problems four ways; writes out/demo"
	@echo "make test       the default suite (minutes)"
	@echo "make check      lint, types, default and slow tests, notebooks, docs, wheel: what CI runs"
	@echo "make docs       the API reference, in build/docs"
	@echo "make lint | format | types | slow | notebooks | wheel | bench | clean"

demo: $(PACKAGE)
	$(BIN)/jurax demo --output out/demo

test: $(DEV)
	$(PYTEST) -q

slow: $(DEV)
	$(PYTEST) -q -m slow --durations=10

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

# Regenerates the notebooks with their outputs; notebooks-check executes and writes nothing.
notebooks: $(DEV)
	$(BIN)/python notebooks/execute.py --write $(NOTEBOOKS)

notebooks-check: $(DEV)
	$(BIN)/python notebooks/execute.py $(NOTEBOOKS)

wheel: $(DEV)
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

# An empty environment, another directory: what a user of the wheel sees.
wheel-check: wheel
	rm -rf build/wheel-venv build/elsewhere
	mkdir -p build/elsewhere
ifdef UV
	$(UV) venv --quiet --python $(PYTHON) build/wheel-venv
	$(UV) pip install --quiet --python build/wheel-venv/bin/python dist/*.whl
else
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet dist/*.whl
endif
	cd build/elsewhere && ../wheel-venv/bin/python $(CURDIR)/tests/installed.py
	cd build/elsewhere && ../wheel-venv/bin/jurax --help > help.txt && grep -q demo help.txt

# The API reference, one page for each file.
docs: $(DEV)
	rm -rf build/docs
	$(BIN)/python -m pdoc --docformat google --math -o build/docs jurax

# At equal decoded tokens on 500 unseen problems, first with the dialled reward, then the shipped one.
bench: $(DEV)
	$(BIN)/python benchmarks/reasoning.py --reward dialled --num-problems 500 --seed 2
	$(BIN)/python benchmarks/reasoning.py --reward shipped --num-problems 500

check: $(DEV)
	@bash .ci/stages lint types test slow notebooks-check docs wheel-check

clean:
	rm -rf build dist out .pytest_cache .ruff_cache $(VENV)

ifdef UV
$(PACKAGE): pyproject.toml
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -e .
	touch $@

$(DEV): $(PACKAGE)
	$(UV) pip install --quiet --python $(BIN)/python -e . --group dev
	touch $@
else
# pip reads dependency groups from 25.1 on; the one that comes with Python may be older.
$(PACKAGE): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(DEV): $(PACKAGE)
	$(BIN)/python -m pip install --quiet -e . --group dev
	touch $@
endif
