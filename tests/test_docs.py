"""What the template's README claims is so."""

import json
import re
from pathlib import Path

README = Path("README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_target_that_it_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", README, re.MULTILINE))
    assert named
    assert {first or second for first, second in named} <= targets


def test_the_factors_are_those_of_the_service_and_their_files_exist() -> None:
    service = Path("<<cookiecutter.service>>")
    rows = re.findall(r"^\| [IVX]+ .*$", README, re.MULTILINE)
    assert rows == re.findall(r"^\| [IVX]+ .*$", (service / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 12
    for path in re.findall(r"`([\w./-]+)`", "\n".join(row.rpartition(" | ")[2] for row in rows)):
        assert (service / path).exists(), path


def test_it_tells_the_questions_and_their_defaults() -> None:
    answers = json.loads(Path("cookiecutter.json").read_text(encoding="utf-8"))
    for name in ("service", "description", "domain"):
        assert re.search(rf"`{name}`.*`{re.escape(answers[name])}`", README), name
