"""What the documents claim is so."""

import dataclasses
import re
from pathlib import Path

import pytest

from service import config

README = Path("README.md").read_text(encoding="utf-8")
VARIABLES = [field.name.upper() for field in dataclasses.fields(config.Config) if field.name != "service"]


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Each variable's default, as text; nothing for the one that has none."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@host/database")
    shown = {name.upper(): str(value) for name, value in dataclasses.asdict(config.load()).items()}
    return {name: shown[name] for name in VARIABLES if name != "DATABASE_URL"}


def test_the_readme_lists_every_variable_with_its_default(defaults: dict[str, str]) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert [name for name, *_ in rows] == VARIABLES
    listed = {name: "" if default == "empty" else default for name, _unit, default, _meaning in rows}
    assert listed == {"DATABASE_URL": "none, required", **defaults}


def test_the_example_lists_every_variable_with_its_default(defaults: dict[str, str]) -> None:
    lines = Path(".env.example").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert list(listed) == VARIABLES
    assert {name: listed[name] for name in defaults} == defaults
    assert listed["DATABASE_URL"].startswith("postgresql://")


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(
        r"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:py|txt|toml|yaml|yml|example)|/))`|`(Dockerfile|Procfile)`", README
    )
    paths = {first or second for first, second in named}
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not Path(path).exists()] == []


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*$", README, re.MULTILINE))))
    assert named
    assert named <= targets


def test_each_factor_has_its_row_and_its_file_says_so() -> None:
    numerals = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert re.findall(r"^\| ([IVX]+) [A-Z]", README, re.MULTILINE) == numerals
    for numeral, path in re.findall(r"^\| ([IVX]+) [^|]+\|[^|]+\| `(service/\w+\.py)`", README, re.MULTILINE):
        assert Path(path).read_text(encoding="utf-8").startswith(f'"""Factor {numeral}: '), path


def test_imports_go_down_only() -> None:
    floors = [
        {"admin"},
        {"app"},
        {"routes", "health", "worker"},
        {"notes", "db", "errors", "logs", "migrations", "lifecycle", "traces"},
        {"config"},
    ]
    level = {name: number for number, names in enumerate(floors) for name in names}
    for path in [*Path("service").glob("*.py"), Path("service/migrations/__init__.py")]:
        name = path.parent.name if path.stem == "__init__" else path.stem
        for line in re.findall(r"^from service(?:\.\w+)? import .*$", path.read_text(encoding="utf-8"), re.MULTILINE):
            modules = (
                re.findall(r"\w+", line.partition(" import ")[2])
                if "service import" in line
                else [line.split(".")[1].split()[0]]
            )
            assert all(level[module] > level[name] for module in modules), f"{path}: {line}"
