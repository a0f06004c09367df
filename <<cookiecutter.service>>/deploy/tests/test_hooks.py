"""The checks and the hooks that run them, against two releases of the service that are really there."""

import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import pytest
from moto.moto_api import state_manager

from deploy import checks, client, config, environments, hooks, lifecycle, smoke
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION, Cloud
from deploy.tests.conftest import tables

PREFIX = f"/api/{config.service_name()}"
BINARIES = config.ROOT / ".venv" / "bin"
"""The service has packages of its own."""

POSTGRES = """
import sys
from chassis.dev import embedded
with embedded.temporary() as url:
    print(url, flush=True)
    sys.stdin.read()
"""

HOOKS: dict[str, Callable[[dict[str, Any], Any], dict[str, str]]] = {
    event: getattr(hooks, re.sub("(?<!^)(?=[A-Z])", "_", event).lower()) for event in lifecycle.EVENTS
}


class Process:
    """The service, configured as in staging."""

    def __init__(self, database_url: str, release: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        variables = environments.parse("staging", tables()).variables
        environment = {
            "PATH": f"{BINARIES}:{os.environ['PATH']}",
            **variables,
            "DRAIN_SECONDS": "0",  # nobody is to be waited for at the end of a test
            "DATABASE_URL": database_url,
            "PORT": str(self.port),
            "URL_PREFIX": PREFIX,
            "RELEASE": release,
        }
        options: dict[str, Any] = {"cwd": config.ROOT, "env": environment, "stdout": subprocess.DEVNULL}
        if release == "1+build-1":
            subprocess.run([BINARIES / "python", "-m", "service.admin", "migrate"], check=True, **options)
        self.process = subprocess.Popen([BINARIES / "python", "-m", "service"], **options)
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=30)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run PostgreSQL, and give the URL of its superuser. The service's environment has the programs."""
    command = [BINARIES / "python", "-c", POSTGRES]
    with subprocess.Popen(
        command, cwd=config.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield str(process.stdout and process.stdout.readline().strip())
        process.communicate()  # closes its stdin


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """Run PostgreSQL for these tests."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="module")
def blue(database_url: str) -> Iterator[Process]:
    """Run the release that has the traffic."""
    process = Process(database_url, "1+build-1")
    yield process
    process.stop()


@pytest.fixture(scope="module")
def green(blue: Process, database_url: str) -> Iterator[Process]:
    """Run the release that is deployed."""
    del blue  # it migrates
    process = Process(database_url, "2+build-2")
    yield process
    process.stop()


@pytest.fixture(scope="module")
def dumb() -> Iterator[str]:
    """Return the URL of a server that accepts requests, and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


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


def test_the_checks_work_from_a_laptop_with_the_standard_library_alone(green: Process, tmp_path: Path) -> None:
    code = f"from deploy import checks; print(checks.everything({green.url!r}, {PREFIX!r}, '2+build-2', 1000))"
    done = subprocess.run(
        [BINARIES / "python", "-S", "-c", code],
        cwd=config.ROOT,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'release': '2+build-2'" in done.stdout


def test_a_green_that_is_too_slow_fails(green: Process) -> None:
    with pytest.raises(client.CheckError, match=r"p95 of 50 requests is .* ms, above 0 ms"):
        checks.latency(green.url, PREFIX, None, 0.001)


def test_a_green_without_a_database_fails() -> None:
    process = Process("postgresql://nobody@127.0.0.1:1/nothing", "9+build-9")
    try:
        assert checks.ready(process.url, PREFIX, "9+build-9") == {"release": "9+build-9"}
        with pytest.raises(client.CheckError, match=f" {PREFIX}{smoke.PATH}.*: 503 instead of 20"):
            smoke.check(process.url, PREFIX, "9+build-9")
    finally:
        process.stop()


def test_a_path_that_leads_nowhere_fails(green: Process) -> None:
    with pytest.raises(client.CheckError, match="GET /api/nowhere/readyz: 404 instead of 200"):
        checks.ready(green.url, "/api/nowhere", None, 0)


def test_a_listener_that_does_not_answer_fails(dumb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REQUEST_SECONDS", 0.2)
    with pytest.raises(client.CheckError, match=r"not ready after 0 s: .* no answer from http://127.0.0.1"):
        checks.ready(dumb, PREFIX, None, 0)


def test_the_creation_of_a_service_is_no_release(
    cloud: Cloud, event: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del event
    container = {"name": "web", "image": f"registry/orders@{DIGEST}", "memory": 128}
    made = cloud.client("ecs").register_task_definition(family="family", containerDefinitions=[container])
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/platform-staging/orders/0"
    task = made["taskDefinition"]["taskDefinitionArn"]
    cloud.native.append({"arn": arn, "task": task, "status": "IN_PROGRESS", "seen": 0})
    asked = {"executionDetails": {"targetServiceRevisionArn": arn.replace("service-deployment", "service-revision")}}
    assert hooks.after_install(asked, Context(60)) == {"hookStatus": "SUCCEEDED"}
    assert "no release" in said(capsys)["seen"]


def test_hooks_get_a_token_where_the_service_wants_one(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        Thread(target=issuer.handle_request, daemon=True).start()
        secret = {
            "token_url": f"http://127.0.0.1:{issuer.server_port}/token",
            "client_id": "hooks",
            "client_secret": "s",
        }
        made = cloud.client("secretsmanager").create_secret(Name="hooks", SecretString=json.dumps(secret))
        monkeypatch.setenv("TOKEN_CREDENTIALS", made["ARN"])
        monkeypatch.setattr(client, "credentials", {})
        hooks._authorize()  # noqa: SLF001 - what each hook does first
    assert client.credentials == {
        "Authorization": "Bearer grant_type=client_credentials&client_id=hooks&client_secret=s"
    }


def test_the_response_of_an_issuer_that_refuses_is_closed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Issuer) as issuer:
        Thread(target=issuer.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{issuer.server_port}/nothing"
        secret = json.dumps({"token_url": url, "client_id": "hooks", "client_secret": "s"})
        made = cloud.client("secretsmanager").create_secret(Name="hooks", SecretString=secret)
        monkeypatch.setenv("TOKEN_CREDENTIALS", made["ARN"])
        with pytest.raises(HTTPError, match="404") as refused:
            hooks._authorize()  # noqa: SLF001 - as above
    assert refused.value.fp.closed


class Issuer(BaseHTTPRequestHandler):
    """Issues tokens that repeat the request, at `/token`."""

    def do_POST(self) -> None:
        """Answer with a token."""
        token = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.send_response(200 if self.path == "/token" else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": token}).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the class above
        """Print nothing."""


def test_the_certificates_of_authorities_are_read_once() -> None:
    assert client.tls() is client.tls()
