"""The workflows, the build specification, and the commands of `docs/deploy.md`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import config
from deploy.release import __main__ as program
from deploy.service import pipeline

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


def load(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    return found


def test_actions_are_pinned_and_nothing_is_permitted_by_default() -> None:
    text = (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    used = [each for each in re.findall(r"uses: (\S+)( # v[\d.]+)?", text) if not each[0].startswith("./")]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) and version for action, version in used)
    workflow = load("release.yml")
    assert workflow["permissions"] == {}
    assert "secrets." not in text
    for name, job in workflow["jobs"].items():
        expected = {"contents": "read"} if name == "gates" else {"contents": "read", "id-token": "write"}
        assert job["permissions"] == expected


def test_nothing_is_built_before_the_gates_have_passed_and_the_environments_exist() -> None:
    jobs = load("release.yml")["jobs"]
    assert jobs["gates"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in load("ci.yml")[True]  # `on` is a boolean in YAML 1.1
    assert (jobs["build"]["needs"], jobs["build"]["if"]) == ("gates", "vars.ENVIRONMENTS != ''")
    for name in ("staging", "production"):
        assert jobs[name]["if"] == f"contains(vars.ENVIRONMENTS, '{name}')"
        assert jobs[name]["concurrency"] == {"group": f"release-{name}", "cancel-in-progress": False}


def test_production_gets_what_staging_had() -> None:
    jobs = load("release.yml")["jobs"]
    assert jobs["production"]["steps"] == jobs["staging"]["steps"]
    assert "staging" in jobs["production"]["needs"]
    assert jobs["production"]["environment"] == "production"


def test_a_manual_run_brings_the_release_before_back_in_the_environment_that_is_asked_for() -> None:
    job = load("release.yml")["jobs"]["rollback"]
    assert (job["if"], job["environment"]) == ("github.event_name == 'workflow_dispatch'", "${{ inputs.rollback }}")
    assert [(step["run"], step.get("env")) for step in job["steps"] if "run" in step] == [
        ("pip install --require-hashes --requirement deploy/requirements.txt", None),
        (
            'python -m deploy.release rollback --environment "$ENVIRONMENT"',
            {"ENVIRONMENT": "${{ inputs.rollback }}"},
        ),
    ]


def test_roles_last_as_long_as_the_workflow_asks_for() -> None:
    asked = {
        step["with"]["role-duration-seconds"]
        for job in load("release.yml")["jobs"].values()
        for step in job.get("steps", [])
        if "role-duration-seconds" in step.get("with", {})
    }
    assert asked == {pipeline.SESSION_SECONDS}


def test_codebuild_builds_with_the_same_command() -> None:
    spec = yaml.safe_load((config.ROOT / "buildspec.yml").read_text(encoding="utf-8"))
    workflow = (WORKFLOWS / "release.yml").read_text(encoding="utf-8")
    [command] = [each for each in spec["phases"]["build"]["commands"] if "deploy.release" in each]
    assert command.split(" > ")[0].endswith("python -m deploy.release build")
    assert "python -m deploy.release build |" in workflow
    installs = [each for each in spec["phases"]["install"]["commands"] if "pip install" in each]
    assert all("--require-hashes" in each for each in installs)


def test_every_command_of_the_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    names = set(re.findall(r"python -m deploy\.release ([a-z]+)", DOC))
    every = {"build", "release", "run", "rollback", "status", "admin", "database", "shell", "cost"}
    assert names == every
    for name in names:
        with pytest.raises(SystemExit) as ended:
            program.main([name, "--help"])
        assert ended.value.code == 0
        assert "usage: python -m deploy.release" in capsys.readouterr().out
    makefile = (config.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z./-]+)`", DOC):
        assert re.search(f"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target
