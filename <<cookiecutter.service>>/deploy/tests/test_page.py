"""`docs/deploy.md`, command by command, as it stands: with the real CDK CLI, against moto's server.

Then the steps of the workflow on GitHub, in their order, with GitHub's shell options and the outputs handed on.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import config
from deploy.tests.cloud import ACCOUNT, REGION, Cloud
from deploy.tests.commands import DOCKER, command
from deploy.tests.conftest import once

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

PAGE = (config.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = [
    re.sub("^ +", "", block, flags=re.MULTILINE)
    for block in re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE, flags=re.MULTILINE | re.DOTALL)
]
"""The commands of the page, block by block."""

COMMIT = "git -c user.name=Somebody -c user.email=somebody@example.com commit --quiet"
CHANGE = (
    "sed -i.old 's/^DATABASE_POOL_SIZE = 5$/DATABASE_POOL_SIZE = 4/' deploy/staging.toml && rm deploy/staging.toml.old"
)

BY_HAND = {
    next(number for number, block in enumerate(BLOCKS) if command in block and number > after): change
    for command, after, change in (
        ("release build", 4, f"{COMMIT} --allow-empty --message=change"),
        (
            "release status",
            0,
            f"{CHANGE} && {COMMIT} --all --message=change",
        ),
    )
}
"""By block: what the page says in words before it, to commit for a second release, and to change the configuration."""

PYTHON = f"""#!{sys.executable}
import os, runpy, sys
sys.path.insert(0, os.getcwd())
if sys.argv[1:3] == ["-m", "deploy.release"]:
    from deploy.release import target
    target.POLL_SECONDS = 0.01
    sys.argv = sys.argv[2:]
    runpy.run_module("deploy.release", run_name="__main__", alter_sys=True)
else:
    os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
"""
"""Stands for Python: it asks moto more often than one asks AWS."""

AWS = f"""#!{sys.executable}
import sys
import boto3
from botocore import xform_name

client = boto3.client(sys.argv[1])
name = sys.argv[2].replace("-", "_")
members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[name]).input_shape.members
options = {{"--" + xform_name(key, "-"): (key, shape.type_name) for key, shape in members.items()}}
given = {{}}
for option, value in zip(sys.argv[3::2], sys.argv[4::2], strict=True):
    key, kind = options[option]
    given[key] = [value] if kind == "list" else value
getattr(client, name)(**given)
"""
"""Stands for the AWS CLI: it takes options by the same names, from the same description of the services."""


class Checkout:
    """A copy of the service under git, filled in as the page says, and a shell in it."""

    def __init__(self, folder: Path, cloud: Cloud, controller: str) -> None:
        self.folder, self.cloud = folder / "orders", cloud
        left_out = shutil.ignore_patterns(".venv*", ".git", "cdk.out", "__pycache__", ".*_cache")
        shutil.copytree(config.ROOT, self.folder, ignore=left_out, symlinks=True)
        file = self.folder / "deploy" / "staging.toml"
        text = file.read_text(encoding="utf-8")
        domain = f"*.{tomllib.loads(text)['domain']}"
        arn = cloud.client("acm").request_certificate(DomainName=domain)["CertificateArn"]
        for old, new in {
            '"000000000000"': f'"{ACCOUNT}"',
            'certificate_arn = ""': f'certificate_arn = "{arn}"',
            'repository = ""': 'repository = "example/orders"',
            'controller = "CODE_DEPLOY"': f'controller = "{controller}"',
        }.items():
            assert old in text
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
        binaries = folder / "bin"
        binaries.mkdir()
        activate = self.folder / ".venv-deploy" / "bin"
        activate.mkdir(parents=True)
        (activate / "activate").write_text("", encoding="utf-8")
        for path, script in (
            (binaries / "python", PYTHON),
            (activate / "python", PYTHON),
            (binaries / "docker", DOCKER),
            (binaries / "aws", AWS),
            (binaries / "pip", "#!/bin/sh\necho pip $*\n"),
        ):
            path.write_text(script, encoding="utf-8")
            path.chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            "AWS_ENDPOINT_URL": cloud.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "CI": "true",
            "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DOCKER_LOG": str(folder / "docker.log"),
            "RUNNER_TEMP": str(folder),
            "PYTHONPATH": str(self.folder),
        }
        for name in ("CODEBUILD_BUILD_ID", "GITHUB_RUN_ID"):
            self.environment.pop(name, None)
        self.run(f"git init -q && git add . && {COMMIT} --message=all")

    def run(self, script: str, options: tuple[str, ...] = ("-e",), **variables: str) -> str:
        """Run a script in bash, and return what it printed."""
        done = subprocess.run(
            ["bash", *options, "-c", script],  # noqa: S607 - whichever bash there is
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=1_800,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module", params=["CODE_DEPLOY", "ECS"])
def checkout(
    request: pytest.FixtureRequest, server: Cloud, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """Fill a checkout in, and empty the account."""
    if not shutil.which("npx"):
        assert not os.environ.get("CI"), "Node.js is missing"
        pytest.skip("Node.js is missing: the CDK CLI needs it")
    server.reset()
    yield Checkout(tmp_path_factory.mktemp("page"), server, request.param)
    server.reset()


def steps(text: str) -> list[dict[str, Any]]:
    """Return the progress that the release command printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"step"')]


