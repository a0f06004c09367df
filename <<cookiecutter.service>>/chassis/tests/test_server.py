"""The server's edge: what never reaches the application is answered too, and the connection is closed."""

import json
import resource
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from chassis.testing.process import wait_until
from chassis.tests.probe.process import Gunicorn


def ask(server: Gunicorn, request: bytes) -> tuple[bytes, bytes]:
    """Send raw bytes; says the head and the body of all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


POST = b"POST /probes HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
SERVED = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LONG = b'{"text": "' + b"x" * 200_000 + b'"}'


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        # what is no request
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        # what a proxy may understand in another way
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", 400),
        (POST + b"Content-Length: 1, 2\r\n\r\nab", 400),
        (POST + b"Content-Length: +2\r\n\r\nab", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n", 400),
        # nonsense in a chunked body
        (CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\n2\r\n{}no end\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\n2\n{}\n0\n\n" + b"x" * 9000, 400),
        (CHUNKED + b"\r\n" + b"f" * 400 + b"\r\n{}", 400),
        (CHUNKED + b"\r\n" + b"1" * 9000, 400),
        # too much
        (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20_000, 431),
        (POST + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG, 413),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (CHUNKED + b"\r\n%x\r\n" % len(LONG) + LONG + b"\r\n0\r\n\r\n", 413),
        (CHUNKED + b'\r\n%x\r\n{"text": "short"}' % (len(LONG) + 17) + b" " * len(LONG) + b"\r\n0\r\n\r\n", 413),
        # methods and paths
        (b"get /probes HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\x01T /probes HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"BREW /probes HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"TRACE /probes HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /probes/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /probes/%ff%fe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /probes/%2e%2e%2f%2e%2e HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
def test_abuse_is_refused_with_a_problem_and_the_next_is_served(
    gunicorn: Gunicorn, request_bytes: bytes, status: int
) -> None:
    head, body = ask(gunicorn, request_bytes)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Content-Type: application/problem+json" in head
    problem = json.loads(body)  # one answer, and nothing after it
    assert problem["status"] == status
    wait_until(lambda: any(event.get("request_id") == problem["request_id"] for event in gunicorn.events))
    head, _ = ask(gunicorn, SERVED)
    assert head.startswith(b"HTTP/1.1 200 ")


def test_a_head_that_breaks_off_is_not_logged_either(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, LOG_LEVEL="DEBUG"))
    ask(server, b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\n")
    server.wait_for("Ignored premature client disconnection. NoMoreData")
    assert b"hunter2" not in b"".join(server.lines)


def test_the_line_of_a_malformed_request_holds_none_of_its_bytes(gunicorn: Gunicorn) -> None:
    for request in (
        b"GET /probes?key=hunter2 HTTP/9.9\r\nHost: a\r\n\r\n",
        b"hunter2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer hunter2\r\n\r\n",
        CHUNKED + b"\r\nhunter2\r\n",
        CHUNKED + b"\r\n2\r\n{}hunter2\r\n",
    ):
        _, body = ask(gunicorn, request)
        event = gunicorn.access(json.loads(body)["request_id"])
        assert event["http.response.status_code" if "http.route" in event else "fault"]
    assert b"hunter2" not in b"".join(gunicorn.lines)


SLOW = """
from chassis import app, db
from chassis.api import Blueprint, Model
from chassis.config import Config

slow = Blueprint("slow")


class Body(Model):
    text: str


@slow.post("/slow")
def wait(body: Body) -> None:
    with db.connection() as conn:
        for _ in range(20):
            conn.execute("SELECT pg_sleep(0.5)")


@slow.delete("/slow")
def delete() -> None:
    with db.connection() as conn:
        for _ in range(20):
            conn.execute("SELECT pg_sleep(0.5)")


def create_app(settings):
    return app.create(settings, resources=[slow])
"""


def test_a_request_that_has_arrived_and_takes_too_long_is_a_503_and_one_that_still_arrives_a_408(
    database_url: str, tmp_path: Path, processes: ExitStack
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    program = "from chassis import web; from chassis.config import Config; web.serve('slow:create_app', Config)"
    server = processes.enter_context(
        Gunicorn(
            command=[sys.executable, "-c", program],
            PYTHONPATH=tmp_path,
            DATABASE_URL=database_url,
            DATABASE_TIMEOUT_SECONDS=1,
            STATEMENT_TIMEOUT_SECONDS=1,
            SHUTDOWN_SECONDS=4,
            DRAIN_SECONDS=0,
        )
    )
    with server.client() as client:
        late = client.post("/slow", json={"text": "whole"})
        assert (late.status_code, late.headers["Retry-After"]) == (503, "1")
        assert client.get("/livez").status_code == 200
    post, delete = (POST.replace(b"POST /probes", method + b" /slow") for method in (b"POST", b"DELETE"))
    length, chunked = b"Content-Length: %d\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{"
    requests = {
        post + length % 100: b"408",
        post + chunked: b"408",
        delete + length % 100: b"503",  # a body that no handler reads, so the work goes on without it
        delete + length % 2 + b"}": b"503",
        delete + chunked: b"503",
        delete + chunked + b"}\r\n0\r\n\r\n": b"503",
    }
    socks = [processes.enter_context(socket.create_connection(("127.0.0.1", server.port), 20)) for _ in requests]
    for sock, request in zip(socks, requests, strict=True):
        sock.sendall(request)
    assert [sock.recv(12).removeprefix(b"HTTP/1.1 ") for sock in socks] == list(requests.values())
    with psycopg.connect(database_url) as conn:
        wait_until(lambda: not conn.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone())


def test_an_open_file_limit_below_the_connections_is_raised(database_url: str, processes: ExitStack) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))  # a child inherits it
    try:
        server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1, WEB_THREADS=200))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for _ in range(150):
        processes.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)).sendall(b"GET ")
    head, _ = ask(server, SERVED)
    assert head.startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_limit_wait_for_their_turn(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(
        Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1, WEB_THREADS=5, DATABASE_POOL_SIZE=1)
    )
    with ExitStack() as holders:
        for _ in range(5):
            holders.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)).sendall(b"GET ")
        waiting = [
            processes.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(50)
        ]
        for sock in waiting:
            sock.sendall(SERVED)
        waiting[0].settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting[0].recv(1)
        waiting[0].settimeout(20)
    assert {sock.recv(12) for sock in waiting} == {b"HTTP/1.1 200"}


def test_a_client_that_never_pauses_keeps_nobody_out(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1))
    greedy, modest = (
        processes.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20)) for _ in range(2)
    )
    asking = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    modest.sendall(asking)
    while not modest.recv(65_536).endswith(b"}"):  # it has been accepted, and its answer is complete
        pass
    greedy.sendall(asking * 2_000)
    answers = greedy.recv(1)
    modest.sendall(asking)
    assert modest.recv(65_536).startswith(b"HTTP/1.1 200 ")
    greedy.setblocking(False)
    with suppress(BlockingIOError):
        while chunk := greedy.recv(65_536):
            answers += chunk
    assert 0 < answers.count(b"HTTP/1.1 200 ") < 1_500


def test_an_answer_that_the_kernel_takes_in_parts_arrives_whole(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=1))
    with server.client() as client:
        for _ in range(100):
            client.post("/probes", json={"text": "😀" * 10_000}).raise_for_status()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /probes?limit=100 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := sock.recv(65_536):
            received += chunk
    assert len(json.loads(received.partition(b"\r\n\r\n")[2])["items"]) == 100
