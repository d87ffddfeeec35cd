# `make` tunes; `make help` lists what else there is
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?= target=cpu latency_ms=5
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

# several tests at a time, one more than processors, for many wait; those that share something expensive stay together
PYTEST = $(BIN)/pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

.PHONY: tune test test-all lint style types format bench bench-measure bench-search gpu-check clean help
tune: $(VENV)/.installed  ## tune the bundled CNN, or ARGS="target=cpu latency_ms=2 …"
	$(BIN)/tune $(ARGS)

test: $(VENV)/.installed-dev  ## the tests but the slow ones: a few minutes
	$(PYTEST)

test-all: $(VENV)/.installed-dev  ## every test that needs no GPU: half an hour at most
	$(PYTEST) -m "not gpu"

lint: style types  ## ruff and mypy, as .ci/run asks

style: $(VENV)/.installed-dev  ## ruff alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy sees plugins/ and conf/ where they are installed: inside the package
types: $(VENV)/.installed-dev  ## mypy alone
	rm -rf build/lint && mkdir -p build/lint && cp -rs $(CURDIR)/tuner build/lint/tuner
	cp -rs $(CURDIR)/plugins build/lint/tuner/plugins
	cp -rs $(CURDIR)/benchmarks build/lint/benchmarks
	cd build/lint && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p tuner -p benchmarks

format: $(VENV)/.installed-dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: bench-measure bench-search  ## the figures that docs/ quotes; leave the machine alone meanwhile
	$(BIN)/python -m benchmarks.interleaving
	$(BIN)/python -m benchmarks.watch
	$(BIN)/python -m benchmarks.loadgen

bench-measure: $(VENV)/.installed
	$(BIN)/python -m benchmarks.measure

bench-search: $(VENV)/.installed
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.engine

gpu-check: ARGS =
gpu-check: $(VENV)/.installed-dev  ## on a GPU of conf/target: its tests, two studies, another clock; ARGS=--dry-run on a CPU
	$(BIN)/python -m benchmarks.gpu_check build/gpu-check $(ARGS)

clean:  ## delete .venv and build
	rm -rf $(VENV) build

help:
	@sed -nE 's/^([a-z-]+):[^#]*## *(.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# torch first: it alone may come as a CPU build, and the rest must not pull another
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) torch
	$(PIP) --editable ".[all]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable ".[all,test,lint]"
	touch $@
