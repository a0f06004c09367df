"""The release command, from the build to the rollback, against moto's server."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from moto.moto_api import state_manager

from deploy import config, files
from deploy.release import __main__ as program
from deploy.release import releases, rollout, scaling
from deploy.release.target import Target
from deploy.tests.cloud import ACCOUNT, REGION, Cloud
from deploy.tests.conftest import Stacks, changed, deploy

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

NAME = config.service_name()
STACK = f"{NAME}-staging"

DOCKER = f"""#!{sys.executable}
import hashlib, json, os, sys
import boto3

with open(os.environ["DOCKER_LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "login":
    sys.exit(0 if sys.stdin.read() else 1)
if sys.argv[2] == "inspect":
    sys.exit(1)
if sys.argv[2] == "create":
    sys.exit(0)
if os.environ.get("DOCKER_FAILS"):
    sys.exit(17)
values = dict(each.split("=", 1) for each in sys.argv if each.startswith("--") and "=" in each)
name, tag = values["--tag"].rpartition("/")[2].split(":")
layers = [dict(digest="sha256:" + hashlib.sha256(tag.encode()).hexdigest())]
kind = "application/vnd.oci.image.index.v1+json"
manifest = json.dumps(dict(schemaVersion=2, mediaType=kind, layers=layers))
pushed = boto3.client("ecr").put_image(repositoryName=name, imageTag=tag, imageManifest=manifest)
with open(values["--metadata-file"], "w") as file:
    json.dump({{"containerimage.digest": pushed["image"]["imageId"]["imageDigest"]}}, file)
"""
"""Stands for docker: it writes down what it is told, and puts an image into moto's registry, which has no bytes."""


@pytest.fixture(params=["CODE_DEPLOY", "ECS"])
def aws(
    request: pytest.FixtureRequest,
    cloud: Cloud,
    all_stacks: Mapping[tuple[str, str], Stacks],
    monkeypatch: pytest.MonkeyPatch,
) -> Cloud:
    """AWS with the stacks, for both controllers."""
    stacks = all_stacks["FARGATE", request.param]
    deploy(cloud, stacks)
    monkeypatch.setattr("deploy.release.target.POLL_SECONDS", 0.01)
    return cloud


once = pytest.mark.parametrize("aws", ["CODE_DEPLOY"], indirect=True)
"""For what does not depend on the controller."""


@pytest.fixture
def digest(aws: Cloud) -> str:
    """Push an image into the repository, and return its digest."""
    return push(aws, "build-1")


def push(aws: Cloud, tag: str) -> str:
    # With a layer, since moto derives the digest from those; without any it draws one of 101, and two may be equal.
    layers = [{"digest": f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"}]
    kind = "application/vnd.oci.image.index.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": layers})
    pushed = aws.client("ecr").put_image(repositoryName=NAME, imageTag=tag, imageManifest=manifest)
    return str(pushed["image"]["imageId"]["imageDigest"])


class Ran:
    """What a command said and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = program.main(list(arguments))
        out, self.err = capsys.readouterr()
        self.steps = [json.loads(line) for line in out.splitlines()]


def command(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> Ran:
    return Ran(capsys, name, "--environment", "staging", *arguments)


def running(aws: Cloud) -> str:
    [service] = aws.client("ecs").describe_services(cluster="platform-staging", services=[NAME])["services"]
    primary = [each for each in service.get("taskSets", []) if each["status"] == "PRIMARY"]
    return str((primary or [service])[0]["taskDefinition"].rpartition("/")[2])


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


def test_run_migrates_from_the_revision_and_follows_the_deployment(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "release", digest)
    ran = command(capsys, "run")
    assert (ran.status, ran.err) == (0, "")
    steps = [(each["step"], each["status"]) for each in ran.steps]
    assert steps[:4] == [("migrate", "starting"), ("migrate", "running"), ("migrate", "ended"), ("deploy", "started")]
    assert steps[-1] == ("run", "succeeded")
    events = [each["event"] for each in ran.steps if each["step"] == "event"]
    assert "AfterAllowTestTraffic" in events
    assert running(aws) == f"{STACK}:2"
    ecs = aws.client("ecs")
    [task] = ecs.describe_tasks(cluster="platform-staging", tasks=[ran.steps[1]["task"]])["tasks"]
    assert task["taskDefinitionArn"].endswith(f"{STACK}:2")
    assert task["overrides"]["containerOverrides"] == [
        {"name": "web", "command": ["python", "-m", "service.admin", "migrate"]}
    ]


@once
def test_run_brings_a_new_service_to_its_least_number_of_tasks(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ecs = aws.client("ecs")
    ecs.update_service(cluster="platform-staging", service=NAME, desiredCount=1)
    command(capsys, "release", digest)
    command(capsys, "run")
    [service] = ecs.describe_services(cluster="platform-staging", services=[NAME])["services"]
    assert service["desiredCount"] == 3


def test_a_release_that_runs_is_not_run_again(aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    del aws
    command(capsys, "release", digest)
    command(capsys, "run")
    again = command(capsys, "run")
    assert (again.status, again.steps) == (0, [{"step": "run", "release": "2+build-1", "status": "succeeded"}])


def cut_off(aws: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the newest release, and leave in the middle of its deployment."""
    aws.script = "endless"
    with monkeypatch.context() as patch:
        patch.setattr("deploy.release.rollout.pause", lambda: sys.exit("cut off"))
        with pytest.raises(SystemExit):
            command(capsys, "run")
    capsys.readouterr()


def test_a_command_that_was_cut_off_goes_on_where_the_deployment_is(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    cut_off(aws, capsys, monkeypatch)
    aws.script = "success"
    again = command(capsys, "run")
    assert again.status == 0
    assert {each["step"] for each in again.steps} == {"event", "run"}


@once
def test_a_failed_migration_leaves_the_traffic_alone(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moto.ecs.models.Container.exitCode", 1, raising=False)
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=1))
    command(capsys, "release", digest)
    ran = command(capsys, "run")
    assert ran.status == 1
    assert ran.err == "deploy.release: the migration of release 2+build-1 ended with status 1: see above\n"
    assert running(aws) != f"{STACK}:2"


@once
def test_a_task_that_never_starts_says_why(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del aws
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=None))
    monkeypatch.setattr("moto.ecs.models.Task.stopped_reason", "CannotPullContainerError: no such image", raising=False)
    command(capsys, "release", digest)
    ran = command(capsys, "run")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "migrate: the task never started: " in ran.err


def failing(exit_code: int | None) -> Any:
    """Return a constructor of moto's container that ends with `exit_code`; `None` if it never ran."""
    from moto.ecs.models import Container  # noqa: PLC0415 - its constructor is about to be replaced

    original = Container.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.exitCode = exit_code

    return made


@pytest.mark.parametrize("script", ["failing hook", "alarm", "stopped"])
def test_a_deployment_that_fails_says_which_event_why_and_where_the_logs_are(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    before = running(aws)
    command(capsys, "release", digest)
    aws.script = script
    ran = command(capsys, "run")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert f"/ecs/staging/{NAME}" in ran.err
    if aws.native:
        assert "ended as ROLLBACK_SUCCESSFUL: AfterAllowTestTraffic failed: a lifecycle hook said FAILED" in ran.err
    else:
        expected = {
            "failing hook": "ended as Failed: AfterAllowTestTraffic failed: the hook said Failed; HOOK_EXECUTION",
            "alarm": "ended as Stopped: ALARM_ACTIVE: the alarm Errors5xx is active",
            "stopped": "ended as Stopped: MANUAL_STOP: stopped by somebody",
        }
        assert expected[script] in ran.err
        assert "brings blue back" in ran.err
        assert running(aws) == before
    if script == "failing hook":
        assert f"/aws/lambda/{STACK}-AfterAllowTestTraffic" in ran.err


def test_a_deployment_that_is_rejected_says_so(aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "release", digest)
    aws.script = "rejected"
    ran = command(capsys, "run")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert ran.err.startswith("deploy.release: the deployment was rejected: ")


def test_another_deployment_that_is_not_over_is_left_alone(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    cut_off(aws, capsys, monkeypatch)
    assert command(capsys, "release", push(aws, "build-2")).status == 0
    ran = command(capsys, "run")
    assert "is not over: wait for it, or end it with `rollback`" in ran.err


def test_rollback_brings_the_release_before_back_and_the_next_one_goes_further(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in (digest, push(aws, "build-2"), push(aws, "build-3")):
        command(capsys, "release", each)
        assert command(capsys, "run").status == 0
    assert running(aws) == f"{STACK}:4"
    ran = command(capsys, "rollback")
    assert (ran.status, ran.steps[0]["release"], running(aws)) == (0, "3+build-2", f"{STACK}:3")
    command(capsys, "release", push(aws, "build-4"))
    assert command(capsys, "run").status == 0
    assert command(capsys, "rollback").status == 0
    assert running(aws) == f"{STACK}:3"  # not the fourth, which was left behind
    assert command(capsys, "rollback").status == 0
    assert running(aws) == f"{STACK}:2"
    last = command(capsys, "rollback")
    assert (last.status, last.err) == (1, f"deploy.release: {STACK} has no release before the one that runs\n")


def test_rollback_ends_a_deployment_that_goes_on(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = running(aws)
    command(capsys, "release", digest)
    cut_off(aws, capsys, monkeypatch)
    ran = command(capsys, "rollback")
    assert (ran.status, ran.err) == (0, "")
    assert ran.steps[-1] == {"step": "rollback", "status": "succeeded"}
    if not aws.native:
        assert running(aws) == before
    assert not rollout.of(Target("staging")).current()


def test_run_ends_when_green_has_the_traffic_and_the_next_one_does_not_wait_for_blue(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aws.blue_looks = 1_000
    command(capsys, "release", digest)
    assert command(capsys, "run").status == 0
    assert running(aws) == f"{STACK}:2"
    assert rollout.of(Target("staging")).current()  # blue is kept
    if aws.native:
        aws.blue_looks = 0  # ECS cannot be told to end the bake time
    command(capsys, "release", push(aws, "build-2"))
    ran = command(capsys, "run")
    assert (ran.status, ran.err, ran.steps[0]["step"]) == (0, "", "finish")
    assert running(aws) == f"{STACK}:3"


@once
@pytest.mark.parametrize("script", ["success", "failing hook"])
def test_scaling_is_suspended_while_traffic_is_moved_and_resumed_whatever_happens(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    command(capsys, "release", digest)
    aws.script = script
    seen: list[bool] = []
    follow = rollout.follow

    def look(*arguments: Any) -> None:
        seen.append(scaling.is_suspended(Target("staging")))
        follow(*arguments)

    monkeypatch.setattr("deploy.release.rollout.follow", look)
    command(capsys, "run")
    assert seen == [True]
    assert not scaling.is_suspended(Target("staging"))


@once
def test_a_rollback_and_a_hotfix_go_in_while_an_alarm_is_raised(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in (digest, push(aws, "build-2")):
        command(capsys, "release", each)
        command(capsys, "run")
    command(capsys, "rollback")
    command(capsys, "release", push(aws, "build-3"))
    command(capsys, "run", "--despite-alarms")
    overridden = [
        request.get("overrideAlarmConfiguration") for name, request in aws.requests if name == "CreateDeployment"
    ]
    ignored: dict[str, Any] = {"enabled": False, "ignorePollAlarmFailure": True, "alarms": []}
    assert overridden == [None, None, ignored, ignored]


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


@once
def test_a_new_user_of_the_database_is_created_by_a_task(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del digest
    ran = command(capsys, "database", "--rotate")
    assert (ran.status, ran.err) == (0, "")
    secret = aws.client("secretsmanager").get_secret_value(SecretId=f"staging/{NAME}/database")["SecretString"]
    assert json.loads(secret)["username"] == f"{NAME}_2"
    [task] = aws.client("ecs").describe_tasks(cluster="platform-staging", tasks=[ran.steps[1]["task"]])["tasks"]
    assert task["taskDefinitionArn"].rpartition("/")[2] == f"{STACK}-database:1"


@once
def test_a_new_user_is_refused_where_tasks_use_a_proxy_that_knows_the_old_one_only(
    aws: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied = changed(service__database_proxy=True, service__database_proxy_connections=40)
    monkeypatch.setattr(files, "read", lambda _name: proxied)  # pyrefly: ignore
    secrets, name = aws.client("secretsmanager"), f"staging/{NAME}/database"
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    ran = command(capsys, "database", "--rotate")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "set database_proxy = false, deploy the stack, release and run first" in ran.err
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == before


@once
def test_a_shell_has_a_root_that_can_be_written_to_and_ends_by_itself(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 2})
    try:
        ran = command(capsys, "shell")
    finally:
        state_manager.unset_transition("ecs::task")
    assert (ran.status, ran.err) == (0, "")
    assert ran.steps[-1]["command"].startswith("aws ecs execute-command --region eu-central-1")
    task = aws.client("ecs").describe_task_definition(taskDefinition=f"{STACK}-shell")["taskDefinition"]
    [container] = task["containerDefinitions"]
    assert container["command"] == ["sleep", "3600"]
    assert not container["readonlyRootFilesystem"]


@once
@pytest.mark.parametrize("arguments", [("admin", "--", "check"), ("shell",)])
def test_a_task_that_aws_does_not_know_yet_is_waited_for(
    aws: Cloud,
    digest: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    # Right after RunTask, DescribeTasks may find nothing.
    answers: list[Any] = [{"tasks": [], "failures": [{"reason": "MISSING"}]}]
    if arguments == ("shell",):
        answers.insert(0, {"tasks": [{"lastStatus": "RUNNING"}]})

    def answer(_request: dict[str, Any]) -> Any:
        return answers.pop() if answers else None

    monkeypatch.setattr(aws, "on_DescribeTasks", answer, raising=False)
    name, *rest = arguments
    ran = command(capsys, name, *rest)
    assert (ran.status, ran.err, answers) == (0, "", [])


@once
def test_a_shell_that_does_not_start_is_not_waited_for_without_end(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")

    def answer(_request: dict[str, Any]) -> Any:
        return {"tasks": [{"lastStatus": "PROVISIONING"}]}

    monkeypatch.setattr(aws, "on_DescribeTasks", answer, raising=False)
    monkeypatch.setattr("deploy.release.task.TASK_SECONDS", 0)
    ran = command(capsys, "shell")
    assert (ran.status, ran.err) == (
        1,
        f"deploy.release: shell: stopped after 0 s; its log is in /ecs/staging/{NAME}\n",
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


@once
def test_admin_brings_back_the_log_and_the_exit_status(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    logs = aws.client("logs")
    ecs = aws.client("ecs")

    def write(*_arguments: Any, **_options: Any) -> None:
        [task] = ecs.list_tasks(cluster="platform-staging", startedBy="deploy.release")["taskArns"][-1:]
        stream = f"ecs/web/{task.rpartition('/')[2]}"
        group = f"/ecs/staging/{NAME}"
        if stream not in [
            each["logStreamName"] for each in logs.describe_log_streams(logGroupName=group)["logStreams"]
        ]:
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            event = {"timestamp": int(time.time() * 1_000), "message": '{"body": "the schema lacks 0002.sql"}'}
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    monkeypatch.setattr("deploy.release.target.time.sleep", write)
    monkeypatch.setattr("moto.ecs.models.Container.__init__", failing(exit_code=78))
    ran = command(capsys, "admin", "--", "check")
    assert ran.status == 78
    assert '{"body": "the schema lacks 0002.sql"}' in ran.err.splitlines()
    assert ran.steps[-1]["exit_status"] == 78


@once
def test_the_appspec_has_codedeploy_s_fields_and_no_other(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "release", digest)
    target = Target("staging")
    spec = rollout.appspec(target, target.release(None))
    # https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-resources.html
    assert spec["version"] == 0.0
    assert set(spec) == {"version", "Resources", "Hooks"}
    [resource] = spec["Resources"]
    [(_, service)] = resource.items()
    assert service["Type"] == "AWS::ECS::Service"
    required, optional = {"TaskDefinition", "LoadBalancerInfo"}, {"PlatformVersion", "NetworkConfiguration"}
    properties = set(service["Properties"])
    assert required <= properties <= required | optional | {"CapacityProviderStrategy"}
    assert service["Properties"]["LoadBalancerInfo"] == {"ContainerName": "web", "ContainerPort": 8000}
    assert service["Properties"]["TaskDefinition"].startswith(
        f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{STACK}:"
    )
    hooks = [(event, function) for each in spec["Hooks"] for event, function in each.items()]
    assert [event for event, _ in hooks] == [
        "BeforeInstall",
        "AfterInstall",
        "AfterAllowTestTraffic",
        "BeforeAllowTraffic",
        "AfterAllowTraffic",
    ]
    functions = {each["FunctionName"] for each in aws.client("lambda").list_functions()["Functions"]}
    assert {function for _, function in hooks} == {name for name in functions if name.startswith(STACK)}
    target.capacity = "FARGATE_SPOT"
    [resource] = rollout.appspec(target, target.release(None))["Resources"]
    assert resource["TargetService"]["Properties"]["CapacityProviderStrategy"] == [
        {"Base": 0, "CapacityProvider": "FARGATE_SPOT", "Weight": 1}
    ]


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


class Checkout:
    """A commit of the service, a docker that is none, and a repository for images."""

    def __init__(self, folder: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder / "checkout", folder / "docker.log"
        self.folder.mkdir()
        (self.folder / "deploy").mkdir()
        for name in ("pyproject.toml", "Dockerfile", "deploy/staging.toml", "deploy/production.toml"):
            (self.folder / name).write_text((config.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
        for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
            subprocess.run(["git", *words], cwd=self.folder, check=True)  # noqa: S607 - as the command itself
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "docker").write_text(DOCKER, encoding="utf-8")
        (binaries / "docker").chmod(0o755)
        monkeypatch.setattr(config, "ROOT", self.folder)
        monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_LOG", str(self.log))
        for name in ("CODEBUILD_BUILD_ID", "GITHUB_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        cloud.client("ecr").create_repository(repositoryName=NAME, imageTagMutability="IMMUTABLE")

    def docker(self) -> list[list[str]]:
        """Return the arguments of docker, call by call."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def commit(self) -> str:
        """Return the name of the commit."""
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - so
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, cloud, monkeypatch)


def test_build_pushes_one_image_under_a_unique_tag_and_says_its_digest(
    checkout: Checkout, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (0, "")
    tag = f"build-{checkout.commit()[:12]}"
    [image] = cloud.client("ecr").describe_images(repositoryName=NAME)["imageDetails"]
    assert (image["imageTags"], image["imageDigest"]) == ([tag], ran.steps[-1]["digest"])
    login, _, create, build = checkout.docker()
    assert create == ["buildx", "create", "--name=deploy-release", "--driver=docker-container"]
    registry = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
    assert login == ["login", "--username", "AWS", "--password-stdin", registry]
    assert build[:2] == ["buildx", "build"]
    assert {
        "--push",
        "--builder=deploy-release",
        "--platform=linux/arm64",
        "--sbom=true",
        "--provenance=mode=max",
        f"--build-arg=RELEASE={tag}",
        f"--tag={registry}/{NAME}:{tag}",
    } <= set(build)
    assert f"--build-arg=REVISION={checkout.commit()}" in build


@pytest.mark.parametrize(
    ("variable", "tag"),
    [(("CODEBUILD_BUILD_ID", "orders:0f3c-11"), "build-0f3c-11"), (("GITHUB_RUN_ID", "1234567"), "build-1234567")],
)
@pytest.mark.usefixtures("checkout")
def test_the_tag_has_the_id_of_the_run_that_builds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str], tag: str
) -> None:
    monkeypatch.setenv(*variable)
    assert Ran(capsys, "build").steps[-1]["tag"] == tag


def test_a_build_that_is_repeated_takes_the_image_that_there_is(
    checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Ran(capsys, "build")
    calls = len(checkout.docker())
    again = Ran(capsys, "build")
    assert (first.status, again.status) == (0, 0)
    assert again.steps[-1] == {**first.steps[-1], "status": "was there"}
    assert [call[0] for call in checkout.docker()[calls:]] == []


def test_a_dirty_tree_is_refused(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout.folder / "new.txt").touch()
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (
        1,
        "deploy.release: the tree is dirty, so no commit says what the image is made of: ?? new.txt\n",
    )
    assert not checkout.log.exists()


def test_a_build_that_fails_ends_with_its_status(
    checkout: Checkout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del checkout
    monkeypatch.setenv("DOCKER_FAILS", "1")
    ran = Ran(capsys, "build")
    assert (ran.status, ran.err) == (1, "deploy.release: docker buildx build ended with status 17\n")


def test_a_missing_repository_says_which_stack_makes_it(
    checkout: Checkout, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    del checkout
    cloud.client("ecr").delete_repository(repositoryName=NAME)
    assert f"deploy the stack {NAME}-images first" in Ran(capsys, "build").err
