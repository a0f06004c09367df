"""Bearer tokens: who brings a valid one is let in, and every way in which a token may be wrong is a 401."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from chassis import tokens
from chassis.testing.process import environment
from chassis.tests import token_issuer
from chassis.tests.token_issuer import (
    AUDIENCE,
    DAY,
    EC,
    ED,
    ISSUER,
    RSA,
    SHARED,
    STRANGER,
    WEAK,
    Issuer,
    ask,
    jwk,
    token,
)

client, issuer = token_issuer.client, token_issuer.issuer  # pytest finds fixtures by their names


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


def test_the_library_is_loaded_only_where_tokens_are_wanted(database_url: str) -> None:
    program = "import sys; from chassis.tests.probe.app import create_app; create_app(); print('jwt' in sys.modules)"
    asking = {"JWKS_URL": "https://issuer.example.com/", "TOKEN_ISSUER": ISSUER, "TOKEN_AUDIENCE": AUDIENCE}
    for variables, said in (({}, "False\n"), (asking, "True\n")):
        env = environment(DATABASE_URL=database_url, **variables)
        done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == said
