"""The first hour with a new service: whoever follows its page, with three sets of words, has gates that are green."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Tree, baked, install, tree
from tests.test_service import environment

STEP = re.compile(r"(?:^`([\w/.-]+)`:\n\n)?^```(sh|diff|python|sql|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDED = ["flask-cors>=6,<7", "urllib3>=2.6,<3"]
"""What the page adds to `pyproject.toml`."""

SECOND_RESOURCE = "3. A second resource that refers to the first"
MADE = {".venv", ".hypothesis", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".postgres", "__pycache__"}
PROOFS_OF_THE_TEAMS_CODE = [
    "chassis/tests/test_db.py",
    "chassis/tests/test_files.py",
    "-k",
    "sql_appears or names_what",
]
"""The other proofs of the chassis run on a resource of their own, and the image is built elsewhere."""

YOURS = ("service/", "tests/", "deploy/smoke.py", "docs/try-it.txt", "README.md", "CHANGELOG.md")
"""Files of the team that must not mention the notes once they are gone."""


@dataclass(frozen=True)
class Words:
    """What the two resources are called, one and many of each."""

    parent: str
    parents: str
    child: str
    children: str

    def put_into(self, text: str) -> str:
        """Return a text of the page with these words in the place of its own."""
        pairs = [(OWN.children, self.children), (OWN.child, self.child), (OWN.parents, self.parents)]
        for own, mine in [*pairs, (OWN.parent, self.parent)]:
            for form in (str, _snake, _kebab, _pascal, str.capitalize):
                text = text.replace(form(own), form(mine))
        return text


def _snake(words: str) -> str:
    return words.replace(" ", "_")


def _kebab(words: str) -> str:
    return words.replace(" ", "-")


def _pascal(words: str) -> str:
    return words.title().replace(" ", "")


OWN = Words("category", "categories", "stock item", "stock items")
SETS = [OWN, Words("person", "people", "order line", "order lines"), Words("shelf", "shelves", "box", "boxes")]


def sections(page: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Return each section of the page, with its steps: a path if it is a whole file, its language, and its text."""
    for section in re.split(r"^##? ", page, flags=re.MULTILINE)[1:]:
        yield section.partition("\n")[0], STEP.findall(section)


def follow(folder: Path, path: str, language: str, text: str) -> None:
    """Do what a step of the page says."""
    if path:
        (folder / path).write_text(text, encoding="utf-8")
        return
    patch = ["patch", "--strip=1", "--fuzz=0", "--force", "--no-backup-if-mismatch"]
    command = ["bash", "-euc", text] if language == "sh" else patch
    done = subprocess.run(
        command, cwd=folder, env=environment(), input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


def snapshot(folder: Path) -> Tree:
    """Return the files of a service, without what its tools made."""
    return {name: file for name, file in tree(folder).items() if not MADE & set(Path(name).parts)}


def lines_of(steps: list[tuple[str, str, str]], *, tests: bool) -> int:
    """Return how many lines a section has a person write, in or outside of `tests/`."""
    files = sum(len(text.splitlines()) for path, _, text in steps if path and path.startswith("tests/") == tests)
    changed = [
        line for path, _, text in steps if not path for line in text.splitlines() if re.match(r"\+(?!\+\+ )", line)
    ]
    return files + (0 if tests else len(changed))


@pytest.fixture(scope="module")
def fresh() -> Iterator[Path]:
    """Return a new service, whose environment has what the page adds, too."""
    with baked() as folder:
        install(folder, sys.executable)
        uv = Path(sys.executable).parent / "uv"
        command: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            folder / ".venv" / "bin" / "python",
            *ADDED,
        ]
        subprocess.run(command, check=True)
        yield folder


@pytest.mark.parametrize("words", SETS, ids=[_kebab(words.child) for words in SETS])
def test_a_service_that_follows_the_page_passes_its_gates(
    fresh: Path, tmp_path: Path, words: Words, capfd: pytest.CaptureFixture[str]
) -> None:
    adopted = tmp_path / "adopted"
    shutil.copytree(fresh, adopted, ignore=shutil.ignore_patterns(*MADE, ".venv-*"))
    (adopted / ".venv").symlink_to(fresh / ".venv")
    page = (adopted / "docs" / "adopt.md").read_text(encoding="utf-8")
    postponed = []
    for heading, steps in sections(page):
        before = snapshot(adopted)
        for path, language, text in steps:
            step = words.put_into(path), language, words.put_into(text)
            # Other words make other lines, which `make format` breaks elsewhere: later steps would not fit any more.
            if words != OWN and text.startswith("make "):
                postponed.append(step)
            else:
                follow(adopted, *step)
        if heading == SECOND_RESOURCE:
            after = snapshot(adopted)
            touched = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
            assert {name.partition("/")[0] for name in touched} == {"service", "tests"}
            code, tests = (lines_of(steps, tests=each) for each in (False, True))
            assert code <= 150
            assert code + tests <= 300
    for step in [*postponed, ("", "sh", "make format")]:
        follow(adopted, *step)
    files = {path: data for path, (_, data) in snapshot(adopted).items()}
    assert not [path for path, data in files.items() if b"notes_api" in data]
    assert not [path for path, data in files.items() if path.startswith(YOURS) and re.search(rb"\bnotes?(\b|_)", data)]
    make = ["make", f"PYTHON={sys.executable}", "lint", "types"]
    pytest_of = str(adopted / ".venv" / "bin" / "pytest")
    gates = [make, [pytest_of, "tests", "--ignore", "tests/test_image.py"], [pytest_of, *PROOFS_OF_THE_TEAMS_CODE]]
    with capfd.disabled():
        for gate in gates:
            env = environment(MYPY_CACHE_DIR=str(fresh / ".mypy_cache"))
            assert subprocess.run(gate, cwd=adopted, env=env, check=False).returncode == 0, gate
