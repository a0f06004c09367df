"""The tests run the release command with these helpers, and build from a checkout with a stand-in for docker."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import config
from deploy.release import __main__ as program
from deploy.tests.cloud import Cloud

NAME = config.service_name()
STACK = f"{NAME}-staging"

DOCKER = f"""#!{sys.executable}
import hashlib, json, os, sys
import boto3

with open(os.environ["DOCKER_LOG"], "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "login":
    sys.exit(0 if sys.stdin.read() else 1)
if sys.argv[2] == "inspect":
    sys.exit(1)
if sys.argv[2] == "create":
    sys.exit(0)
if os.environ.get("DOCKER_FAILS"):
    sys.exit(17)
values = dict(each.split("=", 1) for each in sys.argv if each.startswith("--") and "=" in each)
name, tag = values["--tag"].rpartition("/")[2].split(":")
layers = [dict(digest="sha256:" + hashlib.sha256(tag.encode()).hexdigest())]
kind = "application/vnd.oci.image.index.v1+json"
manifest = json.dumps(dict(schemaVersion=2, mediaType=kind, layers=layers))
pushed = boto3.client("ecr").put_image(repositoryName=name, imageTag=tag, imageManifest=manifest)
with open(values["--metadata-file"], "w") as file:
    json.dump({{"containerimage.digest": pushed["image"]["imageId"]["imageDigest"]}}, file)
"""
"""Stands for docker: it writes down what it is told, and puts an image into moto's registry, which has no bytes."""


def push(aws: Cloud, tag: str) -> str:
    # With a layer, since moto derives the digest from those; without any it draws one of 101, and two may be equal.
    layers = [{"digest": f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"}]
    kind = "application/vnd.oci.image.index.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": layers})
    pushed = aws.client("ecr").put_image(repositoryName=NAME, imageTag=tag, imageManifest=manifest)
    return str(pushed["image"]["imageId"]["imageDigest"])


class Ran:
    """What a command said and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = program.main(list(arguments))
        out, self.err = capsys.readouterr()
        self.steps = [json.loads(line) for line in out.splitlines()]


def command(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> Ran:
    return Ran(capsys, name, "--environment", "staging", *arguments)


def running(aws: Cloud) -> str:
    [service] = aws.client("ecs").describe_services(cluster="platform-staging", services=[NAME])["services"]
    primary = [each for each in service.get("taskSets", []) if each["status"] == "PRIMARY"]
    return str((primary or [service])[0]["taskDefinition"].rpartition("/")[2])


def cut_off(aws: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the newest release, and leave in the middle of its deployment."""
    aws.script = "endless"
    with monkeypatch.context() as patch:
        patch.setattr("deploy.release.rollout.pause", lambda: sys.exit("cut off"))
        with pytest.raises(SystemExit):
            command(capsys, "run")
    capsys.readouterr()


class Checkout:
    """A commit of the service, a docker that is none, and a repository for images."""

    def __init__(self, folder: Path, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder / "checkout", folder / "docker.log"
        self.folder.mkdir()
        (self.folder / "deploy").mkdir()
        for name in ("pyproject.toml", "Dockerfile", "deploy/staging.toml", "deploy/production.toml"):
            (self.folder / name).write_text((config.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
        identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"]
        for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
            subprocess.run(["git", *words], cwd=self.folder, check=True)  # noqa: S607 - as the command itself
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "docker").write_text(DOCKER, encoding="utf-8")
        (binaries / "docker").chmod(0o755)
        monkeypatch.setattr(config, "ROOT", self.folder)
        monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_LOG", str(self.log))
        for name in ("CODEBUILD_BUILD_ID", "GITHUB_RUN_ID"):
            monkeypatch.delenv(name, raising=False)
        cloud.client("ecr").create_repository(repositoryName=NAME, imageTagMutability="IMMUTABLE")

    def docker(self) -> list[list[str]]:
        """Return the arguments of docker, call by call."""
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]

    def commit(self) -> str:
        """Return the name of the commit."""
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - so
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()
