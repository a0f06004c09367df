"""Factor XII: one-off processes, with the same code and configuration: `python -m service.admin migrate`.

Each command says what it did in JSON lines, and ends with status 0, or with another and the reason as its last line.
What a person asks to see, `--help` and `routes`, is plain text.
"""

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg

from service import app, config, db, logs, migrations

EX_FAILED, EX_USAGE, EX_CONFIG = 1, 64, 78  # sysexits(3)

log = logging.getLogger("admin")


def migrate(settings: config.Config) -> None:
    """Bring the database's schema up to date."""
    with _connect(settings) as conn:
        conn.execute("SET statement_timeout = 0")
        names = migrations.apply(conn)
    log.info("schema is up to date", extra={"applied": names})


def show_config(settings: config.Config) -> None:
    """Show the effective configuration, without its secrets."""
    shown = dataclasses.asdict(settings)
    url = urlsplit(settings.database_url)
    if url.password:
        shown["database_url"] = settings.database_url.replace(f":{url.password}@", ":***@", 1)
    log.info("configuration", extra={name.upper(): value for name, value in shown.items()})


def check(settings: config.Config) -> None:
    """Ask whether everything that the service needs can be reached, and is as the code expects it."""
    started = time.monotonic()
    with _connect(settings) as conn:
        names = migrations.pending(conn)
        [(version,)] = conn.execute("SHOW server_version")
    milliseconds = round((time.monotonic() - started) * 1_000, 3)
    if names:
        raise migrations.MigrationError(f"the schema lacks {', '.join(names)}: run `python -m service.admin migrate`")
    log.info("everything can be reached", extra={"postgresql": version, "duration_ms": milliseconds})


def show_routes(settings: config.Config) -> None:
    """List every route, with its methods and their statuses."""
    service = app.create_app(settings)
    described = service.api_doc["paths"]
    for rule in sorted(service.url_map.iter_rules(), key=lambda rule: rule.rule):
        path = rule.rule.translate({ord("<"): "{", ord(">"): "}"})
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            operation = described.get(path, {}).get(method.lower())
            statuses = " ".join(sorted(operation["responses"])) if operation else "not in the contract"
            print(f"{method:<6} {path:<24} {statuses}", file=sys.__stdout__)


COMMANDS: dict[str, Callable[[config.Config], None]] = {
    "migrate": migrate,
    "check": check,
    "config": show_config,
    "routes": show_routes,
}


def main(arguments: list[str]) -> int:
    """Run one command; says its exit status."""
    logs.capture()
    command = _parser().parse_args(arguments).command
    try:
        settings = config.load()
    except config.ConfigError as error:
        log.critical("the configuration was refused", extra={"faults": error.faults})
        return EX_CONFIG
    logs.configure(settings)
    try:
        COMMANDS[command](settings)
    except (psycopg.Error, migrations.MigrationError) as error:
        log.error(  # noqa: TRY400 - one plain line; what went wrong is the operator's to mend, not the code's
            "%s failed: %s", command, error, extra={"exception.type": type(error).__qualname__}
        )
        return EX_FAILED
    return 0


def _connect(settings: config.Config) -> psycopg.Connection[Any]:
    return psycopg.connect(settings.database_url, **db.connect_options(settings))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m service.admin", description="One-off processes of the service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in COMMANDS.items():
        commands.add_parser(name, help=function.__doc__)
    return parser


class _Parser(argparse.ArgumentParser):
    """Refuses arguments in one JSON line."""

    def error(self, message: str) -> NoReturn:
        log.error("%s; see `%s --help`", message, self.prog)
        sys.exit(EX_USAGE)

    def print_help(self, file: Any = None) -> None:
        """Plain text: it is asked for by a person."""
        super().print_help(file or sys.__stdout__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
