"""Factor III: the configuration comes from the environment, is read once, and is refused early."""

import dataclasses
import sys

import pytest

from chassis import config
from chassis.tests.variables import TOKENS, URL, faults

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_the_defaults_need_a_database_and_nothing_else() -> None:
    settings = config.load(config.Config)
    assert settings.database_url == URL
    assert (settings.port, settings.web_concurrency, settings.url_prefix) == (8000, 2, "")


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        config.load(config.Config).port = 1  # type: ignore[misc]


def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert set(faults(monkeypatch, PORT="http", DRAIN_SECONDS="-1", LOG_LEVEL="loud")) == {
        "DATABASE_URL",
        "PORT",
        "DRAIN_SECONDS",
        "LOG_LEVEL",
    }


def test_faults_and_representations_hold_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in repr(config.load(config.Config))
    refused = faults(monkeypatch, DATABASE_URL="mysql://user:hunter2@host/db", PORT="hunter3", RELEASE="hunter4 ")
    assert set(refused) == {"DATABASE_URL", "PORT", "RELEASE"}
    assert "hunter" not in str(refused)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "host=localhost"),
        ("DATABASE_URL", "postgresql://"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", ""),
        ("PORT", "8000.5"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_THREADS", "0"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_TIMEOUT_SECONDS", "0"),
        ("DATABASE_MAX_LIFETIME_SECONDS", "0"),
        ("STATEMENT_TIMEOUT_SECONDS", "0"),
        ("MAX_BODY_BYTES", "0"),
        ("FORWARDED_ALLOW_IPS", "*"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.1/16"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/8,"),
        ("FORWARDED_ALLOW_IPS", "10.0.0.0/8, balancer"),
        ("DRAIN_SECONDS", "111"),
        ("SHUTDOWN_SECONDS", "0"),
        ("URL_PREFIX", "api"),
        ("URL_PREFIX", "/api/"),
        ("URL_PREFIX", "/"),
        ("URL_PREFIX", "/a b"),
        ("LOG_LEVEL", "info"),
        ("RELEASE", ""),
        ("RELEASE", "x" * 129),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://collector:4317"),
        ("DOCS", "perhaps"),
        ("DOCS", ""),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert list(faults(monkeypatch, **{name: value})) == [name]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p%40w@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p#w@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://me@host/db?password=hunter2&sslmode=prefer",
            "postgresql://me@host/db?password=***&sslmode=prefer",
        ),
        (
            "postgresql://me@host/db?sslmode=prefer&sslpassword=hunter2",
            "postgresql://me@host/db?sslmode=prefer&sslpassword=***",
        ),
        ("postgresql://me@host/db?%70assword=hunter2", "postgresql://me@host/db?%70assword=***"),
        ("postgresql://m?e@host/db?password=hunter2", "postgresql://m?e@host/db?password=***"),
        ("postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_the_configuration_is_shown_without_its_secrets(monkeypatch: pytest.MonkeyPatch, url: str, shown: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    settings = config.load(config.Config)
    assert config.shown(settings)["DATABASE_URL"] == shown
    for endpoint, value in (("http://key:hunter2@collector:4318", "http://key:***@collector:4318"), ("", "")):
        other = dataclasses.replace(settings, otel_exporter_otlp_endpoint=endpoint)
        assert config.shown(other)["OTEL_EXPORTER_OTLP_ENDPOINT"] == value


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("SHUTDOWN_SECONDS", {"DRAIN_SECONDS": "60", "SHUTDOWN_SECONDS": "60"}),
        ("STATEMENT_TIMEOUT_SECONDS", {"STATEMENT_TIMEOUT_SECONDS": "18"}),
        ("DATABASE_POOL_SIZE", {"WEB_THREADS": "4"}),
        ("JWKS_URL", {**TOKENS, "JWKS_URL": ""}),
        ("TOKEN_ISSUER", {**TOKENS, "TOKEN_ISSUER": ""}),
        ("TOKEN_AUDIENCE", {**TOKENS, "TOKEN_AUDIENCE": ""}),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, variables: dict[str, str]
) -> None:
    assert list(faults(monkeypatch, **variables)) == [name]


@pytest.mark.parametrize("value", ["", "/api", "/api/a-service", "/v1.0/~x"])
def test_a_prefix_is_empty_or_a_path(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("URL_PREFIX", value)
    assert config.load(config.Config).url_prefix == value


@pytest.mark.parametrize("value", ["", "10.0.0.7", "10.0.0.0/16,fd00::/8"])
def test_load_balancers_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", value)
    assert config.load(config.Config).forwarded_allow_ips == value


def test_tokens_need_a_library_that_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert "requirements-tokens.txt" in faults(monkeypatch, **TOKENS)["JWKS_URL"]
