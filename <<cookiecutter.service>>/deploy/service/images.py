"""The repository of the service's images, one for all environments, so that they all run the same images."""

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from constructs import Construct

from deploy import files
from deploy.config import Environment
from deploy.service.pipeline import build_role


def images_stack(scope: Construct, environment: Environment) -> cdk.Stack:
    """Create the stack with the repository. Every account that has an environment may pull from it."""
    stack = cdk.Stack(
        scope,
        environment.images_name,
        env=cdk.Environment(account=environment.images_account, region=environment.region),
        description=f"The images of {environment.service_name}",
    )
    repository = ecr.Repository(
        stack,
        "Repository",
        repository_name=environment.service_name,
        image_tag_mutability=ecr.TagMutability.IMMUTABLE,
        image_scan_on_push=True,
        removal_policy=cdk.RemovalPolicy.RETAIN,
        lifecycle_rules=[
            ecr.LifecycleRule(
                description="What pushes left behind",
                tag_status=ecr.TagStatus.UNTAGGED,
                max_image_age=cdk.Duration.days(30),
            )
        ],
    )
    for account in files.accounts():
        if account != environment.images_account:
            repository.grant_pull(iam.AccountPrincipal(account))
            repository.grant(iam.AccountPrincipal(account), "ecr:DescribeImages")
    build_role(stack, environment, repository)
    return stack
