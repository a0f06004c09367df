"""Factor III: the configuration, read once from the environment and refused early.

Each variable is declared once, as a field of `Config`: its type, default, bounds, unit and meaning. The README's table
and `.env.example` are made of these declarations (`make variables`), and `deploy/` knows from them what it may set.
A team declares its own variables in the same way, in `service/config.py`.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from environs import Env, EnvValidationError, validate

from chassis import checks, urls

FARGATE_STOP_TIMEOUT_SECONDS = 120
"""The longest that ECS on Fargate waits between SIGTERM and SIGKILL.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html (`stopTimeout`)
"""

PROJECT = Path(__file__).parent.parent / "pyproject.toml"

C = TypeVar("C", bound="Config")


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a declaration says of an environment variable beside its name, type and default."""

    meaning: str
    unit: str
    least: int | None
    most: int | None
    choices: Sequence[str]
    check: Callable[[str], None] | None
    is_secret: bool

    def validators(self) -> list[Callable[[Any], Any]]:
        """Return what a value must pass."""
        found: list[Callable[[Any], Any]] = []
        if self.least is not None or self.most is not None:
            found.append(validate.Range(self.least, self.most))
        if self.choices:
            found.append(validate.OneOf(self.choices))
        if self.check:
            found.append(self.check)
        return found


def variable(  # noqa: PLR0913 - a declaration says everything at once, by name
    meaning: str,
    default: Any = dataclasses.MISSING,
    *,
    unit: str,
    least: int | None = None,
    most: int | None = None,
    choices: Sequence[str] = (),
    check: Callable[[str], None] | None = None,
    is_secret: bool = False,
) -> Any:
    """Declare an environment variable by a field of type `str`, `int`, `float` or `bool`, whose name is in lower case.

    Args:
        meaning: What it does, for the README's table.
        default: Its value where it is not set. Without a default it is required, and `.env.example` has an example of
            it that `make contract` and the tests use.
        unit: What is counted, or what a text is: `seconds`, `URL`.
        least: The smallest number that is accepted.
        most: The largest number that is accepted.
        choices: The only texts that are accepted.
        check: A function that raises `ValidationError` for a text that is not accepted, without the text itself.
        is_secret: Whether it must never be shown: not in logs, not by `admin config`.
    """
    declared = Variable(
        meaning=meaning, unit=unit, least=least, most=most, choices=choices, check=check, is_secret=is_secret
    )
    return dataclasses.field(default=default, repr=not is_secret, metadata={"variable": declared})


def variables(kind: "type[Config]") -> dict[str, tuple[dataclasses.Field[Any], Variable]]:
    """Return each variable of a configuration by its name, in the order of its declaration."""
    return {
        field.name.upper(): (field, field.metadata["variable"])
        for field in dataclasses.fields(kind)
        if "variable" in field.metadata
    }


