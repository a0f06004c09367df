"""A resource whose models and handlers use each type in each place."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from chassis.api import Blueprint, Created, Model, Page, PageQuery, created, page
from chassis.fields import Date, DateTime, Text, digits

Price = Annotated[Decimal, digits(6, 2)]
Count = Annotated[int, Field(ge=0, le=1_000)]
Name = Annotated[Text, Field(min_length=1, max_length=20)]


class Colour(StrEnum):
    """A closed set."""

    RED = "red"
    BLUE = "blue"


class Part(Model):
    """What lies inside of something else."""

    name: Name
    weight: Annotated[Decimal, digits(3, 1, signed=True)] | None = None


class Thing(Model):
    """One field of each type."""

    id: UUID
    name: Name
    count: Count
    price: Price
    is_new: Annotated[bool, Field(alias="isNew")]
    ratio: Annotated[float, Field(ge=0, le=1)]
    colour: Colour
    size: Literal["small", "large"] = "small"
    level: Literal[1, 2] = 1
    day: Date
    at: DateTime
    note: Name | None = None
    part: Part
    parts: Annotated[list[Part], Field(max_length=3, default_factory=list)]
    matrix: Annotated[list[Annotated[list[Count], Field(max_length=2)]], Field(max_length=2)] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a domain returns: a plain dataclass, whose decimals and times are plain too."""

    id: UUID
    price: Decimal
    at: datetime
    colour: Colour | None
    tags: list[str]


class Filter(PageQuery):
    """Each type as a parameter of a query."""

    after: UUID | None = None
    after_price: Price | None = None
    colour: Colour | None = None
    colours: Annotated[list[Colour], Field(max_length=2)] | None = None
    counts: Annotated[list[Count], Field(max_length=2, default_factory=list)]
    is_new: Annotated[bool | None, Field(alias="isNew")] = None
    level: Literal[1, 2] | None = None
    day: Date | None = None
    at: DateTime | None = None
    sort: Literal["price", "newest"] = "newest"


class Condition(Model):
    """Header fields."""

    x_version: Annotated[str, Field(pattern=r"^[a-z0-9]{1,9}$")] | None = None
    x_count: Count | None = None


ROWS = [
    Row(UUID(int=number), Decimal(number) / 4, datetime(2026, 1, 1, tzinfo=UTC), None, ["a"]) for number in range(5)
]
things = Blueprint("things", examples={Row: {"price": "1.25"}})


@things.post("/things", problems=[409])
def create_thing(body: Thing) -> Created[Thing]:
    """Return what was sent."""
    return created(body, at=body.name)


@things.get("/things/<thing_id>/<count>/<colour>/<day>/<is_new>/<price>")
def get_thing(thing_id: UUID, count: Count, colour: Colour, day: Date, is_new: bool, price: Price) -> dict[str, Any]:  # noqa: FBT001, PLR0913, PLR0917 - one of each type
    """Return the variables of the path."""
    return {"values": [str(each) for each in (thing_id, count, colour, day, is_new, price)]}


@things.get("/rows")
def list_rows(query: Filter) -> Page[Row]:
    """Return rows."""
    later = [row for row in ROWS if query.after is None or row.id > query.after]
    return page(later[: query.limit + 1], query, after=lambda row: row.id, after_price=lambda row: row.price)


@things.put("/parts")
def put_parts(body: Annotated[list[Part], Field(max_length=3)]) -> list[Part] | None:
    """Return the parts, or 204 if there are none."""
    return body or None


@things.get("/conditions")
def get_condition(headers: Condition) -> Condition:
    """Return the header fields."""
    return headers


@things.get("/either/<is_row>")
def get_either(is_row: bool) -> Row | Part:  # noqa: FBT001 - a variable of the path
    """Return one of two kinds."""
    return ROWS[0] if is_row else Part(name="a")
