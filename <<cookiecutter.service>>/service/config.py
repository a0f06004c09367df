"""Factor III: the configuration, read once from the environment and refused early."""

import ipaddress
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from environs import Env, EnvValidationError, ValidationError, validate

FARGATE_STOP_TIMEOUT_SECONDS = 120
"""The longest that ECS on Fargate waits between SIGTERM and SIGKILL.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html (`stopTimeout`)
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What differs between deploys. Each field is the environment variable of the same name in capitals."""

    service: str
    """The name of the service: `project.name` in `pyproject.toml`, the only field that no variable sets."""
    database_url: str = field(repr=False)
    """Secret. `postgresql://USER:PASSWORD@HOST/DATABASE?sslmode=…`, with a CNAME for HOST."""
    port: int
    """TCP port to listen on."""
    web_concurrency: int
    """Worker processes."""
    web_threads: int
    """Green threads of one worker: the connections that it serves at once."""
    database_pool_size: int
    """Database connections of one worker."""
    database_timeout_seconds: int
    """Seconds to wait for a connection, from the pool or to the server."""
    database_max_lifetime_seconds: int
    """Seconds after which a connection is replaced, and so the longest that one follows an old DNS answer."""
    statement_timeout_seconds: int
    """Seconds that one SQL statement may take."""
    max_body_bytes: int
    """Bytes of the largest request body."""
    forwarded_allow_ips: str
    """Addresses and networks of the load balancer, with commas between them: whose `X-Forwarded-…` is believed."""
    jwks_url: str
    """Where the keys of `token_issuer` are: then every request but the probes' needs a token of that issuer's."""
    token_issuer: str
    """Who made a token: its `iss`."""
    token_audience: str
    """Whom a token is meant for, this service: in its `aud`."""
    drain_seconds: int
    """Seconds after SIGTERM in which the service goes on serving and tells clients to leave."""
    shutdown_seconds: int
    """Seconds after the drain in which requests in flight may finish; also the longest that any request may take."""
    url_prefix: str
    """Path under which the load balancer routes to this service, such as `/api/notes-service`; not stripped by it."""
    log_level: str
    """The least severe level that is logged."""
    release: str
    """Name of the running release, said by `/version` and in every log line."""
    otel_exporter_otlp_endpoint: str
    """URL of an OpenTelemetry collector that speaks OTLP over HTTP; without one nothing is traced."""
    docs: bool
    """Whether `/docs` is served, a page to try the contract out on."""


class ConfigError(ValueError):
    """The environment cannot be used. `faults` says why, by variable, and holds no values."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in faults.items()))
        self.faults = faults


def load() -> Config:
    """The configuration from the environment.

    Raises:
        ConfigError: variables are missing, malformed, out of bounds or contradict each other; it names all of them.
    """
    env = Env(eager=False)  # not eager: collect every fault, so that one attempt shows them all

    def number(name: str, default: int, least: int, most: int) -> int:
        return env.int(name, default, validate=validate.Range(least, most)) or 0

    def text(name: str, default: str, check: Callable[[str], object]) -> str:
        return env.str(name, default, validate=check) or ""

    config = Config(
        service=_service(),
        database_url=env.str("DATABASE_URL", validate=_check_database_url) or "",
        port=number("PORT", 8000, 1, 65_535),
        web_concurrency=number("WEB_CONCURRENCY", 2, 1, 64),
        web_threads=number("WEB_THREADS", 1_000, 1, 10_000),
        database_pool_size=number("DATABASE_POOL_SIZE", 5, 1, 100),
        database_timeout_seconds=number("DATABASE_TIMEOUT_SECONDS", 2, 1, 30),
        database_max_lifetime_seconds=number("DATABASE_MAX_LIFETIME_SECONDS", 60, 1, 3_600),
        statement_timeout_seconds=number("STATEMENT_TIMEOUT_SECONDS", 5, 1, 60),
        max_body_bytes=number("MAX_BODY_BYTES", 131_072, 1, 104_857_600),
        forwarded_allow_ips=text("FORWARDED_ALLOW_IPS", "", _check_networks),
        jwks_url=text("JWKS_URL", "", _check_jwks_url),
        token_issuer=text("TOKEN_ISSUER", "", _check_word),
        token_audience=text("TOKEN_AUDIENCE", "", _check_word),
        drain_seconds=number("DRAIN_SECONDS", 5, 0, 110),
        shutdown_seconds=number("SHUTDOWN_SECONDS", 20, 1, 110),
        url_prefix=text("URL_PREFIX", "", _check_url_prefix),
        log_level=text("LOG_LEVEL", "INFO", validate.OneOf(["DEBUG", "INFO", "WARNING", "ERROR"])),
        release=text("RELEASE", "unreleased", _check_release),
        otel_exporter_otlp_endpoint=text("OTEL_EXPORTER_OTLP_ENDPOINT", "", _check_endpoint),
        docs=env.bool("DOCS", False) or False,
    )
    try:
        env.seal()
    except EnvValidationError as error:
        messages = cast("dict[str, list[str]]", error.error_messages)  # by name, where several are collected
        raise ConfigError({name: " ".join(texts) for name, texts in messages.items()}) from None
    if faults := _contradictions(config):
        raise ConfigError(faults)
    return config


def _service() -> str:
    """The service's name, from the one file that declares it."""
    project: dict[str, str] = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["name"]


