"""IAM for the tests: what a role's policies allow, by action, resource and equal texts in conditions.

moto can enforce policies too, but asks for every operation as if it were for all resources, so that no statement about
an ARN ever matches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from deploy import config
from deploy.tests.cloud import ACCOUNT, REGION, Cloud

STACK = f"{config.service_name()}-staging"

Arguments = dict[str, Any]
Resources = Callable[[Arguments], list[str]]


def arn(service: str, resource: str) -> str:
    """Return an ARN in the account and the region of the tests."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def _any(_given: Arguments) -> list[str]:
    return ["*"]


def _given(key: str) -> Resources:
    return lambda given: given[key] if isinstance(given[key], list) else [given[key]]


def _service(given: Arguments) -> list[str]:
    named = [given["service"]] if "service" in given else given["services"]
    return [arn("ecs", f"service/{given['cluster']}/{each}") for each in named]


def _group(_given: Arguments) -> list[str]:
    # Most operations name a deployment; there is one group of one application, and both have the stack's name.
    return [arn("codedeploy", f"deploymentgroup:{STACK}/{STACK}")]


RESOURCES: dict[str, Resources] = {
    "application-autoscaling:DescribeScalableTargets": _any,
    "application-autoscaling:RegisterScalableTarget": lambda _: [arn("application-autoscaling", "scalable-target/1")],
    "cloudformation:DescribeStacks": lambda given: [arn("cloudformation", f"stack/{given['StackName']}/1")],
    "codedeploy:ContinueDeployment": _group,
    "codedeploy:CreateDeployment": _group,
    "codedeploy:GetDeployment": _group,
    "codedeploy:GetDeploymentTarget": _group,
    "codedeploy:ListDeploymentTargets": _group,
    "codedeploy:ListDeployments": _group,
    "codedeploy:PutLifecycleEventHookExecutionStatus": _group,
    "codedeploy:StopDeployment": _group,
    "ecr:DescribeImages": lambda given: [arn("ecr", f"repository/{given['repositoryName']}")],
    "ecr:DescribeRepositories": lambda given: [arn("ecr", f"repository/{each}") for each in given["repositoryNames"]],
    "ecr:GetAuthorizationToken": _any,
    "ecs:DeregisterTaskDefinition": _any,
    "ecs:DescribeServiceDeployments": _given("serviceDeploymentArns"),
    "ecs:DescribeServiceRevisions": _given("serviceRevisionArns"),
    "ecs:DescribeServices": _service,
    "ecs:DescribeTaskDefinition": _any,
    "ecs:DescribeTasks": _given("tasks"),
    "ecs:ListServiceDeployments": _service,
    "ecs:ListTaskDefinitions": _any,
    "ecs:ListTasks": _any,
    "ecs:RegisterTaskDefinition": lambda given: [arn("ecs", f"task-definition/{given['family']}:1")],
    "ecs:RunTask": _given("taskDefinition"),
    "ecs:StopServiceDeployment": _given("serviceDeploymentArn"),
    "ecs:StopTask": _given("task"),
    "ecs:TagResource": _given("resourceArn"),
    "ecs:UntagResource": _given("resourceArn"),
    "ecs:UpdateService": _service,
    "logs:GetLogEvents": lambda given: [
        arn("logs", f"log-group:{given['logGroupName']}:log-stream:{given['logStreamName']}")
    ],
    "secretsmanager:GetSecretValue": _given("SecretId"),
}
"""The resources of a request, by action: `*` where AWS knows none.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""


def statements(cloud: Cloud, stack: str, role: str) -> list[dict[str, Any]]:
    """Return the statements of the inline policies of the role with the logical id `role…` in a stack."""
    resources = cloud.client("cloudformation").list_stack_resources(StackName=stack)["StackResourceSummaries"]
    [name] = [
        each["PhysicalResourceId"]
        for each in resources
        if each["ResourceType"] == "AWS::IAM::Role" and each["LogicalResourceId"].startswith(role)
    ]
    iam = cloud.client("iam")
    policies = [
        iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    return [statement for policy in policies for statement in policy["Statement"]]


def several(value: str | list[str]) -> list[str]:
    """Return one text or several as a list."""
    return [value] if isinstance(value, str) else value


def allows(allowed: list[dict[str, Any]], action: str, resource: str, context: dict[str, str] | None = None) -> bool:
    """Return whether statements allow an action on a resource. `context` is what conditions look at."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatchcase(action, pattern) for pattern in several(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in several(statement["Resource"]))
        and set(statement.get("Condition", {})) <= {"StringEquals"}
        and statement.get("Condition", {}).get("StringEquals", {}).items() <= (context or {}).items()
        for statement in allowed
    )


@contextmanager
def enforced(allowed: list[dict[str, Any]]) -> Iterator[set[str]]:
    """Refuse every request that statements do not allow, as AWS does, and yield the set of actions that were used."""
    used: set[str] = set()
    original: Any = getattr(BaseClient, "_make_api_call")  # noqa: B009 - every request of boto3 goes through it

    def call(client: Any, operation: str, given: Arguments) -> Any:
        for action, resource, context in needed(f"{client.meta.service_model.service_name}:{operation}", given):
            if not allows(allowed, action, resource, context):
                message = f"not authorized to perform {action} on {resource}"
                raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": message}}, operation)
            used.add(action)
        return original(client, operation, given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", call)
        yield used


def needed(action: str, given: Arguments) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield what a request needs: actions, with the resource and the context of each."""
    nothing: dict[str, str] = {}
    context = {"application-autoscaling:service-namespace": str(given.get("ServiceNamespace"))}
    for resource in RESOURCES[action](given):
        yield action, resource, context
    if action == "ecs:RegisterTaskDefinition":
        for role in (given["taskRoleArn"], given["executionRoleArn"]):
            yield "iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
        for resource in RESOURCES[action](given) if given.get("tags") else []:
            yield "ecs:TagResource", resource, nothing
    if action == "codedeploy:CreateDeployment":
        # https://docs.aws.amazon.com/codedeploy/latest/userguide/auth-and-access-control-permissions-reference.html
        yield "codedeploy:RegisterApplicationRevision", arn("codedeploy", f"application:{STACK}"), nothing
        yield "codedeploy:GetApplicationRevision", arn("codedeploy", f"application:{STACK}"), nothing
        pace = arn("codedeploy", "deploymentconfig:CodeDeployDefault.ECSAllAtOnce")
        yield "codedeploy:GetDeploymentConfig", pace, nothing
