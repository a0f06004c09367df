"""Factor XII: one-off processes, with the same code and configuration as the service.

`service/admin.py` is their entry: `python -m service.admin migrate`. Each command writes JSON lines that say what it
did, and ends with status 0, or with another one and the reason as its last line. What a person asks to see, `--help`
and `routes`, is plain text.
"""

import argparse
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import psycopg
from flask import Flask

from chassis import config, connections, db, logs, migrations

EX_FAILED, EX_USAGE, EX_CONFIG = 1, 64, 78  # sysexits(3)

WATCH_SECONDS = 1
"""How often `migrate` asks whether the server still answers."""

MOST_SILENCES = 3
"""How many questions in a row the server may leave unanswered, each for `DATABASE_TIMEOUT_SECONDS`."""

C = TypeVar("C", bound=config.Config)
Command = Callable[[C], None]

log = logging.getLogger("admin")


def main(
    arguments: list[str],
    kind: type[C],
    create_app: Callable[[C], Flask],
    folder: Path,
    commands: Mapping[str, Command[C]],
) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: The command line, without the program's name.
        kind: The service's configuration.
        create_app: The function that makes the WSGI application of a configuration.
        folder: The folder of the migrations.
        commands: The service's own commands, beside those of the chassis.
    """

    def migrate(settings: C) -> None:
        """Bring the database's schema up to date."""
        with Watched(settings) as watched:
            with watched.connect() as conn:
                refuse_unfit(conn, settings)
            names = migrations.apply(watched.connect, folder)
        log.info("schema is up to date", extra={"applied": names})

    def check(settings: C) -> None:
        """Check that everything that the service needs can be reached, and is as the code expects it."""
        started = time.monotonic()
        with db.connect(settings) as conn:
            refuse_unfit(conn, settings)
            names = migrations.pending(conn, folder)
            [(version,)] = conn.execute("SHOW server_version")
        milliseconds = round((time.monotonic() - started) * 1_000, 3)
        if names:
            raise migrations.MigrationError(f"the schema lacks {', '.join(names)}: run `{program} migrate`")
        log.info("everything can be reached", extra={"postgresql": version, "duration_ms": milliseconds})

    def show_routes(settings: C) -> None:
        """List every route, with its methods and their statuses."""
        app = create_app(settings)
        described = app.extensions["contract"]["paths"]
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
            path = rule.rule.translate({ord("<"): "{", ord(">"): "}"})
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                operation = described.get(path, {}).get(method.lower())
                statuses = " ".join(sorted(operation["responses"])) if operation else "not in the contract"
                print(f"{method:<6} {path:<24} {statuses}", file=sys.__stdout__)

    program = f"python -m {kind.__module__.rpartition('.')[0]}.admin"
    known: dict[str, Command[C]] = {
        "migrate": migrate,
        "check": check,
        "config": show_config,
        "routes": show_routes,
        **commands,
    }
    logs.capture()
    command = _parser(program, known).parse_args(arguments).command
    try:
        settings = config.load(kind)
    except config.ConfigError as error:
        log.critical("the configuration was refused", extra={"faults": error.faults})
        return EX_CONFIG
    logs.configure(settings)
    try:
        known[command](settings)
    except (psycopg.Error, migrations.MigrationError) as error:
        log.error(  # noqa: TRY400 - one plain line; the operator repairs what went wrong, not the code
            "%s failed: %s", command, error, extra={"exception.type": type(error).__qualname__}
        )
        return EX_FAILED
    return 0


def show_config(settings: config.Config) -> None:
    """Show the effective configuration, without its secrets."""
    log.info("configuration", extra=config.shown(settings))


def refuse_unfit(conn: connections.Connection[Any], settings: config.Config) -> None:
    """Refuse a server that the service cannot rely upon.

    Raises:
        MigrationError: It says why, and what to do.
    """
    if reason := db.find_unfit(conn, settings):
        raise migrations.MigrationError(reason)


class Watched:
    """Connections whose statements may take any time, as long as the server is there.

    A statement of a migration may take hours, and meanwhile says nothing. So another connection asks whether the
    server still answers, and still has their sessions; if it does not, all of them are closed.
    """

    def __init__(self, settings: config.Config) -> None:
        self._settings = settings
        self._made: list[connections.Connection[Any]] = []
        self._ended = threading.Event()
        self._is_silent = False

    def __enter__(self) -> Self:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """End, and say whether the server was silent.

        Raises:
            MigrationError: It was.
        """
        self._ended.set()
        if self._is_silent and isinstance(error, psycopg.Error | migrations.MigrationError):
            raise migrations.MigrationError(
                "the server has stopped answering, and whether the last file was applied is not known: run this again"
            ) from None

    def connect(self) -> connections.Connection[Any]:
        """Return a new connection."""
        conn = db.connect(self._settings)
        conn.limit_seconds = None
        self._made.append(conn)
        return conn

    def _watch(self) -> None:
        silences = 0
        while silences < MOST_SILENCES:
            if self._ended.wait(WATCH_SECONDS):
                return
            silences = 0 if self._answers() else silences + 1
        self._is_silent = True
        for conn in self._made:
            if not conn.closed:
                with socket.socket(fileno=os.dup(conn.fileno())) as sock, suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _answers(self) -> bool:
        """Return whether the server answers, and has the sessions of all connections that are open.

        Behind a pooler the session of a connection is not known.
        """
        open_ones = [conn for conn in self._made if not (conn.closed or conn.is_pooled)]
        try:
            with db.connect(self._settings) as asking:
                sessions = {pid for (pid,) in asking.execute("SELECT pid FROM pg_stat_activity")}
            if self._settings.database_prepare:  # otherwise there may be a pooler that is not recognised
                return all(conn.closed or conn.info.backend_pid in sessions for conn in open_ones)
        except (psycopg.errors.ConnectionTimeout, connections.ServerSilentError):
            return False
        except psycopg.Error:  # an answer, too: a server that has gone away has closed our connections
            return True
        return True


def _parser(program: str, commands: Mapping[str, Callable[..., None]]) -> argparse.ArgumentParser:
    parser = _Parser(prog=program, description="One-off processes of the service.")
    found = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in commands.items():
        found.add_parser(name, help=function.__doc__)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that refuses arguments in one JSON line."""

    def error(self, message: str) -> NoReturn:
        log.error("%s; see `%s --help`", message, self.prog)
        sys.exit(EX_USAGE)

    def print_help(self, file: Any = None) -> None:
        """Print plain text: a person asked for it."""
        super().print_help(file or sys.__stdout__)
