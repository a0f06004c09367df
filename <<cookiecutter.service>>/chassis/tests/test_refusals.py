"""What PostgreSQL refuses to store is an answer that names the field, and says nothing of the schema."""

import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import Connection
from psycopg.pq import DiagnosticField
from pydantic import Field

from chassis import app as chassis_app
from chassis import config, db
from chassis.api import Blueprint, Model
from chassis.fields import Text, digits

TABLES = """
    CREATE TABLE shelves (id uuid PRIMARY KEY DEFAULT uuidv7(), name varchar NOT NULL, UNIQUE (name));
    CREATE UNIQUE INDEX lower_case ON shelves (lower(name));
    CREATE TABLE shelf_boxes (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        shelf_id uuid NOT NULL REFERENCES shelves,
        colour text,
        count integer NOT NULL CHECK (count > 0),
        price numeric(4, 2),
        label varchar(3),
        CHECK (count < 1000),
        CONSTRAINT not_both CHECK (colour <> 'red' OR count < 10),
        EXCLUDE (price WITH =)
    );
    CREATE TABLE pinned (shelf_id uuid REFERENCES shelves ON DELETE RESTRICT);
"""

boxes = Blueprint("boxes")


class NewShelf(Model):
    """What a client says of a shelf; two fields are called like a function and a type of its index."""

    name: Annotated[Text, Field(max_length=20)]
    lower: int | None = None
    text: Text | None = None


class NewBox(Model):
    """What a client says of a box; the checks are left to the database."""

    shelf_id: UUID
    count: int | None = 1
    colour: Text | None = None
    price: Annotated[Decimal, digits(9, 2)] | None = None
    label: Text | None = None


@boxes.post("/shelves", problems=[409])
def create_shelf(body: NewShelf) -> None:
    """Store a shelf."""
    with db.connection() as conn:
        conn.execute("INSERT INTO shelves (name) VALUES (%s)", [body.name])


@boxes.delete("/shelves/<name>", problems=[409])
def delete_shelf(name: Text) -> None:
    """Remove a shelf."""
    with db.connection() as conn:
        conn.execute("DELETE FROM shelves WHERE name = %s", [name])


@boxes.post("/boxes", problems=[409, 422])
def create_box(body: NewBox) -> None:
    """Store a box."""
    statement = "INSERT INTO shelf_boxes (shelf_id, count, colour, price, label) VALUES (%s, %s, %s, %s, %s)"
    with db.connection() as conn:
        conn.execute(statement, [body.shelf_id, body.count, body.colour, body.price, body.label])


@pytest.fixture
def app(settings: config.Config, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """Return the application of the boxes, on a database of its own."""
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(TABLES)
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    app = chassis_app.create(config.load(type(settings)), [boxes])
    db.open_pool(app)
    yield app
    db.close_pool(app)


@pytest.fixture
def conn(app: Flask, empty_database_url: str) -> Iterator[Connection[Any]]:
    """Return a connection to that database."""
    assert app
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def shelf_id(conn: Connection[Any]) -> UUID:
    """Return the ID of a shelf called `tools`."""
    [(shelf_id,)] = conn.execute("INSERT INTO shelves (name) VALUES ('tools') RETURNING id")
    assert isinstance(shelf_id, UUID)
    return shelf_id


def assert_refused(answer: Any, status: int, *fields: str) -> None:
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    assert [fault["field"] for fault in answer.get_json().get("errors", [])] == list(fields)
    assert not {"shelves", "shelf_boxes", "constraint", "key", "check", "tools"} & set(answer.text.lower().split('"'))


@pytest.mark.usefixtures("shelf_id")
@pytest.mark.parametrize("name", ["tools", "TOOLS"])
def test_what_must_be_unique_is_a_409_that_names_the_field(client: FlaskClient, name: str) -> None:
    assert_refused(client.post("/shelves", json={"name": name}), 409, "name")


def test_a_reference_to_nothing_is_a_422_that_names_the_field(client: FlaskClient) -> None:
    assert_refused(client.post("/boxes", json={"shelf_id": str(uuid4())}), 422, "shelf_id")


@pytest.mark.parametrize("table", ["shelf_boxes (shelf_id, count) VALUES (%s, 1)", "pinned VALUES (%s)"])
def test_to_remove_what_something_refers_to_is_a_409(
    client: FlaskClient, conn: Connection[Any], shelf_id: UUID, table: str
) -> None:
    conn.execute(f"INSERT INTO {table}".encode(), [shelf_id])
    assert_refused(client.delete("/shelves/tools"), 409)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('update or delete on table "shelves" violates foreign key constraint "a_fkey" on table "boxes"', 409),
        ('insert or update on table "boxes" violates foreign key constraint "a_fkey"', 422),
        (
            "Aktualisieren oder Löschen in Tabelle »shelf« verletzt Fremdschlüssel-Constraint »a« von Tabelle »boxes«",
            409,
        ),
        ("Einfügen oder Aktualisieren in Tabelle »boxes« verletzt Fremdschlüssel-Constraint »a_fkey«", 422),
        (
            "UPDATE ou DELETE sur la table « shelf » viole la contrainte de clé étrangère « a » de la table « boxes »",
            409,
        ),
        (
            "une instruction insert ou update sur la table « boxes » viole la contrainte de clé étrangère « a_fkey »",
            422,
        ),
    ],
)
def test_a_violated_reference_is_understood_in_any_language(app: Flask, message: str, status: int) -> None:
    def fail() -> str:
        raise psycopg.errors.ForeignKeyViolation(info={DiagnosticField.MESSAGE_PRIMARY: message.encode()})

    app.add_url_rule("/broken", view_func=fail)
    assert_refused(app.test_client().get("/broken"), status)


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"count": 0}, 422, ["count"]),
        ({"count": 1_000}, 422, ["count"]),
        ({"count": None}, 422, ["count"]),
        ({"count": 10, "colour": "red"}, 422, []),
        ({"count": 2**40}, 400, []),
        ({"price": "100.00"}, 400, []),
        ({"label": "long"}, 400, []),
    ],
)
def test_a_value_that_a_column_does_not_take_is_refused(
    client: FlaskClient, shelf_id: UUID, fields: dict[str, Any], status: int, named: list[str]
) -> None:
    assert_refused(client.post("/boxes", json={"shelf_id": str(shelf_id), **fields}), status, *named)


