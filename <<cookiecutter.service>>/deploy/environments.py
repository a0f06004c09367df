"""Environments, made of their files and checked."""

from types import UnionType
from typing import Any, get_origin

from deploy import config, files, rules
from deploy.config import ConfigError, Environment, Existing, Platform, Service

TABLES = {"existing": Existing, "platform": Platform, "service": Service}


def load(name: str) -> Environment:
    """Return the environment `name`.

    Raises:
        ConfigError: Its file is missing or malformed, or its values cannot work together.
    """
    return parse(name, files.read(name))


def parse(name: str, tables: dict[str, Any]) -> Environment:
    """Return the environment `name`, made of the tables of its file.

    Raises:
        ConfigError: As `load`.
    """
    top = dict(tables)
    own = {"name": name, "service_name": config.service_name()}
    for key in own.keys() & top.keys():  # the file's would win, and resources would have another's names
        raise ConfigError(f"deploy/{name}.toml: got an unexpected keyword argument {key!r}")
    try:
        made: dict[str, Any] = {
            table: _build(kind, f"[{table}] ", top.pop(table, {})) for table, kind in TABLES.items()
        }
        made["variables"] = {key: str(value) for key, value in _table("variables", top).items()}
        made["secrets"] = dict(_table("secrets", top))
        environment: Environment = _build(Environment, "", {**own, **made, **top})
    except TypeError as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None
    for fault in rules.faults(environment):
        raise ConfigError(f"deploy/{name}.toml: {fault}")
    return environment


def _table(name: str, top: dict[str, Any]) -> dict[str, Any]:
    table = top.pop(name, {})
    if not isinstance(table, dict) or any(isinstance(value, (dict, list)) for value in table.values()):
        raise TypeError(f"[{name}] must be a table of texts and numbers")
    return table


def _build(kind: type[Any], where: str, values: Any) -> Any:
    """Return an instance of a class of `deploy/config.py`.

    Raises:
        TypeError: A value is missing, unknown or of another type.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{where}must be a table")
    try:
        instance = kind(**values)
    except TypeError as error:
        raise TypeError(f"{where}{str(error).partition('() ')[2]}") from None
    for field, value in values.items():
        _check_type(f"{where}{field}", value, kind.__annotations__[field])
    return instance


KINDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _check_type(what: str, value: Any, expected: Any) -> None:
    if isinstance(expected, UnionType):  # `X | None`
        expected = expected.__args__[0]
    base: Any = get_origin(expected) or expected
    if type(value) is not base:
        raise TypeError(f"{what} must be {KINDS[base]}")
    inner = list(value.values()) if base is dict else value if base is list else []
    if inner and expected.__args__[-1] is str and any(not isinstance(each, str) for each in inner):
        raise TypeError(f"{what} must contain texts only")
