"""IAM roles of AWS services."""

from typing import Any

from aws_cdk import aws_iam as iam
from constructs import Construct


def role(scope: Construct, name: str, service: str, **options: Any) -> iam.Role:
    """Create a role that the AWS service `service` assumes, such as `ecs-tasks`."""
    principal: Any = iam.ServicePrincipal(f"{service}.amazonaws.com")  # its protocol names parameters differently
    return iam.Role(scope, name, assumed_by=principal, **options)
