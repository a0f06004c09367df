"""The fixtures of the chassis's own tests, on the probes' service, and the table of the twelve factors."""

import re
from collections.abc import Iterator

import pytest

import chassis
from chassis.testing import containers
from chassis.testing.fixtures import *  # noqa: F403 - pytest finds fixtures by their names
from chassis.tests.probe import FOLDER, PACKAGE
from chassis.tests.probe.code import Code, copied


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of the twelve factors: law, what was done, what was measured, held or broken."""
    laws = {
        numeral: (name, law)
        for numeral, name, law in re.findall(r"^\| ([IVX]+) (.+?) \| (.+?) \|", chassis.__doc__ or "", re.MULTILINE)
    }
    proofs: dict[str, tuple[list[str], list[str]]] = {}
    for outcome in ("passed", "failed", "skipped", "error"):
        for report in terminalreporter.getreports(outcome):
            if "test_factors.py::" in report.nodeid and (report.when == "call" or outcome != "passed"):
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
