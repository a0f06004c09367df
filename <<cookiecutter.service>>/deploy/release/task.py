"""Run a command once, in a task of its own: migrations and admin commands (factor XII)."""

import sys
import time
from typing import Any

from deploy import config
from deploy.release.target import ReleaseError, Target, client, pause, say

TASK_SECONDS = 1_800
"""Timeout of a one-off task; of a shell, until it runs."""

ADMIN = ("python", "-m", "service.admin")


def run_once(target: Target, arn: str, step: str, command: list[str] | None = None) -> int:
    """Run `command`, or that of the task definition, in a task of its own; print its log, and return its exit status.

    Raises:
        ReleaseError: The task did not start, or did not end in time.
    """
    overrides = {"containerOverrides": [{"name": config.CONTAINER, "command": command}] if command else []}
    task_arn = start(target, arn, step, overrides=overrides)
    ended = wait(target, task_arn, step, "STOPPED")
    _show_log(target, task_arn)
    [container] = ended["containers"]
    if container.get("exitCode") is None:
        why = container.get("reason") or ended.get("stoppedReason") or "no reason is known"
        raise ReleaseError(f"{step}: the task never started: {why}")
    say(step, task=task_arn, status="ended", exit_status=container["exitCode"])
    return int(container["exitCode"])


def start(target: Target, arn: str, step: str, **options: Any) -> str:
    """Start a task of its own, and return its ARN.

    Raises:
        ReleaseError: It could not be placed.
    """
    definition = target.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    if definition.get("networkMode") == "awsvpc":
        options["networkConfiguration"] = target.network
    started = target.ecs.run_task(
        cluster=target.cluster,
        taskDefinition=arn,
        launchType=definition.get("requiresCompatibilities", ["FARGATE"])[0],
        startedBy="deploy.release",
        **options,
    )
    if not started["tasks"]:
        reasons = ", ".join(each.get("reason", "unknown") for each in started.get("failures", [])) or "unknown"
        raise ReleaseError(f"{step}: the task could not be placed: {reasons}")
    task_arn = str(started["tasks"][0]["taskArn"])
    say(step, task=task_arn, status="running")
    return task_arn


def wait(target: Target, task_arn: str, step: str, *statuses: str) -> dict[str, Any]:
    """Wait until a task has one of `statuses`, and return its description.

    Raises:
        ReleaseError: That took longer than `TASK_SECONDS`, so the task was stopped.
    """
    deadline = time.monotonic() + TASK_SECONDS
    while time.monotonic() <= deadline:
        pause()
        # There may be none: AWS may not find a task right after it was started.
        for seen in target.ecs.describe_tasks(cluster=target.cluster, tasks=[task_arn])["tasks"]:
            if seen["lastStatus"] in statuses:
                return dict(seen)
    target.ecs.stop_task(cluster=target.cluster, task=task_arn, reason=f"{step} took too long")
    raise ReleaseError(f"{step}: stopped after {TASK_SECONDS} s; its log is in {target.log_group}")


def _show_log(target: Target, task_arn: str) -> None:
    """Print the log of the task on stderr. A task that never started has none."""
    logs = client("logs", target.region)
    stream = f"ecs/{config.CONTAINER}/{task_arn.rpartition('/')[2]}"
    token: dict[str, str] = {}
    while True:
        try:
            page = logs.get_log_events(logGroupName=target.log_group, logStreamName=stream, startFromHead=True, **token)
        except logs.exceptions.ResourceNotFoundException:
            return
        for event in page["events"]:
            print(event["message"], file=sys.stderr, flush=True)  # noqa: T201 - the log of the task
        if page["nextForwardToken"] == token.get("nextToken"):
            return
        token = {"nextToken": page["nextForwardToken"]}
