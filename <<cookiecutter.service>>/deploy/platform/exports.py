"""The names by which services find what the platform's stack made.

Services use these exports alone, so it does not matter whether a resource was made by the stack or named under
`[existing]` in the environment file, nor which service's repository deployed the stack.
"""

from aws_cdk import Fn, Stack

from deploy.config import Environment


def export(stack: Stack, environment: Environment, name: str, value: str) -> None:
    """Export `value` from the platform's stack under `name`."""
    stack.export_value(value, name=f"{environment.platform_name}-{name}")


def shared(environment: Environment, name: str) -> str:
    """Return what the platform exports as `name`, as a token that CloudFormation resolves."""
    return Fn.import_value(f"{environment.platform_name}-{name}")
