"""What exists only to be fast takes effect: each part fails here if its library has moved."""

import subprocess
import sys

import flask
import flask.app
import pytest
from flask import Flask
from flask.sessions import NullSession, SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.local import LocalProxy

from chassis import fast
from chassis.testing.process import environment

RESPONSE = """
from chassis import web
from chassis import fast, server
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.workers import base_async
import types
assert base_async.wsgi is wsgi  # where gunicorn's asynchronous workers find what they answer with
calls = []
sock = types.SimpleNamespace(
    send=lambda data: calls.append(bytes(data)) or len(data), sendall=lambda data: calls.append(bytes(data))
)
request = types.SimpleNamespace(version=(1, 1), method="GET", should_close=lambda: False, is_chunked=False)
for _ in range(2):
    response = wsgi.Response(request, sock, Config())
    response.start_response("200 OK", [("Content-Length", "5")])
    response.write(b"hello")
assert all(b"\\r\\n\\r\\nhello" in call and b"Date: " in call for call in calls), calls
print(len(calls), fast._date.cache_info().currsize)
"""

REQUESTS = """
from chassis import web
from chassis import server
from gunicorn.config import Config
from gunicorn.http import RequestParser, wsgi
made = []
wrapper = wsgi.WSGIErrorsWrapper.__wrapped__
config = Config()
config.set("forwarded_allow_ips", "10.0.0.0/8")
for _ in range(2):
    parser = RequestParser(config, iter([b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"]), ("192.0.2.1", 1))
    request = next(parser)
    made.append(wsgi.create(request, None, ("192.0.2.1", 1), ("127.0.0.1", 80), config)[1]["wsgi.errors"])
from gunicorn.http import message
found = message.ipaddress.ip_address.cache_info()
print(made[0] is made[1] and isinstance(made[0], wrapper), found.misses, found.hits > 0)
"""

STATEMENT = """
from chassis import web
import psycopg.waiting
from chassis import db, fast
from chassis.tests.probe.app import create_app
app = create_app()
waited = []
wait = fast.GreenConnection.wait
fast.GreenConnection.wait = lambda self, *args, **options: waited.append(1) or wait(self, *args, **options)
with app.app_context(), db.connection() as conn:
    waited.clear()
    psycopg.waiting.wait = psycopg.waiting.wait_poll = psycopg.waiting.wait_select = None
    conn.execute("SELECT 1")
print(len(waited))
db.close_pool(app)
"""


def run(program: str, **variables: str) -> str:
    """Return what a program prints that a process like the service's runs."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(**variables), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_head_and_body_leave_by_one_call_and_the_date_is_written_once_a_second() -> None:
    assert run(RESPONSE) == "2 1"


def test_what_is_the_same_for_all_requests_is_made_once() -> None:
    assert run(REQUESTS) == "True 1 True"


def test_a_complete_response_is_sent_as_it_is(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flask.Response, "get_wsgi_response", None)
    created = client.post("/probes", json={"text": "hello"})
    assert created.status_code == 201
    assert client.get(created.headers["Location"]).status_code == 200
    with pytest.raises(TypeError):  # so it is what Flask calls for the others
        client.head("/livez")


def test_what_is_behind_a_proxy_is_no_proxy(app: Flask) -> None:
    with app.test_request_context():
        assert not isinstance(fast.behind(flask.g), LocalProxy)
        assert not isinstance(fast.behind(flask.request), LocalProxy)


def test_a_statement_waits_in_the_loop_of_gevent(database_url: str) -> None:
    # One connection: no other one is opened meanwhile, whose statements would be counted.
    assert int(run(STATEMENT, DATABASE_URL=database_url, DATABASE_POOL_SIZE="1")) == 1


def test_no_session_is_read_or_written(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_session(*_: object) -> NullSession:
        opened.append(1)
        return fast.NoSessions.nothing

    monkeypatch.setattr(fast.NoSessions, "open_session", open_session)
    monkeypatch.setattr(SecureCookieSessionInterface, "open_session", None)
    assert client.get("/livez").status_code == 200
    assert opened == [1]


def test_no_view_is_asked_whether_it_is_a_coroutine(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flask.app, "iscoroutinefunction", None)
    assert client.get("/livez").status_code == 200
    monkeypatch.setattr(client.application, "ensure_sync", Flask.ensure_sync.__get__(client.application))
    with pytest.raises(TypeError):  # so this is where Flask asks
        client.get("/livez")
