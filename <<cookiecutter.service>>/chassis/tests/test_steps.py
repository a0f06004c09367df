"""What `make test` prints: a line for each target, the output of those that fail, and what was skipped."""

import subprocess
import sys
from pathlib import Path

from chassis.testing.process import environment

MAKEFILE = """
good: # says nothing of interest
\t@echo noise
\t@echo 'SKIPPED [2] tests/test_a.py:3: no engine'
\t@echo '=== 3 passed, 2 skipped in 1.00s ==='
bad: # fails
\t@echo first
\t@echo 'FAILED tests/test_b.py::test_it - assert 1 == 2'
\t@echo '=== 1 failed, 4 passed in 2.00s ==='
\t@exit 1
nested:
\t@echo '    5 skipped: no engine'
\t@echo '7 passed, 0 failed, 5 skipped'
"""


def steps(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    (folder / "Makefile").write_text(MAKEFILE)
    done = subprocess.run(
        [sys.executable, "-m", "chassis.dev.steps", *arguments],
        cwd=folder,
        env=environment(PYTHONPATH=Path.cwd()),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines() + done.stderr.splitlines()


def test_success_is_a_line_for_each_target_and_a_table_of_what_was_skipped(tmp_path: Path) -> None:
    status, lines = steps(tmp_path, "good", "nested")
    assert status == 0
    assert sorted(line.split()[:2] for line in lines[:2]) == [["ok", "good"], ["ok", "nested"]]
    assert lines[2] == "    7 skipped: no engine"
    assert lines[-1] == "10 passed, 0 failed, 7 skipped"
    assert len(lines) == 5


def test_a_failure_shows_its_tests_first_and_then_all_it_said(tmp_path: Path) -> None:
    status, lines = steps(tmp_path, "bad")
    assert status == 1
    assert lines[0].split()[:2] == ["FAILED", "bad"]
    assert lines[1].startswith("FAILED tests/test_b.py::test_it")
    assert "first" in lines
    assert "noise" not in lines
    assert lines[-2].startswith("bad failed, ")


def test_a_step_is_one_line_with_its_time_unless_it_fails(tmp_path: Path) -> None:
    status, lines = steps(tmp_path, "--step", "speak", "echo", "--", "hello")
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith("speak ")
    assert lines[0].endswith(" s")
    status, lines = steps(tmp_path, "--step", "fail", "sh", "--", "-c", "echo because; exit 3")
    assert status == 1
    assert "because" in lines
