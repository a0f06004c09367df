"""How green gets the traffic: by AWS CodeDeploy, or by ECS. Both run the same hooks and watch the same alarms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_codedeploy as codedeploy
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_

from deploy import config, lifecycle
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import shared
from deploy.roles import role
from deploy.service.arns import ecs_arn, wildcard
from deploy.service.routing import Routing

Service = ecs.FargateService | ecs.Ec2Service


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What can stop a release."""

    alarms: list[cloudwatch.Alarm]
    functions: Mapping[str, lambda_.Function]
    """By lifecycle event."""


def code_deploy(stack: Stack, environment: Environment, service: Service, routes: Routing, gates: Gates) -> None:
    """Let CodeDeploy move the traffic."""
    service.attach_to_application_target_group(routes.blue)
    own = environment.service
    deploying = _code_deploy_role(stack, environment, service, routes, gates.functions)
    application = codedeploy.EcsApplication(stack, "Application", application_name=environment.stack_name)
    group = codedeploy.EcsDeploymentGroup(
        stack,
        "Deployments",
        application=application,
        deployment_group_name=environment.stack_name,
        role=deploying.without_policy_updates(),
        service=service,
        deployment_config=codedeploy.EcsDeploymentConfig.CANARY_10_PERCENT_15_MINUTES
        if own.canary
        else codedeploy.EcsDeploymentConfig.ALL_AT_ONCE,
        blue_green_deployment_config=codedeploy.EcsBlueGreenDeploymentConfig(
            blue_target_group=routes.blue,
            green_target_group=routes.green,
            listener=routes.listeners[0],
            test_listener=routes.listeners[1],
            termination_wait_time=Duration.minutes(own.blue_minutes),
        ),
        alarms=[*gates.alarms],
        auto_rollback=codedeploy.AutoRollbackConfig(
            failed_deployment=True, stopped_deployment=True, deployment_in_alarm=True
        ),
    )
    group.node.add_dependency(deploying)


def _code_deploy_role(
    stack: Stack,
    environment: Environment,
    service: Service,
    routes: Routing,
    functions: Mapping[str, lambda_.Function],
) -> iam.Role:
    """Create the role of CodeDeploy: like `AWSCodeDeployRoleForECS`, but for this service only.

    https://docs.aws.amazon.com/codedeploy/latest/userguide/security-iam-awsmanpol.html
    """
    made = role(stack, "DeployRole", "codedeploy")
    cluster, name = shared(environment, "Cluster"), environment.service_name
    task = service.task_definition
    passed = [each.role_arn for each in (task.task_role, task.execution_role) if each]
    statements: list[tuple[list[str], list[str], dict[str, Any]]] = [
        (
            ["ecs:DescribeServices", "ecs:CreateTaskSet", "ecs:DeleteTaskSet", "ecs:UpdateServicePrimaryTaskSet"],
            [ecs_arn(stack, "service", cluster, name), ecs_arn(stack, "task-set", cluster, name, "*")],
            {},
        ),
        (
            ["elasticloadbalancing:ModifyListener", "elasticloadbalancing:ModifyRule"],
            [*(each.listener_arn for each in routes.listeners), *(each.listener_rule_arn for each in routes.rules)],
            {},
        ),
        (["lambda:InvokeFunction"], [function.function_arn for function in functions.values()], {}),
        (["iam:PassRole"], passed, {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}),
        (
            [
                "cloudwatch:DescribeAlarms",
                "elasticloadbalancing:DescribeListeners",
                "elasticloadbalancing:DescribeRules",
                "elasticloadbalancing:DescribeTargetGroups",
            ],
            ["*"],
            {},
        ),
    ]
    for actions, resources, conditions in statements:
        made.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources, conditions=conditions))
    acknowledge(
        made,
        ("AwsSolutions-IAM5[Resource::*]", "Describe actions have no resource."),
        wildcard(environment, f"task-set/{{}}/{name}/*", "A task set gets its name when it is created."),
    )
    return made


def native(stack: Stack, _environment: Environment, service: Service, routes: Routing, gates: Gates) -> None:
    """Let ECS itself move the traffic."""
    service.enable_deployment_alarms(
        [alarm.alarm_name for alarm in gates.alarms], behavior=ecs.AlarmBehavior.ROLLBACK_ON_ALARM
    )
    _lifecycle_hooks(stack, service, gates.functions)
    policy = "AmazonECSInfrastructureRolePolicyForLoadBalancers"
    move = role(stack, "MoveRole", "ecs", managed_policies=[iam.ManagedPolicy.from_aws_managed_policy_name(policy)])
    target = service.load_balancer_target(
        container_name=config.CONTAINER,
        container_port=config.PORT,
        alternate_target=ecs.AlternateTarget(
            "Alternate",
            alternate_target_group=routes.green,
            production_listener=ecs.ListenerRuleConfiguration.application_listener_rule(routes.rules[0]),
            test_listener=ecs.ListenerRuleConfiguration.application_listener_rule(routes.rules[1]),
            role=move,  # type: ignore[arg-type] # the protocol names parameters differently
        ),
    )
    target.attach_to_application_target_group(routes.blue)
    acknowledge(
        move,
        (
            f"AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/{policy}]",
            "AWS's own policy for this purpose, which changes with what ECS needs.",
        ),
    )


def _lifecycle_hooks(stack: Stack, service: Service, functions: Mapping[str, lambda_.Function]) -> None:
    invoke = role(stack, "InvokeRole", "ecs")
    arns = [function.function_arn for function in functions.values()]
    invoke.add_to_policy(iam.PolicyStatement(actions=["lambda:InvokeFunction"], resources=arns))
    for event, function in functions.items():
        service.add_lifecycle_hook(
            ecs.DeploymentLifecycleLambdaTarget(
                function,  # type: ignore[arg-type] # so
                f"{event}Hook",
                lifecycle_stages=[ecs.DeploymentLifecycleStage.POST_TEST_TRAFFIC_SHIFT],
                role=invoke.without_policy_updates(),
            )
        )
    resource: Any = service.node.find_child("Service")
    for index, event in enumerate(functions):  # CDK has no name for one of the stages yet
        resource.add_property_override(
            f"DeploymentConfiguration.LifecycleHooks.{index}.LifecycleStages", [lifecycle.STAGES[event]]
        )
