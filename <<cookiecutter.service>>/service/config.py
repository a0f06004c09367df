"""The variables of this service itself, declared like those of the chassis. `make variables` renews their tables."""

from dataclasses import dataclass

from chassis import config


@dataclass(frozen=True, kw_only=True)
class Config(config.Config):
    """What differs between deploys of this service.

    Add a variable as a field: `greeting: str = config.variable("what it does", "hello", unit="text")`.
    """
