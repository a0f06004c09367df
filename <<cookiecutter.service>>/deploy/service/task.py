"""The task definition that holds the configuration of a release: image, variables, secrets and limits."""

from typing import Any

from aws_cdk import Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager

from deploy import config
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.roles import role

USER = "10001:10001"
"""User and group of the process, as in the Dockerfile."""


def task_definition(
    stack: Stack, environment: Environment, digest: str, log_group: logs.LogGroup
) -> ecs.TaskDefinition:
    """Create the task definition for the image with `digest`."""
    execution = role(stack, "ExecutionRole", "ecs-tasks", description="Starts tasks: image, secrets, logs")
    own = role(stack, "TaskRole", "ecs-tasks", description="What the service itself may do: nothing")
    task = _definition(stack, environment, {"execution_role": execution, "task_role": own})
    # Earlier releases stay: a rollback needs them.
    task.apply_removal_policy(RemovalPolicy.RETAIN)
    _container(stack, environment, digest, log_group, task)
    acknowledge(
        task,
        ("AwsSolutions-ECS2", "The variables hold no secrets: those are referenced by ARN and key."),
    )
    acknowledge(execution, ("AwsSolutions-IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource."))
    return task


def _definition(
    stack: Stack, environment: Environment, roles: dict[str, Any]
) -> ecs.FargateTaskDefinition | ecs.Ec2TaskDefinition:
    own = environment.service
    if not environment.is_fargate:
        return ecs.Ec2TaskDefinition(
            stack,
            "Task",
            family=environment.stack_name,
            network_mode=ecs.NetworkMode.BRIDGE,
            **roles,
        )
    return ecs.FargateTaskDefinition(
        stack,
        "Task",
        family=environment.stack_name,
        cpu=own.cpu_units,
        memory_limit_mib=own.memory_mib,
        runtime_platform=ecs.RuntimePlatform(
            cpu_architecture=ecs.CpuArchitecture.X86_64,
            operating_system_family=ecs.OperatingSystemFamily.LINUX,
        ),
        **roles,
    )


def _container(
    stack: Stack, environment: Environment, digest: str, log_group: logs.LogGroup, task: ecs.TaskDefinition
) -> None:
    own = environment.service
    secret = secretsmanager.Secret.from_secret_complete_arn(stack, "Secret", own.secret_arn)
    process = ecs.LinuxParameters(stack, "Process", init_process_enabled=True)
    process.drop_capabilities(ecs.Capability.ALL)
    port = (
        ecs.PortMapping(container_port=config.PORT)
        if environment.is_fargate
        else ecs.PortMapping(container_port=config.PORT, host_port=0)  # any free port, so that tasks share machines
    )
    task.add_container(
        config.CONTAINER,
        image=ecs.ContainerImage.from_ecr_repository(_repository(stack, environment), digest),
        cpu=own.cpu_units,
        memory_limit_mib=own.memory_mib,
        environment={
            **environment.variables,
            "PORT": str(config.PORT),
            # The balancer's addresses change within its subnets, and the security group lets nobody else reach tasks.
            "FORWARDED_ALLOW_IPS": environment.cidr,
            "URL_PREFIX": environment.url_prefix,
        },
        secrets={key: ecs.Secret.from_secrets_manager(secret, key) for key in own.secret_keys},
        port_mappings=[port],
        # Non-blocking: the service goes on when its log cannot be delivered, and lines are lost instead.
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
        logging=ecs.LogDrivers.aws_logs(
            stream_prefix="ecs",
            log_group=log_group,
            mode=ecs.AwsLogDriverMode.NON_BLOCKING,
            max_buffer_size=Size.mebibytes(8),
        ),
        linux_parameters=process,
        readonly_root_filesystem=True,
        user=USER,
        stop_timeout=Duration.seconds(own.stop_timeout_seconds),
        essential=True,
    )


def _repository(stack: Stack, environment: Environment) -> ecr.IRepository:
    return ecr.Repository.from_repository_attributes(
        stack,
        "Repository",
        repository_name=environment.service_name,
        repository_arn=stack.format_arn(
            service="ecr",
            account=environment.images_account,
            resource="repository",
            resource_name=environment.service_name,
        ),
    )
