"""The keys of bearer tokens: they rotate, and the issuer that publishes them may be slow, away or wrong."""

import json
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from chassis import tokens
from chassis.testing.process import wait_until
from chassis.tests import token_issuer
from chassis.tests.probe.process import Gunicorn
from chassis.tests.token_issuer import AUDIENCE, EC, ISSUER, PUBLISHED, STRANGER, Issuer, ask, drip, jwk, token

client, issuer = token_issuer.client, token_issuer.issuer  # pytest finds fixtures by their names


def test_keys_rotate_without_a_restart(client: FlaskClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(client, token())[0] == 200
    monkeypatch.setattr(tokens, "REFETCH_SECONDS", 0)
    issuer.publish(jwk("ec", EC), jwk("new", STRANGER))
    assert [ask(client, token())[0], ask(client, token("new", STRANGER))[0]] == [200, 200]
    assert [ask(client, token())[0], ask(client, token("new", STRANGER))[0]] == [200, 200]
    assert issuer.requests == 2
    issuer.publish(jwk("new", STRANGER))
    monkeypatch.setattr(tokens, "FRESH_SECONDS", 0)
    assert [ask(client, token())[0], ask(client, token("new", STRANGER))[0]] == [401, 200]


def test_invented_keys_do_not_send_us_to_the_issuer_every_time(client: FlaskClient, issuer: Issuer) -> None:
    assert {ask(client, token(uuid.uuid4().hex))[0] for _ in range(100)} == {401}
    assert issuer.requests == 1
    assert ask(client, token())[0] == 200


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, ""),
        (302, ""),
        (200, "no JSON"),
        (200, "[]"),
        (200, "{}"),
        (200, '{"keys": [{"kty": "odd"}]}'),
    ],
)
def test_without_keys_nobody_can_say_whether_a_token_is_valid(
    client: FlaskClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    keys, issuer.status, issuer.body = issuer.body, status, body
    answer = client.get("/api/probes", headers={"Authorization": f"Bearer {token()}"})
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == str(tokens.REFETCH_SECONDS)
    assert (ask(client, token())[0], issuer.requests) == (503, 1)  # nor does that send us to the issuer every time
    assert ask(client, "nonsense")[0] == 401
    issuer.status, issuer.body = 200, keys
    monkeypatch.setattr(tokens, "REFETCH_SECONDS", 0)
    assert ask(client, token())[0] == 200


def test_known_keys_are_used_for_a_while_when_the_issuer_is_away(
    client: FlaskClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(client, token())[0] == 200
    issuer.server.shutdown()
    issuer.server.server_close()
    monkeypatch.setattr(tokens, "REFETCH_SECONDS", 0)
    monkeypatch.setattr(tokens, "FRESH_SECONDS", 0)
    assert [ask(client, token())[0], ask(client, token("new"))[0], ask(client, token(key=STRANGER))[0]] == [
        200,
        503,
        401,
    ]
    monkeypatch.setattr(tokens, "STALE_SECONDS", 0)
    assert ask(client, token())[0] == 503


def test_while_one_asks_a_slow_issuer_the_others_go_on(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(tokens, "FETCH_SECONDS", 20)
    client: FlaskClient = request.getfixturevalue("client")
    assert ask(client, token())[0] == 200
    monkeypatch.setattr(tokens, "REFETCH_SECONDS", 0)
    monkeypatch.setattr(tokens, "FRESH_SECONDS", 0)
    issuer.open_.clear()
    issuer.asked.clear()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, client, token())
        assert issuer.asked.wait(20)
        assert ask(client.application.test_client(), token())[0] == 200
        assert not asking.done()
        issuer.open_.set()
        assert asking.result()[0] == 200


def test_a_slow_issuer_holds_up_those_who_need_it_and_nobody_else(database_url: str, issuer: Issuer) -> None:
    issuer.open_.clear()
    asking = {"JWKS_URL": issuer.url, "TOKEN_ISSUER": ISSUER, "TOKEN_AUDIENCE": AUDIENCE}
    variables: dict[str, Any] = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": 1, **asking}
    with (
        Gunicorn(**variables) as server,
        server.client(headers={"Authorization": f"Bearer {token()}"}) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        created = [pool.submit(client.post, "/probes", json={"text": "mine"}) for _ in range(8)]
        assert issuer.asked.wait(20)
        assert server.get("/livez").status_code == 200
        assert server.get("/probes").status_code == 401
        assert not any(each.done() for each in created)
        issuer.open_.set()
        assert {each.result().status_code for each in created} == {201}
        assert issuer.requests == 1

        seen = "POST /probes 201"
        server.wait_for(seen, 8)
        assert {event.get("enduser.id") for event in server.events if event["body"] == seen} == {"user-7"}
        wait_until(lambda: [event for event in server.events if event["body"] == "GET /probes 401"])
        assert token().split(".")[0].encode() not in b"".join(server.lines)


@pytest.mark.parametrize("drips", ["head", "body"])
def test_an_issuer_that_drips_holds_a_request_no_longer_than_one_that_is_silent(
    client: FlaskClient, issuer: Issuer, drips: str
) -> None:
    issuer.drips = drips
    started = time.monotonic()
    status, _ = ask(client, token())
    assert status == 503
    assert time.monotonic() - started < tokens.FETCH_SECONDS + 2


def test_nor_if_the_time_is_over_before_it_is_reached(
    client: FlaskClient, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.drips = "body"
    monkeypatch.setattr(tokens, "FETCH_SECONDS", 1)
    look_up = socket.getaddrinfo

    def look_up_slowly(*args: Any, **options: Any) -> Any:
        time.sleep(tokens.FETCH_SECONDS + 0.5)
        return look_up(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_slowly)
    started = time.monotonic()
    assert ask(client, token())[0] == 503
    assert time.monotonic() - started < tokens.FETCH_SECONDS + 3


def test_nor_does_one_whose_tls_handshake_drips(database_url: str) -> None:
    def shake_hands() -> None:
        with listener.accept()[0] as sock, sock.makefile("wb", buffering=0) as wfile:
            drip(wfile, b"\x16\x03\x03\x40\x00")  # of 16,384 bytes. https://www.rfc-editor.org/rfc/rfc8446#section-5.1

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=shake_hands, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/keys"
        asking: dict[str, Any] = {"JWKS_URL": url, "TOKEN_ISSUER": ISSUER, "TOKEN_AUDIENCE": AUDIENCE}
        headers = {"Authorization": f"Bearer {token()}"}
        with Gunicorn(DATABASE_URL=database_url, **asking) as server, server.client(headers=headers) as client:
            started = time.monotonic()
            assert client.get("/probes").headers["Retry-After"] == str(tokens.REFETCH_SECONDS)
            assert time.monotonic() - started < tokens.FETCH_SECONDS + 10


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"keys": [{**PUBLISHED[0], "kid": ["ec"]}]}),
        json.dumps({"keys": [{**PUBLISHED[0], "alg": ["ES256"]}]}),
        json.dumps({"keys": [{**PUBLISHED[0], "kty": ["EC"]}]}),
        json.dumps({"keys": {"kid": "ec"}}),
        '{"keys": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"keys": [' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "]}",
    ],
    ids=["list as kid", "list as alg", "list as kty", "no list", "nested lists", "nested objects"],
)
def test_nonsense_of_the_issuer_is_not_the_clients_fault(client: FlaskClient, issuer: Issuer, body: str) -> None:
    issuer.body = body
    assert ask(client, token())[0] == 503


def test_one_key_that_is_nonsense_does_not_spoil_the_others(client: FlaskClient, issuer: Issuer) -> None:
    issuer.body = json.dumps({"keys": [{**PUBLISHED[0], "alg": ["ES256"]}, 7, *PUBLISHED]})
    assert ask(client, token())[0] == 200
