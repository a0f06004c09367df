"""The contract of this service: what is served is what `docs/openapi.json` promises to clients."""

import json

import pytest

from chassis.dev import contract


def test_the_committed_contract_is_the_one_that_is_served() -> None:
    served = contract.now()
    if served != json.loads(contract.COPY.read_text(encoding="utf-8")):
        said = contract.verdict(contract.committed(), served)
        pytest.fail(f"{said} `make contract` renews {contract.COPY}.", pytrace=False)
