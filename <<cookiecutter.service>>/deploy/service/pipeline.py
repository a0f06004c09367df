"""Roles that the workflows on GitHub assume by OIDC, so that no key is stored: one builds, one releases.

Each may do what its commands do, and is trusted from one place only: `main`, or a GitHub environment.
https://docs.github.com/en/actions/how-tos/secure-your-work/security-harden-deployments/oidc-in-aws
"""

import re
from typing import Any

from aws_cdk import ArnFormat, CfnOutput, Duration, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam

from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import shared
from deploy.service.arns import codedeploy_arn, ecs_arn

ISSUER = "token.actions.githubusercontent.com"

SESSION_SECONDS = 7_200
"""As long as the workflow asks for: `role-duration-seconds`."""


def build_role(stack: Stack, environment: Environment, repository: ecr.Repository) -> None:
    """Create the role that pushes images, for workflows on `main`."""
    if not environment.repository:
        return
    made = _role(stack, environment, "BuildRole", "ref:refs/heads/main", "Builds and pushes images")
    repository.grant_pull_push(made)
    repository.grant(made, "ecr:DescribeImages", "ecr:DescribeRepositories")
    acknowledge(made, ("AwsSolutions-IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource."))


def release_role(stack: Stack, environment: Environment, task: ecs.TaskDefinition) -> None:
    """Create the role that releases, for workflows in the GitHub environment of the same name."""
    if not environment.repository:
        return
    made = _role(stack, environment, "ReleaseRole", f"environment:{environment.name}", "Releases, runs and rolls back")
    for actions, resources, conditions in _statements(stack, environment, task):
        made.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
    stars = [each for _, resources, _ in _statements(stack, environment, task) for each in resources if "*" in each]
    acknowledge(
        made,
        *(
            (f"AwsSolutions-IAM5[Resource::{_as_found(environment, each)}]", "Names of AWS, of this service.")
            for each in stars
        ),
    )


def _statements(
    stack: Stack, environment: Environment, task: ecs.TaskDefinition
) -> list[tuple[list[str], list[str], dict[str, Any]]]:
    cluster, name, family = shared(environment, "Cluster"), environment.service_name, environment.stack_name
    service = ecs_arn(stack, "service", cluster, name)
    tasks = ecs_arn(stack, "task", cluster, "*")
    # Not the one that creates the database: it knows the password of the server's master.
    definitions = [ecs_arn(stack, "task-definition", f"{family}:*")]
    passed = [each.role_arn for each in (task.task_role, task.execution_role) if each]
    stack_arn = stack.format_arn(service="cloudformation", resource="stack", resource_name=f"{family}/*")
    image = stack.format_arn(
        service="ecr", account=environment.images_account, resource="repository", resource_name=name
    )
    log = stack.format_arn(
        service="logs",
        resource="log-group",
        resource_name=f"{environment.log_group}:*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    return [
        (["cloudformation:DescribeStacks"], [stack_arn], {}),
        (["ecr:DescribeImages"], [image], {}),
        (["ecs:DescribeServices", "ecs:UpdateService", "ecs:ListServiceDeployments"], [service], {}),
        (
            ["ecs:DescribeServiceDeployments", "ecs:DescribeServiceRevisions", "ecs:StopServiceDeployment"],
            [
                ecs_arn(stack, "service-deployment", cluster, name, "*"),
                ecs_arn(stack, "service-revision", cluster, name, "*"),
            ],
            {},
        ),
        (["ecs:RunTask", "ecs:TagResource", "ecs:UntagResource", "ecs:RegisterTaskDefinition"], definitions, {}),
        (["ecs:DescribeTasks", "ecs:StopTask"], [tasks], {}),
        (
            [
                "codedeploy:CreateDeployment",
                "codedeploy:GetDeployment",
                "codedeploy:ListDeployments",
                "codedeploy:StopDeployment",
                "codedeploy:ContinueDeployment",
                "codedeploy:ListDeploymentTargets",
                "codedeploy:GetDeploymentTarget",
                "codedeploy:GetDeploymentConfig",
                "codedeploy:GetApplicationRevision",
                "codedeploy:RegisterApplicationRevision",
            ],
            [
                codedeploy_arn(stack, "application", family),
                codedeploy_arn(stack, "deploymentgroup", f"{family}/{family}"),
                codedeploy_arn(stack, "deploymentconfig", "CodeDeployDefault.*"),
            ],
            {},
        ),
        (["logs:GetLogEvents"], [log], {}),
        (["iam:PassRole"], passed, {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}),
        # These have no resource.
        (
            [
                "ecs:DescribeTaskDefinition",
                "ecs:ListTaskDefinitions",
                "ecs:DeregisterTaskDefinition",
                "application-autoscaling:DescribeScalableTargets",
            ],
            ["*"],
            {},
        ),
        (
            ["application-autoscaling:RegisterScalableTarget"],
            [stack.format_arn(service="application-autoscaling", resource="scalable-target", resource_name="*")],
            {"StringEquals": {"application-autoscaling:service-namespace": "ecs"}},
        ),
    ]


def _role(stack: Stack, environment: Environment, name: str, sub: str, description: str) -> iam.Role:
    provider = stack.format_arn(service="iam", region="", resource="oidc-provider", resource_name=ISSUER)
    principal: Any = iam.WebIdentityPrincipal(
        provider,
        {
            "StringEquals": {
                f"{ISSUER}:aud": "sts.amazonaws.com",
                f"{ISSUER}:sub": f"repo:{environment.repository}:{sub}",
            }
        },
    )
    made = iam.Role(
        stack,
        name,
        assumed_by=principal,
        description=description,
        max_session_duration=Duration.seconds(SESSION_SECONDS),
    )
    CfnOutput(stack, f"{name}Output", value=made.role_arn).override_logical_id(f"{name}Arn")
    return made


def _as_found(environment: Environment, arn: str) -> str:
    """Return an ARN as cdk-nag writes it. The cluster's name is the only token in it beside the partition."""
    partition = re.sub(r"\$\{Token\[AWS\.Partition\.\d+\]\}", "<AWS::Partition>", arn)
    return re.sub(r"\$\{Token\[\S+?\]\}", f"{environment.platform_name}-Cluster", partition)
