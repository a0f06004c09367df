"""What the documents claim is so."""

import re
from pathlib import Path

from chassis.dev import variables
from service.config import Config

README = Path("README.md").read_text(encoding="utf-8")


def test_the_readme_and_the_example_list_every_variable_as_it_is_declared() -> None:
    stale = [str(path) for path, text in variables.renewed(Config).items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "`make variables` renews them"


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(
        r"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:py|txt|toml|yaml|yml|example)|/))`|`(Dockerfile|Procfile)`", README
    )
    paths = {first or second for first, second in named} | set(re.findall(r"pytest ([\w/]+\.py)", README))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not Path(path).exists()] == []


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*$", README, re.MULTILINE))))
    assert named
    assert named <= targets


def test_each_factor_has_its_row_and_its_file_says_so() -> None:
    numerals = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert re.findall(r"^\| ([IVX]+) [A-Z]", README, re.MULTILINE) == numerals
    for numeral, path in re.findall(r"^\| ([IVX]+) [^|]+\|[^|]+\| `(chassis/\w+\.py)`", README, re.MULTILINE):
        assert Path(path).read_text(encoding="utf-8").startswith(f'"""Factor {numeral}: '), path
