"""The release command makes releases and shows them, and each fault is one line, against moto's server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import config, files
from deploy.release import __main__ as program
from deploy.release import releases
from deploy.release.target import Target
from deploy.tests.cloud import ACCOUNT, REGION, Cloud
from deploy.tests.commands import NAME, STACK, Ran, command, push
from deploy.tests.conftest import changed, once

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


@once
def test_a_release_is_a_digest_and_the_stack_s_configuration(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del aws
    ran = command(capsys, "release", digest)
    assert (ran.status, ran.steps) == (
        0,
        [{"step": "release", "release": "2+build-1", "number": 2, "digest": digest, "status": "made"}],
    )


@once
def test_a_release_has_everything_that_the_stack_s_revision_has(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    container = {
        "name": "web",
        "image": "registry/orders@sha256:0",
        "environment": [{"name": "PORT", "value": "8000"}, {"name": "RELEASE", "value": "old"}],
        "secrets": [{"name": "DATABASE_URL", "valueFrom": "arn:aws:secretsmanager:eu-central-1:1:secret:a:KEY::"}],
        "readonlyRootFilesystem": True,
        "stopTimeout": 60,
    }
    whole: dict[str, Any] = {
        "family": STACK,
        "taskRoleArn": f"arn:aws:iam::{ACCOUNT}:role/task",
        "executionRoleArn": f"arn:aws:iam::{ACCOUNT}:role/execution",
        "networkMode": "awsvpc",
        "containerDefinitions": [container],
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "512",
        "memory": "1024",
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
    }
    ecs = aws.client("ecs")
    target = Target("staging")
    target.configuration = ecs.register_task_definition(**whole)["taskDefinition"]["taskDefinitionArn"]
    made = releases.make(target, digest)
    capsys.readouterr()
    theirs, ours = (
        ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in (target.configuration, made.arn)
    )
    [container] = theirs["containerDefinitions"]
    container["image"] = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}@{digest}"
    container["environment"] = [{"name": "PORT", "value": "8000"}, {"name": "RELEASE", "value": "3+build-1"}]
    own = ("taskDefinitionArn", "revision", "registeredAt")
    assert {key: ours[key] for key in theirs if key not in own} == {
        key: theirs[key] for key in theirs if key not in own
    }


@once
def test_the_same_release_is_not_made_twice(aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "release", digest)
    again = command(capsys, "release", digest)
    assert (again.status, again.steps[0]["status"], again.steps[0]["number"]) == (0, "was there", 2)
    assert len(aws.client("ecs").list_task_definitions(familyPrefix=STACK)["taskDefinitionArns"]) == 2


@once
def test_an_unknown_digest_is_refused(aws: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    del aws
    unknown = f"sha256:{'0' * 64}"
    assert command(capsys, "release", unknown).err == (
        f"deploy.release: the repository {ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME} has no image {unknown}:"
        " build it first\n"
    )
    for wrong in ("latest", ""):  # a script that has lost the digest must not release what runs
        assert "is no digest" in command(capsys, "release", wrong).err


@once
def test_an_unknown_release_is_refused(aws: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    del aws
    assert (
        command(capsys, "run").err
        == f"deploy.release: {STACK} has no release yet: `status` shows those that there are\n"
    )
    for number in ("1", "99"):  # the first is the stack's own revision
        ran = command(capsys, "run", number)
        assert (ran.status, ran.err.count("\n")) == (1, 1)
        assert f"has no release {number}" in ran.err


@once
def test_the_same_release_is_made_again_on_request(aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    del aws
    command(capsys, "release", digest)
    command(capsys, "run")
    again = command(capsys, "release", "--again")
    assert (again.steps[0]["status"], again.steps[0]["digest"], again.steps[0]["number"]) == ("made", digest, 3)


@once
def test_a_file_that_differs_from_the_stack_is_noticed(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del aws
    edited = files.read("staging")
    edited["variables"]["LOG_LEVEL"] = "DEBUG"
    monkeypatch.setattr(files, "read", lambda _name: edited)  # pyrefly: ignore
    ran = command(capsys, "release", digest)
    assert ran.err == (
        f"deploy.release: deploy/staging.toml has changed since {STACK} was deployed: deploy the stack first\n"
    )


def test_the_cost_of_an_environment_is_estimated_by_dated_prices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: dict[str, float] = {}
    cases: dict[str, dict[str, Any]] = {
        "small": {},
        "x86": {"service__architecture": "X86_64"},
        "on demand": {"service__capacity": "FARGATE"},
        "at night off": {"platform__night": "19-5"},
        "proxy": {"service__database_proxy_connections": 40},
        "standby": {"platform__database_multi_az": True, "platform__nat_gateways": 3},
    }
    spot = {"service__capacity": "FARGATE_SPOT"}
    environments = {name: changed(**{**spot, **changes}) for name, changes in cases.items()}
    for name, environment in environments.items():
        monkeypatch.setattr(files, "read", lambda _name, environment=environment: environment)  # pyrefly: ignore
        last = Ran(capsys, "cost", "--environment", "staging").steps[-1]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", last["prices_of"])
        assert last["dollars_a_million_requests"] > 0
        sums[name] = last["dollars_a_month"]
    assert sums["at night off"] < sums["small"] < min(sums["x86"], sums["on demand"], sums["standby"])
    assert sums["proxy"] - sums["small"] == pytest.approx(2 * 0.015 * 730)  # of the two processors of a t4g.medium


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"platform__database_instance": "r9z.large"}, "r9z.large"),
        ({"service__capacity": "EC2", "platform__instances": 12, "platform__instance_type": "m9g.large"}, "m9g.large"),
    ],
)
def test_what_has_no_price_is_not_counted_as_free(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: str
) -> None:
    environment = changed(**changes)
    monkeypatch.setattr(files, "read", lambda _name: environment)  # pyrefly: ignore
    ran = command(capsys, "cost")
    assert (ran.status, ran.steps) == (1, [])
    assert ran.err == f"deploy.release: no price for {kind}: add it to deploy/release/prices.toml\n"


def test_status_shows_what_runs_and_what_there_is(aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    command(capsys, "release", push(aws, "build-2"))
    ran = command(capsys, "status")
    known = [each for each in ran.steps if each["step"] == "known"]
    assert [(each["release"], bool(each["deployed_at"])) for each in known] == [
        ("3+build-2", False),
        ("2+build-1", True),
    ]
    assert ran.steps[-1] | {"tasks": 0} == {
        "step": "status",
        "running": 2,
        "digest": digest,
        "tasks": 0,
        "deployment": None,
        "scaling": "on",
    }


def test_a_missing_stack_is_one_line(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    del cloud
    ran = command(capsys, "status")
    assert (ran.status, ran.err) == (1, f"deploy.release: there is no stack {STACK} in {REGION}: deploy it first\n")
    ran = Ran(capsys, "status", "--environment", "nowhere")
    assert ran.err == "deploy.release: there is no environment 'nowhere': deploy/ has production, staging\n"


def test_a_stack_whose_creation_failed_is_one_line(cloud: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    empty = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    cloud.client("cloudformation").create_stack(StackName=STACK, TemplateBody=empty)
    assert command(capsys, "status").err == (
        f"deploy.release: the stack {STACK} is CREATE_COMPLETE, without outputs: deploy it first\n"
    )


def test_a_command_that_is_interrupted_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_environment: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "cost", interrupt)
    ran = command(capsys, "cost")
    assert (ran.status, ran.err) == (130, "deploy.release: interrupted\n")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_ENDPOINT_URL": "foo"}, "Invalid endpoint: foo"),
        ({"AWS_MAX_ATTEMPTS": "abc"}, "invalid literal for int() with base 10: 'abc'"),
        ({"AWS_CONFIG_FILE": "config"}, "[Errno 2] No such file or directory: 'no-such-program'"),
    ],
)
def test_what_keeps_aws_from_being_asked_is_one_line(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    if "AWS_CONFIG_FILE" in settings:
        settings = {"AWS_CONFIG_FILE": str(tmp_path / "config")}
        (tmp_path / "config").write_text("[default]\ncredential_process = no-such-program\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.release", "status", "--environment", "staging"],
        env={**clean, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), **settings},
        cwd=config.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"deploy.release: AWS was not asked: {reason}\n"
