"""Helpers that apply migrations to a database, and that say which tables it has."""

from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from chassis import migrations


def apply(conn: Connection, folder: Path) -> list[str]:
    """Apply the files to the database of `conn`."""
    return migrations.apply(partial(psycopg.connect, url(conn), autocommit=True), folder)


def url(conn: Connection) -> str:
    """Return how another connection to the database of `conn` is made."""
    return make_conninfo(conn.info.dsn, password=conn.info.password)


def tables(conn: Connection) -> set[str]:
    rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def refused(conn: Connection, folder: Path, reason: str) -> None:
    """Assert that the files are refused, for `reason`, before anything of them is applied."""
    before = tables(conn)
    for attempt in (apply, migrations.pending):
        with pytest.raises(migrations.MigrationError, match=reason):
            attempt(conn, folder)
    assert tables(conn) - {"migrations"} == before - {"migrations"}
