"""The pages in docs/ show what their commands show: each `console` block is run, and compared."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chassis.dev import lab
from chassis.testing.process import environment

PAGES = sorted(Path("docs").glob("*.md"))
MARK = "@@ next @@"
WAY_TO_THE_INDEX = ("uv_", "ssl_cert_", "http_proxy", "https_proxy", "no_proxy")


def blocks() -> list[tuple[str, str]]:
    """Return each block, after its page and heading as a name."""
    return [
        (f"{page.stem}: {section.splitlines()[0]}", block)
        for page in PAGES
        for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        for block in re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    ]


BLOCKS = blocks()


@pytest.mark.skipif(shutil.which("curl") is None and "CI" not in os.environ, reason="there is no curl here")
@pytest.mark.parametrize("block", [block for _, block in BLOCKS], ids=[name for name, _ in BLOCKS])
def test_a_page_shows_what_its_commands_show(block: str, empty_database_url: str) -> None:
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    script = f"\necho '{MARK}'\n".join(command for command, _ in steps)
    with lab.environment(empty_database_url) as variables:
        index = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT_"))}
        env = environment() | index | variables
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False, timeout=60)  # noqa: S607
    shown = done.stdout.split(f"{MARK}\n")
    for (command, expected), actual in zip(steps, shown, strict=True):
        pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
        assert re.fullmatch(pattern, actual.strip()), f"$ {command}\n{actual}{done.stderr}"


def test_every_factor_has_its_section_and_its_proof() -> None:
    page = Path("docs/twelve-factors.md").read_text(encoding="utf-8")
    modules = Path("chassis/tests").glob("test_factors*.py")
    proofs = "".join(module.read_text(encoding="utf-8") for module in modules)
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(sections) == 12
    for section in sections:
        parts = re.findall(r"^\*\*(\w+(?: it)?)\.\*\*", section, re.MULTILINE)
        assert parts == ["Rule", "Here", "Experiment", "Without it", "Proof"], section
        [proof] = re.findall(r"^\*\*Proof\.\*\* `(\w+)`", section, re.MULTILINE)
        assert f"def {proof}(" in proofs
