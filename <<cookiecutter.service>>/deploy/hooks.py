"""The hooks of a deployment: a Lambda function for each lifecycle event, which decides whether it may continue.

Blue is the release that serves, green the new one. Each hook reports to CodeDeploy by a request, and to ECS by its
return value. If a check fails, crashes or times out, the report is `Failed`, and the deployment rolls back to blue.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-lifecycle-hooks.html
"""

import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config

from deploy import checks, client

MARGIN_SECONDS = 15
"""Part of the Lambda function's timeout that is reserved for the report."""

TASKS_PATIENCE_SECONDS = 120
"""How long to wait until all tasks of green run."""

OPTIONS = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 2, "mode": "standard"})
"""Timeouts of requests to AWS: even one that fails twice ends within `MARGIN_SECONDS`."""

Task = dict[str, Any]


def before_install(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Check before green exists: its image is named by a digest, so that it cannot change."""
    return _report(event, context, _is_fixed)


def after_install(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Check when green's tasks exist: all of them run, in more than one zone if there are several."""
    return _report(event, context, _is_spread)


def after_allow_test_traffic(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Check when the test listener leads to green: run all checks there."""
    return _report(event, context, lambda task: checks.everything(_test_url(), *_expected(task), _bound_ms()))


def before_allow_traffic(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Check just before green gets requests of users: it is still the same release, and warm."""
    return _report(
        event,
        context,
        lambda task: (
            checks.ready(_test_url(), *_expected(task)) | checks.latency(_test_url(), *_expected(task), _bound_ms())
        ),
    )


def after_allow_traffic(event: dict[str, Any], context: Any) -> dict[str, str]:
    """Check when green has all traffic: run all checks where users are."""
    return _report(
        event, context, lambda task: checks.everything(os.environ["BASE_URL"], *_expected(task), _bound_ms())
    )


def _report(event: dict[str, Any], context: Any, check: Callable[[Task], Any]) -> dict[str, str]:
    """Run `check` on the task definition that is being deployed, and report the result to the deployment."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            task = _task_definition(event)
            if _expected(task)[1] is None and "DeploymentId" not in event:
                outcome["seen"] = _is_creation()
            else:
                _authorize()
                outcome["seen"] = check(task)
            outcome["status"] = "Succeeded"
        except Exception as error:  # noqa: BLE001 - any error must be reported to the deployment
            outcome["reason"] = f"{type(error).__name__}: {error}"

    # In a thread, since a check that hangs cannot report that it hangs.
    patience_seconds = max(context.get_remaining_time_in_millis() / 1_000 - MARGIN_SECONDS, 0)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(patience_seconds)
    if thread.is_alive():
        outcome = {"reason": f"out of time after {patience_seconds:.0f} s"}
    status = outcome.setdefault("status", "Failed")
    print(json.dumps({"event": event, **outcome}, default=str), flush=True)  # noqa: T201 - stdout is Lambda's log
    if "DeploymentId" in event:
        _client("codedeploy").put_lifecycle_event_hook_execution_status(
            deploymentId=event["DeploymentId"],
            lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
            status=status,
        )
    return {"hookStatus": status.upper()}


def _task_definition(event: dict[str, Any]) -> Task:
    """Return the task definition that is being deployed."""
    if "DeploymentId" in event:
        deployment = _client("codedeploy").get_deployment(deploymentId=event["DeploymentId"])["deploymentInfo"]
        revision = deployment["revision"]
        content = (revision.get("appSpecContent") or revision["string"])["content"]
        arn = json.loads(content)["Resources"][0]["TargetService"]["Properties"]["TaskDefinition"]
    else:
        revisions = [event["executionDetails"]["targetServiceRevisionArn"]]
        described = _client("ecs").describe_service_revisions(serviceRevisionArns=revisions)
        arn = described["serviceRevisions"][0]["taskDefinition"]
    task: Task = _client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
    return task


def _is_creation() -> str:
    """Check that the service has no release yet: the stack's own revision is not migrated, and must replace none."""
    ecs = _client("ecs")
    for arn in sorted({each["taskDefinition"] for each in _service()["deployments"]}):
        if release := _expected(ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"])[1]:
            raise client.CheckError(f"the stack's own revision is no release, and must not replace release {release}")
    return "the stack's own revision, which is no release: the service is being created"


def _is_fixed(task: Task) -> dict[str, str]:
    for container in task["containerDefinitions"]:
        if not re.search("@sha256:[0-9a-f]{64}$", container["image"]):
            raise client.CheckError(f"{container['image']} is not named by its digest")
    return {"image": task["containerDefinitions"][0]["image"]}


def _is_spread(task: Task) -> dict[str, Any]:
    ecs, cluster = _client("ecs"), os.environ["CLUSTER"]
    deadline = time.monotonic() + TASKS_PATIENCE_SECONDS
    while True:
        arns = ecs.list_tasks(cluster=cluster, family=os.environ["FAMILY"], desiredStatus="RUNNING")["taskArns"]
        tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
        green = [each for each in tasks if each["taskDefinitionArn"] == task["taskDefinitionArn"]]
        running = [each for each in green if each["lastStatus"] == "RUNNING"]
        zones = sorted({each.get("availabilityZone", "") for each in running})
        wanted = _desired_count(task)
        if len(running) >= wanted and (wanted == 1 or len(zones) > 1):
            return {"tasks": len(running), "zones": zones}
        if time.monotonic() > deadline:
            raise client.CheckError(f"{len(running)} of {wanted} tasks run, in the zones {', '.join(zones)}")
        time.sleep(2)


def _desired_count(task: Task) -> int:
    """Return how many tasks green should have: CodeDeploy has the number in a task set, ECS itself in the service."""
    service = _service()
    sets = [each for each in service.get("taskSets", []) if each["taskDefinition"] == task["taskDefinitionArn"]]
    return max(int(sets[0]["computedDesiredCount"] if sets else service["desiredCount"]), 1)


def _service() -> dict[str, Any]:
    services = _client("ecs").describe_services(cluster=os.environ["CLUSTER"], services=[os.environ["SERVICE"]])
    [found] = services["services"]
    return dict(found)


def _authorize() -> None:
    """Get a token by OAuth 2's client credentials grant, if the service requires one."""
    if not (arn := os.environ.get("TOKEN_CREDENTIALS")):
        return
    secret = json.loads(_client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    body = urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": secret["client_id"],
            "client_secret": secret["client_secret"],
            **({"audience": secret["audience"]} if "audience" in secret else {}),
        }
    )
    request = Request(secret["token_url"], body.encode(), {"Accept": "application/json"})  # noqa: S310 - our own secret
    try:
        with urlopen(request, timeout=client.REQUEST_SECONDS) as answer:  # noqa: S310 - as above
            client.credentials["Authorization"] = f"Bearer {json.load(answer)['access_token']}"
    except HTTPError as error:
        error.close()  # it is the response, too
        raise


def _expected(task: Task) -> tuple[str, str | None]:
    """Return the path prefix and the name of the release, `None` for the task definition that the stack itself made."""
    variables = {each["name"]: each["value"] for each in task["containerDefinitions"][0].get("environment", [])}
    return os.environ["URL_PREFIX"], variables.get("RELEASE")


def _test_url() -> str:
    return f"{os.environ['BASE_URL']}:{os.environ['TEST_PORT']}"


def _bound_ms() -> float:
    return float(os.environ["LATENCY_BOUND_MS"])


def _client(name: str) -> Any:
    return boto3.client(name, config=OPTIONS)
