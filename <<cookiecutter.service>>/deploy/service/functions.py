"""The Lambda functions that test green: one for each lifecycle event, all made of `deploy/hooks.py`."""

import re
from typing import Any

from aws_cdk import Duration, IgnoreMode, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs

from deploy import config, lifecycle
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import shared
from deploy.roles import role
from deploy.service.arns import codedeploy_arn, ecs_arn, wildcard
from deploy.service.routing import security_group

HOOK_SECONDS = 300
"""Timeout of one hook. CodeDeploy waits up to an hour for its result; ECS calls it again after that."""

PACKAGED = ["deploy/__init__.py", "deploy/checks.py", "deploy/client.py", "deploy/hooks.py", "deploy/smoke.py"]
"""What the functions consist of."""


def functions(stack: Stack, environment: Environment, vpc: ec2.IVpc) -> dict[str, lambda_.Function]:
    """Create the functions, and return them by lifecycle event."""
    code = lambda_.Code.from_asset(
        str(config.ROOT),
        ignore_mode=IgnoreMode.GIT,  # by default a star does not match dotfiles
        exclude=["*", "!deploy", "deploy/*", *(f"!{path}" for path in PACKAGED)],
    )
    common = {
        "role": _role(stack, environment),
        "code": code,
        "vpc": vpc,
        "security_groups": [security_group(stack, environment, "HooksSecurityGroup")],
    }
    return {event: _function(stack, environment, event, common) for event in lifecycle.EVENTS}


def _function(stack: Stack, environment: Environment, event: str, common: dict[str, Any]) -> lambda_.Function:
    log_group = logs.LogGroup(
        stack,
        f"{event}Logs",
        log_group_name=f"/aws/lambda/{environment.function_name(event)}",
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=RemovalPolicy.DESTROY,
    )
    log_group.grant_write(common["role"])
    return lambda_.Function(
        stack,
        event,
        function_name=environment.function_name(event),
        description=f"{event}: see deploy/hooks.py",
        runtime=lambda_.Runtime.PYTHON_3_14,
        architecture=lambda_.Architecture.ARM_64,
        handler=f"deploy.hooks.{_snake(event)}",
        **common,
        timeout=Duration.seconds(HOOK_SECONDS),
        memory_size=256,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        log_group=log_group,
        environment={
            "BASE_URL": f"https://{environment.service_name}.{environment.domain}",
            "TEST_PORT": str(config.TEST_PORT),
            "URL_PREFIX": environment.url_prefix,
            "LATENCY_BOUND_MS": str(environment.service.latency_bound_ms),
            "CLUSTER": shared(environment, "Cluster"),
            "FAMILY": environment.stack_name,
            "SERVICE": environment.service_name,
            "TOKEN_CREDENTIALS": environment.service.token_credentials,
        },
    )


def _role(stack: Stack, environment: Environment) -> iam.Role:
    made = role(stack, "HookRole", "lambda")
    cluster, family = shared(environment, "Cluster"), environment.stack_name
    for actions, resources in (
        (
            ["codedeploy:GetDeployment", "codedeploy:PutLifecycleEventHookExecutionStatus"],
            [codedeploy_arn(stack, "deploymentgroup", f"{family}/{family}")],
        ),
        (
            ["ecs:DescribeServiceRevisions"],
            [ecs_arn(stack, "service-revision", cluster, environment.service_name, "*")],
        ),
        (["ecs:DescribeTasks"], [ecs_arn(stack, "task", cluster, "*")]),
        (["ecs:DescribeServices"], [ecs_arn(stack, "service", cluster, environment.service_name)]),
        # These have no resource. The network interfaces are those that attach the functions to the VPC.
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
        (
            [
                "ecs:DescribeTaskDefinition",
                "ecs:ListTasks",
                "ec2:CreateNetworkInterface",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSubnets",
                "ec2:DeleteNetworkInterface",
                "ec2:AssignPrivateIpAddresses",
                "ec2:UnassignPrivateIpAddresses",
            ],
            ["*"],
        ),
    ):
        made.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
    if environment.service.token_credentials:
        readable = [environment.service.token_credentials]
        made.add_to_policy(iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=readable))
    acknowledge(
        made,
        (
            "AwsSolutions-IAM5[Resource::*]",
            "These actions have no resource, or one that AWS names.",
        ),
        wildcard(environment, "task/{}/*", "The tasks are known only during a release."),
        wildcard(
            environment,
            f"service-revision/{{}}/{environment.service_name}/*",
            "A revision gets its name when it is created.",
        ),
    )
    return made


def _snake(event: str) -> str:
    return re.sub("(?<!^)(?=[A-Z])", "_", event).lower()
