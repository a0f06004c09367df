"""The network of an environment: a VPC with public and private subnets in three availability zones, and its zone."""

from aws_cdk import Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53

from deploy.config import Environment
from deploy.platform.exports import export


def vpc(stack: Stack, environment: Environment) -> ec2.IVpc:
    """Create the VPC, or look up the one that the environment file names, and export it."""
    existing = environment.existing.vpc
    network = _existing(stack, environment, existing) if existing else _new(stack, environment)
    private = network.select_subnets(subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS)
    export(stack, environment, "VpcId", network.vpc_id)
    export(stack, environment, "PrivateSubnets", Fn.join(",", private.subnet_ids))
    return network


def _existing(stack: Stack, environment: Environment, named: dict[str, str | list[str]]) -> ec2.IVpc:
    return ec2.Vpc.from_vpc_attributes(
        stack,
        "Vpc",
        vpc_id=str(named["id"]),
        vpc_cidr_block=str(named["cidr"]),
        availability_zones=environment.platform.availability_zones,
        private_subnet_ids=list(named["private_subnets"]),
    )


def _new(stack: Stack, environment: Environment) -> ec2.IVpc:
    return ec2.Vpc(
        stack,
        "Vpc",
        ip_addresses=ec2.IpAddresses.cidr(environment.platform.cidr),
        availability_zones=environment.platform.availability_zones,
        nat_gateways=environment.platform.nat_gateways,
        flow_logs={
            "Rejected": ec2.FlowLogOptions(
                destination=ec2.FlowLogDestination.to_cloud_watch_logs(
                    logs.LogGroup(
                        stack,
                        "Flows",
                        retention=logs.RetentionDays.ONE_MONTH,
                        removal_policy=RemovalPolicy.DESTROY,
                    )
                ),
                traffic_type=ec2.FlowLogTrafficType.REJECT,
            )
        },
    )


def zone(stack: Stack, environment: Environment, network: ec2.IVpc) -> route53.IHostedZone:
    """Create the private hosted zone, or look up the one that the environment file names, and export it."""
    name, existing = environment.domain, environment.existing.zone
    found: route53.IHostedZone
    if existing:
        found = route53.HostedZone.from_hosted_zone_attributes(stack, "Zone", hosted_zone_id=existing, zone_name=name)
    else:
        found = route53.PrivateHostedZone(stack, "Zone", vpc=network, zone_name=name)
    export(stack, environment, "ZoneId", found.hosted_zone_id)
    return found


def public_zone(stack: Stack, environment: Environment) -> route53.IHostedZone:
    """Return the public hosted zone, in which the certificate is validated and public services have their names."""
    named = environment.platform.public_zone
    return route53.HostedZone.from_hosted_zone_attributes(
        stack, "PublicZone", hosted_zone_id=named["id"], zone_name=named["name"]
    )


def outgoing_addresses(network: ec2.IVpc) -> list[str]:
    """Return the addresses of the NAT gateways, from which requests of the VPC reach the internet."""
    found = [subnet.node.try_find_child("EIP") for subnet in network.public_subnets]
    return [each.ref for each in found if isinstance(each, ec2.CfnEIP)]
