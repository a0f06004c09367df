"""The workflows, the build specification, and what the page about all this promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy import config
from deploy.release import __main__ as program

WORKFLOWS = config.ROOT / ".github" / "workflows"
DOC = (config.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def test_zizmor_finds_nothing() -> None:
    command = [
        str(Path(sys.executable).parent / "zizmor"),
        "--offline",
        "--persona=pedantic",
        "--no-progress",
        str(WORKFLOWS),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr if done.returncode else "") == (0, "")


def test_actions_are_pinned_and_nothing_is_permitted_by_default() -> None:
    text = (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)( # v[\d.]+)?", text)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) and version for action, version in used)
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert "secrets." not in text
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read", "id-token": "write"}


def test_production_gets_what_staging_had() -> None:
    jobs = yaml.safe_load((WORKFLOWS / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["production"]["steps"] == jobs["staging"]["steps"]
    assert "staging" in jobs["production"]["needs"]
    assert jobs["production"]["environment"] == "production"


def test_codebuild_builds_with_the_same_command() -> None:
    spec = yaml.safe_load((config.ROOT / "buildspec.yml").read_text(encoding="utf-8"))
    workflow = (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    [command] = [each for each in spec["phases"]["build"]["commands"] if "deploy.release" in each]
    assert command.split(" > ")[0].endswith("python -m deploy.release build")
    assert "python -m deploy.release build |" in workflow


def test_every_command_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"python -m deploy\.release ([a-z]+)((?: --?[a-z]*\S*)*)", DOC)
    assert {name for name, _ in commands} == {"build", "release", "run", "rollback", "status", "admin"}
    for name in {name for name, _ in commands}:
        with pytest.raises(SystemExit) as ended:
            program.main([name, "--help"])
        assert ended.value.code == 0
        assert "usage: python -m deploy.release" in capsys.readouterr().out
    makefile = (config.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z./-]+)`", DOC):
        assert re.search(f"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_the_page_names_the_stacks_that_there_are() -> None:
    name = config.service_name()
    deployed = set(re.findall(r"npx aws-cdk deploy .*?([a-z0-9-]+)$", DOC, flags=re.MULTILINE))
    assert deployed == {f"{name}-images", "platform-staging", f"{name}-staging"}