def test_the_page_leads_from_an_empty_account_to_the_tear_down(checkout: Checkout) -> None:
    script = "set -eo pipefail\n" + "\n".join(
        f"{BY_HAND.get(number, '')}\necho '### {number}'\n{block}" for number, block in enumerate(BLOCKS)
    )
    text = checkout.run(script)
    seen = steps(text)
    first, second = [each["tag"] for each in seen if each["step"] == "pushed"]
    assert first != second
    assert [each["release"] for each in seen if each["step"] == "run"] == [
        f"2+{first}",
        f"3+{second}",
        f"5+{second}",  # 4 is the stack's own, with the changed configuration
        f"3+{second}",  # the rollback
        f"6+{second}",  # the new password
    ]
    [status] = [each for each in seen if each["step"] == "status"]
    assert (status["running"], status["deployment"], status["scaling"]) == (5, None, "on")
    assert [each["status"] for each in seen if each["step"] == "database" and "status" in each][-1] == "rotated"
    assert [each["exit_status"] for each in seen if each["step"] == "admin" and "exit_status" in each] == [0]
    [provider] = checkout.cloud.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]
    assert provider["Arn"].endswith("/token.actions.githubusercontent.com")
    cloudformation = checkout.cloud.client("cloudformation")
    left = [
        each["StackName"]
        for each in cloudformation.list_stacks()["StackSummaries"]
        if not each["StackStatus"].startswith("DELETE")
    ]
    assert sorted(left) == ["CDKToolkit", f"{config.service_name()}-images"]
    toolkit = f"cdk-hnb659fds-{{}}-{ACCOUNT}-{REGION}"
    images = {config.service_name(), toolkit.format("container-assets")}
    assert priced(checkout.cloud) == {"s3": {toolkit.format("assets")}, "ecr": images}


PRICED: dict[str, list[tuple[str, str, str]]] = {
    "ecr": [("describe_repositories", "repositories", "repositoryName")],
    "elbv2": [("describe_load_balancers", "LoadBalancers", "LoadBalancerName")],
    "logs": [("describe_log_groups", "logGroups", "logGroupName")],
    "rds": [
        ("describe_db_instances", "DBInstances", "DBInstanceIdentifier"),
        ("describe_db_snapshots", "DBSnapshots", "DBSnapshotIdentifier"),
    ],
    "s3": [("list_buckets", "Buckets", "Name")],
    "secretsmanager": [("list_secrets", "SecretList", "Name")],
}
"""What has a price, by service: the operation that lists it, the list in its answer, and what is the name.

moto's CloudFormation never deletes addresses, NAT gateways, clusters and zones, so `test_stacks.py` looks at templates.
"""


def priced(cloud: Cloud) -> dict[str, set[str]]:
    """Return the names of what costs while it exists, by service."""
    found = {
        service: {each[name] for operation, items, name in operations for each in getattr(client, operation)()[items]}
        for service, operations in PRICED.items()
        for client in [cloud.client(service)]
    }
    # RDS deletes its secret with the master's password together with the server, and moto does not.
    found["secretsmanager"] = {name for name in found["secretsmanager"] if not name.startswith("rds!")}
    return {service: names for service, names in found.items() if names}


def test_the_workflow_releases_to_staging(checkout: Checkout) -> None:
    name = config.service_name()
    checkout.run(
        'cdk() { npx --yes aws-cdk@2.1148.1 "$@" -c environment=staging; }\n'
        f"cdk deploy --require-approval never platform-staging\n"
        f"cdk deploy --require-approval never -c digest=sha256:{'0' * 64} {name}-staging"
    )
    workflow = yaml.safe_load((checkout.folder / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    outputs: dict[str, dict[str, str]] = {}
    printed = ""
    for job in ("build", "staging"):
        context = {
            "github.job": job,
            **{f"needs.{key}.outputs.{k}": v for key, each in outputs.items() for k, v in each.items()},
        }
        done: dict[str, str] = {}
        for step in workflow["jobs"][job]["steps"]:
            if "run" not in step:
                continue
            variables = {key: evaluate(value, context) for key, value in step.get("env", {}).items()}
            file = checkout.folder.parent / "output"
            file.write_text("", encoding="utf-8")
            # https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
            options = ("--noprofile", "--norc", "-eo", "pipefail") if step.get("shell") == "bash" else ("-e",)
            printed += checkout.run(
                evaluate(step["run"], context), options, GITHUB_OUTPUT=str(file), GITHUB_RUN_ID="7", **variables
            )
            pairs = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines()]
            done |= {f"steps.{step.get('id')}.outputs.{key}": value for key, _, value in pairs}
        wanted = workflow["jobs"][job].get("outputs", {})
        outputs[job] = {key: evaluate(value, done) for key, value in wanted.items()}
    assert re.fullmatch("sha256:[0-9a-f]{64}", outputs["build"]["digest"])
    assert steps(printed)[-1]["step"] == "run"
    assert steps(printed)[-1]["release"].endswith("+build-7")


@once
def test_nothing_is_released_when_the_build_fails(
    aws: Cloud, digest: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    del aws
    command(capsys, "release", digest)
    command(capsys, "run")
    [block] = [each for each in BLOCKS if "release build" in each and "release run" in each]
    done = subprocess.run(
        ["bash", "-c", block],  # noqa: S607 - as a reader's shell, which goes on after a failure
        cwd=tmp_path,  # which is no checkout
        env={
            **os.environ,
            "ENVIRONMENT": "staging",
            "GIT_DIR": "nowhere",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(config.ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (steps(done.stdout), "deploy.release: '' is no digest" in done.stderr) == ([], True)


def test_a_lost_digest_is_an_empty_word() -> None:
    assert not re.findall(r"(?m)^.*(?<!\")\$DIGEST.*$", "\n".join(BLOCKS))


def evaluate(text: str, context: dict[str, str]) -> str:
    """Return a text with its expressions replaced."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: context[found[1]], text)
