"""A service takes a newer template without a conflict, and loses nothing of its own."""

import itertools
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.conftest import SOURCE, TEMPLATE, Bake, Tree, clone, commit, cookiecutter, git, tree
from tests.team import PLACE, work_of_a_team
from tests.test_service import environment

BIN = Path(sys.executable).parent
SERVICE_BIN = TEMPLATE / ".venvs" / "service" / "bin"


def patterns(service: Path) -> list[str]:
    """Return what a service tells cruft to skip."""
    project = tomllib.loads((service / "pyproject.toml").read_text(encoding="utf-8"))
    return list(project["tool"]["cruft"]["skip"])


def skipped(service: Path) -> list[str]:
    """Return the files of a service that an update leaves to the team."""
    found = [path for pattern in patterns(service) for path in service.glob(pattern)]
    files = {file for path in found for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()}
    return sorted(str(file.relative_to(service)) for file in files)


def make_older(service: Path) -> None:
    """Make the template's service what an older release of it might have been.

    All lines of the template's files are different but for the places of the team, and the line below each of them.
    One file is of another name, one is missing and one will go. Of the team's files, the end is different.
    """
    theirs = set(skipped(service))
    for path in sorted(path for path in service.rglob("*") if path.is_file()):
        name = str(path.relative_to(service))
        if path.suffix in {".png", ".json"} or name in theirs:
            mark = {".sql": b"\n-- older\n", ".json": b"\n"}.get(path.suffix, b"\n# older\n")
            path.write_bytes(path.read_bytes() + mark)
            continue
        lines, kept = [], False
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            is_place = PLACE.fullmatch(line) is not None
            older = f"**/{line}" if name == ".gitignore" else line.replace("\n", " # older\n")
            lines.append(line if is_place or kept or not line.strip() else older)
            kept = is_place
        path.write_text("".join(lines), encoding="utf-8")
    (service / "chassis" / "health.py").rename(service / "chassis" / "probes.py")
    (service / "chassis" / "fast.py").unlink()
    (service / "chassis" / "old.py").write_text('"""A module that is gone in the newest release."""\n')


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the template's repository, with its releases and one that is made up."""
    repository = clone(tmp_path_factory.mktemp("updating") / "template")
    now = git(repository, "rev-parse", "HEAD").strip()
    make_older(repository / SOURCE.name)
    git(repository, "tag", "made-up", commit(repository, "An older release"))
    git(repository, "rm", "--quiet", "-r", SOURCE.name)
    git(repository, "checkout", "--quiet", now, "--", ".")
    commit(repository, "The newest")
    assert git(repository, "diff", now) == ""
    return repository


def releases() -> list[str]:
    """Return the tags of the template, and the one that the fixture above makes."""
    return [*git(TEMPLATE, "tag", "--list").split(), "made-up"]


def run(command: list[str | Path], folder: Path, **variables: str) -> str:
    """Return what a command says that succeeds."""
    environ = environment(**variables)
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def create(template: Path, folder: Path, *arguments: str) -> Path:
    """Return the repository of a new service that cruft has made."""
    run([BIN / "cruft", "create", template, "--no-input", *arguments], folder, HOME=str(folder))
    git(folder / "orders", "init", "--quiet")
    commit(folder / "orders", "A new service")
    return folder / "orders"


def shallow(service: Path, folder: Path) -> Path:
    """Return a clone that has the last commit only, as a workflow checks it out."""
    git(folder, "clone", "--quiet", "--depth=1", f"file://{service}", str(folder / "clone"))
    return folder / "clone"


def update(service: Path, version: str) -> str:
    """Update a service to a version of the template as `make update` does it. Return what that says."""
    path = f"{BIN}:/usr/bin:/bin"
    return run([sys.executable, "-m", "chassis.dev.update", version], service, HOME=str(service.parent), PATH=path)


def files(service: Path) -> Tree:
    """Return the files of a service without Git's own, and without what Python has compiled."""
    return {
        name: file for name, file in tree(service).items() if not name.startswith(".git/") and not name.endswith(".pyc")
    }


