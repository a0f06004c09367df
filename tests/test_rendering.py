"""What comes out of the template, file by file."""

import re
import subprocess
from pathlib import Path

from tests.conftest import SOURCE, TEMPLATE, Bake, clone

RENDERED = {
    ".env.example",
    "Dockerfile",
    "README.md",
    "compose.yaml",
    "deploy/production.toml",
    "deploy/staging.toml",
    "docs/deploy.md",
    "docs/openapi.json",
    "pyproject.toml",
}
"""The files that rendering changes. No Python among them: having read one service, you have read them all."""


def template_files() -> set[str]:
    """Return the files of the template's service that are in the repository, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", SOURCE.name],
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (name.partition("/")[2] for name in listed.stdout.split("\0") if name)
    return {path for path in paths if (SOURCE / path).is_file()}


def baked_files(service: Path) -> dict[str, Path]:
    """Return the files of a baked service by their names, but for what running its gates leaves there."""
    made = {
        ".venv",
        ".venv-deploy",
        ".venv-rehearse",
        ".postgres",
        "__pycache__",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
    }
    paths = (path for path in service.rglob("*") if path.is_file() and not made & set(path.relative_to(service).parts))
    return {str(path.relative_to(service)): path for path in paths}


def test_every_file_of_the_template_comes_out_and_no_other(service: Path) -> None:
    assert set(baked_files(service)) == template_files()


def test_rendering_changes_these_files_only(service: Path) -> None:
    changed = {name for name, path in baked_files(service).items() if path.read_bytes() != (SOURCE / name).read_bytes()}
    assert changed == RENDERED


def test_nothing_of_the_template_is_left_over(service: Path) -> None:
    for name, path in baked_files(service).items():
        if path.suffix != ".png":  # a picture may hold any two bytes, and cookiecutter copies it as it is
            assert not re.search(r"cookiecutter\.|<<|<%|<#", path.read_text(encoding="utf-8")), name


def test_whatever_is_not_rendered_may_hold_delimiters(bake: Bake, tmp_path: Path) -> None:
    template = clone(tmp_path / "template")
    expected = {}
    for name in template_files() - RENDERED:
        path = template / SOURCE.name / name
        path.write_bytes(path.read_bytes() + b"\n# 1 << 2 <% if <# >>\n")
        expected[name] = path.read_bytes()
    done = bake(template=template)
    assert done.returncode == 0, done.stderr
    baked = baked_files(tmp_path / "out" / "orders")
    assert {name: baked[name].read_bytes() for name in expected} == expected


def test_files_keep_their_modes(service: Path) -> None:
    for name, path in baked_files(service).items():
        assert path.stat().st_mode & 0o111 == (SOURCE / name).stat().st_mode & 0o111, name


def test_the_link_for_cruft_leads_to_the_template() -> None:
    link = TEMPLATE / "{{cookiecutter.service}}"
    assert link.is_symlink()
    assert link.readlink() == Path("<<cookiecutter.service>>")
