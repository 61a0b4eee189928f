.DEFAULT_GOAL := help
.PHONY: help setup demo fmt lint type arch test test-all help-texts check

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

setup: $(VENV)/.installed  ## a virtual environment with everything a developer needs

demo: $(VENV)/.installed  ## write an example bracket, merge it, say where the results are
	$(BIN)/hdrcli example demo --overwrite
	$(BIN)/hdrcli merge demo/IMG_*.jpg -o demo/merged.exr --overwrite

fmt: $(VENV)/.installed  ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.installed  ## style, without rewriting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.installed  ## types
	$(BIN)/mypy

arch: $(VENV)/.installed  ## the layers import downwards only
	$(BIN)/lint-imports

test: $(VENV)/.installed  ## the quick tests: under two minutes on two cores, no GPU, no network
	$(BIN)/pytest -q -n 2 -m "not slow and not gpu"

test-all: $(VENV)/.installed  ## every test this machine can run
	$(BIN)/pytest -q -n 2 -m "not gpu" --hypothesis-profile=thorough

help-texts: $(VENV)/.installed  ## write docs/help anew from the program
	$(BIN)/python -m tests.help_texts

check: lint type arch test  ## all that CI runs, and nothing it does not
