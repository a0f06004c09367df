"""What editors, programs and people read beside the code: it parses, and it names what exists."""

import configparser
import json
import re
import tomllib
from pathlib import Path

import yaml

TARGETS = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_page_for_programs_is_short_and_names_what_exists() -> None:
    text = Path("AGENTS.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) <= TARGETS
    for name in re.findall(r"`([\w.-]+(?:/[\w.-]*)+|[\w-]+\.(?:md|toml))`", text):
        assert Path(name).exists(), name


def test_the_files_for_editors_parse_and_name_what_exists() -> None:
    launch = json.loads(Path(".vscode/launch.json").read_text(encoding="utf-8"))
    modules = {each["module"] for each in launch["configurations"]}
    assert modules == {"chassis.dev.postgres", "pytest"}
    settings = json.loads(Path(".vscode/settings.json").read_text(encoding="utf-8"))
    assert all(Path(name).is_dir() for name in settings["python.testing.pytestArgs"])
    container = json.loads(Path(".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/installed"
    parser = configparser.ConfigParser()
    parser.read_string("[top]\n" + Path(".editorconfig").read_text(encoding="utf-8"))
    ruff = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert parser["*"]["max_line_length"] == str(ruff["line-length"])
    [local] = yaml.safe_load(Path(".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {hook["entry"].removeprefix("make ") for hook in local["hooks"]} <= TARGETS


def test_owners_are_an_example_until_a_team_names_itself() -> None:
    lines = [line.split() for line in Path(".github/CODEOWNERS").read_text(encoding="utf-8").splitlines() if line]
    rules = [words for words in lines if words[0] != "#"]
    assert rules
    for pattern, *owners in rules:
        assert all(owner.startswith("@") for owner in owners)
        folder = pattern.lstrip("#").strip("/")
        assert folder == "*" or Path(folder).exists(), pattern


def test_the_changelog_has_a_place_for_the_next_release() -> None:
    assert re.search(r"^# Changelog$.*^## ", Path("CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
