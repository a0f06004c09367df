"""The probes, as a balancer and a person ask them."""

import dataclasses

import pytest
from flask.testing import FlaskClient

from chassis import config, lifecycle
from chassis.tests.probe.app import create_app


def test_a_live_service_is_alive_and_ready(client: FlaskClient) -> None:
    assert client.get("/livez").get_json() == {"status": "alive"}
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_a_service_that_has_not_started_is_alive_and_not_ready(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_shared", bytearray(2))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "1"
    assert client.get("/livez").status_code == 200


def test_the_version_names_service_and_release(settings: config.Config) -> None:
    client = create_app(dataclasses.replace(settings, release="build-42")).test_client()
    assert client.get("/version").get_json() == {"service": settings.service, "release": "build-42"}


def test_the_probes_answer_at_the_root_and_under_the_prefix(settings: config.Config) -> None:
    client = create_app(dataclasses.replace(settings, url_prefix="/api/orders")).test_client()
    for path in ("/livez", "/version"):
        assert client.get(path).get_json() == client.get(f"/api/orders{path}").get_json()


def test_no_probe_asks_the_database(settings: config.Config) -> None:
    nowhere = dataclasses.replace(settings, database_url="postgresql://nobody@192.0.2.1/nothing")
    client = create_app(nowhere).test_client()  # its pool is closed: any use of it would be an error
    assert [client.get(path).status_code for path in ("/livez", "/readyz", "/version")] == [200, 200, 200]
