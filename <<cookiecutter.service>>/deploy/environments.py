"""Environments, made of their files and checked."""

from typing import Any

from deploy import config, rules
from deploy.config import ConfigError, Environment, Existing, Platform, Service


def load(name: str) -> Environment:
    """Return the environment `name`.

    Raises:
        ConfigError: Its file is missing or malformed, or its values cannot work together.
    """
    return parse(name, config.read(name))


def parse(name: str, tables: dict[str, Any]) -> Environment:
    """Return the environment `name`, made of the tables of its file.

    Raises:
        ConfigError: As `load`.
    """
    top = dict(tables)
    try:
        environment = Environment(
            name=name,
            service_name=config.service_name(),
            existing=_build(Existing, "existing", top.pop("existing", {})),
            platform=_build(Platform, "platform", top.pop("platform", {})),
            service=_build(Service, "service", top.pop("service", {})),
            variables={key: str(value) for key, value in top.pop("variables", {}).items()},
            **top,
        )
    except TypeError as error:
        raise ConfigError(f"deploy/{name}.toml: {str(error).partition('() ')[2]}") from None
    for fault in rules.faults(environment):
        raise ConfigError(f"deploy/{name}.toml: {fault}")
    return environment


def _build(kind: type[Any], table: str, values: dict[str, Any]) -> Any:
    try:
        instance = kind(**values)
    except TypeError as error:
        raise TypeError(f"{kind.__name__}() [{table}] {str(error).partition('() ')[2]}") from None
    for field, value in values.items():
        expected = kind.__annotations__[field]
        if expected in (int, str, bool) and type(value) is not expected:
            raise TypeError(f"{kind.__name__}() [{table}] {field} must be of type {expected.__name__}")
    return instance
