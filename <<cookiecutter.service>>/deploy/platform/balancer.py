"""The load balancer: a listener for production, one for tests of green, and its access logs."""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_s3 as s3

from deploy import config
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import export

LOG_DAYS = 90
"""Days that access logs are kept."""


def balancer(
    stack: Stack, environment: Environment, network: ec2.IVpc, tasks: ec2.SecurityGroup, hooks: ec2.SecurityGroup
) -> None:
    """Create the load balancer, or take the one that the environment file names, and export it."""
    if environment.existing.balancer:
        _existing(stack, environment, environment.existing.balancer, tasks, hooks)
    else:
        _new(stack, environment, network, tasks, hooks)


def _ports(environment: Environment) -> ec2.Port:
    """Return the ports of tasks.

    In bridge mode the kernel chooses one: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html
    """
    return ec2.Port.tcp(config.PORT) if environment.is_fargate else ec2.Port.tcp_range(32_768, 65_535)


def _existing(
    stack: Stack,
    environment: Environment,
    named: dict[str, str],
    tasks: ec2.SecurityGroup,
    hooks: ec2.SecurityGroup,
) -> None:
    group = ec2.SecurityGroup.from_security_group_id(stack, "BalancerGroup", named["security_group"])
    tasks.connections.allow_from(group, _ports(environment), "Requests")
    group.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
    export(stack, environment, "BalancerDnsName", named["dns_name"])
    export(stack, environment, "BalancerFullName", named["arn"].partition("loadbalancer/")[2])
    export(stack, environment, "ProductionListener", named["production_listener"])
    export(stack, environment, "TestListener", named["test_listener"])


def _new(
    stack: Stack,
    environment: Environment,
    network: ec2.IVpc,
    tasks: ec2.SecurityGroup,
    hooks: ec2.SecurityGroup,
) -> None:
    group = ec2.SecurityGroup(
        stack, "BalancerGroup", vpc=network, description="The load balancer", allow_all_outbound=False
    )
    inside = ec2.Peer.ipv4(environment.cidr)
    group.add_ingress_rule(inside, ec2.Port.tcp(443), "Requests")
    group.add_ingress_rule(inside, ec2.Port.tcp(80), "Requests that are redirected to HTTPS")
    group.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
    tasks.connections.allow_from(group, _ports(environment), "Requests")
    made = elb.ApplicationLoadBalancer(
        stack,
        "Balancer",
        vpc=network,
        vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        internet_facing=False,
        security_group=group,
        idle_timeout=Duration.seconds(environment.platform.idle_timeout_seconds),
        deletion_protection=True,
        drop_invalid_header_fields=True,
    )
    made.log_access_logs(_access_logs(stack))
    made.add_redirect(open=False)
    _listeners(stack, environment, made)
    export(stack, environment, "BalancerDnsName", made.load_balancer_dns_name)
    export(stack, environment, "BalancerFullName", made.load_balancer_full_name)


def _access_logs(stack: Stack) -> s3.Bucket:
    bucket = s3.Bucket(
        stack,
        "AccessLogs",
        encryption=s3.BucketEncryption.S3_MANAGED,  # load balancers cannot write with any other kind
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(LOG_DAYS))],
        removal_policy=RemovalPolicy.RETAIN,
    )
    acknowledge(bucket, ("AwsSolutions-S1", "The bucket itself holds access logs."))
    return bucket


def _listeners(stack: Stack, environment: Environment, made: elb.ApplicationLoadBalancer) -> None:
    nothing = elb.ListenerAction.fixed_response(404, content_type="application/json", message_body="{}")
    for name, port in (("ProductionListener", 443), ("TestListener", config.TEST_PORT)):
        listener = made.add_listener(
            name,
            port=port,
            protocol=elb.ApplicationProtocol.HTTPS,
            certificates=[elb.ListenerCertificate(environment.platform.certificate_arn)],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            open=False,
            default_action=nothing,
        )
        export(stack, environment, name, listener.listener_arn)
