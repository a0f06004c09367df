"""Types of fields of requests that mean the same to a client, to pydantic and to PostgreSQL.

Beside these, `UUID`, `bool`, `StrEnum`, `Literal`, lists and other models can be used as they are, and `int` with
bounds, `Field(ge=0, le=…)`, since the integers of PostgreSQL have some. A plain `Decimal`, `date` or `datetime` is
refused at the start: pydantic would accept more than the contract can say. Answers use the plain types.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema


@dataclass(frozen=True, slots=True)
class Parsed:
    """The mark of a field that is a string in JSON: it matches `pattern`, then `parse` makes a value of it."""

    pattern: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str]
    format: str | None = None
    """The format that the contract names in the place of the pattern."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Return how pydantic reads and writes the field."""
        text = core_schema.str_schema(pattern=self.pattern)
        write = core_schema.plain_serializer_function_ser_schema(
            lambda value, info: self.write(value) if info.mode == "json" else value, info_arg=True
        )
        return core_schema.no_info_after_validator_function(self.parse, text, serialization=write)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return how the contract describes the field."""
        return {"type": "string", **({"format": self.format} if self.format else {"pattern": self.pattern})}


def digits(before: int, behind: int, *, signed: bool = False) -> Parsed:
    """Return the mark of a decimal number, a string such as `"12.50"`: clients would round a JSON number as a float.

    `Annotated[Decimal, digits(10, 2)]` is what a `numeric(12, 2)` can hold: 10 digits before the point, 2 behind it.
    """
    fraction = rf"(\.[0-9]{{1,{behind}}})?" if behind else ""
    return Parsed(rf"^{'-?' if signed else ''}[0-9]{{1,{before}}}{fraction}$", Decimal, lambda number: f"{number:f}")


EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
"""The limits of a time. PostgreSQL stores others too, but Python could not read such a row again."""


def _time(text: str) -> datetime:
    """Return a time that stays within the years of Python, 1 to 9999, in whatever time zone a session reads it."""
    time = datetime.fromisoformat(text.upper())
    if not EARLIEST <= time < LATEST:
        raise ValueError("a time must lie between 0001-01-02 and 9999-12-30, in UTC")
    return time


Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A text that PostgreSQL can store: any but NUL. Bound it: `Annotated[Text, Field(min_length=1, max_length=100)]`."""

Date = Annotated[date, Parsed(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", date.fromisoformat, date.isoformat, "date")]
"""A day, such as `"2026-11-27"`."""

DateTime = Annotated[
    datetime,
    Parsed(
        r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
        _time,
        lambda time: time.isoformat().replace("+00:00", "Z"),
        "date-time",
    ),
]
"""A time with its offset from UTC, such as `"2026-11-27T17:29:57Z"`. https://www.rfc-editor.org/rfc/rfc3339

Its day, in UTC, is one from 0001-01-02 to 9999-12-30.
"""
