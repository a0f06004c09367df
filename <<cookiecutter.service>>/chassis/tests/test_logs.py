"""Factor XI: what leaves the process is JSON lines on stdout, whatever comes in."""

import json
import logging
import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from chassis import logs
from chassis.testing.process import environment

LONG = st.integers(2_000, 9_000).map(lambda length: "ä" * length)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary() | LONG,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec=None)), inner),
    max_leaves=10,  # more of them take ten times as long to make; what makes an event long is `LONG`
)


def said_by(program: str) -> tuple[list[dict[str, Any]], str, int]:
    """Return the events of a process that runs `program` with logging set up, its stderr, and its exit status."""
    setup = "from chassis import logs; logs.capture('INFO'); import logging, sys, threading, warnings\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + program], env=environment(), capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr, done.returncode


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def ended_event(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str = "/probes/1", **headers: str
) -> dict[str, Any]:
    """Return the canonical line of one request."""
    lines: list[bytes] = []
    monkeypatch.setattr(logs.stdout, "write", lines.append)
    client.get(path, headers=headers)
    [line] = lines
    event: dict[str, Any] = json.loads(line)
    return event


@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine is no fault of the events
    deadline=None,
)
@given(event=st.dictionaries(st.text(st.characters(codec=None)), JSON))
def test_any_event_becomes_one_short_line_of_strict_json(event: dict[str, Any]) -> None:
    line = logs.encode(event)
    assert len(line) <= 4096
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    json.loads(line.decode("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_values_that_json_cannot_say_are_shown_as_text() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    cycle: list[Any] = []
    cycle.append(cycle)
    event = {
        "nan": math.nan,
        "huge": 2**70,
        "half": "\ud800",
        "hostile": Hostile(),
        "count": 7,
        "cycle": cycle,
        "key": {1: 2},
        "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    }
    shown = json.loads(logs.encode(event))
    assert shown["nan"] is None
    assert shown["huge"] == str(2**70)
    assert shown["half"] == "?"
    assert shown["count"] == 7  # what JSON can say keeps its type, whatever it stands beside
    assert "Hostile" in shown["hostile"]
    assert shown["timestamp"] == "2026-01-01T00:00:00Z"


def test_a_long_text_is_cut_and_the_rest_stays() -> None:
    event = json.loads(logs.encode({"body": "x" * 100_000, "status": 200}))
    assert event["status"] == 200
    assert event["body"].endswith("…")


def test_of_a_long_stack_trace_the_end_stays() -> None:
    event = json.loads(logs.encode({"exception.stacktrace": "frame\n" * 10_000 + "ValueError: here"}))
    assert event["exception.stacktrace"].endswith("ValueError: here")


def test_many_attributes_give_way_to_the_first_ones() -> None:
    event = json.loads(logs.encode({"timestamp": "now", **{f"key{number}": "x" * 20 for number in range(1000)}}))
    assert event["timestamp"] == "now"
    assert "key0" in event
    assert "key999" not in event


@pytest.mark.parametrize(
    "program",
    [
        "print('plain')",
        "print('pl', 'ain', sep='')",
        "print('plain', end='')",
        "sys.stderr.write('plain\\n')",
        "logging.warning('plain')",
    ],
)
def test_whatever_is_printed_becomes_an_event(program: str) -> None:
    [event], stderr, status = said_by(program)
    assert (event["body"], stderr, status) == ("plain", "", 0)


def test_warnings_become_events() -> None:
    [event], stderr, _ = said_by("warnings.warn('old')")
    assert (event["logger"], stderr) == ("py.warnings", "")


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("1/0", 1),
        ("thread = threading.Thread(target=lambda: 1/0); thread.start(); thread.join()", 0),
        ("type('T', (), {'__del__': lambda self: 1/0})()", 0),
    ],
)
def test_uncaught_exceptions_become_one_event(program: str, status: int) -> None:
    [event], stderr, ended = said_by(program)
    assert (event["body"], event["exception.type"]) == ("uncaught exception", "ZeroDivisionError")
    assert "Traceback" in event["exception.stacktrace"]
    assert (stderr, ended) == ("", status)


def test_a_message_whose_arguments_do_not_fit_is_still_logged() -> None:
    [event], stderr, _ = said_by("logging.error('%d items', 'many')")
    assert (event["body"], stderr) == ("%d items", "")


def test_an_event_has_opentelemetrys_names() -> None:
    [event], _, _ = said_by("logging.getLogger('a.b').error('no', extra={'order.id': 7})")
    assert {"timestamp", "severity_text", "body", "logger", "process.pid", "order.id"} == set(event)
    assert (event["severity_text"], event["order.id"]) == ("ERROR", 7)


def test_the_canonical_line_tells_the_request(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    event = ended_event(client, monkeypatch)
    assert event["http.request.method"] == "GET"
    assert event["http.route"] == "/probes/<probe_id>"
    assert event["url.path"] == "/probes/1"
    assert event["http.response.status_code"] == 400
    assert event["http.response.body.size"] > 0
    assert event["duration_ms"] > 0
    assert "db_pool_wait_ms" not in event  # it asked for no connection


def test_the_canonical_line_tells_how_long_a_connection_was_waited_for(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = ended_event(client, monkeypatch, "/probes")
    assert 0 < event["db_pool_wait_ms"] < event["duration_ms"]


def test_a_well_formed_request_id_is_kept_and_returned(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "abc-123"}).headers["X-Request-ID"] == "abc-123"
    assert ended_event(client, monkeypatch, **{"X-Request-ID": "abc-123"})["request_id"] == "abc-123"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 129, 'a"b', "ä"])
def test_any_other_request_id_is_replaced(client: FlaskClient, offered: str) -> None:
    given_back = client.get("/livez", headers={"X-Request-ID": offered}).headers["X-Request-ID"]
    assert len(given_back) == 32
    assert given_back != client.get("/livez").headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, {"trace_id": "a" * 32, "span_id": "b" * 16}),
        ({"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}, {}),
        ({"traceparent": "nonsense"}, {}),
        (
            {"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"},
            {"trace_id": "67891233abcdef012345678912345678"},
        ),
        ({"X-Amzn-Trace-Id": "Self=1-67891233-abcdef012345678912345678"}, {}),
        ({}, {}),
    ],
)
def test_the_trace_of_the_caller_is_taken_over(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], trace: dict[str, str]
) -> None:
    event = ended_event(client, monkeypatch, **headers)
    assert {name: event[name] for name in ("trace_id", "span_id") if name in event} == trace


def test_what_a_request_logs_carries_its_id(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bytes] = []
    monkeypatch.setattr(logs.stdout, "write", lines.append)
    with app.test_request_context(headers={"X-Request-ID": "mine"}):
        app.preprocess_request()
        logs.Handler().emit(logging.makeLogRecord({"msg": "in between"}))
    assert json.loads(lines[0])["request_id"] == "mine"
