"""Which answers are accepted, and what is said of the others."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import Bake


def test_the_defaults_are_accepted_and_the_next_commands_are_shown(bake: Bake, tmp_path: Path) -> None:
    done = bake()
    assert done.returncode == 0, done.stderr
    assert "cd orders" in done.stdout
    assert "make run" in done.stdout
    assert (tmp_path / "out" / "orders").is_dir()


def test_each_question_is_asked_in_words() -> None:
    answers = json.loads(Path("cookiecutter.json").read_text(encoding="utf-8"))
    asked = [name for name in answers if not name.startswith("_")]
    assert asked == ["service", "description", "domain"]
    assert list(answers["__prompts__"]) == asked


@pytest.mark.parametrize("service", ["a1", "user-profiles", "x" * 24, "test", "service", "docker"])
def test_a_dns_label_is_a_name_for_a_service(bake: Bake, tmp_path: Path, service: str) -> None:
    done = bake(f"service={service}")
    assert done.returncode == 0, done.stderr
    project = tomllib.loads((tmp_path / "out" / service / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["name"] == service


@pytest.mark.parametrize(
    "service",
    [
        "",
        "a",
        "x" * 25,
        "Orders",
        "1st",
        "my_service",
        "my service",
        "-a",
        "a-",
        "a--b",
        "ä",
        "a.b",
        "$(touch x)",
        "a;b",
    ],
)
def test_any_other_name_is_refused_in_one_line_and_leaves_nothing(bake: Bake, tmp_path: Path, service: str) -> None:
    done = bake(f"service={service}")
    assert done.returncode != 0
    if service:  # an empty one is refused by cookiecutter itself
        assert done.stderr.startswith("service: use 2 to 24 lower-case letters, digits and single hyphens")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "description",
    [
        "x",
        "x" * 200,
        "Keeps orders, 100 % reliably",
        "Größe: 5 € & more",
        "costs $5 or ${HOME}",
        "# no comment: *a*",
        "😀",
    ],
)
def test_a_line_of_text_is_a_description_and_arrives_intact(bake: Bake, tmp_path: Path, description: str) -> None:
    done = bake(f"description={description}")
    assert done.returncode == 0, done.stderr
    baked = tmp_path / "out" / "orders"
    project = tomllib.loads((baked / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["description"] == description
    assert description in (baked / "README.md").read_text(encoding="utf-8").splitlines()
    yaml.safe_load((baked / "compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "description",
    [
        "",
        "   ",
        "x" * 201,
        'a "quoted" word',
        "it's",
        "back\\slash",
        "two\nlines",
        "tab\there",
        "a {{ b",
        "a #> b",
        "\u202eltr",
    ],
)
def test_any_other_description_is_refused_in_one_line_and_leaves_nothing(
    bake: Bake, tmp_path: Path, description: str
) -> None:
    done = bake(f"description={description}")
    assert done.returncode != 0
    assert done.stderr.startswith("description: use ")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("domain", ["mycompany.com", "a.b", "internal.example", "xn--bcher-kva.example", "1.a2"])
def test_a_dns_name_is_a_domain(bake: Bake, tmp_path: Path, domain: str) -> None:
    done = bake(f"domain={domain}")
    assert done.returncode == 0, done.stderr
    compose = yaml.safe_load((tmp_path / "out" / "orders" / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["postgres"]["networks"]["default"]["aliases"] == [f"postgres.{domain}"]


@pytest.mark.parametrize(
    "domain",
    [
        "",
        "localhost",
        "1.2.3.4",
        "My.com",
        "a..b",
        ".a.b",
        "a.b.",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b.c",
        "bücher.example",
        "a.b/c",
    ],
)
def test_any_other_domain_is_refused_in_one_line_and_leaves_nothing(bake: Bake, tmp_path: Path, domain: str) -> None:
    done = bake(f"domain={domain}")
    assert done.returncode != 0
    assert done.stderr.startswith("domain: use a DNS name")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_exists_is_left_alone(bake: Bake, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "orders" / "mine"
    mine.parent.mkdir()
    mine.write_text("precious")
    assert bake().returncode != 0
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]
