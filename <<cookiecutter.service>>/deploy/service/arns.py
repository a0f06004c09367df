"""ARNs in policies, and the findings of cdk-nag about those that end with a star."""

from aws_cdk import ArnFormat, Stack

from deploy.config import Environment


def ecs_arn(stack: Stack, resource: str, *names: str) -> str:
    """Return an ARN of ECS in this account and region."""
    return stack.format_arn(service="ecs", resource=resource, resource_name="/".join(names))


def codedeploy_arn(stack: Stack, resource: str, name: str) -> str:
    """Return an ARN of CodeDeploy in this account and region."""
    return stack.format_arn(
        service="codedeploy", resource=resource, resource_name=name, arn_format=ArnFormat.COLON_RESOURCE_NAME
    )


def wildcard(environment: Environment, resource: str, reason: str) -> tuple[str, str]:
    """Return the finding about an ARN of ECS that ends with a star; `{}` stands for the cluster."""
    name = resource.format(f"{environment.platform_name}-Cluster")
    where = f"arn:<AWS::Partition>:ecs:{environment.region}:{environment.account}:{name}"
    return f"AwsSolutions-IAM5[Resource::{where}]", reason
