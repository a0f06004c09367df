"""The bench runs, and finds what does not depend on the machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import TEMPLATE

pytestmark = pytest.mark.skipif(not shutil.which("wrk") and "CI" not in os.environ, reason="there is no wrk here")


def bench(*arguments: str) -> str:
    """What `make bench` prints."""
    command = ["make", "--silent", f"BENCH={' '.join(arguments)}", "bench"]
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True, timeout=600).stdout


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


def test_every_stack_does_the_same_work_and_the_service_does_it_for_less_than_its_peers() -> None:
    text = bench("--rounds", "1", "--only", "read")
    ratios = {name: float(over) for name, over in re.findall(r"read one by key \| (.*?) \| \d+ µs \| ([\d.]+) ", text)}
    peers = [ratios.pop(name) for name in ["Flask + SQLAlchemy", "FastAPI + asyncpg", "FastAPI + SQLModel"]]
    assert ratios.pop("the limit") == 1
    assert ratios.pop("the service") < min(peers)
    assert not ratios
