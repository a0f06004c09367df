"""A service takes a newer template and loses nothing of its own."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import SOURCE, TEMPLATE, Tree, clone, commit, cookiecutter, git, tree
from tests.test_service import environment

BIN = Path(sys.executable).parent
SERVICE_BIN = TEMPLATE / ".venvs" / "service" / "bin"
LEFT_TO_THE_TEAM = sorted(
    str(path.relative_to(SOURCE)) for name in ("requirements*.txt", "migrations/*.sql") for path in SOURCE.rglob(name)
)
CONTESTED = ".env.example"
CONFLICT = r"^<<<<<<< .*?\n(.*?)^\|{7} .*?\n(.*?)^=======\n(.*?)^>>>>>>> .*?\n"


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a file that must be in it."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path}: {old}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def make_older(service: Path) -> None:
    """Make the template's service what an older release of it might have been: HEAD adds, changes, removes."""
    (service / "Procfile").unlink()
    (service / "old.cfg").write_text("[old]\n")
    edit(service / "README.md", "## HTTP\n", "A sentence that is gone.\n\n## HTTP\n")
    edit(service / "service" / "errors.py", '"""\n', '"""\n\nOLD = "gone"\n')
    edit(service / "Makefile", "help:\n", "help: # so far\n")
    edit(service / CONTESTED, "# Every variable", "# Each and every variable")
    for name in LEFT_TO_THE_TEAM:
        comment = "--" if name.endswith(".sql") else "#"
        (service / name).write_text((service / name).read_text(encoding="utf-8") + f"{comment} as it was\n")


def work_of_a_team(service: Path) -> None:
    """A resource renamed; a variable, a migration and a dependency added; a line of the template's changed."""
    for folder in ("service", "tests"):
        name = "notes.py" if folder == "service" else "test_notes.py"
        (service / folder / name).rename(service / folder / name.replace("notes", "tasks"))
    for path in [*service.rglob("*.py"), service / "README.md", service / "tests" / "try-it.txt"]:
        text = path.read_text(encoding="utf-8")
        renamed = re.sub("(?<!0001_)(n|N)ote", lambda found: {"n": "t", "N": "T"}[found[1]] + "ask", text)
        path.write_text(renamed, encoding="utf-8")
    (service / "service" / "migrations" / "0002_tasks.sql").write_text("ALTER TABLE notes RENAME TO tasks;\n")

    config = service / "service" / "config.py"
    edit(config, "    url_prefix: str\n", '    currency: str\n    """Currency of the prices."""\n    url_prefix: str\n')
    edit(
        config,
        "url_prefix=text(",
        'currency=text("CURRENCY", "EUR", validate.Length(equal=3)),\n        url_prefix=text(',
    )
    edit(
        service / "README.md", "| `URL_PREFIX`", "| `CURRENCY` | name | EUR | currency of the prices |\n| `URL_PREFIX`"
    )
    edit(service / ".env.example", "URL_PREFIX=", "CURRENCY=EUR\nURL_PREFIX=")

    edit(service / "pyproject.toml", '"flask>=3.1",\n', '"flask>=3.1",\n    "tenacity>=9",\n')
    edit(service / "requirements.txt", "flask==", "# tenacity, as make lock would add it\nflask==")
    edit(service / CONTESTED, (service / CONTESTED).read_text(encoding="utf-8").partition("\n")[0], "# Our own words.")
    ruff: list[str | Path] = [
        BIN / "ruff",
        "check",
        "--no-cache",
        "--quiet",
        "--select",
        "I",
        "--fix",
    ]  # imports in their new order
    subprocess.run(ruff, cwd=service, check=True)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template's repository: with each release that it has, its oldest commit, and one that is made up."""
    repository = clone(tmp_path_factory.mktemp("updating") / "template")
    now = git(repository, "rev-parse", "HEAD").strip()
    born = git(repository, "log", "--reverse", "--format=%H", "--diff-filter=A", "--", "tests/test_rendering.py")
    git(repository, "tag", "the-first", born.split()[0])
    make_older(repository / SOURCE.name)
    git(repository, "tag", "made-up", commit(repository, "An older release"))
    git(repository, "checkout", "--quiet", now, "--", ".")
    git(repository, "rm", "--quiet", "-f", f"{SOURCE.name}/old.cfg")
    commit(repository, "The newest")
    assert git(repository, "diff", now) == ""
    return repository


def releases() -> list[str]:
    """The tags of the template, and two that the fixture above makes."""
    return [*git(TEMPLATE, "tag", "--list").split(), "the-first", "made-up"]


