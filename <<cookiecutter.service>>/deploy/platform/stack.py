"""The platform of an environment, as one stack. It is deployed once, and shared by all services."""

from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from deploy.config import Environment
from deploy.platform.alarms import alarms, topic
from deploy.platform.balancer import balancer
from deploy.platform.cluster import cluster
from deploy.platform.database import database
from deploy.platform.exports import export
from deploy.platform.network import vpc, zone
from deploy.platform.night import night


class PlatformStack(cdk.Stack):
    """A stack that knows its zones.

    CDK checks the zones of a VPC against those of its stack, for which the CDK CLI would ask AWS, run the application
    again, and leave a `cdk.context.json`, for which `build` takes the tree for dirty.
    """

    def __init__(self, scope: Construct, name: str, zones: list[str], **options: Any) -> None:
        self._zones = zones
        super().__init__(scope, name, **options)

    @property
    def availability_zones(self) -> list[str]:
        """Return the zones that the environment file names."""
        return self._zones


def platform_stack(scope: Construct, environment: Environment) -> cdk.Stack:
    """Create the stack with what the services of the environment share."""
    stack = PlatformStack(
        scope,
        environment.platform_name,
        environment.platform.availability_zones,
        env=cdk.Environment(account=environment.account, region=environment.region),
        description=f"What the services of {environment.name} share",
        termination_protection=environment.platform.keep,
    )
    network = vpc(stack, environment)
    tasks = ec2.SecurityGroup(stack, "Tasks", vpc=network, description="Tasks of services, or the machines they run on")
    hooks = ec2.SecurityGroup(stack, "Hooks", vpc=network, description="Functions that test green")
    cluster(stack, environment, network, tasks)
    alarms(stack, environment, topic(stack, environment), balancer(stack, environment, network, tasks, hooks))
    database(stack, environment, network, tasks, zone(stack, environment, network))
    night(stack, environment)
    export(stack, environment, "TasksSecurityGroup", tasks.security_group_id)
    export(stack, environment, "HooksSecurityGroup", hooks.security_group_id)
    return stack
