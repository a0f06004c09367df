"""The hooks that run the checks, against two releases of the service that are really there."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from moto.moto_api import state_manager

from deploy import checks, hooks, lifecycle
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION, Cloud
from deploy.tests.conftest import PREFIX, Process

HOOKS: dict[str, Callable[[dict[str, Any], Any], dict[str, str]]] = {
    event: getattr(hooks, re.sub("(?<!^)(?=[A-Z])", "_", event).lower()) for event in lifecycle.EVENTS
}


class Context:
    """What Lambda tells a function about its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        """As the runtime's own."""
        return int(self.seconds * 1_000)


@pytest.fixture
def event(cloud: Cloud, green: Process, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """CodeDeploy's event about a deployment of green's release, which runs as one task."""
    variables = {
        "BASE_URL": "http://127.0.0.1",
        "TEST_PORT": str(green.port),
        "URL_PREFIX": PREFIX,
        "LATENCY_BOUND_MS": "1000",
        "CLUSTER": "platform-staging",
        "FAMILY": "family",
        "SERVICE": "orders",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    register(cloud, "2+build-2")
    codedeploy = cloud.client("codedeploy")
    codedeploy.create_application(applicationName="a", computePlatform="ECS")
    role = f"arn:aws:iam::{ACCOUNT}:role/deploy"
    codedeploy.create_deployment_group(applicationName="a", deploymentGroupName="a", serviceRoleArn=role)
    ecs = cloud.client("ecs")
    ecs.create_cluster(clusterName="platform-staging")
    ecs.create_service(cluster="platform-staging", serviceName="orders", taskDefinition="family:1", desiredCount=1)
    cloud.script = "endless"
    yield {"DeploymentId": start(cloud, 1), "LifecycleEventHookExecutionId": secrets.token_hex(4)}
    state_manager.unset_transition("ecs::task")


def register(cloud: Cloud, release: str, image: str = f"registry/orders@{DIGEST}") -> str:
    container = {"name": "web", "image": image, "memory": 128, "environment": [{"name": "RELEASE", "value": release}]}
    made = cloud.client("ecs").register_task_definition(family="family", containerDefinitions=[container])
    return str(made["taskDefinition"]["taskDefinitionArn"])


def start(cloud: Cloud, revision: int) -> str:
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/family:{revision}"
    content = json.dumps({"Resources": [{"TargetService": {"Properties": {"TaskDefinition": arn}}}]})
    created = cloud.client("codedeploy").create_deployment(
        applicationName="a",
        deploymentGroupName="a",
        revision={"revisionType": "AppSpecContent", "appSpecContent": {"content": content}},
    )
    return str(created["deploymentId"])


def run_tasks(cloud: Cloud, count: int) -> None:
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1_000})  # they run on
    cloud.client("ecs").run_task(
        cluster="platform-staging", taskDefinition="family:1", count=count, launchType="FARGATE"
    )


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    return line


