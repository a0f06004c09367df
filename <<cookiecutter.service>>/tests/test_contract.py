"""The contract of this service: it is what `docs/openapi.json` promises to clients, and the service keeps it."""

import json

import pytest

from chassis.dev import contract
from chassis.testing import conformance
from chassis.testing.process import Gunicorn


def test_the_committed_contract_is_the_one_that_is_served() -> None:
    served = contract.now()
    if served != json.loads(contract.COPY.read_text(encoding="utf-8")):
        said = contract.verdict(contract.committed(), served)
        pytest.fail(f"{said} `make contract` renews {contract.COPY}.", pytrace=False)


def test_every_request_is_answered_as_the_contract_says(gunicorn: Gunicorn) -> None:
    outcome = conformance.run(gunicorn.url)
    if outcome.failures:
        pytest.fail(outcome.report, pytrace=False)
    assert outcome.requests > 100
