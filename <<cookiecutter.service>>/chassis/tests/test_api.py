"""The layer between Flask and pydantic: every type, in every place, is what the contract says."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pydantic import create_model
from werkzeug.serving import WSGIRequestHandler, make_server

from chassis import app as chassis_app
from chassis import config
from chassis.api import Blueprint, Model, PageQuery, page
from chassis.schemas import ContractError
from chassis.testing import conformance
from chassis.tests.things import ROWS, things


@pytest.fixture
def app(settings: config.Config) -> Flask:
    """Return the application of the things; it asks no database."""
    return chassis_app.create(settings, [things])


class Quiet(WSGIRequestHandler):
    """Serve without a line for each request."""

    def log(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Serve `app` on a free port of this process."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


THING: dict[str, Any] = {
    "id": str(UUID(int=1)),
    "name": "a/b ä",
    "count": 3,
    "price": "12.50",
    "isNew": True,
    "ratio": 0.5,
    "colour": "red",
    "day": "2026-11-27",
    "at": "2026-11-27T10:00:00Z",
    "part": {"name": "wheel", "weight": "-1.5"},
    "matrix": [[1, 2], []],
}
DEFAULTS = {"size": "small", "level": 1, "note": None, "parts": []}


def test_every_type_in_every_place_agrees_with_the_contract(app: Flask) -> None:
    with serving(app) as url:
        outcome = conformance.run(url, "--exclude-path-regex=^/(livez|readyz|version|openapi)", examples=6)
    if outcome.failures:
        pytest.fail(outcome.report, pytrace=False)
    assert outcome.requests > 300


def test_a_value_of_each_type_comes_back_as_it_was_sent(client: FlaskClient) -> None:
    answer = client.post("/things", json=THING)
    assert (answer.status_code, answer.get_json()) == (201, THING | DEFAULTS)
    assert answer.headers["Location"] == "/things/a%2Fb%20%C3%A4"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"price": 12.5}, "price"),
        ({"price": "1e3"}, "price"),
        ({"price": "-1"}, "price"),
        ({"price": "1.234"}, "price"),
        ({"count": "3"}, "count"),
        ({"count": 3.5}, "count"),
        ({"count": True}, "count"),
        ({"isNew": "true"}, "isNew"),
        ({"day": "0"}, "day"),
        ({"day": "2026-02-30"}, "day"),
        ({"at": "2026-11-27T10:00:00"}, "at"),
        ({"at": 1_700_000_000}, "at"),
        ({"colour": "green"}, "colour"),
        ({"name": "a\0b"}, "name"),
        ({"part": {"name": "wheel", "colour": "red"}}, "part.colour"),
        ({"parts": [{"name": "a"}, {"name": ""}]}, "parts.1.name"),
        ({"matrix": [[1], [2, -3]]}, "matrix.1.1"),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_stands(client: FlaskClient, change: Any, field: str) -> None:
    answer = client.post("/things", json=THING | change)
    assert (answer.status_code, [fault["field"] for fault in answer.get_json()["errors"]]) == (400, [field])


def test_a_whole_number_may_have_a_point(client: FlaskClient) -> None:
    answer = client.post("/things", data=json.dumps(THING | {"count": 3.0}), content_type="application/json")
    assert answer.get_json()["count"] == 3
    assert client.get("/rows?counts=3.0").status_code == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("isNew=yes", "isNew"),
        ("isNew=1", "isNew"),
        ("level=true", "level"),
        ("limit=1_0", "limit"),
        ("limit=%201", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=price&sort=newest", "sort"),
        ("after=null", "after"),
        ("counts=1&counts=x", "counts.1"),
        ("colours=red&colours=green", "colours.1"),
        ("offset=1", "offset"),
    ],
)
def test_a_query_is_read_as_strictly_as_a_body(client: FlaskClient, query: str, field: str) -> None:
    answer = client.get(f"/rows?{query}")
    assert (answer.status_code, [fault["field"] for fault in answer.get_json()["errors"]]) == (400, [field])


def test_the_link_to_the_next_page_keeps_the_filters_and_the_order(client: FlaskClient) -> None:
    asked = "colours=red&colours=blue&counts=1&isNew=true&day=2026-11-27&at=2026-11-27T10:00:00%2B01:00&sort=price"
    page = client.get(f"/rows?limit=2&{asked}")
    assert [row["price"] for row in page.get_json()["items"]] == ["0", "0.25"]
    assert page.headers["Link"] == f'<{page.get_json()["next"]}>; rel="next"'
    link = urlsplit(page.get_json()["next"])
    assert parse_qs(link.query) == parse_qs(f"limit=2&{asked}") | {
        "after": [str(ROWS[1].id)],
        "after_price": ["0.25"],
    }
    assert [row["price"] for row in client.get(link.geturl()).get_json()["items"]] == ["0.5", "0.75"]


def test_a_page_that_would_end_at_a_null_is_an_error_and_not_the_end_of_the_list() -> None:
    with pytest.raises(ValueError, match="after_name of the last item is None: sort by a column that is never null"):
        page(["a", "b"], PageQuery(limit=1), after=str, after_name=lambda _: None)


def test_a_list_a_union_and_nothing_can_be_answers(client: FlaskClient) -> None:
    parts = [{"name": "a", "weight": None}]
    assert client.put("/parts", json=parts).get_json() == parts
    assert client.put("/parts", json=[]).status_code == 204
    assert client.put("/parts", json={}).get_json()["detail"] == "The body is not valid: Input should be a valid array."
    assert client.get("/either/true").get_json() == {
        "id": str(ROWS[0].id),
        "price": "0",
        "at": "2026-01-01T00:00:00Z",
        "colour": None,
        "tags": ["a"],
    }
    assert client.get("/either/false").get_json() == {"name": "a", "weight": None}


def test_header_fields_are_read_by_their_names(client: FlaskClient) -> None:
    assert client.get("/conditions", headers={"X-Count": "7"}).get_json() == {"x_version": None, "x_count": 7}
    answer = client.get("/conditions", headers={"X-Count": "many"})
    assert [fault["field"] for fault in answer.get_json()["errors"]] == ["x_count"]


def test_head_is_answered_like_get_without_a_body(client: FlaskClient) -> None:
    head, get = client.head("/rows?limit=2"), client.get("/rows?limit=2")
    assert (head.status_code, head.data) == (200, b"")
    assert [head.headers[name] for name in ("Link", "Content-Type", "Content-Length")] == [
        get.headers[name] for name in ("Link", "Content-Type", "Content-Length")
    ]


@pytest.mark.parametrize("kind", [Decimal, date, datetime, list[date], datetime | None])
def test_a_type_that_the_contract_cannot_describe_is_refused_at_the_start(settings: config.Config, kind: Any) -> None:
    model = create_model("Loose", __base__=Model, field=(kind, ...))
    loose = Blueprint("loose")

    @loose.post("/loose")
    def create_loose(body: model) -> None:  # type: ignore[valid-type] # made above
        """Store nothing."""

    with pytest.raises(ContractError, match=r"^createLoose: a \w+ of a request .*: use .*fields\.\w+"):
        chassis_app.create(settings, [loose])


def test_two_models_of_one_name_are_refused_at_the_start(settings: config.Config) -> None:
    double = Blueprint("double")

    @dataclass
    class Part:
        """Another one than that of the things."""

        size: int

    @double.get("/double")
    def get_double() -> Part:
        """Return a part."""
        return Part(1)

    with pytest.raises(ContractError, match=r"models with the same name: .*Part"):
        chassis_app.create(settings, [things, double])


def test_two_handlers_of_one_name_are_refused_at_the_start(settings: config.Config) -> None:
    double = Blueprint("double")

    @double.get("/double")
    def list_rows() -> None:
        """Return nothing."""

    with pytest.raises(ContractError, match="two handlers are called listRows"):
        chassis_app.create(settings, [things, double])


def test_a_handler_whose_parameters_are_not_those_of_its_path_is_refused() -> None:
    with pytest.raises(TypeError, match=r"get_it: its parameters \['other'\] must be the variables of /it/<it_id>"):

        @Blueprint("it").get("/it/<it_id>")
        def get_it(other: UUID) -> None:
            """Return nothing."""


class SoldOutError(Exception):
    """There is none left."""


def test_an_error_of_the_domain_has_the_status_that_the_blueprint_says(settings: config.Config) -> None:
    shop = Blueprint("shop", refusals={SoldOutError: 409})

    @shop.post("/purchases", problems=[409, 410])
    def create_purchase() -> None:
        """Buy the last one."""
        raise SoldOutError("The last one is sold.")

    app = chassis_app.create(settings, [shop])
    answer = app.test_client().post("/purchases")
    assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
    assert answer.get_json()["detail"] == "The last one is sold."
    responses = app.extensions["contract"]["paths"]["/purchases"]["post"]["responses"]
    assert {"409", "410"} <= responses.keys()
    assert responses["410"]["$ref"].rpartition("/")[2] in app.extensions["contract"]["components"]["responses"]