@pytest.mark.parametrize("name", lifecycle.EVENTS)
def test_a_good_green_passes_every_event(
    cloud: Cloud, event: dict[str, Any], name: str, green: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_tasks(cloud, 1)
    if name == "AfterAllowTraffic":
        monkeypatch.setenv("BASE_URL", green.url)
    assert HOOKS[name](event, Context(60)) == {"hookStatus": "SUCCEEDED"}
    assert cloud.hooks == [
        {
            "deploymentId": event["DeploymentId"],
            "lifecycleEventHookExecutionId": event["LifecycleEventHookExecutionId"],
            "status": "Succeeded",
        }
    ]


def test_the_same_hooks_answer_ecs(cloud: Cloud, event: dict[str, Any]) -> None:
    del event
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/platform-staging/orders/0"
    cloud.native.append({"arn": arn, "task": "family:1", "status": "IN_PROGRESS", "seen": 0})
    asked = {
        "executionId": "1",
        "lifecycleStage": "POST_TEST_TRAFFIC_SHIFT",
        "resourceArn": arn,
        "executionDetails": {"targetServiceRevisionArn": arn.replace("service-deployment", "service-revision")},
    }
    assert hooks.after_allow_test_traffic(asked, Context(60)) == {"hookStatus": "SUCCEEDED"}
    assert cloud.hooks == []
    cloud.native[0]["task"] = register(cloud, "2+build-2", image="orders:latest")
    assert hooks.before_install(asked, Context(60)) == {"hookStatus": "FAILED"}


def test_an_image_that_may_change_under_its_name_fails(
    cloud: Cloud, event: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    register(cloud, "3+build-3", image="registry/orders:latest")
    event["DeploymentId"] = start(cloud, 2)
    assert hooks.before_install(event, Context(60)) == {"hookStatus": "FAILED"}
    assert cloud.hooks[0]["status"] == "Failed"
    assert said(capsys)["reason"] == "CheckError: registry/orders:latest is not named by its digest"


def test_green_that_does_not_run_or_is_in_one_zone_fails(
    cloud: Cloud, event: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "TASKS_PATIENCE_SECONDS", 0)
    assert hooks.after_install(event, Context(60)) == {"hookStatus": "FAILED"}
    assert "0 of 1 tasks run" in said(capsys)["reason"]
    cloud.client("ecs").update_service(cluster="platform-staging", service="orders", desiredCount=2)
    run_tasks(cloud, 2)  # moto knows no zones
    assert hooks.after_install(event, Context(60)) == {"hookStatus": "FAILED"}


def test_another_release_at_the_test_listener_fails(
    cloud: Cloud,
    event: dict[str, Any],
    blue: Process,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_PORT", str(blue.port))
    monkeypatch.setattr(checks.ready, "__defaults__", (1.0,))
    assert hooks.after_allow_test_traffic(event, Context(60)) == {"hookStatus": "FAILED"}
    assert cloud.hooks[0]["status"] == "Failed"
    assert "release 1+build-1 answers, not 2+build-2" in said(capsys)["reason"]


def test_a_hook_that_crashes_fails_the_deployment(
    cloud: Cloud, event: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("URL_PREFIX")
    assert hooks.after_allow_traffic(event, Context(60)) == {"hookStatus": "FAILED"}
    assert cloud.hooks[0]["status"] == "Failed"
    assert said(capsys)["reason"] == "KeyError: 'URL_PREFIX'"


def test_a_hook_that_runs_out_of_time_fails_the_deployment(
    cloud: Cloud, event: dict[str, Any], dumb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PORT", dumb.rpartition(":")[2])
    started = time.monotonic()
    assert hooks.after_allow_test_traffic(event, Context(hooks.MARGIN_SECONDS + 1)) == {"hookStatus": "FAILED"}
    assert time.monotonic() - started < 5
    assert cloud.hooks[0]["status"] == "Failed"
    assert said(capsys)["reason"] == "out of time after 1 s"


def test_the_creation_of_a_service_is_no_release_and_nothing_else_may_come_without_one(
    cloud: Cloud, event: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del event
    container = {"name": "web", "image": f"registry/orders@{DIGEST}", "memory": 128}
    made = cloud.client("ecs").register_task_definition(family="family", containerDefinitions=[container])
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/platform-staging/orders/0"
    task = made["taskDefinition"]["taskDefinitionArn"]
    cloud.native.append({"arn": arn, "task": task, "status": "IN_PROGRESS", "seen": 0})
    asked = {"executionDetails": {"targetServiceRevisionArn": arn.replace("service-deployment", "service-revision")}}
    assert hooks.after_install(asked, Context(60)) == {"hookStatus": "FAILED"}
    assert "is no release, and must not replace release 2+build-2" in said(capsys)["reason"]
    cloud.client("ecs").create_service(cluster="platform-staging", serviceName="new", taskDefinition=task)
    monkeypatch.setenv("SERVICE", "new")
    assert hooks.after_install(asked, Context(60)) == {"hookStatus": "SUCCEEDED"}
    assert "no release" in said(capsys)["seen"]
