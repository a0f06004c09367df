"""Bearer tokens, where `JWKS_URL` asks for them: every request but the probes' carries a valid one, or is a 401.

A token is a JSON Web Token, signed by `TOKEN_ISSUER` with one of the keys that it publishes, and meant for us. Nothing
imports this module where none is wanted. https://www.rfc-editor.org/rfc/rfc6750 https://www.rfc-editor.org/rfc/rfc8725
"""

import logging
import math
import threading
import time
from typing import Any

import jwt
from flask import Flask, Response, g, request

from chassis import caller, errors, health
from chassis.config import Config

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
"""How tokens may be signed: with a private key, and never as the token itself or a published key would have it."""

LEEWAY_SECONDS = 10
"""How much the issuer's clock and ours may differ."""

FRESH_SECONDS = 300
"""Age at which the keys are fetched again, and so the longest that a key which the issuer has withdrawn is believed."""

STALE_SECONDS = 3_600
"""Age at which keys are no longer used, however long their issuer cannot be reached: then nothing can be verified."""

REFETCH_SECONDS = 5
"""Time between two attempts to fetch the keys: tokens with invented keys must not send us to the issuer every time."""

FETCH_SECONDS = 2
"""Silence of the issuer after which an attempt has failed."""

log = logging.getLogger(__name__)


class KeysUnavailableError(Exception):
    """The issuer's keys cannot be had, so nobody can say whether a token is valid."""


def register(app: Flask, settings: Config) -> None:
    """Have `app` ask for a token before anything else, so also where there is no route, and say so in its contract."""
    keys = Keys(settings.jwks_url)
    probes = health.paths(settings)

    def check() -> Response | None:
        if request.url_rule and request.path in probes:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _unauthorized("Bearer", "A token is needed, as in `Authorization: Bearer …`.")
        try:
            claims = _claims(token, keys, settings)
        except jwt.InvalidTokenError as error:
            return _unauthorized('Bearer error="invalid_token"', f"The token is not valid: {error}.")
        except KeysUnavailableError:
            response = errors.problem(503, "The service cannot verify tokens at the moment.")
            response.headers["Retry-After"] = str(REFETCH_SECONDS)
            return response
        g.caller = caller.of(claims)
        if "sub" in claims:
            g.trace["enduser.id"] = claims["sub"]
        return None

    app.before_request(check)


class Keys:
    """The keys that an issuer publishes at `url`, by their `kid`; fetched when needed, by the process that does."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._tried = self._fetched = -math.inf
        self._turn = threading.Lock()

    def find(self, kid: str | None) -> jwt.PyJWK:
        """Return the key of that name.

        Raises:
            jwt.InvalidTokenError: the issuer has no such key, as of `REFETCH_SECONDS` ago at most.
            KeysUnavailableError: it cannot be asked.
        """
        if not self._has(kid, FRESH_SECONDS):
            self._fetch(wait=not self._has(kid, STALE_SECONDS))
        if self._has(kid, STALE_SECONDS):
            return self._keys[kid]
        if self._fetched < self._tried:
            raise KeysUnavailableError
        raise jwt.InvalidTokenError("Its key is unknown")

    def _has(self, kid: str | None, most_seconds: float) -> bool:
        return kid in self._keys and time.monotonic() - self._fetched < most_seconds

    def _fetch(self, *, wait: bool) -> None:
        """Fetch the keys, once at a time: who needs an unknown one waits, the others go on with what there is."""
        if not self._turn.acquire(blocking=wait):
            return
        try:
            now = time.monotonic()
            if now - self._tried < REFETCH_SECONDS:
                return
            self._tried = now
            found = self._client.get_signing_keys()
            self._keys = {key.key_id: key for key in found if _is_strong(key)}
            self._fetched = now
        except (jwt.PyJWTError, OSError, ValueError) as error:
            extra = {"exception.type": type(error).__qualname__, "exception.message": str(error)}
            log.warning("the keys of tokens cannot be fetched", extra=extra)
        finally:
            self._turn.release()


def _is_strong(key: jwt.PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and not key.Algorithm.check_key_length(key.key)


def _claims(token: str, keys: Keys, settings: Config) -> dict[str, Any]:
    """Return what a token says, if all that we ask of it is so."""
    key = keys.find(jwt.get_unverified_header(token).get("kid"))
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[key.algorithm_name],
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        leeway=LEEWAY_SECONDS,
        options={"require": ["exp"]},
    )
    return claims


def _unauthorized(challenge: str, detail: str) -> Response:
    response = errors.problem(401, detail)
    response.headers["WWW-Authenticate"] = challenge
    return response