class Updated(NamedTuple):
    """A service that was updated: its folder, its files before, and the files that it should have."""

    service: Path
    before: Tree
    wanted: Tree


def updated(template: Path, release: str, folder: Path) -> Updated:
    """Make a service from a release, do the team's work, and update a clone of it."""
    service = create(template, folder, "--checkout", release)
    work_of_a_team(service)
    commit(service, "Our own work")
    before = files(service)
    service = shallow(service, folder)
    update(service, "main")

    (folder / "wanted" / "home").mkdir(parents=True)  # as if the team had begun with the newest template
    assert cookiecutter(folder / "wanted", folder / "wanted" / "home", template=template).returncode == 0
    work_of_a_team(folder / "wanted" / "orders")
    wanted = tree(folder / "wanted" / "orders")
    return Updated(service, before, wanted | {name: before[name] for name in skipped(service)})


@pytest.mark.parametrize("release", releases())
def test_an_update_has_no_conflict_and_changes_what_is_the_templates_only(
    template: Path, tmp_path: Path, release: str
) -> None:
    service, before, wanted = updated(template, release, tmp_path)
    assert git(service, "diff", "--name-only", "--diff-filter=U") == ""
    assert not list(service.rglob("*.rej"))
    now = files(service)
    assert now.pop(".cruft.json") != before[".cruft.json"]
    assert {name for name in now | wanted if now.get(name) != wanted.get(name)} == set()
    assert {name for name in skipped(service) if now[name] != before[name]} == set()


def test_an_updated_service_passes_its_gates(template: Path, tmp_path: Path) -> None:
    service = updated(template, "made-up", tmp_path).service
    variables = {
        "PYTHONPYCACHEPREFIX": str(TEMPLATE / ".venvs" / "bytecode"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path),
    }
    tests = [f"tests/test_{name}.py" for name in ("admin", "contract", "docs", "invoices", "invoices_api", "smoke")]
    settings = [f"chassis/tests/test_{name}.py" for name in ("config", "urls")]
    ours = ["service", "tests"]  # the rest is the template's, byte for byte, and has gates of its own
    for gate in (
        ["python", "-m", "chassis.dev.variables"],
        ["python", "-m", "chassis.dev.contract"],
        ["ruff", "check", "--no-cache", *ours],
        ["ruff", "format", "--no-cache", "--check", *ours],
        ["mypy", "--cache-dir", str(TEMPLATE / ".mypy_cache" / "updated"), *ours],
        ["pytest", "-p", "no:cacheprovider", "--quiet", *tests, *settings],
    ):
        run([SERVICE_BIN / gate[0], *gate[1:]], service, **variables)


def test_a_service_that_is_up_to_date_is_left_alone(template: Path, tmp_path: Path) -> None:
    service = shallow(create(template, tmp_path), tmp_path)
    run([BIN / "cruft", "check"], service)
    assert "already up to date" in update(service, "HEAD")
    assert git(service, "status", "--porcelain") == ""


