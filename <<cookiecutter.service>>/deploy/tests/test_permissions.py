"""The roles of the workflows and of the hooks allow what these do, and no more: their policies are enforced here."""

import json
import secrets
from collections.abc import Mapping
from typing import Any

import pytest

from deploy import hooks
from deploy.release import rollout
from deploy.release.target import Target
from deploy.tests.cloud import ACCOUNT, Cloud
from deploy.tests.commands import NAME, STACK, Checkout, Ran, command, cut_off, push
from deploy.tests.conftest import Stacks, once
from deploy.tests.permissions import allows, arn, enforced, several, statements
from deploy.tests.test_hooks import Context

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

PUSHING = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
}
"""What `docker buildx build --push` does. https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html"""

OTHERWISE = {
    "ecs:DeregisterTaskDefinition": "somebody else registers a revision at the same time",
    "ecs:StopTask": "a migration takes longer than half an hour",
}
"""What the release role is allowed for cases that do not occur here."""

OF_LAMBDA = ("ec2:", "logs:")
"""Services that Lambda itself calls with the role of a function, for its network interface and its log."""


def actions(allowed: list[dict[str, Any]]) -> set[str]:
    return {action for statement in allowed for action in several(statement["Action"])}


OF_THE_OTHER = {
    "CODE_DEPLOY": {
        "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions",
        "ecs:ListServiceDeployments",
        "ecs:StopServiceDeployment",
    },
    "ECS": {
        "codedeploy:ContinueDeployment",
        "codedeploy:CreateDeployment",
        "codedeploy:GetApplicationRevision",
        "codedeploy:GetDeployment",
        "codedeploy:GetDeploymentConfig",
        "codedeploy:GetDeploymentTarget",
        "codedeploy:ListDeploymentTargets",
        "codedeploy:ListDeployments",
        "codedeploy:RegisterApplicationRevision",
        "codedeploy:StopDeployment",
    },
}
"""What only the other controller needs, by controller: the role is the same for both."""


def test_the_release_role_may_do_what_the_workflow_does_and_no_more(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [digest, *(push(aws, f"build-{number}") for number in (2, 3))]
    allowed = statements(aws, STACK, "ReleaseRole")
    aws.client("ecs").update_service(cluster="platform-staging", service=NAME, desiredCount=1)
    with enforced(allowed) as used:
        for each in digests:
            assert command(capsys, "release", each).err == ""
            aws.blue_looks = 1  # the next one ends the time for which blue is kept
            assert command(capsys, "run").err == ""
            aws.blue_looks = 0
        assert command(capsys, "run").err == ""
        assert command(capsys, "release", "--again").err == ""
        cut_off(aws, capsys, monkeypatch)
        assert command(capsys, "rollback").err == ""  # stops it
        aws.script = "success"
        for name in ("rollback", "status"):
            assert command(capsys, name).err == ""
    assert actions(allowed) - used - OTHERWISE.keys() == OF_THE_OTHER[Target("staging").controller]


def test_the_release_role_may_not_touch_what_is_another_s(aws: Cloud) -> None:
    allowed = statements(aws, STACK, "ReleaseRole")
    for action, resource in (
        ("ecs:UpdateService", arn("ecs", "service/platform-staging/ledger")),
        ("ecs:RunTask", arn("ecs", "task-definition/ledger-staging:1")),
        ("ecs:RunTask", arn("ecs", f"task-definition/{STACK}-database:1")),  # it holds the master's password
        ("ecr:PutImage", arn("ecr", f"repository/{NAME}")),
        ("codedeploy:CreateDeployment", arn("codedeploy", "deploymentgroup:ledger-staging/ledger-staging")),
    ):
        assert not allows(allowed, action, resource)
    passed = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    assert not allows(allowed, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/another", passed)


@once
def test_a_request_that_the_role_lacks_is_refused_as_by_aws(aws: Cloud, capsys: pytest.CaptureFixture[str]) -> None:
    allowed = [each for each in statements(aws, STACK, "ReleaseRole") if "ecs:DescribeServices" not in each["Action"]]
    with enforced(allowed):
        ran = command(capsys, "status")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "AWS refused DescribeServices: AccessDeniedException" in ran.err


def test_the_build_role_may_do_what_the_build_does_and_no_more(
    checkout: Checkout,
    cloud: Cloud,
    all_stacks: Mapping[tuple[str, str], Stacks],
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloud.client("ecr").delete_repository(repositoryName=NAME)  # the stack creates it
    template = all_stacks["FARGATE", "CODE_DEPLOY"].paths["images"].read_text(encoding="utf-8")
    cloud.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    cloud.client("cloudformation").create_stack(
        StackName=f"{NAME}-images", TemplateBody=template, Capabilities=["CAPABILITY_IAM"]
    )
    allowed = statements(cloud, f"{NAME}-images", "BuildRole")
    with enforced(allowed) as used:
        for _ in range(2):
            assert Ran(capsys, "build").err == ""
    assert checkout.docker()
    assert actions(allowed) - used == PUSHING
    assert all(allows(allowed, action, arn("ecr", f"repository/{NAME}")) for action in PUSHING)
    assert not any(allows(allowed, action, arn("ecr", "repository/ledger")) for action in PUSHING)


def test_the_role_of_the_hooks_allows_what_they_do_and_no_more(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(capsys, "release", digest)
    cut_off(aws, capsys, monkeypatch)
    [function] = [
        each
        for each in aws.client("lambda").list_functions()["Functions"]
        if each["FunctionName"].endswith("-AfterInstall")
    ]
    for name, value in function["Environment"]["Variables"].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hooks, "TASKS_PATIENCE_SECONDS", 0)
    target = Target("staging")
    going = rollout.of(target).current()
    aws.client("ecs").run_task(
        cluster="platform-staging", taskDefinition=target.release(None).arn, launchType="FARGATE"
    )
    event: dict[str, Any] = (
        {"executionDetails": {"targetServiceRevisionArn": str(going).replace("service-deployment", "service-revision")}}
        if aws.native
        else {"DeploymentId": going, "LifecycleEventHookExecutionId": secrets.token_hex(4)}
    )
    allowed = statements(aws, STACK, "HookRole")
    with enforced(allowed) as used:
        assert hooks.before_install(event, Context(60)) == {"hookStatus": "SUCCEEDED"}
        hooks.after_install(event, Context(60))  # moto knows no zones
    assert "of 3 tasks run" in json.loads(capsys.readouterr().out.splitlines()[-1])["reason"]
    other = {"codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"}
    unused = {each for each in actions(allowed) - used if not each.startswith(OF_LAMBDA)}
    assert unused == (other if aws.native else {"ecs:DescribeServiceRevisions"})
