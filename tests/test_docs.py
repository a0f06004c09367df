"""What the template's documents say of its files is so."""

import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.conftest import SOURCE, TEMPLATE, git

README = (TEMPLATE / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *sorted(TEMPLATE.glob("*.md")),
    TEMPLATE / ".github" / "pull_request_template.md",
    TEMPLATE / "tests" / "bench" / "README.md",
    SOURCE / "README.md",
]
MADE = {".cruft.json", "demo/", "notes.md"}
"""What documents name and no repository holds: commands make it."""


def prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_contributing_is_one_page() -> None:
    assert len((TEMPLATE / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) < 60


def test_no_python_module_is_longer_than_300_lines() -> None:
    paths = [TEMPLATE / name for name in git(TEMPLATE, "ls-files", "-z", "*.py").split("\0")]
    lengths = {path: len(path.read_bytes().splitlines()) for path in paths if path.is_file()}
    long = [f"{path.relative_to(TEMPLATE)}: {length}" for path, length in lengths.items() if length > 300]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_link_leads_somewhere(path: Path) -> None:
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]*)\)", prose(path)):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif ":" in target:
            assert urlsplit(target).scheme == "https", target
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", urlsplit(target).netloc), target
        else:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_file_that_is_named_is_spelt_as_it_is(path: Path) -> None:
    text = re.sub(r"https://\S+", "", prose(path))
    named = set(re.findall(r"(?<![\w/.-])[\w.-][\w./-]*\.(?:py|md|toml|ya?ml|txt|json|cfg|ini|example|sql)\b", text))
    named |= set(re.findall(r"`([\w.<>-][\w./<>-]*/[\w./-]*)`", text))
    for name in named - MADE:
        assert any((folder / name).exists() for folder in (path.parent, TEMPLATE, SOURCE)), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_line_of_prose_is_one_sentence(path: Path) -> None:
    for line in prose(path).splitlines():
        if not line.startswith("|"):
            assert not re.search(r"[a-z)`]\. [A-Z]", line), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_every_target_that_is_named_is_in_the_makefile(path: Path) -> None:
    makefiles = [folder / "Makefile" for folder in {TEMPLATE, SOURCE} if (folder / "Makefile").exists()]
    targets = {target for file in makefiles for target in re.findall(r"^([a-z]+):", file.read_text(), re.MULTILINE)}
    named = re.findall(r"(?:^|`)make ([a-z]+(?: [a-z]+)*)(?=`| [A-Z#]| {2}|$)", path.read_text(), re.MULTILINE)
    assert {target for words in named for target in words.split()} <= targets


def test_the_factors_are_those_of_the_service_and_their_files_exist() -> None:
    rows = re.findall(r"^\| [IVX]+ .*$", README, re.MULTILINE)
    assert rows == re.findall(r"^\| [IVX]+ .*$", (SOURCE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 12
    for path in re.findall(r"`([\w./-]+)`", "\n".join(row.rpartition(" | ")[2] for row in rows)):
        assert (SOURCE / path).exists(), path


def test_it_tells_the_questions_and_their_defaults() -> None:
    answers = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    for name in ("service", "description", "domain"):
        assert re.search(rf"`{name}`.*`{re.escape(answers[name])}`", README), name


def test_cruft_is_given_addresses_that_git_knows() -> None:
    text = (TEMPLATE / "README.md").read_text(encoding="utf-8")
    addresses = re.findall(r"cruft (?:create|link) (\S+)", text)
    assert len(addresses) == 2
    assert all(address.startswith("https://") for address in addresses)  # `gh:` is cookiecutter's own


@pytest.mark.parametrize(("tag", "notes"), [("2026.11.25", "\n- new\n\n### Fixed\n\n- old\n\n"), ("2026.1.1", "")])
def test_a_release_publishes_its_part_of_the_changelog_or_nothing(tmp_path: Path, tag: str, notes: str) -> None:
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 2026.11.25.1\n\n- later\n\n"
        "## 2026.11.25\n\n- new\n\n### Fixed\n\n- old\n\n## 2026.1.2\n\n- older\n"
    )
    (tmp_path / "gh").write_text('#!/bin/sh\necho "$@" > said\n')
    (tmp_path / "gh").chmod(0o755)
    workflow = yaml.safe_load((TEMPLATE / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    script = workflow["jobs"]["release"]["steps"][1]["run"]
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "TAG": tag},
        check=False,
    )
    assert (tmp_path / "notes.md").read_text() == notes
    assert (done.returncode == 0) == (tmp_path / "said").exists() == bool(notes)
