"""Build an image of the commit, and push it under a tag that is never moved."""

import base64
import json
import os
import re
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from deploy import config, files
from deploy.release.target import ReleaseError, client, say

BUILDER = "deploy-release"
"""Name of the builder."""

STDERR = 2
"""File descriptor for the output of docker."""


def build() -> None:
    """Build the image of the commit, push it once, and print its digest.

    Raises:
        ReleaseError: The tree is dirty, there is no repository, or docker failed.
    """
    if changed := _output("git", "status", "--porcelain", "."):
        raise ReleaseError(f"the tree is dirty, so no commit says what the image is made of: {changed.splitlines()[0]}")
    commit = _output("git", "rev-parse", "HEAD")
    tag = f"build-{_build_id(commit)}"
    ecr, name = client("ecr"), config.service_name()
    try:
        uri = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
    except ecr.exceptions.RepositoryNotFoundException:
        raise ReleaseError(f"there is no repository {name}: deploy the stack {name}-images first") from None
    with suppress(ecr.exceptions.ImageNotFoundException):
        # Tags are never moved: a build that is repeated takes the image that there is.
        [image] = ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])["imageDetails"]
        digest = image["imageDigest"]
        say("pushed", tag=tag, image=f"{uri}@{digest}", digest=digest, status="was there")
        return
    [granted] = ecr.get_authorization_token()["authorizationData"]
    user, password = base64.b64decode(granted["authorizationToken"]).decode().split(":", 1)
    # As `docker login` expects it: the host of the repository, with the port that only a registry of tests has.
    registry = urlsplit(f"//{uri}").netloc
    _docker("login", "--username", user, "--password-stdin", registry, stdin=password)
    say("build", tag=tag, commit=commit, platforms=files.platforms())
    _create_builder()
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder) / "metadata.json"
        _docker(
            "buildx",
            "build",
            f"--builder={BUILDER}",
            f"--platform={files.platforms()}",
            "--push",
            "--sbom=true",
            "--provenance=mode=max",
            f"--metadata-file={metadata}",
            f"--build-arg=RELEASE={tag}",
            f"--build-arg=REVISION={commit}",
            f"--tag={uri}:{tag}",
            ".",
        )
        digest = json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"]
    say("pushed", tag=tag, image=f"{uri}@{digest}", digest=digest, status="made")


def _create_builder() -> None:
    """Create a builder in a container, unless there is one: docker's own attaches neither SBOM nor provenance."""
    try:
        _output("docker", "buildx", "inspect", BUILDER)
    except ReleaseError:
        _docker("buildx", "create", f"--name={BUILDER}", "--driver=docker-container")


def _build_id(commit: str) -> str:
    """Return what makes the tag unique: the id of the run that builds, or on a laptop the commit."""
    ran = os.environ.get("CODEBUILD_BUILD_ID") or os.environ.get("GITHUB_RUN_ID") or commit[:12]
    return re.sub("[^A-Za-z0-9_.-]", "-", ran.rpartition(":")[2])


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=config.ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - git
    except FileNotFoundError:
        raise ReleaseError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise ReleaseError(f"{' '.join(command)}: {(error.stderr.strip().splitlines() or ['failed'])[-1]}") from None
    return done.stdout.strip()


def _docker(*arguments: str, stdin: str | None = None) -> None:
    """Run docker. Its output goes to stderr, since stdout is for our own lines."""
    try:
        done = subprocess.run(  # noqa: S603 - as above
            ["docker", *arguments],  # noqa: S607 - whichever docker is installed
            cwd=config.ROOT,
            input=stdin,
            stdout=STDERR if stdin is None else subprocess.DEVNULL,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ReleaseError("docker is not installed") from None
    if done.returncode:
        raise ReleaseError(f"docker {' '.join(arguments[:2])} ended with status {done.returncode}")
