# Every target is a command or two; make prints them as it runs them. `make` alone lists the targets.
PYTHON = python3
BIN = .venv/bin
SERVICE = <<cookiecutter.service>>

help:
	@grep -hE '^[a-z]+:.*#' Makefile | sed -E 's/:[^#]*#/	/' | expand -t 12

demo: .venv/installed # bake a service with the default answers into demo/, and run it
	$(BIN)/cookiecutter --no-input --overwrite-if-exists --output-dir demo .
	$(MAKE) -C demo/orders PYTHON=$(PYTHON) run

# The longest first, for `make --jobs`. The proofs have bounds of time, so what may run beside them is `nice`.
test: faults service factors pythons check lint types # everything that CI asks, of the template and of a baked service

lint: .venv/installed .venvs/checkov/installed .venvs/deploy/installed audit # style, and what else is seen without running anything
	$(BIN)/ruff check --no-cache
	$(BIN)/ruff format --no-cache --check
	cd '$(SERVICE)' && $(CURDIR)/$(BIN)/ruff check --no-cache && $(CURDIR)/$(BIN)/ruff format --no-cache --check
	$(BIN)/shellcheck .ci/run
	$(BIN)/zizmor --offline --quiet --strict-collection .github '$(SERVICE)/.github'
	rm -rf .baked && $(BIN)/cookiecutter --no-input --output-dir .baked . >.baked.log
	$(BIN)/hadolint .baked/orders/Dockerfile
	.venvs/checkov/bin/checkov $(CHECKOV) --quiet --compact
	cd .baked/orders && nice $(CURDIR)/.venvs/deploy/bin/python -c '$(SYNTH)' 2>.synth.log || { cat .synth.log; exit 1; }
	.venvs/checkov/bin/checkov $(CHECKOV_STACKS) --quiet --compact
	cd .baked/orders && nice $(CURDIR)/.venvs/deploy/bin/cfn-lint --ignore-checks $$($(CURDIR)/.venvs/deploy/bin/python -c '$(LINT_IGNORED)') -- cdk.out/*/*.template.json
	$(BIN)/pytest --quiet tests/test_docs.py
	if docker compose version; then docker compose --file .baked/orders/compose.yaml config --quiet; else test -z "$$CI"; fi
CHECKOV = --directory . --framework dockerfile github_actions --skip-download \
          --skip-check CKV_DOCKER_7 \
          --skip-check CKV_GHA_7
# CKV_DOCKER_7: the base image's tag is in ARG BASE, where it does not look.
# CKV_GHA_7: a person who rolls back has to say where; the input is a choice of two.
# The stacks of all four combinations, filled in as in the tests of deploy/, which ask cfn-lint and cdk-nag about them.
SYNTH = from pathlib import Path; from deploy.tests.conftest import COMBINATIONS, Stacks; \
        [Stacks(Path("cdk.out", "-".join(each)), *each) for each in COMBINATIONS]
CHECKOV_STACKS = --directory .baked/orders/cdk.out --framework cloudformation --skip-download \
                 --skip-check CKV_AWS_18,CKV_AWS_21,CKV_AWS_111,CKV_AWS_115,CKV_AWS_116,CKV_AWS_118,CKV_AWS_136,CKV_AWS_158,CKV_AWS_173
LINT_IGNORED = from deploy.tests.test_stacks import LINT_IGNORED; print(*LINT_IGNORED)
# CKV_AWS_18, 21: the bucket holds access logs itself, and each object in it is written once.
# CKV_AWS_111: what has no ARN (network interfaces, ECS's agent); cdk-nag, which asks for each one, has the reasons.
# CKV_AWS_115: a hook without a free slot would fail a release; there is one call for each event of a release.
# CKV_AWS_116: who calls a hook waits for its word and rolls back without it; a call that is kept for later helps nobody.
# CKV_AWS_118: Performance Insights are on; the system under a managed server is not ours to tune.
# CKV_AWS_136, 158, 173: encrypted, by keys of AWS; a key of one's own is one more thing to pay and to lose, and what
#   it would guard here are an image without secrets, logs without bodies, and variables that are no secret.

types: .venv/installed .venvs/service/installed # types
	$(BIN)/mypy --cache-dir .mypy_cache
	cd '$(SERVICE)' && $(INPLACE)/mypy --cache-dir $(CURDIR)/.mypy_cache/service

# TESTS= chooses; PostgreSQL comes from DATABASE_URL, Docker, or a package, in that order.
inplace: .venv/installed .venvs/service/installed # lint, types and tests of the service where it stands, unrendered
	cd '$(SERVICE)' && $(CURDIR)/$(BIN)/ruff check --no-cache && $(CURDIR)/$(BIN)/ruff format --no-cache --check
	cd '$(SERVICE)' && $(INPLACE)/mypy --cache-dir $(CURDIR)/.mypy_cache/service
	cd '$(SERVICE)' && $(INPLACE)/pytest -p no:cacheprovider --ignore tests/faults $(TESTS)
	rm -rf '$(SERVICE)/.postgres'
INPLACE = PYTHONPYCACHEPREFIX=$(CURDIR)/.venvs/bytecode HYPOTHESIS_STORAGE_DIRECTORY=$(CURDIR)/.hypothesis $(CURDIR)/.venvs/service/bin

audit: .venv/installed # known weaknesses of what is pinned; without an index that tells, it says so and passes
	for file in $(filter-out requirements-checkov.txt,$(wildcard requirements*.txt)) '$(SERVICE)'/requirements*.txt '$(SERVICE)'/deploy/requirements*.txt; do \
	    $(BIN)/pip-audit --progress-spinner off --disable-pip --requirement "$$file" || exit 1; done
# Not requirements-checkov.txt: it pins what it needs to the patch, and reads nothing but our own files.

check: .venv/installed .venvs/checkov/installed .venvs/service/installed | types # tests; after the types, whose cache they use
	nice $(BIN)/pytest --verbose $(patsubst %,--ignore tests/test_%.py,docs service adopt proofs pythons)

service: .venv/installed # a baked service passes its gates, runs, and takes the changes of its first hour
	nice $(BIN)/pytest --verbose tests/test_service.py tests/test_adopt.py

pythons: .venv/installed # a baked service's types and tests on the other Pythons that are here, and on 3.14 in a container
	nice $(BIN)/pytest --verbose tests/test_pythons.py

proofs: faults factors # what a baked service promises:

faults: .venv/installed # under fire, with real parts,
	$(BIN)/pytest --verbose tests/test_proofs.py -k faults

factors: .venv/installed # and factor by factor, from outside
	$(BIN)/pytest --verbose tests/test_proofs.py -k factors

bench: .venv/installed .venvs/service/installed .venvs/bench/installed # what a service costs, beside the least that could do its work; BENCH=--help
	.venvs/bench/bin/python -m tests.bench $(BENCH)

format: .venv/installed # put the code into shape
	$(BIN)/ruff check --no-cache --fix
	$(BIN)/ruff format --no-cache

lock: .venv/installed # resolve all dependencies anew, with hashes: the template's and the service's
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --output-file requirements.txt pyproject.toml --group dev
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --output-file requirements-checkov.txt pyproject.toml --group checkov
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' --output-file requirements-bench.txt pyproject.toml --group bench
	$(BIN)/cookiecutter --no-input --overwrite-if-exists --output-dir demo . && $(MAKE) -C demo/orders PYTHON=$(PYTHON) lock && cp demo/orders/requirements*.txt '$(SERVICE)' && cp demo/orders/deploy/requirements*.txt '$(SERVICE)/deploy'

clean: # remove what the targets above have made
	rm -rf .venv .venvs demo .baked .baked.log .mypy_cache .hypothesis

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.14 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --no-compile --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

# Environments beside the template's own: of the service, to look at it where it stands; and of what is large.
.venvs/service/installed: $(SERVICE)/requirements-dev.txt
.venvs/checkov/installed: requirements-checkov.txt
.venvs/bench/installed: requirements-bench.txt
.venvs/deploy/installed: $(SERVICE)/deploy/requirements-dev.txt
.venvs/service/installed .venvs/checkov/installed .venvs/bench/installed .venvs/deploy/installed: | .venv/installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes --requirement '$<'
	@touch $@

.PHONY: help demo test lint types inplace audit check service pythons proofs faults factors bench format lock clean
