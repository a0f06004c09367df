"""What is known of the client behind a load balancer, and what a client can make us believe: nothing."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient

from chassis import edge
from chassis.tests.probe.process import Gunicorn

BALANCER = "127.0.0.1"  # where the requests of these tests come from
CLIENT = "198.51.100.7"
FORGED = "203.0.113.66"


@pytest.fixture(scope="module")
def behind_balancer(database_url: str) -> Iterator[Gunicorn]:
    """Return a service that believes whoever connects from here."""
    allowed = f"10.0.0.0/8,{BALANCER}"
    with Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1, FORWARDED_ALLOW_IPS=allowed) as server:
        yield server


def seen_by(server: Gunicorn, *headers: tuple[str, str]) -> dict[str, Any]:
    """Return the canonical line of a request with `headers`."""
    request_id = uuid.uuid4().hex
    with server.client() as client:
        assert client.get("/livez", headers=[("X-Request-ID", request_id), *headers]).status_code == 200
    return server.access(request_id)


def redirect_by(server: Gunicorn, *headers: tuple[str, str]) -> str:
    """Return the absolute URL that the framework makes of the scheme and the host, as far as it knows them."""
    with server.client() as client:
        answer = client.get("/probes//1", headers=[("Host", "service.example.com"), *headers])
    location: str = answer.headers["location"]
    assert ("strict-transport-security" in answer.headers) == location.startswith("https://")
    return location


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ([CLIENT], CLIENT),
        (["2001:db8::7"], "2001:db8::7"),
        (["2001:DB8:0:0::7"], "2001:db8::7"),
        # what the balancer writes is the last; what stands before it, a client has sent
        ([f"{FORGED}, {CLIENT}"], CLIENT),
        ([f"{FORGED},{CLIENT}"], CLIENT),
        ([FORGED, CLIENT], CLIENT),
        ([f"{FORGED}, {FORGED}", CLIENT], CLIENT),
        (["nonsense, " * 700 + CLIENT], CLIENT),
        (['"},{"severity_text":"ERROR', CLIENT], CLIENT),
        # what is no address is nobody's
        ([], BALANCER),
        ([""], BALANCER),
        ([f"{FORGED},"], BALANCER),
        ([f"{FORGED}, unknown"], BALANCER),
        ([f"{FORGED}:80"], BALANCER),
        (["1"], BALANCER),
        (["9" * 8_000], BALANCER),
        ([":" * 8_000], BALANCER),
        (["fe80::1%" + "words"], BALANCER),
        (['"}'], BALANCER),
        (["\xb2\xb3.1.1.1"], BALANCER),
    ],
)
def test_behind_a_balancer_the_client_is_whom_it_has_seen(
    behind_balancer: Gunicorn, values: list[str], address: str
) -> None:
    headers = [("X-Forwarded-For", value.encode("latin-1")) for value in values]
    assert seen_by(behind_balancer, *headers)["client.address"] == address  # type: ignore[arg-type] # httpx takes both


@pytest.mark.parametrize("name", ["X_Forwarded_For", "Forwarded", "X-Real-IP", "Client-IP", "REMOTE_ADDR"])
def test_no_other_header_tells_the_client(behind_balancer: Gunicorn, name: str) -> None:
    assert seen_by(behind_balancer, (name, FORGED))["client.address"] == BALANCER
    assert seen_by(behind_balancer, ("X-Forwarded-For", CLIENT), (name, FORGED))["client.address"] == CLIENT


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ([], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Proto", "https")], "https://service.example.com/probes/1"),
        ([("X-Forwarded-Proto", "http")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Proto", "gopher")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Proto", "https, http")], "http://service.example.com/probes/1"),
        # what a balancer does not know it passes on
        ([("X_Forwarded_Proto", "https")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Ssl", "on")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Protocol", "ssl")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Host", "evil.example.com")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Port", "666")], "http://service.example.com/probes/1"),
        ([("X-Forwarded-Prefix", "/evil")], "http://service.example.com/probes/1"),
    ],
)
def test_behind_a_balancer_the_scheme_is_its_and_the_host_the_clients(
    behind_balancer: Gunicorn, headers: list[tuple[str, str]], url: str
) -> None:
    assert redirect_by(behind_balancer, *headers) == url


def test_two_schemes_are_refused(behind_balancer: Gunicorn) -> None:
    with behind_balancer.client() as client:
        headers = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")]
        assert client.get("/livez", headers=headers).status_code == 400


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO"])
def test_no_header_moves_the_path(behind_balancer: Gunicorn, name: str) -> None:
    with behind_balancer.client() as client:
        assert client.get("/evil/livez", headers=[(name, "/evil")]).status_code == 404
        assert client.get("/livez", headers=[(name, "/evil")]).status_code == 200


def test_who_is_no_balancer_is_not_believed(gunicorn: Gunicorn) -> None:
    headers = [("X-Forwarded-For", FORGED), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example.com")]
    assert seen_by(gunicorn, *headers)["client.address"] == BALANCER
    assert redirect_by(gunicorn, *headers) == "http://service.example.com/probes/1"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/openapi.json", 200), ("/nowhere", 404), ("/probes/1", 400), (f"/{'a' * 5_000}", 414)],
)
def test_every_answer_tells_browsers_to_leave_it_alone(gunicorn: Gunicorn, path: str, status: int) -> None:
    answer = gunicorn.get(path)
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_surprise_tells_them_too(app: Flask) -> None:
    app.add_url_rule("/broken", view_func=lambda: str(1 // 0))
    headers = app.test_client().get("/broken").headers
    assert set(edge.HEADERS) <= set(headers)


def test_a_route_may_say_otherwise(app: Flask) -> None:
    app.add_url_rule("/page", view_func=lambda: Response(headers={"content-security-policy": "default-src 'self'"}))
    headers = app.test_client().get("/page").headers
    assert headers.getlist("Content-Security-Policy") == ["default-src 'self'"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_over_tls_browsers_are_told_to_stay_there(client: FlaskClient) -> None:
    assert client.get("/livez", base_url="https://localhost").headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in client.get("/livez", base_url="http://localhost").headers


def test_no_answer_tells_the_versions_of_its_parts(gunicorn: Gunicorn) -> None:
    assert gunicorn.get("/livez").headers["server"] == "gunicorn"
    assert "server" not in gunicorn.get(f"/{'a' * 5_000}").headers
