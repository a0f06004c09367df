"""The JSON schemas of the types that a service receives and sends, as its contract shows them."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from chassis import errors

if TYPE_CHECKING:
    from chassis import api  # it imports this module

Mode = Literal["validation", "serialization"]
"""Whether a schema is of what is received, or of what is answered."""


SCHEMAS = "#/components/schemas/{model}"


class ContractError(ValueError):
    """The routes cannot be described as they are. The text says what to change."""


def kinds_of_fields(model: type[BaseModel]) -> dict[str, set[str]]:
    """Return for each field of a model, under the name that clients use, which JSON types it may have or hold."""
    schema = model.model_json_schema(schema_generator=_Generator)
    return {name: _kinds(field, schema.get("$defs", {})) for name, field in schema.get("properties", {}).items()}


class _Generator(GenerateJsonSchema):
    """How schemas are made of types. What would be described otherwise than it is validated is refused."""

    def normalize_name(self, name: str) -> str:
        """Return the name of a schema: a page of notes is a `NotePage`."""
        return super().normalize_name(re.sub(r"^Page\[(\w+)\]$", r"\1Page", name))

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Refuse what pydantic would also read from a float, or with an exponent."""
        self._refuse("Decimal", "Annotated[Decimal, fields.digits(10, 2)]")
        return super().decimal_schema(schema)

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Refuse what pydantic would also read from the digits of a Unix time."""
        self._refuse("date", "fields.Date")
        return super().date_schema(schema)

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Refuse what pydantic would also read without an offset from UTC."""
        self._refuse("datetime", "fields.DateTime")
        return super().datetime_schema(schema)

    def _refuse(self, kind: str, instead: str) -> None:
        if self.mode == "validation":
            raise ContractError(f"a {kind} of a request can be written in several ways: use {instead}")


class Schemas:
    """The JSON schemas of all types that the operations of `blueprints` send and receive."""

    def __init__(self, blueprints: list["api.Blueprint"]) -> None:
        wanted: dict[tuple[Any, Mode], TypeAdapter[Any]] = {
            (errors.Problem, "serialization"): TypeAdapter(errors.Problem)
        }
        for operation in (each for blueprint in blueprints for each in blueprint.operations):
            asked: list[tuple[Any, Mode]] = [
                (model, "validation")
                for model in (operation.parameters, operation.query, operation.headers, operation.body)
                if model
            ]
            answered: list[tuple[Any, Mode]] = [
                (model, "serialization") for model in operation.answers.values() if model is not None
            ]
            adapters = {key: TypeAdapter(key[0]) for key in (*asked, *answered)}
            for (_, mode), adapter in adapters.items():
                try:
                    adapter.json_schema(mode=mode, schema_generator=_Generator)
                except ContractError as error:
                    raise ContractError(f"{operation.name}: {error}") from None
            wanted |= adapters
        inputs = [(model, mode, adapter) for (model, mode), adapter in wanted.items()]
        found, rest = TypeAdapter.json_schemas(inputs, ref_template=SCHEMAS, schema_generator=_Generator)
        self._schemas: dict[Any, Any] = {key: _without_titles(schema) for key, schema in found.items()}
        self.definitions = {name: _without_titles(schema) for name, schema in rest.get("$defs", {}).items()}
        if ambiguous := sorted(name for name in self.definitions if "__" in name):
            raise ContractError(f"models with the same name: {', '.join(ambiguous)}: rename all but one")

    def of(self, model: Any, mode: str) -> dict[str, Any]:
        """Return the schema of a model, usually a reference to a definition."""
        schema: dict[str, Any] = self._schemas[model, mode]
        return schema

    def parameters(self, model: Any, place: str) -> list[dict[str, Any]]:
        """Return each field of a model as a parameter."""
        schema = self.of(model, "validation")
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rpartition("/")[2]]
        required = schema.get("required", [])
        return [
            {
                "name": header_name(name) if place == "header" else name,
                "in": place,
                "required": name in required,
                **({"description": field["description"]} if "description" in field else {}),
                "schema": _without_null({key: value for key, value in field.items() if key != "description"}),
            }
            for name, field in schema.get("properties", {}).items()
        ]


def used(definitions: dict[str, Any], document: Any) -> dict[str, Any]:
    """Return the definitions that a document refers to. Models of parameters, which it lists one by one, are not."""
    names: set[str] = set()
    new = _references(document)
    while new:
        names |= new
        new = {name for each in new for name in _references(definitions[each])} - names
    return {name: definition for name, definition in definitions.items() if name in names}


def _references(node: Any) -> set[str]:
    return {name.decode() for name in re.findall(rb'"#/components/schemas/([^"]+)"', orjson.dumps(node))}


def _kinds(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that values of a schema may have, `null` aside, and those of the items of lists."""
    if "$ref" in schema:
        return _kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    kinds = {schema["type"]} if "type" in schema else set()
    for option in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        kinds |= _kinds(option, definitions)
    return kinds - {"null"}


def _without_titles(schema: Any) -> Any:
    """Return a schema without the titles that pydantic makes of the names of fields: they say nothing new."""
    if isinstance(schema, Mapping):
        return {
            key: {name: _without_titles(each) for name, each in value.items()}
            if key == "properties"
            else _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(each) for each in schema] if isinstance(schema, list) else schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: what is not sent is absent, and never `null`."""
    if "anyOf" in schema:
        options = [each for each in schema["anyOf"] if each != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
        return {**options[0], **rest} if len(options) == 1 else {"anyOf": options, **rest}
    return schema


def header_name(field: str) -> str:
    """Return the name of the header field that a field of a model stands for: `if_match` is `If-Match`."""
    return field.replace("_", "-").title()
