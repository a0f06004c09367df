"""The first hour with a new service, as its page tells it: follow it, and the gates are green."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_service import environment

SLOW = ["edge", "image", "lifecycle", "logs", "tokens", "traces"]
BESIDE = " ".join(f"--ignore tests/test_{name}.py" for name in SLOW)
"""About nothing that the page changes; the service's own gates have them."""


def test_a_service_that_follows_the_page_passes_its_gates(
    service: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adopted = tmp_path / "adopted"
    made = shutil.ignore_patterns(".venv*", ".pytest_cache", ".ruff_cache", ".postgres", "__pycache__")
    shutil.copytree(service, adopted, ignore=made)
    if (service / ".venv").exists():  # made by the gates above; its packages are the same
        (adopted / ".venv").symlink_to(service / ".venv")
    page = (adopted / "docs" / "adopt.md").read_text(encoding="utf-8")
    steps = re.findall(r"^```(sh|diff)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(steps) > 5
    for language, text in steps:
        command = (
            ["bash", "-euc", text]
            if language == "sh"
            else ["patch", "--strip=1", "--fuzz=0", "--force", "--no-backup-if-mismatch"]
        )
        done = subprocess.run(
            command, cwd=adopted, env=environment(), input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    with capfd.disabled():
        gates = ["make", f"PYTHON={sys.executable}", "lint", "types", "check"]
        done_gates = subprocess.run(gates, cwd=adopted, env=environment(PYTEST_ADDOPTS=BESIDE), check=False)
    assert done_gates.returncode == 0
