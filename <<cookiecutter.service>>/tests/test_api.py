"""The notes over HTTP, as a client sees them."""

import dataclasses
import json
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection

from service import notes
from service.app import create_app
from service.config import Config

pytestmark = pytest.mark.usefixtures("conn")


def test_a_created_note_is_found_where_its_location_says(client: FlaskClient) -> None:
    created = client.post("/notes", json={"text": "hello"})
    assert created.status_code == 201
    assert created.headers["Location"] == f"/notes/{created.get_json()['id']}"
    found = client.get(created.headers["Location"])
    assert (found.status_code, found.content_type, found.get_json()) == (200, "application/json", created.get_json())


def test_times_are_rfc_3339_in_utc(client: FlaskClient) -> None:
    note = client.post("/notes", json={"text": "hello"}).get_json()
    assert note["created_at"].endswith("Z")
    assert datetime.fromisoformat(note["updated_at"]).utcoffset() == timedelta(0)


def test_put_creates_and_then_replaces(client: FlaskClient) -> None:
    path = f"/notes/{uuid4()}"
    first = client.put(path, json={"text": "one"})
    second = client.put(path, json={"text": "two"})
    assert (first.status_code, first.headers["Location"]) == (201, path)
    assert (second.status_code, second.get_json()["text"]) == (200, "two")
    assert client.get(path).get_json() == second.get_json()


def test_an_unknown_note_is_a_404_problem(client: FlaskClient) -> None:
    answer = client.get(f"/notes/{uuid4()}")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_deleting_is_answered_the_same_the_second_time(client: FlaskClient) -> None:
    path = client.post("/notes", json={"text": "short-lived"}).headers["Location"]
    answers = [client.delete(path) for _ in range(2)]
    assert [(answer.status_code, answer.data) for answer in answers] == [(204, b"")] * 2
    assert client.get(path).status_code == 404


def test_the_list_is_followed_by_its_links_to_the_end(client: FlaskClient) -> None:
    made = [client.post("/notes", json={"text": str(number)}).get_json() for number in range(5)]
    seen, path = [], "/notes?limit=2"
    while path:
        page = client.get(path)
        assert page.headers.get("Link") == (
            f'<{page.get_json()["next"]}>; rel="next"' if page.get_json()["next"] else None
        )
        seen += page.get_json()["items"]
        path = page.get_json()["next"]
    assert seen == made[::-1]


def test_a_list_that_ends_with_its_page_has_no_next_page(client: FlaskClient) -> None:
    client.put(f"/notes/{uuid4()}", json={"text": "only"})
    assert client.get("/notes?limit=1").get_json()["next"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "x" * (notes.MAX_TEXT_CHARS + 1)}, "text"),
        ({"text": "a\0b"}, "text"),
        ({"text": 1}, "text"),
        ({"text": None}, "text"),
        ({"text": "a", "colour": "red"}, "colour"),
    ],
)
def test_a_bad_body_is_refused_by_field(client: FlaskClient, body: object, field: str) -> None:
    for answer in (client.post("/notes", json=body), client.put(f"/notes/{uuid4()}", json=body)):
        assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
        assert [fault["field"] for fault in answer.get_json()["errors"]] == [field]


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b'"{}"', b'{"text": "\\ud800"}', b"\xff"])
def test_what_is_no_json_object_is_refused(client: FlaskClient, data: bytes) -> None:
    answer = client.post("/notes", data=data, content_type="application/json")
    assert (answer.status_code, answer.content_type) == (400, "application/problem+json")
    assert answer.get_json()["detail"].startswith("The body ")


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("after=x", "after"), ("offset=1", "offset")],
)
def test_a_bad_parameter_is_refused_by_name(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/notes?{query}")
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.get_json()["errors"]] == [field]


def test_no_request_makes_a_schema(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object, **__: object) -> None:
        raise AssertionError  # it takes several times as long as all the rest of a request

    assert client.get("/notes").status_code == 200
    monkeypatch.setattr("pydantic.BaseModel.model_json_schema", make)
    answers = [client.get("/notes"), client.post("/notes", json={"text": "hello"}), client.get(f"/notes/{uuid4()}")]
    assert [answer.status_code for answer in answers] == [200, 201, 404]


def test_an_id_that_is_no_uuid_is_refused_by_name(client: FlaskClient) -> None:
    answer = client.get("/notes/1")
    assert answer.status_code == 400
    assert [fault["field"] for fault in answer.get_json()["errors"]] == ["note_id"]


def test_everything_lies_under_the_prefix(settings: Config) -> None:
    prefixed = create_app(dataclasses.replace(settings, url_prefix="/api/orders")).test_client()
    assert prefixed.get("/api/orders/notes?limit=x").status_code == 400
    assert prefixed.get("/notes?limit=x").status_code == 404


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(text=st.text(st.characters(codec=None), min_size=1, max_size=50))
def test_any_text_comes_back_equal_or_is_refused(client: FlaskClient, text: str) -> None:
    answer = client.post("/notes", data=json.dumps({"text": text}), content_type="application/json")
    can_be_kept = "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
    assert answer.status_code == (201 if can_be_kept else 400)
    if can_be_kept:
        assert client.get(answer.headers["Location"]).get_json()["text"] == text


def test_the_longest_text_fits_into_the_largest_body(client: FlaskClient, settings: Config) -> None:
    body = json.dumps({"text": "\N{GRINNING FACE}" * notes.MAX_TEXT_CHARS})  # twelve bytes a character, as \uD83D\uDE00
    assert len(body) <= settings.max_body_bytes
    assert client.post("/notes", data=body, content_type="application/json").status_code == 201


def test_sql_is_constant(conn: Connection) -> None:
    hostile = "'; DROP TABLE notes; --"
    assert notes.find(conn, notes.create(conn, hostile).id).text == hostile  # type: ignore[union-attr]
