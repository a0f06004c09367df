"""The edge: the client's address behind a load balancer, and the security headers of every response."""

import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from flask import Flask

from chassis.config import Config

HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
]
"""On every response that does not set them itself: do not cache it, do not render it as a page, do not guess its type.

Other usual security headers concern pages only. https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html
(Security Headers)"""

HEADERS_OF_TLS = [*HEADERS, ("Strict-Transport-Security", "max-age=31536000")]
"""For a year, in seconds, browsers use TLS only for this host. They ignore the header in a response without TLS.
https://www.rfc-editor.org/rfc/rfc6797#section-8.1"""

Headers = list[tuple[str, str]]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def register(app: Flask, settings: Config) -> None:
    """Put the edge around `app`, as WSGI middleware, which every response passes."""
    app.wsgi_app = Edge(app.wsgi_app, settings.forwarded_allow_ips)  # type: ignore[method-assign] # Flask's way to do it


class Edge:
    """WSGI middleware. `trusted` are the addresses and networks of the load balancers, with commas between them."""

    def __init__(self, app: Application, trusted: str) -> None:
        networks = [ip_network(each) for each in trusted.split(",") if each]
        self._app = app
        self._is_trusted = lru_cache(1_024)(lambda peer: any(ip_address(peer) in network for network in networks))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request. `REMOTE_ADDR` becomes the client's address, if a trusted load balancer sent it.

        gunicorn sets the scheme, see `server.py`. The host is the one that the client asked for.
        """
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        if forwarded and self._is_trusted(environ["REMOTE_ADDR"]):
            environ["REMOTE_ADDR"] = last_address(forwarded) or environ["REMOTE_ADDR"]
        defaults = HEADERS_OF_TLS if environ["wsgi.url_scheme"] == "https" else HEADERS

        def start(status: str, headers: Headers, *exc_info: Any) -> Any:
            names = {name.lower() for name, _ in headers}
            missing = [header for header in defaults if header[0].lower() not in names]
            return start_response(status, headers + missing, *exc_info)

        return self._app(environ, start)


def last_address(forwarded: str) -> str | None:
    """Return the last entry of `X-Forwarded-For`, which the balancer added, or `None` if it is not an address.

    The client sent the entries before it and may have invented them. https://docs.aws.amazon.com/elasticloadbalancing/latest/application/x-forwarded-headers.html
    """
    text = forwarded.rpartition(",")[2].strip()
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        # Stricter than `ipaddress`, which accepts any text as the zone of an IPv6 address.
        return socket.inet_ntop(family, socket.inet_pton(family, text))
    except (OSError, ValueError):
        return None
