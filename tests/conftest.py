"""What the tests share: one baked service for the session."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent
Bake = Callable[..., subprocess.CompletedProcess[str]]


def cookiecutter(
    output: Path, home: Path, *answers: str, template: Path | str = TEMPLATE
) -> subprocess.CompletedProcess[str]:
    """Run cookiecutter as a user does, without questions, with a `home` of its own for its settings and replays."""
    return subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(template), "--no-input", "--output-dir", str(output), *answers],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def bake(tmp_path: Path) -> Bake:
    """Bakes into `tmp_path / "out"`, with the answers given as `name=value`."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    return lambda *answers: cookiecutter(tmp_path / "out", tmp_path / "home", *answers)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service with the default answers, which the tests share and leave as it is but for what its own gates make."""
    folder = tmp_path_factory.mktemp("baked")
    (folder / "home").mkdir()
    done = cookiecutter(folder, folder / "home")
    assert done.returncode == 0, done.stderr
    return folder / "orders"
