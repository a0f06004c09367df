"""The gates of `make lint` see what they are there for: a lint that cannot fail is a defect."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOURCE, TEMPLATE

BIN = Path(sys.executable).parent


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Return a gate's verdict."""
    return subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=120)


def test_checkov_reads_every_workflow_and_the_dockerfile() -> None:
    # It passes over a workflow in silence if that holds an expression where its schema has none.
    done = run(".venvs/checkov/bin/checkov", "--config-file", "tests/checkov/files.yaml", "--output", "json")
    reports = json.loads(done.stdout)
    seen = {Path(check["file_path"]) for report in reports for check in report["results"]["passed_checks"]}
    for folder in (TEMPLATE, SOURCE):
        for path in [*folder.glob(".github/workflows/*.yml"), *folder.glob("Dockerfile")]:
            assert Path("/") / path.relative_to(TEMPLATE) in seen, path


@pytest.mark.parametrize(("network", "status"), [("10.0.0.0/8", 0), ("0.0.0.0/0", 1)])
def test_checkov_refuses_a_stack_that_lets_everybody_in(tmp_path: Path, network: str, status: int) -> None:
    rule = {"Description": "ssh", "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": network}
    properties = {"GroupDescription": "Machines", "SecurityGroupIngress": [rule]}
    resources = {"Machines": {"Type": "AWS::EC2::SecurityGroup", "Properties": properties}}
    (tmp_path / "a.template.json").write_text(json.dumps({"Resources": resources}))
    text = (TEMPLATE / "tests" / "checkov" / "stacks.yaml").read_text(encoding="utf-8")
    assert ".baked/orders/cdk.out" in text
    config = tmp_path / "stacks.yaml"
    config.write_text(text.replace(".baked/orders/cdk.out", str(tmp_path)), encoding="utf-8")
    done = run(".venvs/checkov/bin/checkov", "--config-file", config, "--output", "json")
    assert done.returncode == status
    assert json.loads(done.stdout)["summary"]["passed"]


@pytest.mark.parametrize(
    ("careful", "careless"),
    [
        ("permissions:\n  contents: read\n", "permissions: write-all\n"),
        ("pull_request:\n", "pull_request_target:\n"),
        ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7"),
        ("permissions:\n", "permissions: {{\n"),
    ],
)
def test_zizmor_refuses_a_careless_workflow(tmp_path: Path, careful: str, careless: str) -> None:
    shutil.copytree(SOURCE / ".github", tmp_path / ".github")
    workflow = tmp_path / ".github" / "workflows" / "ci.yml"
    gate: list[str | Path] = [BIN / "zizmor", "--offline", "--quiet", "--strict-collection", tmp_path / ".github"]
    assert run(*gate).returncode == 0
    text = workflow.read_text(encoding="utf-8")
    assert careful in text
    workflow.write_text(text.replace(careful, careless), encoding="utf-8")
    assert run(*gate).returncode != 0


@pytest.mark.parametrize(("path", "found"), [("chassis/x.py", ["TID251"]), ("service/x.py", []), ("tests/x.py", [])])
def test_ruff_refuses_a_chassis_that_imports_the_service(path: str, found: list[str]) -> None:
    options = ["--no-cache", "--select=TID251", "--output-format=json", f"--stdin-filename={path}"]
    done = subprocess.run(
        [BIN / "ruff", "check", *options, "-"],
        cwd=SOURCE,
        input="from service import api\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert [fault["code"] for fault in json.loads(done.stdout)] == found


def test_hadolint_refuses_an_image_that_runs_a_moving_base(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /srv\n")
    assert run(BIN / "hadolint", tmp_path / "Dockerfile").returncode != 0


def test_shellcheck_refuses_a_script_that_splits_words(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\nrm $1\n")
    assert run(BIN / "shellcheck", tmp_path / "run").returncode != 0


def test_an_audit_without_an_index_says_so_in_one_line() -> None:
    nobody = "http://127.0.0.1:9"
    env = {**os.environ, "https_proxy": nobody, "HTTPS_PROXY": nobody, "no_proxy": ""}
    statuses = {}
    for ci in ({}, {"CI": "true"}):
        environment = {name: value for name, value in env.items() if name != "CI"} | ci
        done = subprocess.run(
            ["make", "--silent", "audit"],
            cwd=TEMPLATE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        statuses[bool(ci)] = done.returncode
        if not ci:
            [line] = (done.stdout + done.stderr).splitlines()
            assert line.startswith("Nothing was audited, since no index answers: ")
    assert statuses == {False: 0, True: 2}
