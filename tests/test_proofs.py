"""The baked service keeps its promises: while its surroundings fail, factor by factor, and on its way to production.

That takes minutes, so each has a target of its own.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import install
from tests.test_service import environment


@pytest.mark.parametrize("target", ["faults", "factors", "deploy-proofs"])
def test_its_promises_hold(service: Path, capfd: pytest.CaptureFixture[str], target: str) -> None:
    install(service, sys.executable)
    with capfd.disabled():  # the figures are worth reading
        command = ["make", f"PYTHON={sys.executable}", target]
        done = subprocess.run(command, cwd=service, env=environment(), check=False)
    assert done.returncode == 0
