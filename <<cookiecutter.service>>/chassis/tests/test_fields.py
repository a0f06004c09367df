"""A value of each type is stored in a column of its type and comes back as it was sent, or is refused with 400."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg.rows import args_row
from pydantic import Field

from chassis import app as chassis_app
from chassis import config, db
from chassis.api import Blueprint, Model
from chassis.fields import Date, DateTime, Text, digits

TABLE = """
    CREATE TABLE cells (
        day date, at timestamptz, price numeric(6, 2), id uuid, is_new boolean, name text, tags text[], count integer
    )
"""


class Cell(Model):
    """A column of each type."""

    day: Date | None = None
    at: DateTime | None = None
    price: Annotated[Decimal, digits(4, 2, signed=True)] | None = None
    id: UUID | None = None
    is_new: bool | None = None
    name: Text | None = None
    tags: list[Text] | None = None
    count: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of it."""

    day: date | None
    at: datetime | None
    price: Decimal | None
    id: UUID | None
    is_new: bool | None
    name: str | None
    tags: list[str] | None
    count: int | None


cells = Blueprint("cells")


@cells.post("/cells")
def create_cell(body: Cell) -> None:
    """Store a row."""
    with db.connection() as conn:
        conn.execute(
            "INSERT INTO cells VALUES (%(day)s, %(at)s, %(price)s, %(id)s, %(is_new)s, %(name)s, %(tags)s, %(count)s)",
            dict(body),
        )


@cells.get("/cells")
def list_cells() -> list[Row]:
    """Return all rows."""
    with db.connection() as conn:
        return conn.cursor(row_factory=args_row(Row)).execute("SELECT * FROM cells").fetchall()


@pytest.fixture
def app(settings: config.Config, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """Return the application of the cells, on a database of its own."""
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(TABLE)
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    app = chassis_app.create(config.load(type(settings)), [cells])
    db.open_pool(app)
    yield app
    db.close_pool(app)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("day", ["0001-01-01", "2024-02-29", "9999-12-31"]),
        ("at", ["0001-01-02T00:00:00Z", "2026-11-27T10:00:00.123456Z", "9999-12-30T23:59:59.999999Z"]),
        ("price", ["-9999.99", "0.00", "9999.99"]),
        ("id", [str(UUID(int=0)), str(UUID(int=2**128 - 1))]),
        ("is_new", [True, False, None]),
        ("name", ["", "NULL", "\x01\\'\"{},\n", "\U0010ffff"]),
        ("tags", [[], [""], ["NULL", "null", "a,b", "{}", "\\\"'", " ", "\U0010ffff"]]),
        ("count", [-(2**31), 2**31 - 1]),
    ],
)
def test_a_value_at_a_limit_comes_back(client: FlaskClient, field: str, values: list[Any]) -> None:
    assert [client.post("/cells", json={field: value}).status_code for value in values] == [204] * len(values)
    assert [row[field] for row in client.get("/cells").get_json()] == values


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("day", ["0000-12-31", "10000-01-01", "infinity"]),
        ("at", ["0001-01-01T00:00:00+10:00", "0001-01-01T23:59:59Z", "0001-01-02T00:00:00+00:01", "infinity"]),
        ("at", ["9999-12-31T23:59:59-10:00", "9999-12-31T00:00:00Z", "9999-12-30T23:59:59-00:01"]),
        ("price", ["10000.00", "-10000.00", "0.001", "NaN", "Infinity"]),
        ("name", ["\0"]),
        ("tags", [["a", "\0"], [None]]),
        ("count", [-(2**31) - 1, 2**31]),
    ],
)
def test_a_value_beyond_a_limit_is_refused_and_not_stored(client: FlaskClient, field: str, values: list[Any]) -> None:
    assert [client.post("/cells", json={field: value}).status_code for value in values] == [400] * len(values)
    assert client.get("/cells").get_json() == []
