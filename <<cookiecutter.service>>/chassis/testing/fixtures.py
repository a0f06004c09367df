"""The fixtures of tests, for the service whose package the fixture `package` names.

A `conftest.py` imports all of them and defines `package`.
"""

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import Connection

from chassis import config, db, lifecycle, migrations
from chassis.dev import postgres, variables
from chassis.testing import containers
from chassis.testing.process import Gunicorn

if TYPE_CHECKING:
    from chassis.testing.issuer import Issuer

# What the tests start listens on this machine's loopback, where no proxy can reach it.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"

_stack = ExitStack()


@functools.cache
def _server_url() -> str:
    """Start PostgreSQL once for all tests, print where it comes from, and return its URL."""
    url, origin = _stack.enter_context(postgres.server())
    with psycopg.connect(url) as conn:
        version = conn.info.parameter_status("server_version")
    print(f"\nPostgreSQL {version}, {origin}")
    return url


def pytest_unconfigure() -> None:
    """Stop PostgreSQL last of all."""
    _stack.close()


@pytest.fixture(scope="session")
def server_url() -> str:
    """Return the URL of a server on which databases may be created and dropped. It starts when it is first needed."""
    return _server_url()


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """Return the URL of a new database with nothing in it."""
    with postgres.database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(server_url: str, package: str) -> Iterator[str]:
    """Return the URL of a database with the service's schema, which the tests share."""
    with postgres.database(server_url) as url:
        folder = Path(str(importlib.import_module(package).__file__)).parent / "migrations"
        migrations.apply(lambda: psycopg.connect(url, autocommit=True), folder)
        yield url


@pytest.fixture
def settings(database_url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the configuration of a service with the defaults."""
    for name, value in variables.examples().items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.setenv("DATABASE_URL", database_url)
    return config.load(importlib.import_module(f"{package}.config").Config)


@pytest.fixture
def app(settings: config.Config, package: str) -> Iterator[Flask]:
    """Return the application in this process, with its pool open."""
    app: Flask = importlib.import_module(f"{package}.app").create_app(settings)
    db.open_pool(app)
    lifecycle.started()
    yield app
    db.close_pool(app)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Return a client of `app` that needs no network."""
    return app.test_client()


@pytest.fixture(scope="session")
def issuer() -> Iterator["Issuer"]:
    """Return an issuer of tokens."""
    from chassis.testing import issuer  # noqa: PLC0415 - PyJWT is an optional dependency

    with issuer.running() as it:
        yield it


@pytest.fixture
def client_as(
    settings: config.Config, package: str, issuer: "Issuer", monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., FlaskClient]]:
    """Return a function that makes a client with a token, of a service that asks for one.

    `client_as("ann", "notes:write", team="red")` is the user `ann` with that scope, and with `team` as a claim.
    """
    for name, value in issuer.variables.items():
        monkeypatch.setenv(name, value)
    app: Flask = importlib.import_module(f"{package}.app").create_app(config.load(type(settings)))
    db.open_pool(app)

    def make(subject: str, *scopes: str, **claims: object) -> FlaskClient:
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {issuer.token(subject, *scopes, **claims)}"
        return client

    yield make
    db.close_pool(app)


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    """Return a connection to the shared database, in which all tables are empty."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        postgres.empty(conn)
        yield conn


@pytest.fixture(scope="session")
def gunicorn(database_url: str, package: str) -> Iterator[Gunicorn]:
    """Return a running service that the tests share. A test that stops or breaks one starts its own."""
    with Gunicorn(package=package, DATABASE_URL=database_url) as server:
        yield server


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Return a place for the processes that a test starts: they end with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """Return the name of the service's image, built of this folder."""
    with containers.image() as name:
        yield name


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """Return the name of a Docker network with PostgreSQL in it."""
    with containers.network() as name:
        yield name
