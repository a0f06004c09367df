"""The server's edge: what never reaches the application is answered too, and the connection is closed."""

import json
import socket

import pytest

from tests.process import Gunicorn, wait_until


def ask(server: Gunicorn, request: bytes) -> tuple[bytes, bytes]:
    """Send raw bytes; says the head and the body of all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(request)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST /notes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /notes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", 431),
    ],
)
def test_a_malformed_request_is_a_problem_too(gunicorn: Gunicorn, request_bytes: bytes, status: int) -> None:
    head, body = ask(gunicorn, request_bytes)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head
    assert b"Connection: close" in head
    problem = json.loads(body)
    assert problem["status"] == status
    wait_until(lambda: any(event.get("request_id") == problem["request_id"] for event in gunicorn.events))


def test_nonsense_in_a_chunked_body_is_a_problem_too(gunicorn: Gunicorn) -> None:
    head, body = ask(
        gunicorn,
        b"POST /notes HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"zz\r\n{}\r\n0\r\n\r\n",
    )
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body[: body.index(b"}") + 1])["status"] == 400
