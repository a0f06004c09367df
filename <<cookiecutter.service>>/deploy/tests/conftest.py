"""Fixtures: an environment that is filled in, its stacks, AWS, and two releases of the service."""

import itertools
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy import app, config, environments, files
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION, Cloud
from deploy.tests.commands import Checkout, push

COMBINATIONS = list(itertools.product(("FARGATE", "EC2"), ("CODE_DEPLOY", "ECS")))
"""Capacities and controllers."""

SPOT = [("FARGATE_SPOT", "CODE_DEPLOY"), ("FARGATE_SPOT", "ECS")]
"""Staging's own capacity. It differs from `FARGATE` in one property of the service, so few tests repeat it."""

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


def tables(capacity: str = "FARGATE", controller: str = "CODE_DEPLOY", name: str = "staging") -> dict[str, Any]:
    """`deploy/staging.toml`, or the file of another environment, filled in."""
    filled = files.read(name)
    filled |= {"account": ACCOUNT, "images_account": ACCOUNT, "region": REGION, "repository": "example/orders"}
    filled["platform"] |= {
        "certificate_arn": f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/1",
        "instances": 12 if capacity == "EC2" else 0,
        "instance_type": "m7g.large",
    }
    filled["service"] |= {"capacity": capacity, "controller": controller}
    return filled


def changed(**changes: Any) -> dict[str, Any]:
    """Return the filled-in environment with `table__key=value` changed. `None` removes the key."""
    filled = tables()
    for path, value in changes.items():
        table, _, key = path.rpartition("__")
        target = filled.setdefault(table, {}) if table else filled
        if value is None:
            del target[key]
        else:
            target[key] = value
    return filled


class Stacks:
    """The templates of one combination, by `images`, `platform` and `service`."""

    def __init__(self, folder: Path, capacity: str, controller: str, name: str = "staging") -> None:
        environment = environments.parse(name, tables(capacity, controller, name))
        app.build(environment, DIGEST, outdir=str(folder)).synth()
        names = {
            "images": f"{environment.service_name}-images",
            "platform": environment.platform_name,
            "service": environment.stack_name,
        }
        self.environment, self.capacity, self.controller = environment, capacity, controller
        self.paths = {key: folder / f"{name}.template.json" for key, name in names.items()}
        self.templates = {key: json.loads(path.read_text(encoding="utf-8")) for key, path in self.paths.items()}

    def of_type(self, stack: str, kind: str) -> list[dict[str, Any]]:
        """Return the properties of all resources of a type."""
        resources = self.templates[stack]["Resources"].values()
        return [each.get("Properties", {}) for each in resources if each["Type"] == f"AWS::{kind}"]

    def one(self, stack: str, kind: str) -> dict[str, Any]:
        """Return the properties of the only resource of a type."""
        [found] = self.of_type(stack, kind)
        return found


def synthesise(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return the template of a stack, with `table__key=value` changed in the environment file."""
    environment = environments.parse("staging", changed(**changes))
    digest = None if name == environment.platform_name else DIGEST  # without it, the service is left out
    app.build(environment, digest, outdir=str(folder)).synth()
    template: dict[str, Any] = json.loads((folder / f"{name}.template.json").read_text(encoding="utf-8"))
    return template


def of_type(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in template["Resources"].values() if each["Type"] == f"AWS::{kind}"]


@pytest.fixture(scope="session")
def all_stacks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Stacks]:
    """All combinations, each synthesised once, when it is asked for."""

    class Made(dict[tuple[str, str], Stacks]):
        def __missing__(self, combination: tuple[str, str]) -> Stacks:
            self[combination] = Stacks(tmp_path_factory.mktemp("-".join(combination)), *combination)
            return self[combination]

    return Made()


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def stacks(request: pytest.FixtureRequest, all_stacks: Mapping[tuple[str, str], Stacks]) -> Stacks:
    """Each combination in turn."""
    return all_stacks[request.param]


@pytest.fixture(scope="session")
def server() -> Iterator[Cloud]:
    """Run one server for all tests."""
    cloud = Cloud()
    yield cloud
    cloud.server.shutdown()
    cloud.server.server_close()


@pytest.fixture
def cloud(server: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """AWS, empty, and what boto3 finds in the environment."""
    server.reset()
    for name in ("no_proxy", "NO_PROXY"):  # the server is on this machine's loopback, where no proxy can reach it
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return server


def deploy(cloud: Cloud, stacks: Stacks) -> None:
    """Create the stacks, after what `cdk bootstrap` makes: its version, and the bucket of the assets."""
    cloud.client("ssm").put_parameter(Name="/cdk-bootstrap/hnb659fds/version", Value="30", Type="String")
    s3 = cloud.client("s3")
    bucket = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for function in stacks.of_type("service", "Lambda::Function"):
        s3.put_object(Bucket=bucket, Key=function["Code"]["S3Key"], Body=b"a zip")
    issued = cloud.client("acm").request_certificate(DomainName="*.example.com")["CertificateArn"]
    expected = stacks.environment.platform.certificate_arn
    cloudformation = cloud.client("cloudformation")
    for path in stacks.paths.values():
        name, body = (
            path.name.removesuffix(".template.json"),
            path.read_text(encoding="utf-8").replace(expected, issued),
        )
        cloudformation.create_stack(StackName=name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"])


@pytest.fixture(params=["CODE_DEPLOY", "ECS"])
def aws(
    request: pytest.FixtureRequest,
    cloud: Cloud,
    all_stacks: Mapping[tuple[str, str], Stacks],
    monkeypatch: pytest.MonkeyPatch,
) -> Cloud:
    """AWS with the stacks, for both controllers."""
    stacks = all_stacks["FARGATE", request.param]
    deploy(cloud, stacks)
    monkeypatch.setattr("deploy.release.target.POLL_SECONDS", 0.01)
    return cloud


once = pytest.mark.parametrize("aws", ["CODE_DEPLOY"], indirect=True)
"""For what does not depend on the controller."""


@pytest.fixture
def digest(aws: Cloud) -> str:
    """Push an image into the repository, and return its digest."""
    return push(aws, "build-1")


@pytest.fixture
def checkout(tmp_path: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, cloud, monkeypatch)


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


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """Run PostgreSQL for these tests."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def blue(database_url: str) -> Iterator[Process]:
    """Run the release that has the traffic."""
    process = Process(database_url, "1+build-1")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def green(blue: Process, database_url: str) -> Iterator[Process]:
    """Run the release that is deployed."""
    del blue  # it migrates
    process = Process(database_url, "2+build-2")
    yield process
    process.stop()


@pytest.fixture(scope="session")
def dumb() -> Iterator[str]:
    """Return the URL of a server that accepts requests, and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
