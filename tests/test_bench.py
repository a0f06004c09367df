"""The bench runs, and finds what does not depend on the machine."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench import fleet
from tests.conftest import TEMPLATE

needs_wrk = pytest.mark.skipif(not shutil.which("wrk") and "CI" not in os.environ, reason="there is no wrk here")


def bench(*arguments: str) -> str:
    """Return what `make bench` prints."""
    command = ["make", "--silent", f"BENCH={' '.join(arguments)}", "bench"]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True, timeout=600).stdout


@needs_wrk
def test_its_figures_are_a_table_and_a_plot(tmp_path: Path) -> None:
    sections = "requests,line,starts,round_trips,connections,fairness,processes,idle,bodies,options,notes"
    bench("--rounds", "1", "--stacks", "2", "--sections", sections, "--output", str(tmp_path / "made"))
    text = (tmp_path / "made/figures.md").read_text()
    for kind in ["read one by key", "create one", "list twenty"]:
        assert f"| round trips to PostgreSQL, {kind} | 1.00 | " in text
    for kind in ["read one by key", "404", "`/livez`"]:
        assert f"| {kind} | the service | " in text
    for name in ["figures.svg", "growth.svg"]:
        assert ET.parse(tmp_path / "made" / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own


@needs_wrk
def test_every_stack_does_the_same_work_and_the_service_does_it_for_less_than_its_peers() -> None:
    text = bench("--rounds", "1", "--only", "read")
    ratios = {name: float(over) for name, over in re.findall(r"read one by key \| (.*?) \| \d+ µs \| ([\d.]+) ", text)}
    peers = [ratios.pop(name) for name in ["Flask + SQLAlchemy", "FastAPI + asyncpg", "FastAPI + SQLModel"]]
    assert ratios.pop("the limit") == 1
    assert ratios.pop("the service") < min(peers)
    assert not ratios


PEAK = """
import tomllib
from pathlib import Path
from types import SimpleNamespace
from deploy.config import Environment
production = tomllib.loads(Path("deploy/production.toml").read_text(encoding="utf-8"))
parts = {"service": SimpleNamespace(**production["service"]), "variables": production["variables"]}
print(Environment.peak_connections.fget(SimpleNamespace(**parts)))
"""


def test_connections_are_counted_as_the_deployment_counts_them() -> None:
    command = [str(TEMPLATE / ".venvs/deploy/bin/python"), "-B", "-c", PEAK]
    peak = subprocess.run(command, cwd=fleet.PRODUCTION.parent.parent, capture_output=True, text=True, check=True)
    production = tomllib.loads(fleet.PRODUCTION.read_text(encoding="utf-8"))
    assert fleet.peak_connections(production["variables"], production["service"]["tasks_max"]) == int(peak.stdout)


CLIENT = """
import time
from types import SimpleNamespace
from tests.bench import simulation
simulation.MEASURED_SECONDS = 2
simulation.psycopg.connect = lambda *_, **__: SimpleNamespace(execute=lambda *_: time.sleep(1.2))
simulation.client("", 1)
"""


@needs_wrk
def test_a_statement_that_ends_after_the_measured_time_does_not_count() -> None:
    subprocess.run(["make", "--silent", ".venvs/bench/installed"], cwd=TEMPLATE, check=True)
    command = [str(TEMPLATE / ".venvs/bench/bin/python"), "-c", CLIENT]
    ran = subprocess.run(command, cwd=TEMPLATE, input="\n", capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1].startswith("1 1.")
