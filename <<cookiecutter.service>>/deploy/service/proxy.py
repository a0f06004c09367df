"""RDS Proxy, for a service whose tasks would need more connections than the server has.

It belongs to the service, and not to the platform: it logs in with the service's secret, and what it sets on each
connection, such as the role, is the same for all of its users.
https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.html
"""

from typing import Any

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds

from deploy import files
from deploy.config import Environment
from deploy.platform.database import POSTGRES
from deploy.platform.exports import shared
from deploy.service.database import credentials_secret

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
"""The certificates of public authorities in the image, one of which AWS has signed the proxy's with."""


def proxy(stack: Stack, environment: Environment, vpc: ec2.IVpc, tasks: ec2.ISecurityGroup) -> rds.DatabaseProxy | None:
    """Create the proxy in front of the platform's server, if the environment file wants one."""
    connections = environment.service.database_proxy_connections
    if not connections:
        return None
    group = ec2.SecurityGroup(stack, "ProxyGroup", vpc=vpc, description="The proxy", allow_all_outbound=False)
    group.connections.allow_from(tasks, ec2.Port.tcp(5432), "Tasks")
    server = rds.DatabaseInstance.from_database_instance_attributes(
        stack,
        "Server",
        engine=rds.DatabaseInstanceEngine.postgres(version=POSTGRES),
        instance_identifier=environment.platform_name,
        instance_endpoint_address=f"postgres.{environment.domain}",
        port=5432,
        security_groups=[
            ec2.SecurityGroup.from_security_group_id(
                stack, "ServerGroup", shared(environment, "DatabaseSecurityGroup"), allow_all_outbound=False
            )
        ],
    )
    secret: Any = credentials_secret(stack, environment)  # its protocol names parameters differently
    made = rds.DatabaseProxy(
        stack,
        "Proxy",
        db_proxy_name=environment.stack_name,
        proxy_target=rds.ProxyTarget.from_instance(server),
        secrets=[secret],
        client_password_auth_type=rds.ClientPasswordAuthType.POSTGRES_SCRAM_SHA_256,
        require_tls=True,
        vpc=vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        security_groups=[group],
        max_connections_percent=100 * connections // environment.platform.database_max_connections,
        borrow_timeout=Duration.seconds(_seconds(environment, "DATABASE_TIMEOUT_SECONDS")),
        init_query=_initial(environment),
    )
    # One that RDS makes itself keeps its logs for ever.
    made.node.add_dependency(
        logs.LogGroup(
            stack,
            "ProxyLogs",
            log_group_name=f"/aws/rds/proxy/{environment.stack_name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
    )
    return made


def variables(environment: Environment, made: rds.DatabaseProxy | None) -> dict[str, str]:
    """Return the variables of tasks that say how they reach the database.

    AWS documents no channel binding for the proxy, which the URL of the server requires. So its certificate proves who
    it is, and its host is its own name: the certificate knows no CNAME.
    """
    if not (made and environment.service.database_proxy):
        return {"DATABASE_URL": environment.database_url}
    name, tls = environment.service_name, f"sslmode=verify-full&sslrootcert={AUTHORITIES}"
    # A prepared statement would bind a connection to the server to one client, until that leaves.
    return {"DATABASE_URL": f"postgresql://{made.endpoint}/{name}?{tls}", "DATABASE_PREPARE": "false"}


def _initial(environment: Environment) -> str:
    """Return what the proxy sets on each connection to the server: what a session sets for itself without a proxy.

    The role of `deploy/release/provision.py` is also a default of the user, but such a default may get lost in a proxy.
    https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.html#rds-proxy.limitations-pg
    """
    return "; ".join(
        (
            f'SET ROLE "{environment.service_name}"',
            f"SET statement_timeout = '{_seconds(environment, 'STATEMENT_TIMEOUT_SECONDS')}s'",
            f"SET idle_in_transaction_session_timeout = '{_seconds(environment, 'SHUTDOWN_SECONDS')}s'",
            "SET IntervalStyle = 'postgres'",
        )
    )


def _seconds(environment: Environment, name: str) -> int:
    """Return the value of a variable, by default that of `.env.example`."""
    return int((files.variables() | environment.variables)[name])
