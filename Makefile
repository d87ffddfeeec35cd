# make tune · make test · make lint · make bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?= target=cpu latency_ms=5
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: tune test test-all lint bench bench-measure bench-search clean
tune: $(VENV)/.installed
	$(BIN)/tune $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/pytest

# everything that needs no GPU
test-all: $(VENV)/.installed-dev
	$(BIN)/pytest -m "not gpu"

# mypy sees plugins/ and conf/ where they are installed: inside the package
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/lint && mkdir -p build/lint && cp -rs $(CURDIR)/tuner build/lint/tuner
	cp -rs $(CURDIR)/plugins build/lint/tuner/plugins
	cd build/lint && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p tuner

# the figures that the README and docs/ quote; leave the machine alone meanwhile
bench: bench-measure bench-search
	$(BIN)/python -m benchmarks.interleaving
	$(BIN)/python -m benchmarks.watch

bench-measure: $(VENV)/.installed
	$(BIN)/python -m benchmarks.measure

bench-search: $(VENV)/.installed
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.engine

clean:
	rm -rf $(VENV) build

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
