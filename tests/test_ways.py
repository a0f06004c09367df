"""The same service comes out, wherever the template comes from, whatever is missing, and with which cookiecutter."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import SOURCE, TEMPLATE, Bake, Tree, clone, commit, cookiecutter, git, tree
from tests.test_service import environment

BIN = Path(sys.executable).parent
OLDEST, TOO_OLD = "2.6.0", "2.5.0"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Return what a bake from a local folder leaves."""
    folder = tmp_path_factory.mktemp("expected")
    assert cookiecutter(folder, folder).returncode == 0
    return tree(folder / "orders")


def differing(made: Tree, expected: Tree) -> set[str]:
    """Return the files that are not the same, or not in both."""
    return {name for name in made | expected if made.get(name) != expected.get(name)}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with this folder's files as the tag `this`, and with something else after it."""
    template = clone(tmp_path_factory.mktemp("release") / "template.git")
    git(template, "tag", "this")
    (template / SOURCE.name / "later.txt").write_text("later\n")
    commit(template, "Something else")
    return template


def python_with(version: str) -> str:
    """Return a Python with that version of cookiecutter, from a virtual environment that later runs find again."""
    home = TEMPLATE / ".venvs" / f"cookiecutter-{version}"
    python = home / "bin" / "python"
    installed = home / "installed"
    if not installed.exists():
        commands: list[list[str | Path]] = [
            ["venv", "--quiet", "--clear", "--python", sys.executable, home],
            ["pip", "install", "--quiet", "--python", python, f"cookiecutter=={version}"],
        ]
        for command in commands:
            done = subprocess.run(
                [BIN / "uv", *command], env=environment(), capture_output=True, text=True, check=False
            )
            if done.returncode and "CI" not in os.environ:
                pytest.skip(f"cookiecutter {version} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
            assert done.returncode == 0, done.stderr
        installed.touch()
    return str(python)


def test_two_bakes_are_the_same_byte_for_byte(bake: Bake, tmp_path: Path, expected: Tree) -> None:
    done = bake(python=sys.executable)
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()


def test_it_needs_no_network_no_git_no_docker_and_no_home(tmp_path: Path, expected: Tree) -> None:
    settings = tmp_path / "settings.yaml"  # cookiecutter itself wants to remember answers somewhere
    settings.write_text(f"replay_dir: {tmp_path}/replay\ncookiecutters_dir: {tmp_path}/cookiecutters\n")
    command: list[str | Path] = [sys.executable, "-m", "cookiecutter", TEMPLATE, "--no-input"]
    command += ["--config-file", settings]
    nowhere = "http://127.0.0.1:9"
    nothing = {"HOME": "/dev/null/home", "PATH": "/dev/null", "http_proxy": nowhere, "https_proxy": nowhere}
    offline = ["/usr/bin/unshare", "--net"]
    if subprocess.run([*offline, "true"], capture_output=True, check=False).returncode == 0:
        command = [*offline, *command]
    (tmp_path / "out").mkdir()
    done = subprocess.run(command, cwd=tmp_path / "out", env=nothing, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()


def test_the_oldest_cookiecutter_that_is_supported_makes_the_same(bake: Bake, tmp_path: Path, expected: Tree) -> None:
    done = bake(python=python_with(OLDEST))
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()
    assert bake("service=No", python=python_with(OLDEST)).stderr.startswith("service: use 2 to 24")


def test_an_older_cookiecutter_is_told_so_in_one_line(bake: Bake, tmp_path: Path) -> None:
    done = bake(python=python_with(TOO_OLD))
    assert done.returncode != 0
    assert done.stderr.startswith("This template needs cookiecutter 2.6 or newer")
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_zip_file_makes_the_same(bake: Bake, tmp_path: Path, release: Path, expected: Tree) -> None:
    archive = tmp_path / "template.zip"
    git(release, "archive", "--format=zip", "--prefix=template-this/", "--output", str(archive), "this")
    assert zipfile.ZipFile(archive).testzip() is None
    done = bake(template=archive)
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()


def test_a_git_url_with_a_checkout_makes_the_same(bake: Bake, tmp_path: Path, release: Path, expected: Tree) -> None:
    done = bake("--checkout", "this", template=f"file://{release}")
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()


def test_cruft_makes_the_same_and_remembers_where_from(tmp_path: Path, release: Path, expected: Tree) -> None:
    done = subprocess.run(
        [BIN / "cruft", "create", release, "--checkout", "this", "--no-input", "--output-dir", tmp_path],
        env=environment(HOME=str(tmp_path / "home")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = tree(tmp_path / "orders")
    assert made.pop(".cruft.json")
    assert differing(made, expected) == set()


def test_git_that_writes_the_line_ends_of_windows_makes_the_same(
    bake: Bake, tmp_path: Path, release: Path, expected: Tree
) -> None:
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "--quiet", "--branch", "this", f"file://{release}", "crlf")
    done = bake(template=tmp_path / "crlf")
    assert done.returncode == 0, done.stderr
    service = tmp_path / "out" / "orders"
    assert differing(tree(service), expected) == set()
    git(service, "init", "--quiet")
    git(service, "config", "core.autocrlf", "true")
    commit(service, "A new service")
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "--quiet", f"file://{service}", "again")
    made = {name: value for name, value in tree(tmp_path / "again").items() if not name.startswith(".git/")}
    assert differing(made, expected) == set()


def test_a_folder_inside_another_repository_makes_the_same(
    bake: Bake, tmp_path: Path, release: Path, expected: Tree
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    git(outer, "clone", "--quiet", "--branch", "this", f"file://{release}", "template")
    done = bake(template=outer / "template")
    assert done.returncode == 0, done.stderr
    assert differing(tree(tmp_path / "out" / "orders"), expected) == set()
