"""Bearer tokens, if `JWKS_URL` is set: requests without a valid token get a 401, except those to the probes.

A token is a JSON Web Token, signed by `TOKEN_ISSUER` with one of the keys that it publishes, and meant for us. Nothing
imports this module where none is wanted. https://www.rfc-editor.org/rfc/rfc6750 https://www.rfc-editor.org/rfc/rfc8725
"""

import http.client
import json
import logging
import math
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jwt
from flask import Flask, Response, g, request

from chassis import caller, errors, events
from chassis.config import Config

ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "EdDSA"})
"""Accepted signature algorithms, all asymmetric. Without this list a token could choose `none`, or HMAC with the public
key as its secret. https://www.rfc-editor.org/rfc/rfc8725#section-2.1"""

LEEWAY_SECONDS = 10
"""How much the issuer's clock and ours may differ."""

FRESH_SECONDS = 300
"""Age at which cached keys are fetched again. A withdrawn key is accepted until that fetch succeeds."""

STALE_SECONDS = 3_600
"""Age at which cached keys are no longer used, even if the issuer is unreachable. The response is then 503."""

REFETCH_SECONDS = 5
"""Minimum time between two attempts to fetch the keys, so that tokens with invented key IDs cannot cause many."""

FETCH_SECONDS = 2
"""How long an attempt to fetch the keys may take as a whole."""

MAX_KEYS_BYTES = 1_048_576
"""The longest document with keys that is read."""

log = logging.getLogger(__name__)


class KeysUnavailableError(Exception):
    """The issuer's keys cannot be fetched, so tokens cannot be verified."""


def register(app: Flask, settings: Config) -> None:
    """Require a valid token for every request of `app` except the probes, even if no route matches the request."""
    keys = Keys(settings.jwks_url)

    def check() -> Response | None:
        if getattr(app.view_functions.get(request.endpoint or ""), "is_open", False):
            return None
        # A browser asks without a token whether a page may send one. The answer has the methods of the path, no more.
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return None
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _unauthorized("Bearer", "A token is needed, as in `Authorization: Bearer …`.")
        try:
            claims = _claims(token, keys, settings)
        except jwt.InvalidTokenError as error:
            # The error may quote the token, and thereby what JSON cannot express, such as a lone surrogate.
            return _unauthorized('Bearer error="invalid_token"', f"The token is not valid: {events.text(error)}.")
        except KeysUnavailableError:
            response = errors.problem(503, "The service cannot verify tokens at the moment.")
            response.headers["Retry-After"] = str(REFETCH_SECONDS)
            return response
        g.caller = caller.of(claims)
        if "sub" in claims:
            g.log_context["enduser.id"] = claims["sub"]
        return None

    app.before_request(check)


class Keys:
    """The keys that an issuer publishes at `url`, by their `kid`; fetched when needed, by the process that does."""

    def __init__(self, url: str) -> None:
        self._client = _Client(url, cache_jwk_set=False, timeout=FETCH_SECONDS)
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
        """Fetch the keys, single-flight: while another request fetches them, wait for it or, without `wait`, return."""
        if not self._turn.acquire(blocking=wait):
            return
        try:
            now = time.monotonic()
            if now - self._tried < REFETCH_SECONDS:
                return
            self._tried = now
            self._keys = _usable_keys(self._client.fetch_data())
            self._fetched = now
        except Exception as error:  # noqa: BLE001 - whatever an issuer publishes, it is not the client's fault
            extra = {"exception.type": type(error).__qualname__, "exception.message": str(error)}
            log.warning("the keys of tokens cannot be fetched", extra=extra)
        finally:
            self._turn.release()


def _usable_keys(document: dict[str, Any]) -> dict[str | None, jwt.PyJWK]:
    """Return the keys of a document with which tokens may be signed. Each of the others may be anything.

    Raises:
        ValueError: There is none.
    """
    keys: dict[str | None, jwt.PyJWK] = {}
    for member in document["keys"]:
        with suppress(Exception):
            key = jwt.PyJWK(member)
            if key.public_key_use in {"sig", None} and isinstance(key.key_id, str) and _is_strong(key):
                keys[key.key_id] = key
    if not keys:
        raise ValueError("the issuer publishes no key that can be used")
    return keys


class _Client(jwt.PyJWKClient):
    """A client whose attempts end after `FETCH_SECONDS`.

    The library limits each read, so an issuer that sends a byte a second could hold it for hours.
    """

    def fetch_data(self) -> Any:
        """Return the document with the keys."""
        sockets: list[socket.socket] = []
        is_over = threading.Event()

        def end() -> None:
            is_over.set()
            for sock in sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # a read that waits ends, as if the issuer had closed it

        def connect(*args: Any, **options: Any) -> socket.socket:
            sock = socket.create_connection(*args, **options)
            sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
            if is_over.is_set():  # a name server was slow, or the first address silent
                sock.close()
                raise TimeoutError("connecting took too long")
            return sock

        limit = threading.Timer(FETCH_SECONDS, end)
        limit.daemon = True
        limit.start()
        opener = urllib.request.build_opener(_NoRedirects, _Opener(connect), _TlsOpener(connect))
        try:
            with opener.open(self.uri, timeout=FETCH_SECONDS) as response:
                return self._as_jwk_set_payload(json.loads(response.read(MAX_KEYS_BYTES)))
        except urllib.error.HTTPError as error:
            error.close()  # it is the response, too
            raise
        finally:
            limit.cancel()
            for sock in sockets:
                sock.close()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from the URL that is configured, or from nowhere."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


class _Opener(urllib.request.HTTPHandler):
    """Opens a URL over a connection that `connect` makes."""

    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_over(http.client.HTTPConnection, self._connect), req)


class _TlsOpener(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send a request."""
        return self.do_open(_over(http.client.HTTPSConnection, self._connect), req)


def _over(kind: Any, connect: Callable[..., socket.socket]) -> Any:
    """Return a kind of connection whose socket comes from `connect`, before the TLS handshake."""

    class Over(kind):  # type: ignore[misc] # it is one of two
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = connect  # http.client's own way to be given another one

    return Over


def _is_strong(key: jwt.PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and not key.Algorithm.check_key_length(key.key)


def _claims(token: str, keys: Keys, settings: Config) -> dict[str, Any]:
    """Verify a token and return its claims."""
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
