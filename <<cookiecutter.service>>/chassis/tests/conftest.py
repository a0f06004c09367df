"""The fixtures of the chassis's own tests, on the probes' service, and the table of the twelve factors."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

import chassis
from chassis import config
from chassis.testing import containers
from chassis.testing.fixtures import *  # noqa: F403 - pytest finds fixtures by their names
from chassis.tests.probe import FOLDER, PACKAGE
from chassis.tests.probe.code import Code, copied
from chassis.tests.variables import URL


@pytest.fixture(scope="session")
def package() -> str:
    """Return the name of the package whose service is tested."""
    return PACKAGE


@pytest.fixture(scope="session", name="image")
def image_of_the_probes() -> Iterator[str]:
    """Return the name of the service's image with the probes in the place of the service."""
    with containers.image() as base, containers.extended(base, FOLDER, PACKAGE) as name:
        yield name


@pytest.fixture
def code() -> Iterator[Code]:
    """Return a fresh copy of the service's code."""
    with copied() as found:
        yield found


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no variable of the configuration in the environment but the URL of a database."""
    for name in ("PGUSER", "PGPASSWORD", "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGGSSENCMODE"):
        monkeypatch.delenv(name, raising=False)
    for name in config.Config.__annotations__:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("DATABASE_URL", URL)


@pytest.fixture
def empty(empty_database_url: str) -> Connection:
    """Return a connection to a database with nothing in it."""
    return psycopg.connect(empty_database_url, autocommit=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two migrations."""
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int);\nINSERT INTO one VALUES (1);\n")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (id int);\n")
    return tmp_path


@pytest.fixture
def holds(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Add a row of the table: what was done, and what was measured."""
    numeral = request.node.name.split("_")[1].upper()

    def row(done: str, measured: str) -> None:
        record_property("factor", (numeral, done, measured))

    return row


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the twelve factors: law, what was done, what was measured, held or broken."""
    laws = {
        numeral: (name, law)
        for numeral, name, law in re.findall(r"^\| ([IVX]+) (.+?) \| (.+?) \|", chassis.__doc__ or "", re.MULTILINE)
    }
    proofs: dict[str, tuple[list[str], list[str]]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            if "/test_factors" in report.nodeid and (report.when == "call" or outcome != "passed"):
                numeral = report.nodeid.rpartition("::test_")[2].split("_")[0].upper()
                outcomes, figures = proofs.setdefault(numeral, ([], []))
                outcomes.append(outcome)
                figures += [f"{done}: {measured}" for _, (_, done, measured) in report.user_properties]
    if proofs:
        terminalreporter.section("the twelve factors")
    for numeral, (outcomes, figures) in sorted(proofs.items(), key=lambda item: list(laws).index(item[0])):
        verdict = "BROKEN" if {"failed", "error"} & set(outcomes) else "held" if "passed" in outcomes else "skipped"
        name, law = laws[numeral]
        terminalreporter.line(f"{verdict:<7} {numeral:>4} {name}: {law}")
        for figure in figures:
            terminalreporter.line(f"{'':12} {figure}")
