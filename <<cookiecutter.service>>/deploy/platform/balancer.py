"""The load balancer: a listener for production, one for tests of green, and its access logs."""

from aws_cdk import CfnResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3

from deploy import config
from deploy.config import Environment
from deploy.findings import acknowledge
from deploy.platform.exports import export
from deploy.platform.network import outgoing_addresses, public_zone

LOG_DAYS = 90
"""Days that access logs are kept."""


def balancer(
    stack: Stack, environment: Environment, network: ec2.IVpc, tasks: ec2.SecurityGroup, hooks: ec2.SecurityGroup
) -> str:
    """Create the load balancer, or take the one that the environment file names, and return its full name."""
    if environment.existing.balancer:
        return _existing(stack, environment, environment.existing.balancer, tasks, hooks)
    return _new(stack, environment, network, tasks, hooks)


def _let_in(environment: Environment, tasks: ec2.SecurityGroup, group: ec2.ISecurityGroup) -> None:
    """Let the balancer reach tasks, whatever the capacity of the service that deploys the platform."""
    tasks.connections.allow_from(group, ec2.Port.tcp(config.PORT), "Requests")
    if environment.platform.instances:
        # In bridge mode the kernel chooses the port:
        # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html
        tasks.connections.allow_from(group, ec2.Port.tcp_range(32_768, 65_535), "Requests to machines")


def _existing(
    stack: Stack,
    environment: Environment,
    named: dict[str, str],
    tasks: ec2.SecurityGroup,
    hooks: ec2.SecurityGroup,
) -> str:
    group = ec2.SecurityGroup.from_security_group_id(stack, "BalancerGroup", named["security_group"])
    _let_in(environment, tasks, group)
    group.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
    export(stack, environment, "BalancerDnsName", named["dns_name"])
    export(stack, environment, "BalancerFullName", named["arn"].partition("loadbalancer/")[2])
    export(stack, environment, "ProductionListener", named["production_listener"])
    export(stack, environment, "TestListener", named["test_listener"])
    return named["arn"].partition("loadbalancer/")[2]


def _new(
    stack: Stack,
    environment: Environment,
    network: ec2.IVpc,
    tasks: ec2.SecurityGroup,
    hooks: ec2.SecurityGroup,
) -> str:
    group = ec2.SecurityGroup(
        stack, "BalancerGroup", vpc=network, description="The load balancer", allow_all_outbound=False
    )
    public = environment.platform.public
    peer = ec2.Peer.any_ipv4() if public else ec2.Peer.ipv4(environment.cidr)
    group.add_ingress_rule(peer, ec2.Port.tcp(443), "Requests")
    group.add_ingress_rule(peer, ec2.Port.tcp(80), "Requests that are redirected to HTTPS")
    if public:
        acknowledge(group, ("AwsSolutions-EC23", "The balancer is public: the environment file says so."))
        # The hooks reach a public balancer at its public addresses, and so through the NAT gateways.
        for address in outgoing_addresses(network):
            group.add_ingress_rule(ec2.Peer.ipv4(f"{address}/32"), ec2.Port.tcp(config.TEST_PORT), "Tests of green")
    group.connections.allow_from(hooks, ec2.Port.tcp(config.TEST_PORT), "Tests of green")
    _let_in(environment, tasks, group)
    made = elb.ApplicationLoadBalancer(
        stack,
        "Balancer",
        vpc=network,
        vpc_subnets=ec2.SubnetSelection(
            subnet_type=ec2.SubnetType.PUBLIC if public else ec2.SubnetType.PRIVATE_WITH_EGRESS
        ),
        internet_facing=public,
        security_group=group,
        idle_timeout=Duration.seconds(environment.platform.idle_timeout_seconds),
        deletion_protection=environment.platform.keep,
        drop_invalid_header_fields=True,
    )
    made.log_access_logs(_access_logs(stack, environment))
    made.add_redirect(open=False)
    _listeners(stack, environment, made)
    export(stack, environment, "BalancerDnsName", made.load_balancer_dns_name)
    export(stack, environment, "BalancerFullName", made.load_balancer_full_name)
    return made.load_balancer_full_name


def _access_logs(stack: Stack, environment: Environment) -> s3.Bucket:
    keep = environment.platform.keep
    bucket = s3.Bucket(
        stack,
        "AccessLogs",
        encryption=s3.BucketEncryption.S3_MANAGED,  # load balancers cannot write with any other kind
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(LOG_DAYS))],
        removal_policy=RemovalPolicy.RETAIN if keep else RemovalPolicy.DESTROY,
        auto_delete_objects=not keep,
    )
    acknowledge(bucket, ("AwsSolutions-S1", "The bucket itself holds access logs."))
    if not keep:
        _log_of_emptying(stack)
    return bucket


def _log_of_emptying(stack: Stack) -> None:
    """Give CDK's function that empties the bucket a log group; one that Lambda makes itself outlives the stack."""
    group = logs.LogGroup(
        stack,
        "EmptyingLogs",
        retention=logs.RetentionDays.ONE_MONTH,
        removal_policy=RemovalPolicy.DESTROY,
    )
    function = stack.node.find_child("Custom::S3AutoDeleteObjectsCustomResourceProvider").node.find_child("Handler")
    assert isinstance(function, CfnResource)  # noqa: S101 - what CDK makes
    function.add_property_override("LoggingConfig.LogGroup", group.log_group_name)


def _listeners(stack: Stack, environment: Environment, made: elb.ApplicationLoadBalancer) -> None:
    certificate = _certificate(stack, environment)
    nothing = elb.ListenerAction.fixed_response(404, content_type="application/json", message_body="{}")
    for name, port in (("ProductionListener", 443), ("TestListener", config.TEST_PORT)):
        listener = made.add_listener(
            name,
            port=port,
            protocol=elb.ApplicationProtocol.HTTPS,
            certificates=[certificate],
            ssl_policy=elb.SslPolicy.RECOMMENDED_TLS,
            open=False,
            default_action=nothing,
        )
        export(stack, environment, name, listener.listener_arn)


def _certificate(stack: Stack, environment: Environment) -> elb.IListenerCertificate:
    """Return the certificate for `*.<domain>`: the one that is named, or one that is issued by DNS."""
    if environment.platform.certificate_arn:
        return elb.ListenerCertificate(environment.platform.certificate_arn)
    issued = acm.Certificate(
        stack,
        "Certificate",
        domain_name=f"*.{environment.domain}",
        validation=acm.CertificateValidation.from_dns(public_zone(stack, environment)),
    )
    return elb.ListenerCertificate(issued.certificate_arn)
