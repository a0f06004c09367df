"""What exists only to be fast takes effect: each part fails here if its library has moved."""

import subprocess
import sys

import flask.app
import pytest
from flask import Flask
from flask.sessions import NullSession, SecureCookieSessionInterface
from flask.testing import FlaskClient

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


def test_a_statement_waits_in_the_loop_of_gevent(database_url: str) -> None:
    assert int(run(STATEMENT, DATABASE_URL=database_url)) == 1


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
