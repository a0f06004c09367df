"""Scaling is suspended while traffic is moved: it would count the tasks of both colours, and can fail the deployment.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-type-bluegreen.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy import config
from deploy.release.target import Target, client

KINDS = ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended")


@contextmanager
def suspended(target: Target) -> Iterator[None]:
    """Suspend scaling, and resume it whatever happens. A command that was killed is made up for by the next one."""
    if not _targets(target):
        yield
        return
    _set(target, is_suspended=True)
    try:
        yield
    finally:
        _set(target, is_suspended=False)


def resume(target: Target) -> None:
    """Resume scaling that a command left suspended when it was killed."""
    if is_suspended(target):
        _set(target, is_suspended=False)


def is_suspended(target: Target) -> bool:
    """Return whether scaling is suspended."""
    return any(any(each.get("SuspendedState", {}).values()) for each in _targets(target))


def _resource(target: Target) -> dict[str, str]:
    return {
        "ServiceNamespace": "ecs",
        "ScalableDimension": "ecs:service:DesiredCount",
        "ResourceId": f"service/{target.cluster}/{config.service_name()}",
    }


def _targets(target: Target) -> list[dict[str, Any]]:
    resource = _resource(target)
    found: list[dict[str, Any]] = client("application-autoscaling", target.region).describe_scalable_targets(
        ServiceNamespace="ecs", ResourceIds=[resource["ResourceId"]]
    )["ScalableTargets"]
    return found


def _set(target: Target, *, is_suspended: bool) -> None:
    client("application-autoscaling", target.region).register_scalable_target(
        **_resource(target), SuspendedState=dict.fromkeys(KINDS, is_suspended)
    )