def cruft(folder: Path, *arguments: str | Path) -> str:
    """What cruft says, when it succeeds."""
    done = subprocess.run(
        [BIN / "cruft", *arguments],
        cwd=folder,
        env=environment(HOME=str(folder.parent)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def update(template: Path, release: str, folder: Path, work: Callable[[Path], None]) -> tuple[Tree, Tree, Path]:
    """Make a service from `release`, do the team's work, update it: its files at first, before the update, and it."""
    cruft(folder, "create", template, "--checkout", release, "--no-input")
    service = folder / "orders"
    first = tree(service)
    git(service, "init", "--quiet")
    commit(service, "A new service")
    work(service)
    before = {name: file for name, file in tree(service).items() if not name.startswith(".git/")}
    commit(service, "Our own work")
    git(service, "config", "merge.conflictStyle", "diff3")
    cruft(service, "update", "--skip-apply-ask", "--checkout", "main")
    return first, before, service


def pieces(path: Path) -> list[tuple[str, str, str]]:
    """Each conflict in a file: the team's lines, those that both began with, and the template's."""
    return re.findall(CONFLICT, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("release", releases())
def test_an_update_loses_no_line_of_the_team(template: Path, tmp_path: Path, release: str) -> None:
    first, before, service = update(template, release, tmp_path, work_of_a_team)
    assert not list(service.rglob("*.rej"))
    for name, (_, content) in before.items():
        if name == ".cruft.json" or content == first.get(name, (0, b""))[1]:
            continue
        theirs = set(content.decode().splitlines()) - set(first.get(name, (0, b""))[1].decode().splitlines())
        assert theirs <= set((service / name).read_text(encoding="utf-8").splitlines()), name
    for name in git(service, "diff", "--name-only", "--diff-filter=U").split():
        conflicts = pieces(service / name)
        assert conflicts, name
        for ours, base, theirs_now in conflicts:
            assert ours != base != theirs_now, f"{name}: only one side changed this"


def test_an_update_brings_what_is_new_and_conflicts_where_both_sides_changed_a_line(
    template: Path, tmp_path: Path
) -> None:
    _, before, service = update(template, "made-up", tmp_path, work_of_a_team)
    assert git(service, "diff", "--name-only", "--diff-filter=U").split() == [CONTESTED]
    [(ours, _, theirs)] = pieces(service / CONTESTED)
    assert (ours, theirs[:16]) == ("# Our own words.\n", "# Every variable")
    text = (service / CONTESTED).read_text(encoding="utf-8")
    (service / CONTESTED).write_text(re.sub(CONFLICT, r"\1", text, flags=re.MULTILINE | re.DOTALL), encoding="utf-8")

    wanted = tmp_path / "wanted"  # as if the team had begun with the newest template
    (wanted / "home").mkdir(parents=True)
    assert cookiecutter(wanted, wanted / "home", template=template).returncode == 0
    work_of_a_team(wanted / "orders")
    updated = {name: file for name, file in tree(service).items() if not name.startswith(".git/")}
    assert updated.pop(".cruft.json")
    expected = tree(wanted / "orders")
    for name in LEFT_TO_THE_TEAM:
        assert updated[name] == before[name] != expected[name]
        expected[name] = before[name]
    assert updated == expected

    environ = environment(PYTHONPYCACHEPREFIX=str(TEMPLATE / ".venvs" / "bytecode"), DATABASE_URL="")
    environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(tmp_path)
    tests = [f"tests/test_{name}.py" for name in ("config", "docs", "errors", "routes", "tasks")]
    for gate, *arguments in (
        ["ruff", "check", "--no-cache"],
        ["mypy", "--cache-dir", str(TEMPLATE / ".mypy_cache" / "updated")],
        ["pytest", "-p", "no:cacheprovider", "--quiet", *tests],
    ):
        done = subprocess.run(
            [SERVICE_BIN / gate, *arguments],
            cwd=service,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_service_that_is_up_to_date_is_left_alone(template: Path, tmp_path: Path) -> None:
    cruft(tmp_path, "create", template, "--no-input")
    service = tmp_path / "orders"
    git(service, "init", "--quiet")
    commit(service, "A new service")
    cruft(service, "check")
    assert "already up to date" in cruft(service, "update", "--skip-apply-ask")
    assert git(service, "status", "--porcelain") == ""


def test_the_workflow_opens_one_pull_request_and_only_when_there_is_something_new(
    template: Path, tmp_path: Path
) -> None:
    cruft(tmp_path, "create", template, "--checkout", "made-up", "--no-input")
    service = tmp_path / "orders"
    git(service, "init", "--quiet")
    commit(service, "A new service")
    git(tmp_path, "clone", "--quiet", "--bare", str(service), "origin.git")
    git(service, "remote", "add", "origin", str(tmp_path / "origin.git"))
    workflow = yaml.safe_load((SOURCE / ".github" / "workflows" / "template.yml").read_text(encoding="utf-8"))
    [_, step] = workflow["jobs"]["update"]["steps"]
    assert step["if"] == "hashFiles('.cruft.json') != ''"  # without it, nothing
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, script in {
        "pipx": "true",
        "gh": f'echo "$@" >> {tmp_path}/said; test "$2" != list || cat open',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (tools / name).chmod(0o755)

    def run(already_open: int) -> list[str]:
        (tmp_path / "open").write_text(str(already_open))
        (tmp_path / "said").write_text("")
        variables = {"HOME": str(tmp_path), "PATH": f"{tools}:{BIN}:/usr/bin:/bin", "BRANCH": step["env"]["BRANCH"]}
        shell = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]]
        done = subprocess.run(shell, cwd=service, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return re.findall(r"^pr create", (tmp_path / "said").read_text(), re.MULTILINE)

    assert run(already_open=0) == ["pr create"]
    assert git(tmp_path / "origin.git", "show", "template-update:Procfile") == (SOURCE / "Procfile").read_text()
    assert run(already_open=0) == []  # on the branch itself all is new
    git(service, "checkout", "--quiet", "main")
    git(service, "branch", "--quiet", "-D", "template-update")
    assert run(already_open=1) == []
