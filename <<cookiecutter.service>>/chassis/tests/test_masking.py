"""Secrets are masked in the log, in whatever form they appear, and every line stays JSON."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from chassis import logs
from chassis.testing.process import environment


@pytest.fixture
def secret() -> Iterator[Callable[[str], None]]:
    """Return a function that makes a text a secret."""
    yield lambda text: logs.hide({text})
    logs.hide(set())


def test_the_password_is_never_written(secret: Callable[[str], None]) -> None:
    secret("hunter2-hunter2")
    assert b"hunter2" not in logs.encode({"body": "cannot connect as me:hunter2-hunter2@host", "hunter2-hunter2": 1})


@pytest.mark.parametrize("show", [str, repr, ascii])
@pytest.mark.parametrize("password", ["hunter\\2", 'it\'s "it"', "hünter2", "hunter\t2"])
def test_a_password_is_masked_in_whatever_form_python_shows_it(
    secret: Callable[[str], None], password: str, show: Callable[[Any], str]
) -> None:
    secret(password)
    assert json.loads(logs.encode({"body": show({"a": password})}))["body"] == "{'a': '***'}"


def unescaped(text: str) -> str:
    """Return a text as JSON, in which only what JSON requires is escaped."""
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("show", [repr, ascii, json.dumps, unescaped])
@pytest.mark.parametrize("password", ["it's hunter2", 'it is "hunter2"', "it's \"hünter2\\"])
def test_a_password_is_masked_in_a_longer_text_with_quotation_marks(
    secret: Callable[[str], None], password: str, show: Callable[[Any], str]
) -> None:
    secret(password)
    for text in (f'"password": {password}', f"password='{password}'", f"""'{password}' of "me" """):
        shown = json.loads(logs.encode({"body": show(text)}))["body"]
        assert "***" in shown, shown
        assert not re.search("h.*nter2", shown), shown


@pytest.mark.parametrize(
    "password",
    [
        "100585",
        "timestamp",
        'severity_text":"',
        "bo\\dy\\",
        "200, false",
        'null,"',
        "ä😀öööö",
        "INFO  ",
        "true}}",
        "chassis",
    ],
)
def test_a_password_is_masked_where_it_is_a_value_and_the_line_stays_json(
    secret: Callable[[str], None], password: str
) -> None:
    event = {
        "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "severity_text": "INFO",
        "logger": "chassis.db",
        "body": f"cannot connect with {password}",
        "number": 100585,
        "nested": {"list": [password, 1005850, None, True]},
        "duration_ms": 1.100585,
    }
    plain = json.loads(logs.encode(event))
    secret(password)
    masked = json.loads(logs.encode(event))
    assert masked["body"] == "cannot connect with ***"
    assert masked["nested"] == {"list": ["***", 1005850, None, True]}
    for name in ("timestamp", "severity_text", "logger", "number", "duration_ms"):
        assert masked[name] == plain[name]


def test_secrets_are_masked_before_the_configuration_is_read() -> None:
    setup = "from chassis import logs; logs.capture('INFO'); "
    variables = {"DATABASE_URL": "postgresql://me:hunter2/hunter2@host/db", "PGPASSWORD": "hunter3-hunter3"}
    done = subprocess.run(
        [sys.executable, "-c", setup + "raise ValueError('hunter3-hunter3 and hunter2/hunter2')"],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "hunter" not in done.stdout.replace("raise ValueError('***", "") + done.stderr
    assert json.loads(done.stdout)["exception.message"] == "*** and ***"
