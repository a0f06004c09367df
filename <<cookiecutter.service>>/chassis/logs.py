"""Factor XI: logs are a stream of events on stdout, one JSON object per line, and nothing else goes there or to stderr.

Names follow OpenTelemetry. https://opentelemetry.io/docs/specs/otel/logs/data-model/
https://opentelemetry.io/docs/specs/semconv/http/http-spans/
"""

import errno
import io
import json
import logging
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson
from flask import Flask, Response, g, has_request_context, request

from chassis import config, events, fast, terminal, urls
from chassis.config import Config

MAX_WAIT_SECONDS = 0.5
"""How long one line waits for a reader that has stopped reading. Then lines are dropped, and counted, until it reads
again: answers matter more than logs."""

SECRET_MIN_CHARS = 6
"""Shorter secrets are not masked in the log: they would match parts of ordinary words."""


_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=+/-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_AMAZON_ROOT = re.compile(r"(?:^|;)Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

_resource: dict[str, Any] = {}
_secrets: list[str] = []
_encoded_secrets: list[bytes] = []

_OWN = frozenset({"timestamp", "severity_text", "logger", "service.name", "service.version", "process.pid"})
"""Attributes whose values are never masked. They hold no secret, and whoever reads the log relies on them."""

_KEYS = _OWN | {
    *("body", "request_id", "trace_id", "span_id", "http.request.method", "http.route", "url.path"),
    *("http.response.status_code", "http.response.body.size", "duration_ms", "client.address", "db_pool_wait_ms"),
    *("exception.type", "exception.message", "exception.stacktrace", "faults"),
}
"""Names of attributes that are never masked, whatever somebody has chosen for a password."""


def configure(settings: Config) -> None:
    """Write all output of this process as events: log records, warnings, uncaught exceptions and prints."""
    _resource.update({"service.name": settings.service, "service.version": settings.release})
    capture(settings.log_level, settings.log_format)
    hide(config.secrets(settings))


def capture(level: str = "INFO", style: str = "auto") -> None:
    """Capture all output like `configure`, before a configuration is loaded; it may be refused."""
    hide(urls.secrets(os.environ))
    stdout.open()
    stdout.is_text = os.isatty(1) if style == "auto" else style == "text"
    logging.raiseExceptions = False
    logging.root.handlers = [Handler()]
    logging.root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.stdout, sys.stderr = _Stream("stdout"), _Stream("stderr")


def register(app: Flask) -> None:
    """Log one canonical line per request, and give each request an id. https://brandur.org/canonical-log-lines"""
    app.before_request(_begin)
    app.after_request(_end)


def emit(severity: str, logger: str, body: str, attributes: Mapping[str, Any]) -> None:
    """Write one event as one line of valid JSON, with secrets masked, whatever the attributes contain."""
    stdout.write(_line(severity, logger, body, attributes))


def encode(event: Mapping[str, Any]) -> bytes:
    """Return `event` as a line of JSON of at most `events.MAX_LINE_BYTES` bytes. Texts are cut until it fits."""
    line = _strict(event)
    return (line if len(line) < events.MAX_LINE_BYTES else events.shorten(orjson.loads(line))) + b"\n"


def _strict(event: Mapping[str, Any]) -> bytes:
    """Return `event` as JSON without our secrets, whatever it holds."""
    try:
        line = events.dump(event)
    except TypeError:  # lone surrogates, integers over 64 bits, cycles, objects that cannot be shown
        line = events.dump(events.plain(event))
    if any(secret in line for secret in _encoded_secrets):
        line = events.dump(
            {key: value if key in _OWN else _masked(value) for key, value in _masked_keys(orjson.loads(line))}
        )
    return line


def _line(severity: str, logger: str, body: str, attributes: Mapping[str, Any]) -> bytes:
    event = {
        "timestamp": datetime.now(UTC),
        "severity_text": severity,
        "logger": logger,
        "body": body,
        **_resource,
        "process.pid": os.getpid(),
        **attributes,
    }
    if stdout.is_text:
        return terminal.render(orjson.loads(_strict(event)), is_coloured=os.isatty(1)).encode()
    return encode(event)


def _begin() -> None:
    values: Any = g
    values = fast.behind(values)
    environ = request.environ  # `request.headers` would say the same, at ten times the cost
    values.started = time.perf_counter()
    offered = environ.get("HTTP_X_REQUEST_ID")
    values.request_id = offered if offered and _REQUEST_ID.fullmatch(offered) else os.urandom(16).hex()
    values.log_context = {}
    if (parent := environ.get("HTTP_TRACEPARENT")) and (match := _TRACEPARENT.fullmatch(parent)):
        values.log_context = {"trace_id": match[1], "span_id": match[2]}
    elif (amazon := environ.get("HTTP_X_AMZN_TRACE_ID")) and (match := _AMAZON_ROOT.search(amazon)):
        values.log_context = {"trace_id": match[1] + match[2]}


def _end(response: Response) -> Response:
    values: Any = g
    values = fast.behind(values)
    response.headers.add("X-Request-ID", values.request_id)
    if logging.root.isEnabledFor(logging.INFO):
        asked: Any = request
        asked = fast.behind(asked)
        route = asked.url_rule.rule if asked.url_rule else "(none)"
        attributes = {
            "request_id": values.request_id,
            **values.log_context,
            "http.request.method": asked.method,
            "http.route": route,
            "url.path": asked.path,
            "http.response.status_code": response.status_code,
            "http.response.body.size": response.calculate_content_length(),
            "duration_ms": round((time.perf_counter() - values.started) * 1_000, 3),
            "client.address": asked.remote_addr,
        }
        if "db_pool_wait_ms" in values:
            attributes["db_pool_wait_ms"] = round(values.db_pool_wait_ms, 3)
        emit("INFO", "access", f"{asked.method} {route} {response.status_code}", attributes)
    return response


class Handler(logging.Handler):
    """Events from Python's log records."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, with the exception and the request that it belongs to."""
        attributes = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if has_request_context():
            attributes = {"request_id": g.get("request_id"), **g.get("log_context", {}), **attributes}
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            attributes["exception.type"] = type(error).__qualname__
            attributes["exception.message"] = events.text(error)
            attributes["exception.stacktrace"] = logging.Formatter().formatException(record.exc_info)
        try:
            body = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their message, or cannot be shown
            body = events.text(record.msg)
        emit(record.levelname, record.name, body, attributes)


class _Stream(io.TextIOBase):
    """A stand-in for `sys.stdout` and `sys.stderr`: what is printed there by others becomes events."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")  # `print` writes each of its arguments by itself
        if len(self._rest) >= events.MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            if line.strip():
                self._logger.warning("%s", line)
        return len(text)

    def flush(self) -> None:
        if self._rest:
            self.write("\n")


class Stdout:
    """File descriptor 1, written a line at a time and without waiting for long."""

    fd = 1
    is_text = False
    jammed = False
    dropped = 0

    def open(self) -> None:
        """Reopen a pipe in non-blocking mode. Set on descriptor 1, the flag would affect all who share the pipe."""
        try:
            os.fstat(1)
        except OSError:  # it is closed: else the next file or socket would be number 1, and get the log
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if self.fd == 1 and stat.S_ISFIFO(os.fstat(1).st_mode):
            try:
                self.fd = os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:  # no such folder (macOS), or not ours to open: then a stopped reader stops the writer
                self.fd = 1

    def write(self, line: bytes) -> None:
        """Write one line, or count it as dropped. When writing works again, first log how many lines were dropped."""
        if self.dropped:
            dropped, self.dropped = self.dropped, 0  # first of all: others may drop lines while this one waits
            if not self._write(_line("WARNING", __name__, "log lines were dropped", {"dropped": dropped})):
                self.dropped += dropped
        if not self._write(line):
            self.dropped += 1

    def _write(self, line: bytes) -> bool:
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            try:
                while line:  # a pipe takes all or nothing, a file or a terminal may take a part
                    line = line[os.write(self.fd, line) :]
            except OSError as error:
                if error.errno != errno.EAGAIN or self.jammed or time.monotonic() > deadline:
                    self.jammed = True  # the reader has gone, or sleeps: from now on nobody waits for it
                    return False
                time.sleep(0.005)
            else:
                self.jammed = False
                return True


stdout = Stdout()


def hide(secrets: set[str]) -> None:
    """Have these texts masked from now on, also as `%r`, JSON, a dict or a `KeyError` shows them.

    The longest come first, since one may be a part of another.
    """
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SECRET_MIN_CHARS}
    _secrets[:] = sorted(forms, key=len, reverse=True)
    _encoded_secrets[:] = [_encode(secret) for secret in _secrets]


def _forms(secret: str) -> Iterable[str]:
    """Return a secret as it is, and as a longer text has it in which quotation marks and backslashes are escaped."""
    yield secret
    for show in (repr, ascii):
        yield show(secret)[1:-1]
        yield show(secret + '"')[1:-2]  # what escapes `'`, since there is a `"` elsewhere in the text
    yield json.dumps(secret)[1:-1]
    yield _encode(secret).decode()


def _encode(secret: str) -> bytes:
    return events.dump(events.text(secret))[1:-1]


def _masked(value: Any) -> Any:
    """Return a value of JSON with `***` for each secret in its texts. Numbers stay: a secret is a text."""
    if isinstance(value, str):
        for secret in _secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in _masked_keys(value)}
    return value


def _masked_keys(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((key if key in _KEYS else _masked(key), item) for key, item in value.items())


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.critical("uncaught exception", exc_info=(kind, error or kind(), trace))
