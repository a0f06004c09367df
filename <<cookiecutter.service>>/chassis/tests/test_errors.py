"""Every error is answered with problem details, and reveals nothing of the service's internals."""

import logging

import psycopg
import pytest
from flask import Flask, abort
from flask.testing import FlaskClient


def test_an_unknown_path_is_a_404_problem_with_the_request_id(client: FlaskClient) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert answer.get_json() == {"type": "about:blank", "title": "Not Found", "status": 404, "request_id": "mine"}


def test_a_wrong_method_is_told_the_right_ones(client: FlaskClient) -> None:
    answer = client.patch("/probes")
    assert (answer.status_code, answer.content_type) == (405, "application/problem+json")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_a_body_over_the_limit_is_a_413(app: Flask, client: FlaskClient) -> None:
    app.config["MAX_CONTENT_LENGTH"] = 100
    answer = client.post("/probes", json={"text": "x" * 100})
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_it_is_json_is_a_415(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/probes", data='{"text": "hello"}', content_type=content_type)
    assert (answer.status_code, answer.content_type) == (415, "application/problem+json")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection to server at 10.0.0.7 failed"),
        psycopg.errors.QueryCanceled("canceling statement due to statement timeout"),
        psycopg.errors.AdminShutdown("terminating connection"),
        psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
        psycopg.InterfaceError("the connection is closed"),
    ],
)
def test_a_database_that_cannot_be_had_is_a_503(app: Flask, error: Exception) -> None:
    app.add_url_rule("/broken", view_func=lambda: _raise(error))
    answer = app.test_client().get("/broken")
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["Retry-After"] == "1"
    assert str(error) not in answer.text


def test_a_surprise_is_a_500_without_a_word_of_the_inside(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    app.add_url_rule("/broken", view_func=lambda: _raise(RuntimeError("the password is hunter2")))
    with caplog.at_level(logging.ERROR):
        answer = app.test_client().get("/broken")
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert set(answer.get_json()) == {"type", "title", "status", "request_id"}
    assert "hunter2" in caplog.text


def test_a_refusal_may_say_why(app: Flask) -> None:
    app.add_url_rule("/refused", view_func=lambda: abort(409, "It is taken."))
    assert app.test_client().get("/refused").get_json()["detail"] == "It is taken."


def _raise(error: Exception) -> str:
    raise error
