"""Fixtures: an environment that is filled in, its stacks, and AWS."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy import app, environments, files
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION, Cloud

COMBINATIONS = list(itertools.product(("FARGATE", "EC2"), ("CODE_DEPLOY", "ECS")))
"""Capacities and controllers."""

SPOT = [("FARGATE_SPOT", "CODE_DEPLOY"), ("FARGATE_SPOT", "ECS")]
"""Staging's own capacity. It differs from `FARGATE` in one property of the service, so few tests repeat it."""


def tables(capacity: str = "FARGATE", controller: str = "CODE_DEPLOY") -> dict[str, Any]:
    """`deploy/staging.toml`, filled in."""
    filled = files.read("staging")
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

    def __init__(self, folder: Path, capacity: str, controller: str) -> None:
        environment = environments.parse("staging", tables(capacity, controller))
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
