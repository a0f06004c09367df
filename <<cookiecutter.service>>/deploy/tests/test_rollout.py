"""A release is deployed or rolled back by either controller, against moto's server."""

from typing import Any

import pytest

from deploy.release import rollout, scaling
from deploy.release.target import Target
from deploy.tests.cloud import ACCOUNT, REGION, Cloud
from deploy.tests.commands import NAME, STACK, command, cut_off, push, running
from deploy.tests.conftest import once

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


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
    command(capsys, "release", digest)
    command(capsys, "run")
    aws.client("application-autoscaling").register_scalable_target(  # as a run that was killed leaves it
        ServiceNamespace="ecs",
        ResourceId=f"service/platform-staging/{NAME}",
        ScalableDimension="ecs:service:DesiredCount",
        SuspendedState=dict.fromkeys(scaling.KINDS, True),
    )
    again = command(capsys, "run")
    assert (again.status, again.steps) == (0, [{"step": "run", "release": "2+build-1", "status": "succeeded"}])
    assert not scaling.is_suspended(Target("staging"))


def test_a_command_that_was_cut_off_goes_on_where_the_deployment_is(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    cut_off(aws, capsys, monkeypatch)
    aws.script = "success"
    again = command(capsys, "run")
    assert again.status == 0
    assert {each["step"] for each in again.steps} == {"event", "run"}


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


@once
def test_rollback_passes_over_the_releases_of_an_environment_that_was_torn_down(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "release", digest)
    command(capsys, "run")
    ecs = aws.client("ecs")
    described = ecs.describe_task_definition(taskDefinition=f"{STACK}:2", include=["TAGS"])
    left = ecs.register_task_definition(
        family=STACK,
        containerDefinitions=described["taskDefinition"]["containerDefinitions"],
        executionRoleArn=f"arn:aws:iam::{ACCOUNT}:role/deleted",
    )
    command(capsys, "release", push(aws, "build-2"))
    command(capsys, "run")
    ecs.tag_resource(resourceArn=left["taskDefinition"]["taskDefinitionArn"], tags=described["tags"])
    assert command(capsys, "rollback").status == 0
    assert running(aws) == f"{STACK}:2"  # not the third, whose role is deleted


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
