"""Task definitions of one-off tasks that are no release: the one that creates role and database, and a shell."""

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs

from deploy import config
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.roles import role
from deploy.service.database import credentials, master
from deploy.service.task import container, definition, image

PROVISION = config.ROOT / "deploy" / "release" / "provision.py"
"""The program that creates role and database. The image has Python and psycopg; the program comes as an argument."""


def database_task(stack: Stack, environment: Environment, digest: str, log_group: logs.LogGroup) -> None:
    """Create the task definition with which `python -m deploy.release database` creates role and database."""
    execution = role(
        stack, "DatabaseExecutionRole", "ecs-tasks", description="Starts the task that creates the database"
    )
    own = role(stack, "DatabaseTaskRole", "ecs-tasks", description="Nothing")
    family = f"{environment.stack_name}-database"
    task = definition(stack, environment, "DatabaseTask", family, {"execution_role": execution, "task_role": own})
    names = {"PGUSER": "ROLE_USER", "PGPASSWORD": "ROLE_PASSWORD"}
    container(
        stack,
        environment,
        task,
        log_group,
        image=image(stack, environment, digest),
        command=["python", "-c", PROVISION.read_text(encoding="utf-8")],
        variables={
            "HOST": f"postgres.{environment.domain}",
            "DATABASE": environment.service_name,
            "CONNECTIONS": str(environment.peak_connections),
        },
        secrets={
            **master(stack, environment),
            **{names[name]: secret for name, secret in credentials(stack, environment).items()},
        },
    )
    acknowledge(task, ("AwsSolutions-ECS2", "The variables hold no secrets: those are referenced by ARN and key."))
    acknowledge(execution, ("AwsSolutions-IAM5[Resource::*]", "ecr:GetAuthorizationToken has no resource."))


def shell_role(stack: Stack) -> iam.Role:
    """Create the role of a task in which a person opens a shell: it lets ECS Exec connect.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html#ecs-exec-required-iam-permissions
    """
    made = role(stack, "ShellRole", "ecs-tasks", description="What a shell task may do: be connected to")
    channels = [
        f"ssmmessages:{action}"
        for action in ("CreateControlChannel", "CreateDataChannel", "OpenControlChannel", "OpenDataChannel")
    ]
    made.add_to_policy(iam.PolicyStatement(actions=channels, resources=["*"]))
    acknowledge(made, ("AwsSolutions-IAM5[Resource::*]", "The channels of ECS Exec have no resource."))
    return made
