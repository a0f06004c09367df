# Every target is a command or two; make prints them as it runs them. `make` alone lists the targets.
PYTHON = python3
BIN = .venv/bin
SERVICE = <<cookiecutter.service>>

help:
	@grep -hE '^[a-z]+:.*#' Makefile | sed -E 's/:[^#]*#/	/' | expand -t 12

demo: .venv/installed # bake a service with the default answers into demo/, and run it
	$(BIN)/cookiecutter --no-input --overwrite-if-exists --output-dir demo .
	$(MAKE) -C demo/orders PYTHON=$(PYTHON) run

test: lint types check # everything that CI asks, of the template and of a baked service

lint: .venv/installed # style
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check

types: .venv/installed # types
	$(BIN)/mypy --cache-dir .mypy_cache

check: .venv/installed # tests
	$(BIN)/pytest --verbose

format: .venv/installed # put the code into shape
	$(BIN)/ruff check --no-cache --fix
	$(BIN)/ruff format --no-cache

lock: .venv/installed # resolve all dependencies anew, with hashes: the template's and the service's
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --output-file requirements.txt pyproject.toml --group dev
	$(BIN)/cookiecutter --no-input --overwrite-if-exists --output-dir demo . && $(MAKE) -C demo/orders PYTHON=$(PYTHON) lock && cp demo/orders/requirements*.txt '$(SERVICE)'

clean: # remove what the targets above have made
	rm -rf .venv demo .mypy_cache .hypothesis

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.14 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

.PHONY: help demo test lint types check format lock clean
