"""The task definition that holds the configuration of a release: image, variables, secrets and limits."""

from typing import Any

from aws_cdk import ArnFormat, Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager

from deploy import config
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.roles import role
from deploy.service.database import credentials

USER = "10001:10001"
"""User and group of the process, as in the Dockerfile."""


def task_definition(
    stack: Stack, environment: Environment, digest: str, log_group: logs.LogGroup, database: dict[str, str]
) -> ecs.TaskDefinition:
    """Create the task definition for the image with `digest`. `database` is the variables about the database."""
    execution = execution_role(stack, environment)
    own = role(stack, "TaskRole", "ecs-tasks", description="What the service itself may do: nothing")
    task = definition(
        stack, environment, "Task", environment.stack_name, {"execution_role": execution, "task_role": own}
    )
    # Earlier releases stay: a rollback needs them.
    task.apply_removal_policy(RemovalPolicy.RETAIN)
    container(
        stack,
        environment,
        task,
        log_group,
        image=image(stack, environment, digest),
        variables={
            **database,
            **environment.variables,
            "PORT": str(config.PORT),
            # The balancer's addresses change within its subnets, and the security group lets nobody else reach tasks.
            "FORWARDED_ALLOW_IPS": environment.cidr,
            "URL_PREFIX": environment.url_prefix,
        },
        secrets={**credentials(stack, environment), **_named(stack, environment)},
        port_mappings=[
            ecs.PortMapping(container_port=config.PORT)
            if environment.is_fargate
            else ecs.PortMapping(container_port=config.PORT, host_port=0)  # any free port, so that tasks share machines
        ],
        stop_timeout=Duration.seconds(environment.service.stop_timeout_seconds),
    )
    acknowledge(
        task,
        ("AwsSolutions-ECS2", "The variables hold no secrets: those are referenced by ARN and key."),
    )
    return task


def execution_role(stack: Stack, environment: Environment) -> iam.Role:
    """Create the role that starts tasks: it may read the secrets of this service, also those of earlier releases.

    A release that is rolled back to needs the secrets that it was made with, so they are allowed by their prefix.
    """
    made = role(stack, "ExecutionRole", "ecs-tasks", description="Starts tasks: image, secrets, logs")
    secrets = stack.format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name=f"{environment.secret_prefix}*",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    made.add_to_policy(iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=[secrets]))
    where = f"arn:<AWS::Partition>:secretsmanager:{environment.region}:{environment.account}:secret"
    acknowledge(
        made,
        ("AwsSolutions-IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource."),
        (
            f"AwsSolutions-IAM5[Resource::{where}:{environment.secret_prefix}*]",
            "The service's own secrets, of this release and of those that can be rolled back to.",
        ),
    )
    return made


def definition(
    stack: Stack, environment: Environment, name: str, family: str, roles: dict[str, Any]
) -> ecs.FargateTaskDefinition | ecs.Ec2TaskDefinition:
    """Create a task definition without a container. `roles` are `execution_role` and `task_role`."""
    own = environment.service
    if not environment.is_fargate:
        return ecs.Ec2TaskDefinition(stack, name, family=family, network_mode=ecs.NetworkMode.BRIDGE, **roles)
    is_arm = own.architecture == "ARM64"
    return ecs.FargateTaskDefinition(
        stack,
        name,
        family=family,
        cpu=own.cpu_units,
        memory_limit_mib=own.memory_mib,
        runtime_platform=ecs.RuntimePlatform(
            cpu_architecture=ecs.CpuArchitecture.ARM64 if is_arm else ecs.CpuArchitecture.X86_64,
            operating_system_family=ecs.OperatingSystemFamily.LINUX,
        ),
        **roles,
    )


def container(
    stack: Stack,
    environment: Environment,
    task: ecs.TaskDefinition,
    log_group: logs.LogGroup,
    *,
    variables: dict[str, str],
    **options: Any,
) -> None:
    """Add the container: it runs as an unprivileged user without capabilities, on a read-only root."""
    process = ecs.LinuxParameters(stack, f"{task.node.id.removesuffix('Task')}Process", init_process_enabled=True)
    process.drop_capabilities(ecs.Capability.ALL)
    task.add_container(
        config.CONTAINER,
        cpu=environment.service.cpu_units,
        memory_limit_mib=environment.service.memory_mib,
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
        essential=True,
        environment=variables,
        **options,
    )


def image(stack: Stack, environment: Environment, digest: str) -> ecs.ContainerImage:
    """Return the image of the service with `digest`."""
    found = stack.node.try_find_child("Repository")
    repository = found if isinstance(found, ecr.RepositoryBase) else _repository(stack, environment)
    return ecs.ContainerImage.from_ecr_repository(repository, digest)


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


def _named(stack: Stack, environment: Environment) -> dict[str, ecs.Secret]:
    """Return the secrets that the environment file names, by environment variable."""
    found = {}
    for name, reference in environment.secrets.items():
        parts = reference.split(":")
        arn, key = ":".join(parts[:7]), parts[7] if len(parts) > 7 else None  # noqa: PLR2004 - the parts of an ARN
        secret = secretsmanager.Secret.from_secret_complete_arn(stack, f"Secret{name}", arn)
        found[name] = ecs.Secret.from_secrets_manager(secret, key)
    return found