def test_the_workflow_opens_one_pull_request_and_only_when_there_is_something_new(
    template: Path, tmp_path: Path
) -> None:
    service = create(template, tmp_path, "--checkout", "made-up")
    git(tmp_path, "clone", "--quiet", "--bare", str(service), "origin.git")
    workflow = yaml.safe_load((SOURCE / ".github" / "workflows" / "template.yml").read_text(encoding="utf-8"))
    [_, step] = workflow["jobs"]["update"]["steps"]
    assert step["if"] == "hashFiles('.cruft.json') != ''"  # without it, nothing
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in {
        "pipx": "true",
        "gh": f'echo "$@" >> {tmp_path}/said; test "$2" != list || cat {tmp_path}/open',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)

    def steps(branch: str, already_open: int) -> str:
        clone = tmp_path / f"{branch}-{already_open}"
        origin = f"file://{tmp_path}/origin.git"
        git(tmp_path, "clone", "--quiet", "--depth=1", "--branch", branch, origin, str(clone))
        (tmp_path / "open").write_text(str(already_open))
        (tmp_path / "said").write_text("")
        variables = {"HOME": str(tmp_path), "PATH": f"{tools}:{BIN}:/usr/bin:/bin", "RUNNER_TEMP": str(tmp_path)}
        shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(
            shell,
            cwd=clone,
            env=variables | {"BRANCH": step["env"]["BRANCH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return (tmp_path / "said").read_text()

    assert re.findall("^pr create.*body.md$", steps("main", 0), re.MULTILINE)
    assert "make variables contract test" in (tmp_path / "body.md").read_text()
    assert git(tmp_path / "origin.git", "show", "template-update:Makefile") == (SOURCE / "Makefile").read_text()
    assert steps("template-update", 0) == ""  # on the branch itself all is new
    assert "pr create" not in steps("main", 1)


MADE = {".env.example", "docs/openapi.json", "requirements*.txt", "deploy/requirements*.txt"}
"""What commands make is the team's, too, but the changelog need not tell what changes there."""


def untold(repository: Path, release: str) -> set[str]:
    """Return the files of the example that have changed since a release, and that the changelog does not name."""
    theirs = [pattern for pattern in patterns(repository / SOURCE.name) if pattern not in MADE]
    changed = git(repository, "diff", "--no-renames", "--name-only", "-z", "--relative=" + SOURCE.name, release)
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    since = text.partition(f"\n## {release}\n")[0]
    told = "".join(re.findall(r"^### In the example\n(.*?)(?=^#|\Z)", since, re.MULTILINE | re.DOTALL))
    return {
        name
        for name in changed.split("\0")
        if any(fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in theirs)
        and f"`{name}`" not in told
    }


def test_the_changelog_is_asked_for_each_file_of_the_example_that_changed(template: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(template), "template")
    repository = tmp_path / "template"
    text = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    git(repository, "rm", "--quiet", f"{SOURCE.name}/service/admin.py")
    silent = untold(repository, "made-up")
    assert {"README.md", "deploy/staging.toml", "service/api.py", "service/admin.py"} <= silent
    assert not {"Makefile", "chassis/api.py", "requirements.txt", ".env.example"} & silent
    lines = "".join(f"- `{name}` ends otherwise.\n" for name in silent - {"README.md"})
    (repository / "CHANGELOG.md").write_text(f"## Unreleased\n\n### In the example\n\n{lines}\n## made-up\n\n{text}")
    assert untold(repository, "made-up") == {"README.md"}


@pytest.mark.parametrize("release", sorted(git(TEMPLATE, "tag", "--list", "20*").split())[-1:])
def test_the_changelog_tells_what_changed_in_the_example_since_the_last_release(release: str) -> None:
    assert untold(TEMPLATE, release) == set()


def test_the_workflow_and_make_update_run_the_same_version_of_cruft() -> None:
    texts = [(SOURCE / name).read_text(encoding="utf-8") for name in ("Makefile", ".github/workflows/template.yml")]
    versions = {tuple(re.findall(r"cruft==(\S+)", text)) for text in texts}
    assert len(versions) == 1
    assert len(versions.pop()) == 1


def test_every_file_that_is_skipped_is_there() -> None:
    assert [pattern for pattern in patterns(SOURCE) if not list(SOURCE.glob(pattern))] == []


def test_the_team_uses_every_place_that_it_has(bake: Bake, tmp_path: Path) -> None:
    assert bake().returncode == 0

    def places() -> dict[tuple[str, str], str]:
        """Return the line below each place."""
        texts = {name: file[1].decode(errors="replace") for name, file in tree(tmp_path / "out" / "orders").items()}
        lines = {name: [*text.splitlines(keepends=True), ""] for name, text in texts.items()}
        pairs = ((name, pair) for name, each in lines.items() for pair in itertools.pairwise(each))
        return {(name, line): below for name, (line, below) in pairs if PLACE.fullmatch(line)}

    before = places()
    work_of_a_team(tmp_path / "out" / "orders")
    assert len(before) > 10
    assert [place for place, below in places().items() if below == before[place]] == []
