"""Requests derived from the service's own description, valid and not: each is answered as the description says."""

from chassis.testing import conformance
from chassis.tests.probe.process import Gunicorn

EXAMPLES = 220
"""For each operation; with those for the limits of each parameter and the chains of requests, above 2,000 in all."""


def test_no_request_that_the_contract_can_think_of_gets_a_wrong_answer(gunicorn: Gunicorn) -> None:
    outcome = conformance.run(gunicorn.url, examples=EXAMPLES)
    assert outcome.failures == 0, outcome.report
    print(f"\ncontract: {outcome.requests} requests, {outcome.chains} chains of them, {outcome.failures} failures")
    assert outcome.requests >= 2_000
    assert [event for event in gunicorn.events if event.get("severity_text") == "ERROR"] == []
    assert [event for event in gunicorn.events if event.get("http.response.status_code", 0) >= 500] == []
