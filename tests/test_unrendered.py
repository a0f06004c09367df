"""The template's folder is a service where it stands: contributors work on plain Python, and leave nothing there."""

import subprocess

from tests.conftest import SOURCE, TEMPLATE
from tests.test_service import environment

QUICK = ["tests/test_docs.py", *(f"chassis/tests/test_{name}.py" for name in ("config", "errors", "health", "urls"))]
"""What needs no process and no second database; the rest runs in a baked service."""


def left_behind() -> str:
    """Return what is in the folder and not in the repository."""
    command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all", SOURCE.name]
    lines = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout.splitlines()
    return "\n".join(line for line in lines if line.startswith("!!"))


def test_its_lint_types_and_tests_pass_in_place_and_leave_nothing() -> None:
    assert left_behind() == ""  # cookiecutter would copy it into services
    done = subprocess.run(
        ["make", "inplace", f"TESTS={' '.join(QUICK)}"],
        cwd=TEMPLATE,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert left_behind() == ""
