"""What a request costs, counted in instructions: the same on a busy machine as on an idle one."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.bench import instructions

BOUNDS = {"read": 1.03, "create": 1.07}
"""Instructions of the service over those of the limit: those of today, and three per cent.

Whoever makes requests cheaper lowers them. Whoever makes them dearer has a reason, and writes it into
tests/bench/README.md before they are raised."""

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("valgrind") and "CI" not in os.environ, reason="valgrind is not installed here"
    ),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the bounds hold for Python 3.11, others count otherwise"
    ),
]


def test_a_request_costs_no_more_instructions_than_it_did(service: Path) -> None:
    found = instructions.measure(service, list(BOUNDS))
    ratios = {kind: found["the service"][kind] / found["the limit"][kind] for kind in BOUNDS}
    assert {kind: ratio for kind, ratio in ratios.items() if ratio > BOUNDS[kind]} == {}, found
