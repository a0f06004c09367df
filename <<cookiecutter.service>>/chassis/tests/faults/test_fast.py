"""Without what exists only to be fast, the service behaves in the same way."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from chassis.testing.process import environment

CALLERS = ("app", "db", "logs", "server", "views")
"""The modules that use it. Each line that does so can go with it."""

BEHAVIOUR = ("api", "edge", "errors", "health", "process", "server", "tokens")
"""The tests of the chassis that show how requests are answered and how the process stops."""


def test_the_service_behaves_in_the_same_way_without_it(server_url: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "test_fast.py")
    for folder in ("chassis", "service"):
        shutil.copytree(folder, tmp_path / folder, ignore=ignored)
    for file in ("pyproject.toml", ".env.example"):
        shutil.copy(file, tmp_path)
    (tmp_path / "chassis" / "fast.py").unlink()
    for name in CALLERS:
        path = tmp_path / "chassis" / f"{name}.py"
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^(from chassis import .*)(\bfast, |, fast$)", r"\1", text, flags=re.MULTILINE)
        path.write_text(re.sub(r"^.*\bfast\b.*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    tests = [f"chassis/tests/test_{name}.py" for name in BEHAVIOUR]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", *tests],
        cwd=tmp_path,
        env=environment(DATABASE_URL=server_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