def _check_database_url(value: str) -> None:
    if not re.match(r"postgres(ql)?://\S+$", value):
        raise ValidationError("Must be a URL: postgresql://USER:PASSWORD@HOST/DATABASE")


def _check_networks(value: str) -> None:
    try:
        for each in value.split(",") if value else []:
            ipaddress.ip_network(each)
    except ValueError:
        raise ValidationError("Must be empty, or addresses and networks such as 10.0.0.0/16,fd00::/8.") from None


def _check_jwks_url(value: str) -> None:
    # Whoever can change the keys on their way could sign tokens.
    if value and not re.fullmatch(r"(https://[^\s@/]+|http://(localhost|127\.0\.0\.1)(:\d+)?)(/\S*)?", value):
        raise ValidationError("Must be empty, or an https:// URL; http:// at localhost only.")


def _check_word(value: str) -> None:
    if not re.fullmatch(r"\S*", value):
        raise ValidationError("Must not contain spaces.")


def _check_url_prefix(value: str) -> None:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValidationError("Must be empty, or a path that begins with / and does not end with it.")


def _check_release(value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,128}", value):
        raise ValidationError("Must be 1 to 128 letters, digits, dots, hyphens, pluses or underscores.")


def _check_endpoint(value: str) -> None:
    if not re.fullmatch(r"(https?://[^\s/]\S*)?", value):
        raise ValidationError("Must be empty, or a URL: http://HOST:4318")


def _contradictions(config: Config) -> dict[str, str]:
    """Faults that no single variable has."""
    faults = {}
    if config.drain_seconds + config.shutdown_seconds >= FARGATE_STOP_TIMEOUT_SECONDS:
        faults["SHUTDOWN_SECONDS"] = (
            f"With DRAIN_SECONDS it must stay below {FARGATE_STOP_TIMEOUT_SECONDS} s, the platform's stop time-out."
        )
    if config.database_timeout_seconds + config.statement_timeout_seconds >= config.shutdown_seconds:
        faults["STATEMENT_TIMEOUT_SECONDS"] = (
            "With DATABASE_TIMEOUT_SECONDS it must stay below SHUTDOWN_SECONDS, or a stop cuts requests off."
        )
    if config.database_pool_size > config.web_threads:
        faults["DATABASE_POOL_SIZE"] = "Must not exceed WEB_THREADS: more connections could never be used."
    tokens = {
        "JWKS_URL": config.jwks_url,
        "TOKEN_ISSUER": config.token_issuer,
        "TOKEN_AUDIENCE": config.token_audience,
    }
    if any(tokens.values()):
        lacking = "Must be set where another of JWKS_URL, TOKEN_ISSUER and TOKEN_AUDIENCE is."
        faults |= {name: lacking for name, value in tokens.items() if not value}
    if config.jwks_url and not find_spec("jwt"):
        faults["JWKS_URL"] = "Needs a library that is not installed here: the extra `tokens`, requirements-tokens.txt."
    if config.otel_exporter_otlp_endpoint and not find_spec("opentelemetry"):
        faults["OTEL_EXPORTER_OTLP_ENDPOINT"] = (
            "Needs packages that are not here: install requirements-traces.txt instead of requirements.txt,"
            " or build the image with --build-arg REQUIREMENTS=requirements-traces.txt."
        )
    return faults