class ConfigError(ValueError):
    """The environment cannot be used. `faults` says why, by variable, and holds no values."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in faults.items()))
        self.faults = faults


@dataclass(frozen=True, kw_only=True)
class Config:
    """What differs between deploys. Each field is the environment variable of the same name in capitals."""

    service: str
    """The name of the service: `project.name` in `pyproject.toml`, the only field that no variable sets."""
    database_url: str = variable(
        "`postgresql://USER:PASSWORD@HOST/DATABASE`, with a CNAME for HOST; without `USER:PASSWORD@` where `PGUSER` and"
        " `PGPASSWORD` are set",
        unit="URL",
        check=checks.database_url,
        is_secret=True,
    )
    port: int = variable("where to listen", 8000, unit="TCP port", least=1, most=65_535)
    web_concurrency: int = variable("worker processes", 2, unit="processes", least=1, most=64)
    web_threads: int = variable(
        "connections that one worker serves at once", 1_000, unit="green threads", least=1, most=10_000
    )
    database_pool_size: int = variable("database connections of one worker", 5, unit="connections", least=1, most=100)
    database_timeout_seconds: int = variable(
        "longest wait for a database connection, from the pool or to the server", 2, unit="seconds", least=1, most=30
    )
    database_max_lifetime_seconds: int = variable(
        "greatest age of a connection, which is replaced before it; none follows an old DNS answer for longer",
        60,
        unit="seconds",
        least=1,
        most=3_600,
    )
    statement_timeout_seconds: int = variable("limit of one SQL statement", 5, unit="seconds", least=1, most=60)
    database_prepare: bool = variable(
        "prepare statements that are sent often; `false` for a pooler that cannot, unless it is recognised as one",
        True,
        unit="boolean",
    )
    max_body_bytes: int = variable("largest request body", 131_072, unit="bytes", least=1, most=104_857_600)
    forwarded_allow_ips: str = variable(
        "load balancers whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted: addresses and networks, separated "
        "by commas",
        "",
        unit="networks",
        check=checks.networks,
    )
    jwks_url: str = variable(
        "keys of `TOKEN_ISSUER`; if set, every request but the probes' needs a bearer token",
        "",
        unit="URL",
        check=checks.jwks_url,
    )
    token_issuer: str = variable("required claim `iss` of the tokens", "", unit="text", check=checks.word)
    token_audience: str = variable(
        "required claim `aud` of the tokens: this service", "", unit="text", check=checks.word
    )
    drain_seconds: int = variable(
        "after SIGTERM, how long the service goes on serving while clients are told to leave",
        5,
        unit="seconds",
        least=0,
        most=110,
    )
    shutdown_seconds: int = variable(
        "after the drain, how long requests in flight may take; also the request timeout",
        20,
        unit="seconds",
        least=1,
        most=110,
    )
    url_prefix: str = variable(
        "path under which the load balancer routes to this service, such as `/api/orders`; it does not strip it",
        "",
        unit="path",
        check=checks.url_prefix,
    )
    log_level: str = variable(
        "least severe level that is logged", "INFO", unit="level", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    log_format: str = variable(
        "`json`; `text` for a person; `auto` is `text` if stdout is a terminal, and `json` everywhere else",
        "auto",
        unit="format",
        choices=["auto", "json", "text"],
    )
    release: str = variable(
        "name of the running release, in `/version` and in every log line",
        "unreleased",
        unit="text",
        check=checks.release,
    )
    otel_exporter_otlp_endpoint: str = variable(
        "OpenTelemetry collector that speaks OTLP over HTTP; without one nothing is traced",
        "",
        unit="URL",
        check=checks.endpoint,
    )
    docs: bool = variable("serve `/docs`, a page to try the contract out", False, unit="boolean")

    def contradictions(self) -> dict[str, str]:
        """Return faults that no single variable has, by variable. A team's configuration may add its own."""
        # libpq reads them by itself; with a line break at its end, as a value is pasted easily, nobody can log in.
        faults = {
            name: "Must not contain line breaks or other control characters."
            for name in ("PGUSER", "PGPASSWORD", "PGDATABASE")
            if re.search(r"[\x00-\x1f\x7f]", os.environ.get(name, ""))
        }
        if self.drain_seconds + self.shutdown_seconds >= FARGATE_STOP_TIMEOUT_SECONDS:
            faults["SHUTDOWN_SECONDS"] = (
                f"With DRAIN_SECONDS it must stay below {FARGATE_STOP_TIMEOUT_SECONDS} s, the platform's stop timeout."
            )
        if self.database_timeout_seconds + self.statement_timeout_seconds + 1 >= self.shutdown_seconds:
            faults["STATEMENT_TIMEOUT_SECONDS"] = (
                "With DATABASE_TIMEOUT_SECONDS it must stay below SHUTDOWN_SECONDS, or a stop cuts requests off."
            )
        if self.database_pool_size > self.web_threads:
            faults["DATABASE_POOL_SIZE"] = "Must not exceed WEB_THREADS: more connections could never be used."
        tokens = {
            "JWKS_URL": self.jwks_url,
            "TOKEN_ISSUER": self.token_issuer,
            "TOKEN_AUDIENCE": self.token_audience,
        }
        if any(tokens.values()):
            lacking = "Must be set where another of JWKS_URL, TOKEN_ISSUER and TOKEN_AUDIENCE is."
            faults |= {name: lacking for name, value in tokens.items() if not value}
        if self.jwks_url and not find_spec("jwt"):
            faults["JWKS_URL"] = (
                "Needs a package that is not installed here: the extra `tokens`, requirements-tokens.txt."
            )
        if self.otel_exporter_otlp_endpoint and not find_spec("opentelemetry"):
            faults["OTEL_EXPORTER_OTLP_ENDPOINT"] = (
                "Needs packages that are not installed here: install requirements-traces.txt instead of"
                " requirements.txt, or build the image with --build-arg REQUIREMENTS=requirements-traces.txt."
            )
        return faults


def load(kind: type[C]) -> C:
    """Return the configuration from the environment.

    Raises:
        ConfigError: Variables are missing, malformed or out of bounds, and it names all of them; or, if each value
            is valid, some contradict each other.
    """
    env = Env(eager=False)  # not eager: collect every fault, so that one attempt shows them all
    values = {field.name: _read(env, name, field, declared) for name, (field, declared) in variables(kind).items()}
    try:
        env.seal()
    except EnvValidationError as error:
        messages = cast("dict[str, list[str]]", error.error_messages)  # by name, where several are collected
        raise ConfigError({name: " ".join(texts) for name, texts in messages.items()}) from None
    config = kind(service=_service(), **values)
    if faults := config.contradictions():
        raise ConfigError(faults)
    return config


def shown(settings: Config) -> dict[str, Any]:
    """Return the effective configuration by variable, without its secrets, for people."""
    known = variables(type(settings))
    values = {name: getattr(settings, field.name) for name, (field, _) in known.items()}
    return {name: _shown(value, known[name][1]) for name, value in values.items()}


def secrets(settings: Config) -> set[str]:
    """Return what must never be shown: the secrets of the environment, and the values of variables declared as such."""
    declared = {
        str(getattr(settings, field.name))
        for field, variable in variables(type(settings)).values()
        if variable.is_secret
    }
    return urls.secrets(os.environ) | {value for value in declared if value and "://" not in value}


def _shown(value: Any, declared: Variable) -> Any:
    if isinstance(value, str) and "://" in value:
        return urls.shown(value)
    return "***" if declared.is_secret else value


def _read(env: Env, name: str, field: dataclasses.Field[Any], declared: Variable) -> Any:
    """Return the value of one variable. A fault is collected by `env`."""
    parsers: dict[Any, Callable[..., Any]] = {
        str: env.str,
        int: env.int,
        float: env.float,
        bool: env.bool,
    }
    default = {} if field.default is dataclasses.MISSING else {"default": field.default}
    return parsers[field.type](name, validate=declared.validators(), **default)


def _service() -> str:
    """Return the service's name, from the one file that declares it."""
    project: dict[str, str] = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    return project["name"]
