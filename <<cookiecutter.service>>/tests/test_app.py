"""The whole application, and the contract that it publishes."""

import dataclasses

from flask.testing import FlaskClient
from openapi_spec_validator import validate

from service import config, notes
from service.app import create_app


def test_two_applications_share_nothing(settings: config.Config) -> None:
    one, two = create_app(settings), create_app(settings)
    assert one.extensions["pool"] is not two.extensions["pool"]
    assert one.api_doc == two.api_doc


def test_the_contract_is_valid_openapi_3_1_and_names_every_route(client: FlaskClient) -> None:
    contract = client.get("/openapi.json").get_json()
    validate(contract)
    assert contract["openapi"].startswith("3.1")
    statuses = {
        operation["operationId"]: set(operation["responses"])
        for methods in contract["paths"].values()
        for operation in methods.values()
    }
    of_any_request = {"400", "408", "414", "431", "500", "503"}
    assert all(of_any_request <= answers for answers in statuses.values())
    assert {name: answers - of_any_request for name, answers in statuses.items()} == {
        "createNote": {"201", "413", "415"},
        "listNotes": {"200"},
        "putNote": {"200", "201", "413", "415"},
        "getNote": {"200", "404"},
        "deleteNote": {"204"},
    }


def test_the_contract_says_the_limits_that_are_enforced(client: FlaskClient) -> None:
    contract = client.get("/openapi.json").get_json()
    text = contract["components"]["schemas"]["NoteBody"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"]) == (1, 10_000)
    note = contract["components"]["schemas"]["Note"]
    assert set(note["properties"]) == {field.name for field in dataclasses.fields(notes.Note)}