def test_what_excludes_another_is_a_409(client: FlaskClient, shelf_id: UUID) -> None:
    box = {"shelf_id": str(shelf_id), "price": "1.00"}
    assert client.post("/boxes", json=box).status_code == 204
    assert_refused(client.post("/boxes", json=box), 409, "price")


@pytest.mark.parametrize("error", [psycopg.errors.SerializationFailure(), psycopg.errors.DeadlockDetected()])
def test_a_collision_that_lasts_is_a_503_that_says_when_to_try_again(app: Flask, error: Exception) -> None:
    def fail() -> str:
        raise error

    app.add_url_rule("/broken", view_func=fail)
    answer = app.test_client().get("/broken")
    assert_refused(answer, 503)
    assert answer.headers["Retry-After"] == "1"


def test_two_transactions_that_wait_for_each_other_both_succeed(app: Flask, conn: Connection[Any]) -> None:
    conn.execute("INSERT INTO shelves (name) VALUES ('a'), ('b')")
    both_hold_one, attempts = threading.Barrier(2), []

    def swap(conn: Connection[Any], names: str) -> str:
        attempts.append(names)
        is_first = attempts.count(names) == 1
        for name in names:
            conn.execute("SELECT FROM shelves WHERE name = %s FOR UPDATE", [name])
            if is_first and name == names[0]:
                both_hold_one.wait(10)
        return names

    results: list[str] = []

    def run(names: str) -> None:
        with app.test_request_context():
            results.append(db.transaction(swap, names))

    threads = [threading.Thread(target=run, args=[names]) for names in ("ab", "ba")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["ab", "ba"]
    assert sorted(attempts) in (["ab", "ab", "ba"], ["ab", "ba", "ba"])


def test_a_transaction_that_always_collides_is_given_up(app: Flask) -> None:
    attempts = []

    def collide(_conn: Connection[Any]) -> None:
        attempts.append(1)
        raise psycopg.errors.SerializationFailure

    with app.test_request_context(), pytest.raises(psycopg.errors.SerializationFailure):
        db.transaction(collide)
    assert len(attempts) == 1 + db.REPETITIONS


def test_what_fails_otherwise_is_rolled_back_and_not_repeated(app: Flask, conn: Connection[Any]) -> None:
    def store(conn: Connection[Any], name: str) -> None:
        conn.execute("INSERT INTO shelves (name) VALUES (%s)", [name])
        raise KeyError(name)

    with app.test_request_context(), pytest.raises(KeyError):
        db.transaction(store, name="half")
    assert conn.execute("SELECT FROM shelves").fetchall() == []
