"""The whole application, and the contract that it publishes."""

from flask.testing import FlaskClient
from openapi_spec_validator import validate

from service import config
from service.app import create_app


def test_two_applications_share_nothing(settings: config.Config) -> None:
    one, two = create_app(settings), create_app(settings)
    assert one.extensions["pool"] is not two.extensions["pool"]
    assert one.api_doc == two.api_doc


def test_the_contract_is_valid_openapi_3_1_and_names_every_route(client: FlaskClient) -> None:
    contract = client.get("/openapi.json").get_json()
    validate(contract)
    assert contract["openapi"].startswith("3.1")
    operations = {
        operation["operationId"]: set(operation["responses"])
        for methods in contract["paths"].values()
        for operation in methods.values()
    }
    anywhere = {"408", "414", "431", "500", "503"}
    assert operations == {
        "createNote": {"201", "400", "413", "415"} | anywhere,
        "listNotes": {"200", "400"} | anywhere,
        "putNote": {"200", "201", "400", "413", "415"} | anywhere,
        "getNote": {"200", "400", "404"} | anywhere,
        "deleteNote": {"204", "400"} | anywhere,
    }


def test_the_contract_says_the_limits_that_are_enforced(client: FlaskClient) -> None:
    contract = client.get("/openapi.json").get_json()
    text = contract["components"]["schemas"]["NoteBody"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"]) == (1, 10_000)
    note = contract["components"]["schemas"]["Note"]
    assert set(note["properties"]) == {"id", "text", "created_at", "updated_at"}
