"""The contract is kept: each change of it is compared, and one that breaks clients is called so."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from chassis.dev import contract
from chassis.dev.contract import Node
from chassis.tests.probe import PACKAGE


def changed(*path: Any, to: Any = None) -> Callable[[Node], Node]:
    """Return a change of a contract: what lies at `path` becomes `to`, or goes."""

    def change(whole: Node) -> Node:
        whole = copy.deepcopy(whole)
        node = functools.reduce(lambda inner, name: inner[name], path[:-1], whole)
        if to is None:
            del node[path[-1]]
        else:
            node[path[-1]] = to
        return whole

    return change


LIST, ONE = ("paths", "/probes"), ("paths", "/probes/{probe_id}")
SCHEMA, SCHEMAS = ("content", "application/json", "schema"), ("components", "schemas")
BODY, KEPT = (*SCHEMAS, "NewProbe"), (*SCHEMAS, "Probe")
TEXT = (*BODY, "properties", "text")
LIMIT = (*LIST, "get", "parameters", 0)
OTHER = {"in": "header", "name": "Mood", "required": True, "schema": {"type": "string"}}
WORD, REFERENCE = {"type": "string"}, {"$ref": "#/components/schemas/Probe"}
UNKNOWN = {"description": "Accepted"}


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (changed(*ONE), "GET /probes/{probe_id} is gone"),
        (changed(*ONE, "delete"), "DELETE /probes/{probe_id} is gone"),
        (changed(*LIST, "post", "operationId", to="addProbe"), "POST /probes: createProbe is called addProbe"),
        (changed(*LIST, "get", "security", to=[{"token": []}]), "GET /probes wants other credentials"),
        (changed(*LIMIT), "GET /probes: parameter limit is gone"),
        (changed(*LIMIT, "required", to=True), "GET /probes: parameter limit is required"),
        (changed(*LIMIT, to=OTHER), "GET /probes: parameter Mood is required"),
        (changed(*LIMIT, "schema", "maximum", to=50), "GET /probes: limit: maximum 50 now"),
        (changed(*LIMIT, "schema", "type", to="string"), "GET /probes: limit: type is string"),
        (changed(*ONE, "get", "responses", "404"), "GET /probes/{probe_id} 404 is gone"),
        (changed(*LIST, "post", "responses", "202", to=UNKNOWN), "POST /probes 202 is new"),
        (changed(*LIST, "post", "responses", "201", "headers"), "POST /probes 201: header Location is gone"),
        (changed(*LIST, "post", "responses", "201", "content"), "POST /probes 201: application/json is gone"),
        (changed(*LIST, "post", "responses", "201", *SCHEMA, to=WORD), "POST /probes 201: type was object"),
        (changed(*LIST, "post", "requestBody", *SCHEMA, to=WORD), "POST /probes: body: type is string"),
        (changed("components", "responses", "NotFound", "content"), "application/problem+json is gone"),
        (changed(*TEXT, "maxLength", to=5_000), "POST /probes: body.text: maxLength 5000 now"),
        (changed(*TEXT, "minLength", to=2), "POST /probes: body.text: minLength 2 now"),
        (changed(*TEXT, "pattern", to="^a"), "POST /probes: body.text: pattern ^a now"),
        (changed(*TEXT, "enum", to=["a", "b"]), 'POST /probes: body.text: only "a", "b" now'),
        (changed(*TEXT, "type", to="integer"), "POST /probes: body.text: type is integer"),
        (changed(*BODY, "required", to=["text", "colour"]), "POST /probes: body: field colour is required"),
        (changed(*BODY, "properties", to={"words": {}}), "POST /probes: body: field text is refused"),
        (changed(*SCHEMAS, "ProbePage", "properties", "next"), "GET /probes 200: field next is gone"),
        (changed(*SCHEMAS, "ProbePage", "required", to=["items"]), "GET /probes 200: field next may be missing"),
        (changed(*SCHEMAS, "Problem", "properties", "detail"), "field detail is gone"),
        (changed(*KEPT, "properties", "text", "type", to="number"), "type was string"),
        (changed(*KEPT, "properties", "id", "format"), "format uuid before"),
        (changed(*KEPT, "properties", "text", "anyOf", to=[{"type": "string"}, {"type": "null"}]), "type was string"),
        (changed(*SCHEMAS, "Alive", "properties", "status", "const", to="well"), 'only "alive" before'),
    ],
)
def test_a_change_that_breaks_clients_is_called_so_in_one_line(change: Callable[[Node], Node], broken: str) -> None:
    old = contract.now(PACKAGE)
    said = contract.verdict(old, change(old))
    assert said.startswith("The contract has changed and BREAKS CLIENTS: ")
    assert broken in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "change",
    [
        changed("paths", "/colours", to={"get": {"operationId": "listColours", "responses": {}}}),
        changed(*LIMIT, "description", to="How many."),
        changed(*LIST, "get", "security", to=[]),
        changed(*LIST, "post", "responses", "429", to={"$ref": "#/components/responses/ServiceUnavailable"}),
        changed(*LIMIT, "schema", "maximum", to=1_000),
        changed(*TEXT, "maxLength", to=20_000),
        changed(*TEXT, "pattern"),
        changed(*TEXT, "type", to=["string", "null"]),
        changed(*BODY, "properties", "colour", to=WORD),
        changed(*BODY, "required", to=[]),
        changed(*BODY, "additionalProperties"),
        changed(*KEPT, "properties", "colour", to=WORD),
        changed(*KEPT, "properties", "text", "maxLength", to=10_000),
        changed(*KEPT, "description", to="Words."),
        changed(*SCHEMAS, "ProbePage", "properties", "next", "anyOf", to=[{"type": "string"}]),
    ],
)
def test_a_change_that_breaks_nobody_is_called_so(change: Callable[[Node], Node]) -> None:
    old = contract.now(PACKAGE)
    assert contract.verdict(old, change(old)) == "The contract has changed and breaks no client."


def test_what_several_operations_share_is_said_once() -> None:
    old = contract.now(PACKAGE)
    said = contract.verdict(old, changed("components", "responses", "ServiceUnavailable", "headers")(old))
    assert said == "The contract has changed and BREAKS CLIENTS: POST /probes 503: header Retry-After is gone."


def test_what_breaks_one_way_does_not_break_the_other_way() -> None:
    old = contract.now(PACKAGE)
    stricter = changed(*TEXT, "maxLength", to=5_000)(old)
    assert "BREAKS" in contract.verdict(old, stricter)
    assert "BREAKS" not in contract.verdict(stricter, old)


def test_a_body_that_may_no_longer_have_other_fields_breaks_clients() -> None:
    new = contract.now(PACKAGE)
    old = changed(*BODY, "additionalProperties")(new)
    assert "POST /probes: body: other fields are refused" in contract.verdict(old, new)


def test_the_values_of_a_mapping_are_compared() -> None:
    mapping = ("paths", "/openapi.json", "get", "responses", "200", *SCHEMA, "additionalProperties")
    old, new = (changed(*mapping, to={"type": kind})(contract.now(PACKAGE)) for kind in ("string", "integer"))
    assert "GET /openapi.json 200.*: type was string" in contract.verdict(old, new)


@pytest.mark.parametrize("answers", [{"type": "array", "items": REFERENCE}, {"anyOf": [REFERENCE, {"type": "null"}]}])
def test_a_schema_that_contains_itself_is_compared(answers: Node) -> None:
    old = changed(*KEPT, "properties", "answers", to=answers)(contract.now(PACKAGE))
    assert contract.verdict(old, changed(*KEPT, "properties", "text", "type", to="integer")(old)).count("text") == 1


def test_what_is_no_fault_as_one_of_several_is_one_elsewhere() -> None:
    loose = {"description": "OK", "content": {"application/json": {"schema": {"anyOf": [REFERENCE, {}]}}}}
    old = contract.now(PACKAGE)
    old["paths"] = {"/any": {"get": {"operationId": "getAny", "responses": {"200": loose}}}, **old["paths"]}
    said = contract.verdict(old, changed(*KEPT, "properties", "text", "type", to="integer")(old))
    assert said.endswith("BREAKS CLIENTS: POST /probes 201.text: type was string.")
