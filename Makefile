# `make demo` and `make test` set everything up from nothing (own .venv) and are quick once it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Two processes with one thread each are done sooner than one with two; `make test WORKERS=0` runs in one.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: setup demo test quick browser lint mini clean

setup: $(STAMP)

# Installed anew whenever what is declared changes.
$(STAMP): setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev,yolo]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py --out demo_out

test: $(STAMP) lint
	$(PYTEST) -m "not network and not gpu and not browser and not ray"

quick: $(STAMP)
	$(PYTEST) -m "not slow and not network and not gpu and not browser and not ray"

# What a person sees, driven in Chromium; pictures of it are in browser_shots/ then.
browser: $(VENV)/.browser
	$(PYTEST) -m "browser and not network"

$(VENV)/.browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[browser,app]'
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains the shipped mini weights again, from painting the scenes to the measured folders: two and a half hours of two cores.
# A leg that is done is kept in .cache/mini and not done again, so it may be broken off.
mini: $(STAMP)
	$(BIN)/python -m tools.mini.train --out autodistill_grounded_sam/mini

clean:
	rm -rf $(VENV) demo_out browser_shots build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
