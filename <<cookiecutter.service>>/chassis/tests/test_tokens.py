"""Bearer tokens: an issuer that publishes its keys over HTTP, and every way in which a token may be wrong."""

import base64
import dataclasses
import hashlib
import hmac
import http.server
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from chassis import config, tokens
from chassis.testing.process import environment, wait_until
from chassis.tests.probe.app import create_app
from chassis.tests.probe.process import Gunicorn

ISSUER, AUDIENCE = "https://issuer.example.com/", "https://probes.example.com/"

RSA = rsa.generate_private_key(65_537, 2_048)
WEAK = rsa.generate_private_key(65_537, 1_024)  # noqa: S505 - to be refused
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = ec.generate_private_key(ec.SECP256R1())
DAY = 86_400  # tokens are made before the first test, and used whenever it is their turn

SHARED = b"a secret that everybody knows, since it is published"


def jwk(kid: str, key: Any, **members: str) -> dict[str, Any]:
    """Return the public half of a key, as an issuer publishes it."""
    algorithm = jwt.get_algorithm_by_name({RSA: "RS256", WEAK: "RS256", ED: "EdDSA"}.get(key, "ES256"))
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **members}


PUBLISHED = [
    jwk("rsa", RSA),
    jwk("pss", RSA, alg="PS256"),
    jwk("ec", EC, use="sig"),
    jwk("ed", ED),
    jwk("weak", WEAK),
    jwk("to-encrypt", EC, use="enc"),
    {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(SHARED).decode().rstrip("=")},
    {"kty": "unheard of", "kid": "odd"},
]


def drip(wfile: Any, drop: bytes) -> None:
    """Send a byte now and then, until the client has gone."""
    with suppress(OSError):
        wfile.write(drop)
        while True:
            wfile.write(b" ")
            time.sleep(0.1)


