"""What a request costs, counted in instructions: the same on a busy machine as on an idle one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TEMPLATE

BOUNDS = {"read": 1.03, "create": 1.07}
"""Instructions of the service over those of the limit: those of today, and three per cent.

Whoever makes requests cheaper lowers them. Whoever makes them dearer has a reason, and writes it into
tests/bench/README.md before they are raised."""

PYTHON = ".venvs/bench/bin/python"

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("valgrind") and "CI" not in os.environ, reason="valgrind is not installed here"
    ),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the bounds hold for Python 3.11, others count otherwise"
    ),
]


def test_a_request_costs_no_more_instructions_than_it_did(service: Path) -> None:
    for command in (
        ["make", "--silent", ".venvs/service/installed", ".venvs/bench/installed"],
        [PYTHON, "-m", "tests.bench.instructions", str(service), *BOUNDS],
    ):
        done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"^the service, (\w+): .*, ([\d.]+) of the limit$", done.stdout, re.MULTILINE))
    ratios = {kind: float(found[kind]) for kind in BOUNDS}
    assert {kind: ratio for kind, ratio in ratios.items() if ratio > BOUNDS[kind]} == {}, done.stdout
