"""The service in one environment, as one stack.

It does not hold which release runs: `deploy/release/` makes releases and gives them the traffic. CloudFormation could
not undo that, so the stack leaves both alone.
"""

from typing import Any

import aws_cdk as cdk
from aws_cdk import Duration, Fn
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from constructs import Construct

from deploy import config, files
from deploy.config import Environment
from deploy.platform.exports import shared
from deploy.service import alarms, controller, functions, metrics, oneoff, pipeline, proxy, routing
from deploy.service.task import task_definition

CPU_PERCENT = 60
"""Load at which tasks are added. It leaves room for the minute that a new task takes to start."""


def service_stack(scope: Construct, environment: Environment, digest: str) -> cdk.Stack:
    """Create the stack of the service, with the image that has `digest`."""
    stack = cdk.Stack(
        scope,
        environment.stack_name,
        env=cdk.Environment(account=environment.account, region=environment.region),
        description=f"{environment.service_name} in {environment.name}",
    )
    vpc = ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id=shared(environment, "VpcId"),
        availability_zones=environment.platform.availability_zones,
        private_subnet_ids=Fn.split(",", shared(environment, "PrivateSubnets"), 3),
    )
    cluster = ecs.Cluster.from_cluster_attributes(
        stack, "Cluster", cluster_name=shared(environment, "Cluster"), vpc=vpc, security_groups=[]
    )
    tasks = routing.security_group(stack, environment, "TasksSecurityGroup")
    log_group = logs.LogGroup(
        stack,
        "Logs",
        log_group_name=environment.log_group,
        retention=logs.RetentionDays[config.RETENTION[environment.service.log_retention_days]],
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    database = proxy.variables(environment, proxy.proxy(stack, environment, vpc, tasks))
    task = task_definition(stack, environment, digest, log_group, database)
    routes = routing.routing(stack, environment, vpc, tasks)
    logged = metrics.metrics(stack, environment, log_group)
    metrics.dashboard(stack, environment, logged)
    gates = controller.Gates(
        alarms=alarms.alarms(stack, environment, routes),
        functions=functions.functions(stack, environment, vpc),
    )
    service = _service(stack, environment, cluster, task, tasks)
    service.node.add_dependency(*routes.rules)
    control = controller.code_deploy if environment.service.controller == "CODE_DEPLOY" else controller.native
    control(stack, environment, service, routes, gates)
    _scaling(environment, service)
    routing.name(stack, environment)
    if environment.owns_credentials:
        oneoff.database_task(stack, environment, digest, log_group)
    shell = oneoff.shell_role(stack)
    pipeline.release_role(stack, environment, task)
    _outputs(
        stack,
        environment,
        {"ClusterName": cluster.cluster_name, "Configuration": task.task_definition_arn, "ShellRole": shell.role_arn},
        vpc,
    )
    return stack


def _service(
    stack: cdk.Stack,
    environment: Environment,
    cluster: ecs.ICluster,
    task: ecs.TaskDefinition,
    tasks: ec2.ISecurityGroup,
) -> controller.Service:
    common: dict[str, Any] = {
        "cluster": cluster,
        "service_name": environment.service_name,
        "task_definition": task,
        "health_check_grace_period": Duration.seconds(60),
        "min_healthy_percent": 100,
        "max_healthy_percent": 200,
        "propagate_tags": ecs.PropagatedTagSource.SERVICE,
        "enable_ecs_managed_tags": True,
        **_deployments(environment),
    }
    if not environment.is_fargate:
        return ecs.Ec2Service(
            stack,
            "Service",
            **common,
            placement_strategies=[
                ecs.PlacementStrategy.spread_across(ecs.BuiltInAttributes.AVAILABILITY_ZONE),
                ecs.PlacementStrategy.spread_across_instances(),
            ],
        )
    return ecs.FargateService(
        stack,
        "Service",
        **common,
        capacity_provider_strategies=[
            ecs.CapacityProviderStrategy(capacity_provider=environment.service.capacity, weight=1)
        ]
        if environment.service.capacity == "FARGATE_SPOT"
        else None,
        security_groups=[tasks],
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),  # one per zone
        platform_version=ecs.FargatePlatformVersion.LATEST,
    )


def _deployments(environment: Environment) -> dict[str, Any]:
    """Return the options of the service that depend on the controller."""
    own = environment.service
    if own.controller == "CODE_DEPLOY":
        return {
            "deployment_controller": ecs.DeploymentController(type=ecs.DeploymentControllerType.CODE_DEPLOY),
            # CodeDeploy spreads tasks by itself, and does not support rebalancing.
            "availability_zone_rebalancing": ecs.AvailabilityZoneRebalancing.DISABLED,
        }
    options: dict[str, Any] = {
        "deployment_strategy": ecs.DeploymentStrategy.CANARY if own.canary else ecs.DeploymentStrategy.BLUE_GREEN,
        "bake_time": Duration.minutes(own.blue_minutes),
        "circuit_breaker": ecs.DeploymentCircuitBreaker(rollback=True),
        # The family alone, so that CloudFormation does not deploy: releases do.
        "task_definition_revision": ecs.TaskDefinitionRevision.LATEST,
    }
    if own.canary:
        options["canary_configuration"] = ecs.TrafficShiftConfig(step_percent=10, step_bake_time=Duration.minutes(15))
    return options


def _scaling(environment: Environment, service: controller.Service) -> None:
    count: scaling.BaseScalableAttribute = service.auto_scale_task_count(
        min_capacity=environment.service.tasks_min, max_capacity=environment.service.tasks_max
    )
    count.scale_on_cpu_utilization("Load", target_utilization_percent=CPU_PERCENT)  # type: ignore[attr-defined] # jsii names the base
    if environment.night:
        stop, start = environment.night
        for name, hour, days, counts in (
            ("Night", stop, environment.stop_days, (0, 0)),
            ("Morning", start, "MON-FRI", (environment.service.tasks_min, environment.service.tasks_max)),
        ):
            count.scale_on_schedule(  # type: ignore[attr-defined] # so
                name,
                schedule=scaling.Schedule.expression(f"cron(0 {hour} ? * {days} *)"),
                min_capacity=counts[0],
                max_capacity=counts[1],
            )


def _outputs(stack: cdk.Stack, environment: Environment, made: dict[str, str], vpc: ec2.IVpc) -> None:
    """Output what `deploy/release/` needs to know."""
    subnets = Fn.join(",", vpc.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS).subnet_ids)
    image = f"{environment.images_account}.dkr.ecr.{environment.region}.amazonaws.com/{environment.service_name}"
    for name, value in {
        **made,
        "Capacity": environment.service.capacity,
        "Controller": environment.service.controller,
        "Fingerprint": files.fingerprint(files.read(environment.name)),
        "Image": image,
        "SecurityGroupId": shared(environment, "TasksSecurityGroup"),
        "SubnetIds": subnets,
        "TasksMin": str(environment.service.tasks_min),
    }.items():
        cdk.CfnOutput(stack, f"{name}Output", value=value).override_logical_id(name)
