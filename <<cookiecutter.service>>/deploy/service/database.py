"""The service's credentials, and the one-off task that creates its role and its database with them."""

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_secretsmanager as secretsmanager

from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import shared


def credentials(stack: Stack, environment: Environment) -> dict[str, ecs.Secret]:
    """Return the database's user and password as libpq's variables, from a secret that is created with them.

    Where the environment file names `PGUSER` and `PGPASSWORD`, they are used instead.
    """
    if not environment.owns_credentials:
        return {}
    secret = credentials_secret(stack, environment)
    keys = {"PGUSER": "username", "PGPASSWORD": "password"}
    return {name: ecs.Secret.from_secrets_manager(secret, key) for name, key in keys.items()}  # type: ignore[arg-type] # the protocol names parameters differently


def credentials_secret(stack: Stack, environment: Environment) -> secretsmanager.Secret:
    """Return the secret with the database's user and password, which is created at the first call."""
    found = stack.node.try_find_child("Credentials")
    return found if isinstance(found, secretsmanager.Secret) else _secret(stack, environment)


def _secret(stack: Stack, environment: Environment) -> secretsmanager.Secret:
    # The user's name ends with a number: `database --rotate` makes another one, so that two releases can run at once.
    template = f'{{"username": "{environment.service_name}_1"}}'
    made = secretsmanager.Secret(
        stack,
        "Credentials",
        secret_name=f"{environment.secret_prefix}database",
        description="User and password of the service at PostgreSQL",
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=template,
            generate_string_key="password",
            exclude_punctuation=True,
            password_length=40,
        ),
        removal_policy=RemovalPolicy.RETAIN if environment.platform.keep else RemovalPolicy.DESTROY,
    )
    acknowledge(
        made, ("AwsSolutions-SMG4", "`python -m deploy.release database --rotate` rotates it without an outage.")
    )
    return made


def master(stack: Stack, environment: Environment) -> dict[str, ecs.Secret]:
    """Return user and password of the database's master user, as variables of `deploy/release/provision.py`."""
    arn = shared(environment, "DatabaseSecret")
    secret = secretsmanager.Secret.from_secret_attributes(stack, "MasterSecret", secret_complete_arn=arn)
    keys = {"MASTER_USER": "username", "MASTER_PASSWORD": "password"}
    return {name: ecs.Secret.from_secrets_manager(secret, key) for name, key in keys.items()}