class Issuer:
    """An issuer that publishes `body` at `url`, while `open_` is set, and counts who asks."""

    def __init__(self) -> None:
        self.status, self.body = 200, json.dumps({"keys": PUBLISHED})
        self.requests = 0
        self.drips = ""
        self.asked, self.open_ = threading.Event(), threading.Event()
        self.open_.set()
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer.asked.set()
                issuer.open_.wait(20)
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                if issuer.drips == "head":
                    self.flush_headers()
                    drip(self.wfile, b"X-More: ")
                self.end_headers()
                if issuer.drips == "body":
                    drip(self.wfile, b" ")
                self.wfile.write(issuer.body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def publish(self, *keys: dict[str, Any]) -> None:
        """Publish these keys and no others."""
        self.body = json.dumps({"keys": keys})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Return an issuer of one's own."""
    issuer = Issuer()
    with issuer.server as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield issuer
        issuer.open_.set()
        server.shutdown()


@pytest.fixture
def client(settings: config.Config, issuer: Issuer) -> FlaskClient:
    """Return a client of a service that wants tokens."""
    asking = {"jwks_url": issuer.url, "token_issuer": ISSUER, "token_audience": AUDIENCE, "url_prefix": "/api"}
    return create_app(dataclasses.replace(settings, **asking)).test_client()  # type: ignore[arg-type] # texts, all of them


def token(kid: str | None = "ec", key: Any = EC, algorithm: str = "ES256", **changes: Any) -> str:
    """Return a valid token, but for `changes` of its claims; `None` takes one away."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-7", "exp": time.time() + DAY, **changes}
    headers = {"kid": kid} if kid else {}
    return jwt.encode({name: claim for name, claim in claims.items() if claim is not None}, key, algorithm, headers)


def forged(sign: Callable[[bytes], bytes], **header: Any) -> str:
    """Return what no library would make: valid claims under any header, signed in any way."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + DAY}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    return b".".join([*parts, base64.urlsafe_b64encode(sign(b".".join(parts))).rstrip(b"=")]).decode()


def by_hmac(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.new(secret, text, hashlib.sha256).digest()


def by_rsa(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())


def pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public


def ask(client: FlaskClient, bearer: str, path: str = "/api/openapi.json") -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of the answer to a request with a token."""
    answer = client.get(path, headers={"Authorization": f"Bearer {bearer}"})
    return answer.status_code, answer.get_json()


@pytest.mark.parametrize(
    "good",
    [
        token(),
        token("rsa", RSA, "RS256"),
        token("pss", RSA, "PS256"),
        token("ed", ED, "EdDSA"),
        token(aud=["https://other.example.com/", AUDIENCE]),
        token(nbf=time.time(), sub=None),
    ],
)
def test_a_valid_token_opens_the_door(client: FlaskClient, good: str) -> None:
    assert ask(client, good)[0] == 200


def test_clocks_may_differ_a_little(client: FlaskClient) -> None:
    assert ask(client, token(exp=time.time() - tokens.LEEWAY_SECONDS / 2))[0] == 200
    assert ask(client, token(nbf=time.time() + tokens.LEEWAY_SECONDS / 2))[0] == 200


BAD = {
    "empty": ("", "Not enough segments"),
    "garbage": ("nonsense", "Not enough segments"),
    "more garbage": ("\xff.\xfe.\xfd", "Invalid header padding"),
    "no JSON": ("e30x.e30.e30", "Invalid header"),
    "a stranger's key": (token(key=STRANGER), "Signature verification failed"),
    "another key of the issuer's": (token("rsa", EC), "The specified alg value is not allowed"),
    "changed": (
        token(sub="root").rpartition(".")[0] + "." + token().rpartition(".")[2],
        "Signature verification failed",
    ),
    "no such key": (token("unheard of"), "Its key is unknown"),
    "no name of a key": (token(None), "Its key is unknown"),
    "a number for a name": (forged(by_hmac(b""), alg="ES256", kid=7), "Key ID header parameter must be a string"),
    "a weak key": (forged(by_rsa(WEAK), alg="RS256", kid="weak"), "Its key is unknown"),
    "a key for something else": (token("to-encrypt"), "Its key is unknown"),
    "a published secret": (token("shared", SHARED, "HS256"), "Its key is unknown"),
    "unsigned": (forged(lambda _: b"", alg="none", kid="ec"), "The specified alg value is not allowed"),
    "unsigned, in capitals": (forged(lambda _: b"", alg="NONE", kid="ec"), "The specified alg value is not allowed"),
    "no algorithm": (forged(by_hmac(b""), kid="ec"), "Algorithm not specified"),
    "HMAC with a public RSA key": (forged(by_hmac(pem(RSA)), alg="HS256", kid="rsa"), "alg value is not allowed"),
    "HMAC with a public EC key": (forged(by_hmac(pem(EC)), alg="HS256", kid="ec"), "alg value is not allowed"),
    "another algorithm of the key's": (token("rsa", RSA, "RS512"), "The specified alg value is not allowed"),
    "a key of its own": (
        jwt.encode({"exp": 2**40}, STRANGER, "ES256", {"kid": "ec", "jwk": jwk("ec", STRANGER)}),
        "Signature verification failed",
    ),
    "a demand we do not know": (forged(by_hmac(b""), alg="ES256", kid="ec", crit=["mood"], mood=1), "mood"),
    "a demand that no text can say": (forged(by_hmac(b""), alg="ES256", kid="ec", crit=["\ud800"]), "?"),
    "expired": (token(exp=time.time() - tokens.LEEWAY_SECONDS - 1), "Signature has expired"),
    "never expiring": (token(exp=None), 'missing the "exp" claim'),
    "expiring at random": (token(exp="soon"), "(exp) must be an integer"),
    "not valid yet": (token(nbf=time.time() + DAY), "not yet valid (nbf)"),
    "from the future": (token(iat=time.time() + DAY), "not yet valid (iat)"),
    "another issuer's": (token(iss="https://other.example.com/"), "Invalid issuer"),
    "nobody's": (token(iss=None), 'missing the "iss" claim'),
    "for another service": (token(aud="https://other.example.com/"), "Audience doesn't match"),
    "for everybody": (token(aud=None), 'missing the "aud" claim'),
}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD.keys())
def test_any_other_token_is_a_401_that_says_why_and_no_more(client: FlaskClient, bad: str, reason: str) -> None:
    answer = client.get("/api/probes", headers={"Authorization": f"Bearer {bad}"})
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert reason in answer.get_json()["detail"]
    assert ISSUER not in answer.text
    assert AUDIENCE not in answer.text
    assert not bad or bad not in answer.text


@pytest.mark.parametrize("authorization", [None, "", "Basic dXNlcjpwYXNzd29yZA==", token()])
def test_no_token_is_a_401_that_asks_for_one(client: FlaskClient, authorization: str | None) -> None:
    answer = client.get("/api/probes", headers={"Authorization": authorization} if authorization is not None else {})
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/openapi.json", 200),
        ("POST", "/api/probes", 415),  # whose body is not looked at before
        ("GET", "/api/probes/1", 400),
        ("OPTIONS", "/api/probes", 200),
        ("PATCH", "/api/probes", 405),
        ("POST", "/livez", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/livez/..", 404),
    ],
)
def test_without_a_token_nothing_is_told_of_any_route(client: FlaskClient, method: str, path: str, status: int) -> None:
    assert client.open(path, method=method).status_code == 401
    assert client.open(path, method=method, headers={"Authorization": f"bearer {token()}"}).status_code == status


@pytest.mark.parametrize("path", ["/livez", "/version", "/api/livez", "/api/version"])
def test_the_probes_are_open_and_ask_no_issuer(client: FlaskClient, issuer: Issuer, path: str) -> None:
    assert client.get(path).status_code == client.get(path, headers={"Authorization": "Bearer x"}).status_code == 200
    assert issuer.requests == 0


def test_the_contract_asks_for_tokens_where_the_service_does(client: FlaskClient) -> None:
    _, contract = ask(client, token())
    validate(contract)
    [name] = contract["components"]["securitySchemes"]
    assert contract["components"]["securitySchemes"][name]["scheme"] == "bearer"
    assert contract["security"] == [{name: []}]
    operations = [operation for methods in contract["paths"].values() for operation in methods.values()]
    free = {each["operationId"] for each in operations if each.get("security") == []}
    assert free == {"getLiveness", "getReadiness", "getVersion"}
    refusing = {each["operationId"] for each in operations if "401" in each["responses"]}
    assert refusing == {each["operationId"] for each in operations} - free
    assert contract["components"]["responses"]["Unauthorized"]["headers"].keys() == {"WWW-Authenticate"}


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


def test_the_library_is_loaded_only_where_tokens_are_wanted(database_url: str) -> None:
    program = "import sys; from chassis.tests.probe.app import create_app; create_app(); print('jwt' in sys.modules)"
    asking = {"JWKS_URL": "https://issuer.example.com/", "TOKEN_ISSUER": ISSUER, "TOKEN_AUDIENCE": AUDIENCE}
    for variables, said in (({}, "False\n"), (asking, "True\n")):
        env = environment(DATABASE_URL=database_url, **variables)
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == said


@pytest.mark.parametrize("drips", ["head", "body"])
def test_an_issuer_that_drips_holds_a_request_no_longer_than_one_that_is_silent(
    client: FlaskClient, issuer: Issuer, drips: str
) -> None:
    issuer.drips = drips
    started = time.monotonic()
    status, _ = ask(client, token())
    assert status == 503
    assert time.monotonic() - started < tokens.FETCH_SECONDS + 2


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
