"""What the tests share: cookiecutter as a user runs it, and one baked service for the session."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent
SOURCE = TEMPLATE / "<<cookiecutter.service>>"
DOCKER_SECONDS = 30

SETTINGS_OF_PIP = "import json; from chassis.dev import install; print(json.dumps(install.settings_of_pip()))"
_told = subprocess.run([sys.executable, "-B", "-c", SETTINGS_OF_PIP], cwd=SOURCE, stdout=subprocess.PIPE, check=True)
# uv, which the tests call, does not read where pip is told to find its index.
os.environ.update({name: value for name, value in json.loads(_told.stdout).items() if name not in os.environ})


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=DOCKER_SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


needs_docker = pytest.mark.skipif(
    "CI" not in os.environ and not (_succeeds("docker", "info") and _succeeds("docker", "compose", "version")),
    reason="Docker cannot be used here: no client, no engine that answers this user, or no `docker compose`",
)
"""The mark of a test that needs Docker. In CI it must not be missed."""

Bake = Callable[..., subprocess.CompletedProcess[str]]
Tree = dict[str, tuple[int, bytes]]


def cookiecutter(  # noqa: PLR0913 -- all but the folders have names
    output: Path,
    home: Path,
    *arguments: str,
    template: Path | str = TEMPLATE,
    python: Path | str = sys.executable,
    path: str = "/usr/bin:/bin",
    typed: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run cookiecutter as a user does, with a `home` of its own for its settings and replays.

    Answers are `typed` lines; or there are no questions and the `arguments` hold answers as `name=value`.
    """
    questions = ["--no-input"] if typed is None and "--replay" not in arguments else []
    return subprocess.run(
        [python, "-m", "cookiecutter", template, *questions, "--output-dir", output, *arguments],
        cwd=output,
        env={"HOME": str(home), "PATH": path, "TMPDIR": str(home)},  # where cookiecutter leaves the hooks that it ran
        input=typed or "",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def tree(folder: Path) -> Tree:
    """Each file of a folder, with its mode and its bytes."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes()) for path in paths}


def git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command that succeeds."""
    me = ["-c", "user.name=test", "-c", "user.email=test@test", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *me, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, message: str) -> str:
    """Commit everything there is, and say the commit's name."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message)
    return git(folder, "rev-parse", "HEAD").strip()


def clone(folder: Path) -> Path:
    """Return a repository with the template's history and, committed as `main`, its files as they are now."""
    git(folder.parent, "clone", "--quiet", f"file://{TEMPLATE}", folder.name)
    git(folder, "checkout", "--quiet", "-B", "main")
    git(folder, "rm", "--quiet", "-r", ".")
    for name in git(TEMPLATE, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0"):
        if name and ((TEMPLATE / name).is_symlink() or (TEMPLATE / name).is_file()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name, follow_symlinks=False)
    commit(folder, "The files as they are now")
    return folder


@pytest.fixture
def bake(tmp_path: Path) -> Bake:
    """Bakes into `tmp_path / "out"`, with the answers given as `name=value`."""
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    return lambda *answers, **how: cookiecutter(tmp_path / "out", tmp_path / "home", *answers, **how)


@contextmanager
def baked() -> Iterator[Path]:
    """Return a service with the default answers."""
    with tempfile.TemporaryDirectory(prefix="baked-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "home").mkdir()
        done = cookiecutter(folder, folder / "home")
        assert done.returncode == 0, done.stderr
        yield folder / "orders"


def install(service: Path, python: str) -> None:
    """Make a service's environment as `make` does."""
    command = ["make", f"PYTHON={python}", ".venv/installed"]
    installer = {"INSTALLER": str(Path(sys.executable).parent / "uv")}
    subprocess.run(command, cwd=service, env=os.environ | installer, stdout=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="session")
def service() -> Iterator[Path]:
    """Return a service that the tests share, and leave as it is but for what its own gates make."""
    with baked() as folder:
        yield folder
