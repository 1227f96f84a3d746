# `make demo` and `make test` set everything up from nothing (own .venv) and are quick once it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Two processes with one thread each are done sooner than one with two; `make test WORKERS=0` runs in one.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=15 --durations-min=10

.PHONY: setup demo test quick peers browser docs stories lint mini clean

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

# Comparisons with the code of other tools and of the models' authors, whose packages cannot all live in one environment with ours,
# and the tests on a Ray cluster: theirs is a second environment that sees ours. Those of the authors pin old versions of what they need, hence --no-deps.
PEERS = .venv-peers
PEERS_STAMP = $(PEERS)/.installed

$(PEERS_STAMP): $(STAMP) Makefile
	test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	$(BIN)/python -c "import os, sysconfig; print(os.getcwd(), sysconfig.get_path('purelib'), sep='\\n')" > $(PEERS)/ours.pth
	mv $(PEERS)/ours.pth "$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")"
	$(PEERS)/bin/python -m pip install --quiet \
		datasets datumaro fiftyone hydra-core iopath label-studio-sdk labelme 'moto[server]' 'ray[data]' rf-groundingdino s3fs timm webdataset
	SAM2_BUILD_CUDA=0 $(PEERS)/bin/python -m pip install --quiet --no-deps --no-build-isolation \
		sam2 segment-anything-hq
	touch $(PEERS_STAMP)

peers: $(PEERS_STAMP)
	AGS_PEERS=1 OMP_NUM_THREADS=1 $(PEERS)/bin/python -m pytest -n $(WORKERS) --dist worksteal \
		-m "not network and not gpu and not browser and not ray" $$(grep -rl "import peer" tests --include=*.py)
	AGS_PEERS=1 OMP_NUM_THREADS=1 $(PEERS)/bin/python -m pytest -m ray $$(grep -rl "mark.ray" tests --include=*.py)  # one cluster at a time

# What a person sees, driven in Chromium; pictures of it are in browser_shots/ then. And the playground's other tests, which need
# gradio as well.
browser: $(VENV)/.browser
	AGS_BROWSER=1 $(PYTEST) -m "browser and not network"
	$(PYTEST) tests/app -m "not browser and not network and not gpu"

$(VENV)/.browser: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[browser,app,docs]'
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The docs site, in site/: it opens from disk. A broken link or anchor, or a page that the nav forgot, ends the build.
# (Not --quiet: the warnings that --strict counts would be silenced with the rest.)
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs-installed: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

# Executes the notebooks of docs/stories anew, from the scripts in examples/.
stories: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[docs,ray]'
	$(BIN)/python -m tools.notebooks

# Trains the shipped mini weights again, from painting the scenes to the measured folders: two and a half hours of two cores.
# A leg that is done is kept in .cache/mini and not done again, so it may be broken off.
mini: $(STAMP)
	$(BIN)/python -m tools.mini.train --out autodistill_grounded_sam/mini

clean:
	rm -rf $(VENV) $(PEERS) demo_out browser_shots site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
