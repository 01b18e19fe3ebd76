# Two commands set everything up on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3

.PHONY: serve test lint

serve: .venv-serve/installed  ## the server with the shipped weights, no torch
	.venv-serve/bin/mtcp-serve serve

test: .venv/installed lint  ## everything the project checks about itself
	.venv/bin/python -m pytest

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

.venv-serve/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet -c constraints.txt -e .
	touch $@

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@
