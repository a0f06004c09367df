"""How requests reach the service: target groups for blue and green, listener rules, and the service's name."""

from dataclasses import dataclass

from aws_cdk import Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53

from deploy import config
from deploy.config import Environment
from deploy.platform.exports import shared
from deploy.platform.network import public_zone


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What a controller changes when it moves the traffic."""

    blue: elb.ApplicationTargetGroup
    green: elb.ApplicationTargetGroup
    listeners: list[elb.IApplicationListener]
    """For production and for tests."""
    rules: list[elb.ApplicationListenerRule]
    """Of the service at those listeners."""


def routing(stack: Stack, environment: Environment, vpc: ec2.IVpc, tasks: ec2.ISecurityGroup) -> Routing:
    """Create target groups and listener rules."""
    blue, green = (_target_group(stack, environment, vpc, colour) for colour in ("Blue", "Green"))
    production, test = (
        elb.ApplicationListener.from_application_listener_attributes(
            stack, name, listener_arn=shared(environment, name), security_group=tasks
        )
        for name in ("ProductionListener", "TestListener")
    )
    rules = [
        _rule(stack, environment, "ProductionRule", production, [blue, green]),
        _rule(stack, environment, "TestRule", test, [green, blue]),
    ]
    return Routing(blue=blue, green=green, listeners=[production, test], rules=rules)


def security_group(stack: Stack, environment: Environment, name: str) -> ec2.ISecurityGroup:
    """Return a security group of the platform, which is not changed here."""
    return ec2.SecurityGroup.from_security_group_id(
        stack, name, shared(environment, name), mutable=False, allow_all_outbound=True
    )


def name(stack: Stack, environment: Environment) -> None:
    """Create the CNAME of the service, `<service>.<domain>`; for a public balancer also in the public zone."""
    zone = route53.HostedZone.from_hosted_zone_attributes(
        stack, "Zone", hosted_zone_id=shared(environment, "ZoneId"), zone_name=environment.domain
    )
    route53.CnameRecord(
        stack,
        "Name",
        zone=zone,
        record_name=environment.service_name,
        domain_name=shared(environment, "BalancerDnsName"),
        ttl=Duration.seconds(60),
    )
    if environment.platform.public:
        route53.CnameRecord(
            stack,
            "PublicName",
            zone=public_zone(stack, environment),
            record_name=f"{environment.service_name}.{environment.domain}.",
            domain_name=shared(environment, "BalancerDnsName"),
            ttl=Duration.seconds(60),
        )


def _target_group(stack: Stack, environment: Environment, vpc: ec2.IVpc, colour: str) -> elb.ApplicationTargetGroup:
    return elb.ApplicationTargetGroup(
        stack,
        colour,
        vpc=vpc,
        port=config.PORT,
        protocol=elb.ApplicationProtocol.HTTP,
        target_type=elb.TargetType.IP if environment.is_fargate else elb.TargetType.INSTANCE,
        deregistration_delay=Duration.seconds(environment.service.deregistration_seconds),
        health_check=elb.HealthCheck(
            path="/readyz",
            healthy_http_codes="200",
            interval=Duration.seconds(5),
            timeout=Duration.seconds(2),
            healthy_threshold_count=2,
            unhealthy_threshold_count=2,
        ),
    )


def _rule(
    stack: Stack,
    environment: Environment,
    name: str,
    listener: elb.IApplicationListener,
    groups: list[elb.ApplicationTargetGroup],
) -> elb.ApplicationListenerRule:
    """Create a rule that forwards to the first of `groups`, until a release moves it.

    It has two patterns, since `/api/orders*` would also match the paths of a service named `orders-archive`.
    """
    prefix = environment.url_prefix
    action = elb.ListenerAction.forward(groups[:1])
    if environment.service.controller == "ECS":
        action = elb.ListenerAction.weighted_forward(
            [
                elb.WeightedTargetGroup(target_group=group, weight=weight)
                for group, weight in zip(groups, (100, 0), strict=True)
            ]
        )
    return elb.ApplicationListenerRule(
        stack,
        name,
        listener=listener,
        priority=environment.listener_priority,
        conditions=[elb.ListenerCondition.path_patterns([prefix, f"{prefix}/*"])],
        action=action,
    )
