"""Who sent a request: what a token allows is what its caller may do, and the contract says so."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from chassis import app as chassis_app
from chassis import caller, config
from chassis.api import Blueprint
from chassis.testing.issuer import Issuer

doors = Blueprint("doors")


@dataclass(frozen=True, slots=True)
class Door:
    """Who opened it."""

    opened_by: str | None
    team: str | None
    scopes: list[str]


@doors.get("/doors")
def get_doors() -> Door:
    """Return who asks."""
    who = caller.current()
    return Door(who.subject, who.claims.get("team"), sorted(who.scopes))


@doors.post("/doors", scopes=["doors:open", "doors:see"])
def open_door() -> Door:
    """Open a door."""
    return get_doors()


@doors.get("/doors/next")
def get_next() -> dict[str, str]:
    """Return what a request to another service would have."""
    return caller.propagated_headers()


@pytest.fixture
def app(settings: config.Config, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """Return an application with doors that asks for tokens."""
    for name, value in issuer.variables.items():
        monkeypatch.setenv(name, value)
    return chassis_app.create(config.load(type(settings)), [doors])


@pytest.fixture
def knock(client: FlaskClient, issuer: Issuer) -> Callable[..., Any]:
    """Return a function that tries to open a door with a token."""
    return lambda method, *scopes, **claims: client.open(
        "/doors", method=method, headers={"Authorization": f"Bearer {issuer.token('ann', *scopes, **claims)}"}
    )


def test_a_handler_knows_who_asks(knock: Callable[..., Any]) -> None:
    assert knock("GET", "a", "b", team="red").get_json() == {"opened_by": "ann", "team": "red", "scopes": ["a", "b"]}


@pytest.mark.parametrize(
    "claims", [{"scope": "doors:see doors:open x"}, {"scope": None, "scp": ["doors:open", "doors:see"]}]
)
def test_who_has_all_scopes_may(knock: Callable[..., Any], claims: dict[str, Any]) -> None:
    assert knock("POST", **claims).status_code == 200


@pytest.mark.parametrize("scopes", [[], ["doors:see"], ["doors:openly", "doors:see"], ["DOORS:OPEN", "doors:see"]])
def test_who_lacks_one_is_refused_and_told_which_are_needed(knock: Callable[..., Any], scopes: list[str]) -> None:
    answer = knock("POST", *scopes)
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")
    challenge = 'Bearer error="insufficient_scope", scope="doors:open doors:see"'
    assert answer.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize(
    "claims",
    [{"scope": 7}, {"scope": True}, {"scope": {"doors:open": 1}}, {"scope": None, "scp": [7, None, ["x"], {}]}],
)
def test_a_claim_that_is_no_text_allows_nothing(knock: Callable[..., Any], claims: dict[str, Any]) -> None:
    assert knock("GET", **claims).get_json()["scopes"] == []
    assert knock("POST", **claims).status_code == 403


def test_a_route_cannot_be_open_and_ask_for_scopes() -> None:
    with pytest.raises(TypeError, match="/doors: a route that is open cannot ask for scopes"):
        Blueprint("doors").get("/doors", scopes=["doors:open"], is_open=True)


def test_who_has_no_token_is_not_asked_for_scopes(client: FlaskClient) -> None:
    assert client.post("/doors").status_code == 401


def test_the_contract_says_which_scopes_are_needed(app: Flask) -> None:
    path = app.extensions["contract"]["paths"]["/doors"]
    assert path["post"]["security"] == [{"token": ["doors:open", "doors:see"]}]
    assert {"401", "403"} <= path["post"]["responses"].keys()
    assert "403" not in path["get"]["responses"]


def test_where_no_token_is_asked_for_everybody_may(settings: config.Config) -> None:
    app = chassis_app.create(settings, [doors])
    assert app.test_client().post("/doors").get_json() == {"opened_by": None, "team": None, "scopes": []}
    assert "security" not in app.extensions["contract"]["paths"]["/doors"]["post"]


def test_a_client_with_a_token_needs_no_issuer_of_its_own(client_as: Callable[..., FlaskClient]) -> None:
    assert client_as("ann").get("/probes").status_code == 200


def test_no_caller_outlives_its_request(client: FlaskClient, knock: Callable[..., Any]) -> None:
    assert knock("POST", "doors:open", "doors:see").status_code == 200
    assert client.post("/doors").status_code == 401


def test_a_browser_asks_without_a_token_whether_a_page_may_send_one(client: FlaskClient) -> None:
    answer = client.options("/doors", headers={"Access-Control-Request-Method": "POST"})
    assert (answer.status_code, answer.data) == (200, b"")
    assert client.options("/doors").status_code == 401
    assert client.post("/doors", headers={"Access-Control-Request-Method": "POST"}).status_code == 401


def test_a_request_to_another_service_has_the_id_and_the_trace_of_this_one_and_not_its_token(
    settings: config.Config,
) -> None:
    client = chassis_app.create(settings, [doors]).test_client()
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=1", "X-Amzn-Trace-Id": "Root=1-0-0"}
    answer = client.get("/doors/next", headers={**trace, "X-Request-ID": "mine", "Authorization": "Bearer x"})
    assert answer.get_json() == {**trace, "X-Request-ID": "mine"}
    answer = client.get("/doors/next")
    assert answer.get_json() == {"X-Request-ID": answer.headers["X-Request-ID"]}


def test_without_a_request_nothing_is_passed_on() -> None:
    assert caller.propagated_headers() == {}
