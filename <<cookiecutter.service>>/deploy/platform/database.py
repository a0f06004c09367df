"""PostgreSQL: the server, and the name by which services find it."""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_route53 as route53

from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import export

CNAME_SECONDS = 5
"""Time to live of `postgres.<domain>`, in seconds: resolvers notice a new server within it.

Connections follow within `DATABASE_MAX_LIFETIME_SECONDS`.
"""

POSTGRES = rds.PostgresEngineVersion.of("18", "18")
"""The version of the server."""


def database(
    stack: Stack,
    environment: Environment,
    network: ec2.IVpc,
    tasks: ec2.SecurityGroup,
    zone: route53.IHostedZone,
) -> None:
    """Create PostgreSQL, or take the server that the environment file names, and give it a CNAME."""
    existing = environment.existing.database
    if existing:
        group = ec2.SecurityGroup.from_security_group_id(stack, "DatabaseGroup", existing["security_group"])
        group.connections.allow_from(tasks, ec2.Port.tcp(5432), "Services")
        host, secret = existing["host"], existing.get("secret", "")
    else:
        server = _server(stack, environment, network, tasks)
        host, secret = server.db_instance_endpoint_address, _secret_arn(server)
        [own] = server.connections.security_groups
        export(stack, environment, "DatabaseSecurityGroup", own.security_group_id)
    if secret:
        export(stack, environment, "DatabaseSecret", secret)
    # Factor IV: services know this name only, and follow it to another server.
    route53.CnameRecord(
        stack,
        "Postgres",
        zone=zone,
        record_name="postgres",
        domain_name=host,
        ttl=Duration.seconds(CNAME_SECONDS),
    )


def _secret_arn(server: rds.DatabaseInstance) -> str:
    """Return the ARN of the secret in which RDS keeps the master user's password."""
    resource = server.node.default_child
    assert isinstance(resource, rds.CfnDBInstance)  # noqa: S101 - what CDK makes of an instance
    return resource.attr_master_user_secret_secret_arn


def _server(
    stack: Stack, environment: Environment, network: ec2.IVpc, tasks: ec2.SecurityGroup
) -> rds.DatabaseInstance:
    platform = environment.platform
    engine = rds.DatabaseInstanceEngine.postgres(version=POSTGRES)
    parameters = rds.ParameterGroup(
        stack,
        "DatabaseParameters",
        engine=engine,
        description="TLS and SCRAM forced",
        parameters={
            "rds.force_ssl": "1",
            "rds.accepted_password_auth_method": "scram",
            "max_connections": str(platform.database_max_connections),
        },
    )
    server = rds.DatabaseInstance(
        stack,
        "Database",
        instance_identifier=environment.platform_name,
        engine=engine,
        instance_type=ec2.InstanceType(platform.database_instance),
        vpc=network,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        multi_az=platform.database_multi_az,
        storage_encrypted=True,
        storage_type=rds.StorageType.GP3,
        allocated_storage=platform.database_storage_gib,
        max_allocated_storage=platform.database_storage_gib * 4,
        manage_master_user_password=True,
        credentials=rds.Credentials.from_username("postgres"),
        parameter_group=parameters,
        backup_retention=Duration.days(platform.database_backup_days),
        copy_tags_to_snapshot=True,
        deletion_protection=platform.keep,
        delete_automated_backups=not platform.keep,
        removal_policy=RemovalPolicy.SNAPSHOT if platform.keep else RemovalPolicy.DESTROY,
        iam_authentication=True,
        enable_performance_insights=True,
        cloudwatch_logs_exports=["postgresql"],
        cloudwatch_logs_retention=None,
        auto_minor_version_upgrade=True,
        ca_certificate=rds.CaCertificate.RDS_CA_RSA2048_G1,
    )
    server.node.add_dependency(_log_group(stack, environment))
    server.connections.allow_from(tasks, ec2.Port.tcp(5432), "Services")
    acknowledge(
        server,
        ("AwsSolutions-RDS11", "Another port than 5432 hides nothing; the security group accepts tasks only."),
    )
    if not platform.database_multi_az:
        acknowledge(server, ("AwsSolutions-RDS3", "The environment file does without a standby: it costs twice."))
    if not platform.keep:
        acknowledge(server, ("AwsSolutions-RDS10", "The environment file says that nothing here needs to be kept."))
    return server


def _log_group(stack: Stack, environment: Environment) -> logs.LogGroup:
    """Create the log group that RDS writes to; one that RDS makes itself keeps its logs for ever."""
    return logs.LogGroup(
        stack,
        "DatabaseLogs",
        log_group_name=f"/aws/rds/instance/{environment.platform_name}/postgresql",
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=RemovalPolicy.DESTROY,
    )
