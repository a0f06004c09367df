# Every target is a command or two. `make` alone lists the targets.
PYTHON = python3
BIN = .venv/bin
SERVICE = <<cookiecutter.service>>
HERE = $(subst ','\'',$(CURDIR))
# A prerequisite that is never there, where an environment has lost its Python, as after an upgrade.
lost = $(shell test -x $(1)/bin/python || echo $(1)/lost)
RUN = PYTHONPATH='$(HERE)/$(SERVICE)' "$(PYTHON)" -B -m
INSTALL = @$(RUN) chassis.dev.install

help:
	@grep -hE '^[a-z]+:.*#' Makefile | sed -E 's/:[^#]*#/	/' | expand -t 12

demo: .venv/bake # bake a service with the default answers into demo/, and run it
	@$(RUN) chassis.dev.steps --step 'bake demo/orders' $(BIN)/cookiecutter -- --no-input --overwrite-if-exists --output-dir demo .
	@INSTALLER='$(HERE)/$(BIN)/uv' $(MAKE) --no-print-directory -C demo/orders PYTHON="$(PYTHON)" run

# The longest start first.
test: environments # run all checks of CI, of the template and of a baked service
	@$(RUN) chassis.dev.steps --jobs $(JOBS) $(LANES)
JOBS = 2
LANES = faults service pythons check deployment adopt factors lint types

environments: .venv/installed .venvs/service/installed .venvs/checkov/installed .venvs/deploy/installed

lint: .venv/installed .venvs/checkov/installed .venvs/deploy/installed audit # check the style, and run the other static checks
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check
	cd '$(SERVICE)' && '$(HERE)/$(BIN)/ruff' check --no-cache && '$(HERE)/$(BIN)/ruff' format --no-cache --check
	$(BIN)/shellcheck .ci/run
	$(BIN)/zizmor --offline --quiet --strict-collection .github '$(SERVICE)/.github'
	rm -rf .baked && $(BIN)/cookiecutter --no-input --output-dir .baked . >/dev/null
	$(BIN)/hadolint .baked/orders/Dockerfile
	.venvs/checkov/bin/checkov --quiet --config-file tests/checkov/files.yaml
	cd .baked/orders && nice '$(HERE)/.venvs/deploy/bin/python' '$(HERE)/tests/stacks.py'
	.venvs/checkov/bin/checkov --quiet --config-file tests/checkov/stacks.yaml
	$(BIN)/pytest --quiet tests/test_docs.py

types: .venv/installed .venvs/service/installed # check the types
	$(BIN)/mypy --cache-dir .mypy_cache
	cd '$(SERVICE)' && $(INPLACE)/mypy --cache-dir '$(HERE)/.mypy_cache/service'

# TESTS= chooses; PostgreSQL comes from DATABASE_URL, Docker, or a package, in that order.
inplace: .venv/installed .venvs/service/installed # check and test the service in place, unrendered; TESTS= selects tests
	cd '$(SERVICE)' && '$(HERE)/$(BIN)/ruff' check --no-cache && '$(HERE)/$(BIN)/ruff' format --no-cache --check
	cd '$(SERVICE)' && $(INPLACE)/mypy --cache-dir '$(HERE)/.mypy_cache/service'
	cd '$(SERVICE)' && $(INPLACE)/pytest -p no:cacheprovider --numprocesses auto --dist worksteal --ignore chassis/tests/faults $(TESTS)
INPLACE = PYTHONPYCACHEPREFIX='$(HERE)/.venvs/bytecode' HYPOTHESIS_STORAGE_DIRECTORY='$(HERE)/.hypothesis' '$(HERE)'/.venvs/service/bin

audit: .venv/installed # look for known vulnerabilities of the pinned packages, if the index knows any
	@PYTHONPATH='$(HERE)/$(SERVICE)' $(BIN)/python -B tests/audit.py

check: .venv/installed .venvs/checkov/installed .venvs/service/installed .venvs/deploy/installed # run the tests of the template
	nice $(BIN)/pytest $(patsubst %,--ignore tests/test_%.py,docs service adopt proofs pythons)

service: .venv/installed # test that a baked service passes its own checks, runs and stops
	nice $(BIN)/pytest tests/test_service.py

adopt: .venv/installed # test that a baked service can be adopted as docs/adopt.md says
	nice $(BIN)/pytest tests/test_adopt.py

pythons: .venv/installed # check a baked service on the other Pythons of this machine, and on 3.14 in a container
	nice $(BIN)/pytest tests/test_pythons.py

proofs: faults factors deployment # test all that a baked service promises: faults, factors and deployment

faults: .venv/installed # test what a service promises while its surroundings fail, with real servers
	$(BIN)/pytest tests/test_proofs.py -k faults

factors: .venv/installed # test the twelve factors of a service from outside
	$(BIN)/pytest tests/test_proofs.py -k factors

deployment: .venv/installed # test the way to production with the real CDK CLI against a stand-in for AWS
	nice $(BIN)/pytest tests/test_proofs.py -k deploy-proofs

bench: .venv/installed .venvs/service/installed .venvs/bench/installed # measure what a service costs, compared with a bare Flask application and with alternatives; BENCH=--help
	.venvs/bench/bin/python -m tests.bench $(BENCH)

format: .venv/installed # format the code
	$(BIN)/ruff check --no-cache --fix
	$(BIN)/ruff format --no-cache

lock: .venv/installed # resolve all dependencies anew, with hashes: the template's and the service's
	$(BIN)/uv pip compile $(LOCK) --upgrade --output-file tests/requirements/dev.txt pyproject.toml --group dev
	cp tests/requirements/dev.txt tests/requirements/bake.txt && $(BIN)/uv pip compile $(LOCK) --output-file tests/requirements/bake.txt pyproject.toml --group bake
	$(BIN)/uv pip compile $(LOCK) --upgrade --output-file tests/requirements/checkov.txt pyproject.toml --group checkov
	$(BIN)/uv pip compile $(LOCK) --upgrade --constraint '$(SERVICE)/requirements.txt' --output-file tests/requirements/bench.txt pyproject.toml --group bench
	$(BIN)/cookiecutter --no-input --overwrite-if-exists --output-dir demo . && $(MAKE) -C demo/orders PYTHON="$(PYTHON)" lock && cp demo/orders/requirements*.txt '$(SERVICE)' && cp demo/orders/deploy/requirements*.txt '$(SERVICE)/deploy'
LOCK = --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

clean: # remove what the targets above have made
	rm -rf .venv .venvs demo .baked .mypy_cache .hypothesis

.venv/bake: tests/requirements/bake.txt $(call lost,.venv)
.venv/installed: tests/requirements/dev.txt $(call lost,.venv)
.venv/bake .venv/installed:
	$(INSTALL) .venv $<
	@touch $@

# Environments beside the template's own: of the service, to look at it where it stands; and of what is large.
.venvs/service/installed: $(SERVICE)/requirements-dev.txt $(call lost,.venvs/service)
.venvs/checkov/installed: tests/requirements/checkov.txt $(call lost,.venvs/checkov)
.venvs/bench/installed: tests/requirements/bench.txt $(call lost,.venvs/bench)
.venvs/deploy/installed: $(SERVICE)/deploy/requirements-dev.txt $(call lost,.venvs/deploy)
.venvs/service/installed .venvs/checkov/installed .venvs/bench/installed .venvs/deploy/installed: | .venv/installed
	$(INSTALL) $(@D) '$<'
	@touch $@

%/lost: ;

.PHONY: help demo test environments lint types inplace audit check service adopt pythons proofs faults factors deployment bench format lock clean
