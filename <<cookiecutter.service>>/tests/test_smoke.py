"""The smoke test of a release, `deploy/smoke.py`, against the running service."""

from typing import Any

import pytest

from chassis.testing.process import Gunicorn
from deploy import client, smoke

pytestmark = pytest.mark.usefixtures("conn")


def stored(service: Gunicorn) -> Any:
    """Return what the service has stored."""
    return client.ask(service.url, "GET", smoke.PATH, 200)[0]["items"]


def test_it_passes_and_leaves_nothing_behind(gunicorn: Gunicorn) -> None:
    assert smoke.check(gunicorn.url, "", "2+build-2")
    assert stored(gunicorn) == []


def test_it_deletes_what_an_interrupted_one_has_left_and_nothing_else(gunicorn: Gunicorn) -> None:
    for text in (f"{smoke.MARK} 1+build-1, interrupted", "of a user"):
        client.ask(gunicorn.url, "POST", smoke.PATH, 201, smoke.body(text))
    smoke.check(gunicorn.url, "", "2+build-2")
    assert [smoke.text_of(each) for each in stored(gunicorn)] == ["of a user"]


def test_what_is_measured_can_be_requested(gunicorn: Gunicorn) -> None:
    client.ask(gunicorn.url, "GET", smoke.LATENCY_PATH, 200)
