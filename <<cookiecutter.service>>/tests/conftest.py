"""What the tests share: a database, an application, and real server processes."""

import contextlib
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from flask.testing import FlaskClient
from flask_openapi3 import OpenAPI
from psycopg import Connection

from service import config, db, lifecycle, migrations
from service.app import create_app
from tests import containers, postgres
from tests.process import Gunicorn

_stack = ExitStack()
_server_url = pytest.StashKey[str]()


@pytest.hookimpl(trylast=True)  # after the terminal is there to be written to
def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL first of all, and say where it comes from."""
    url, origin = _stack.enter_context(postgres.server())
    with psycopg.connect(url) as conn:
        version = conn.info.parameter_status("server_version")
    config.get_terminal_writer().line(f"PostgreSQL {version}, {origin}")
    config.stash[_server_url] = url


def pytest_unconfigure() -> None:
    """Stop PostgreSQL last of all."""
    _stack.close()


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """The URL of a server whose databases may be made and dropped."""
    return pytestconfig.stash[_server_url]


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """The URL of a new database with nothing in it."""
    with postgres.database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(server_url: str) -> Iterator[str]:
    """The URL of a database with the service's schema, which the tests share."""
    with postgres.database(server_url) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            migrations.apply(conn)
        yield url


@pytest.fixture
def settings(database_url: str, monkeypatch: pytest.MonkeyPatch) -> config.Config:
    """The configuration of a service with the defaults."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return config.load()


@pytest.fixture
def app(settings: config.Config) -> Iterator[OpenAPI]:
    """The application in this process, with its pool open."""
    app = create_app(settings)
    db.open_pool(app)
    lifecycle.started()
    yield app
    db.close_pool(app)


@pytest.fixture
def client(app: OpenAPI) -> FlaskClient:
    """A client of `app` that needs no network."""
    return app.test_client()


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection]:
    """A connection to the shared database, on an empty table of notes."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("TRUNCATE notes")
        yield conn


@pytest.fixture(scope="session")
def gunicorn(database_url: str) -> Iterator[Gunicorn]:
    """A running service that the tests share; whoever stops or breaks one starts its own."""
    with Gunicorn(DATABASE_URL=database_url) as server:
        yield server


@pytest.fixture
def processes() -> Iterator[contextlib.ExitStack]:
    """A place for the processes that a test starts; they end with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image of this folder."""
    with containers.image() as name:
        yield name


@pytest.fixture(scope="session")
def network() -> Iterator[str]:
    """A network with PostgreSQL in it."""
    with containers.network() as name:
        yield name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the twelve factors, after `make factors`: law, what was done, what was measured, held or broken."""
    readme = Path("README.md").read_text(encoding="utf-8")
    laws = {
        numeral: (name, law)
        for numeral, name, law in re.findall(r"^\| ([IVX]+) (.+?) \| (.+?) \|", readme, re.MULTILINE)
    }
    proofs: dict[str, list[str]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            if "test_factors.py::" in report.nodeid and (report.when == "call" or outcome != "passed"):
                numeral = report.nodeid.rpartition("::test_")[2].split("_")[0].upper()
                proof = proofs.setdefault(numeral, ["", "", "held"])
                for _, (_, done, measured) in report.user_properties:
                    proof[:2] = done, measured
                if outcome != "passed":
                    proof[2] = "skipped" if outcome == "skipped" else "BROKEN"
    if proofs:
        terminalreporter.section("the twelve factors")
    for numeral, (done, measured, verdict) in sorted(proofs.items(), key=lambda item: list(laws).index(item[0])):
        name, law = laws[numeral]
        terminalreporter.line(f"{verdict:<7} {numeral:>4} {name}: {law}")
        terminalreporter.line(f"{'':12} {done}: {measured}" if done else "")
