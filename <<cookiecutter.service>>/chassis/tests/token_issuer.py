"""An issuer that publishes many kinds of keys over HTTP, tokens that it signs, and a client that brings them."""

import base64
import dataclasses
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask.testing import FlaskClient

from chassis import config
from chassis.tests.probe.app import create_app

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


def ask(client: FlaskClient, bearer: str, path: str = "/api/openapi.json") -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of the answer to a request with a token."""
    answer = client.get(path, headers={"Authorization": f"Bearer {bearer}"})
    return answer.status_code, answer.get_json()
