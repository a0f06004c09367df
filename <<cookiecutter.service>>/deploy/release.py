"""Factor V: build an image, make releases of it, run them: `python -m deploy.release --help`.

A release is a revision of a task definition: an image by its digest, and the configuration that the service's stack
holds. Revisions have numbers, and never change. One JSON line on stdout says what each step did; what goes wrong is one
line on stderr, and status 1. Every command may be run again: it finds what is done, and goes on from there.
"""

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from deploy import config, rollout
from deploy.target import Release, ReleaseError, Target, client, line, revision, say

POLL_SECONDS = 3.0
"""Time between two looks at what goes on."""

TASK_SECONDS = 1_800
"""How long a one-off task may take."""

STDERR = 2
"""File descriptor to which docker's own words go."""

ADMIN = ("python", "-m", "service.admin")


def build() -> None:
    """Build the image of the commit, push it once, and say its digest.

    Raises:
        ReleaseError: the tree is dirty, the tag exists, there is no repository, or docker failed.
    """
    if changed := _output("git", "status", "--porcelain", "."):
        raise ReleaseError(f"the tree is dirty, so no commit says what the image is made of: {changed.splitlines()[0]}")
    commit = _output("git", "rev-parse", "HEAD")
    tag = f"build-{_build_id(commit)}"
    ecr, name = client("ecr"), config.service_name()
    try:
        uri = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]["repositoryUri"]
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tag}])
    except ecr.exceptions.RepositoryNotFoundException:
        raise ReleaseError(f"there is no repository {name}: deploy the stack {name}-images first") from None
    except ecr.exceptions.ImageNotFoundException:
        pass
    else:
        raise ReleaseError(f"the tag {tag} exists, and tags are never moved: release it, or build another commit")
    [granted] = ecr.get_authorization_token()["authorizationData"]
    user, password = base64.b64decode(granted["authorizationToken"]).decode().split(":", 1)
    # As `docker login` wants it: the host of the repository, with the port that only a registry of tests has.
    registry = urlsplit(f"//{uri}").netloc
    _docker("login", "--username", user, "--password-stdin", registry, stdin=password)
    say("build", tag=tag, commit=commit)
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder) / "metadata.json"
        _docker(
            "buildx",
            "build",
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
    say("pushed", tag=tag, image=f"{uri}@{digest}", digest=digest)


def _build_id(commit: str) -> str:
    """What makes the tag unique: the run that builds, or on a laptop the commit."""
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
    """Run docker; what it says goes to stderr, since stdout is for our lines."""
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


def make(target: Target, digest: str) -> Release:
    """A release of the image with `digest` and the configuration of the stack: the newest, if it is just that.

    Raises:
        ReleaseError: the digest is malformed, or not in the repository.
    """
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise ReleaseError(f"{digest!r} is no digest: sha256: and 64 hexadecimal digits are one")
    newest = next(target.releases(), None)
    if newest and (newest.digest, newest.configuration) == (digest, target.configuration):
        say("release", release=newest.name, number=newest.number, digest=digest, status="was there")
        return newest
    task = target.ecs.describe_task_definition(taskDefinition=target.configuration)["taskDefinition"]
    accepted = target.ecs.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members
    body = {key: value for key, value in task.items() if key in accepted}
    tag = _tag(target, digest)
    [container] = [each for each in body["containerDefinitions"] if each["name"] == config.CONTAINER]
    container["image"] = f"{target.image}@{digest}"
    variables = [each for each in container.get("environment", []) if each["name"] != "RELEASE"]
    # The number is in the release's name, and the name in the release: so it is foreseen, and if somebody was quicker,
    # foreseen again.
    number = revision(target.revisions()[0]) + 1
    while True:
        name = f"{number}+{tag}"
        container["environment"] = [*variables, {"name": "RELEASE", "value": name}]
        tags = [{"key": "release", "value": name}, {"key": "configuration", "value": target.configuration}]
        made = target.ecs.register_task_definition(**body, tags=tags)["taskDefinition"]
        if made["revision"] == number:
            break
        target.ecs.deregister_task_definition(taskDefinition=made["taskDefinitionArn"])
        number = made["revision"] + 1
    say("release", release=name, number=number, digest=digest, status="made")
    return target.release(number)


def _tag(target: Target, digest: str) -> str:
    registry, name = target.image.partition(".")[0], config.service_name()
    ecr = client("ecr", target.region)
    try:
        [image] = ecr.describe_images(registryId=registry, repositoryName=name, imageIds=[{"imageDigest": digest}])[
            "imageDetails"
        ]
    except (ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
        raise ReleaseError(f"the repository {target.image} has no image {digest}: build it first") from None
    return str(image.get("imageTags", ["build-untagged"])[0])


def run(target: Target, release: Release) -> None:
    """Migrate from `release`, then give it the traffic, and wait until it has it.

    Raises:
        ReleaseError: the migration or the deployment failed; blue has the traffic then.
    """
    controller = rollout.of(target)
    going = controller.current()
    if going and controller.look(going).task_definition != release.arn:
        raise ReleaseError(f"deployment {going} is not over: wait for it, or end it with `rollback`")
    if going or target.running() != release.arn:
        if not going:
            _scale(target)
            say("migrate", release=release.name, status="starting")
            if exit_status := task(target, release.arn, [*ADMIN, "migrate"], "migrate"):
                raise ReleaseError(
                    f"the migration of release {release.name} ended with status {exit_status}: see above"
                )
            going = controller.start(release)
            say("deploy", release=release.name, deployment=going, status="started")
        rollout.follow(controller, going, POLL_SECONDS)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    target.ecs.tag_resource(resourceArn=release.arn, tags=[{"key": "deployed", "value": now}])
    say("run", release=release.name, status="succeeded")


def _scale(target: Target) -> None:
    """Bring a new service to its least number of tasks: it is made with one, and scaling acts on load alone."""
    service = target.service()
    if service["desiredCount"] < target.tasks_min:
        target.ecs.update_service(cluster=target.cluster, service=service["serviceName"], desiredCount=target.tasks_min)


def rollback(target: Target) -> None:
    """Bring the release back that ran before: end the deployment that goes on, or else deploy it the same way.

    Raises:
        ReleaseError: there is none, or `run` failed.
    """
    controller = rollout.of(target)
    if going := controller.current():
        say("rollback", deployment=going, status="stopping")
        controller.stop(going, POLL_SECONDS)
        say("rollback", status="succeeded")
        return
    current = target.release_of(target.running())
    deployed = [each for each in target.releases() if current and each.number < current.number and each.deployed_at]
    if not current or not deployed:
        raise ReleaseError(f"{target.name} has no release before the one that runs")
    say("rollback", release=deployed[0].name, instead_of=current.name, status="starting")
    run(target, deployed[0])
    # What was left is no place to come back to: the next rollback goes further.
    target.ecs.untag_resource(resourceArn=current.arn, tagKeys=["deployed"])


def status(target: Target) -> None:
    """Say what runs, what goes on, and which releases there are."""
    service, running = target.service(), target.running()
    image = target.ecs.describe_task_definition(taskDefinition=running)["taskDefinition"]["containerDefinitions"][0][
        "image"
    ]
    for each in target.releases():
        say("known", release=each.name, number=each.number, digest=each.digest, deployed_at=each.deployed_at)
    say(
        "status",
        running=revision(running),
        digest=image.partition("@")[2],
        tasks=service["runningCount"],
        deployment=rollout.of(target).current(),
    )


def task(target: Target, arn: str, command: list[str], step: str) -> int:
    """Run `command` once, in a task of its own; pass on its log, and say its exit status.

    Raises:
        ReleaseError: the task did not start, or did not end in time.
    """
    definition = target.ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    options: dict[str, Any] = {}
    if definition.get("networkMode") == "awsvpc":
        options["networkConfiguration"] = target.network
    started = target.ecs.run_task(
        cluster=target.cluster,
        taskDefinition=arn,
        launchType=definition.get("requiresCompatibilities", ["FARGATE"])[0],
        startedBy="deploy.release",
        overrides={"containerOverrides": [{"name": config.CONTAINER, "command": command}]},
        **options,
    )
    if not started["tasks"]:
        reasons = ", ".join(each.get("reason", "unknown") for each in started.get("failures", [])) or "unknown"
        raise ReleaseError(f"{step}: the task could not be placed: {reasons}")
    task_arn = started["tasks"][0]["taskArn"]
    say(step, task=task_arn, status="running")
    deadline, ended = time.monotonic() + TASK_SECONDS, None
    while not ended:
        if time.monotonic() > deadline:
            target.ecs.stop_task(cluster=target.cluster, task=task_arn, reason=f"{step} took too long")
            raise ReleaseError(f"{step}: stopped after {TASK_SECONDS} s; its log is in {target.log_group}")
        time.sleep(POLL_SECONDS)
        [seen] = target.ecs.describe_tasks(cluster=target.cluster, tasks=[task_arn])["tasks"]
        ended = seen if seen["lastStatus"] == "STOPPED" else None
    _show_log(target, task_arn)
    [container] = ended["containers"]
    if container.get("exitCode") is None:
        why = container.get("reason") or ended.get("stoppedReason") or "no reason is known"
        raise ReleaseError(f"{step}: the task never started: {why}")
    say(step, task=task_arn, status="ended", exit_status=container["exitCode"])
    return int(container["exitCode"])


def _show_log(target: Target, task_arn: str) -> None:
    """The task's log, on stderr; a task that never started has none."""
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


def main(arguments: list[str]) -> int:
    """Run one command; says its exit status."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "build":
            build()
            return 0
        target = Target(given.environment)
        if given.command == "release":
            make(target, given.digest)
        elif given.command == "run":
            run(target, target.release(given.number))
        elif given.command == "admin":
            return task(target, target.running(), [*ADMIN, *given.arguments], "admin")
        else:
            {"rollback": rollback, "status": status}[given.command](target)
    except (ReleaseError, config.ConfigError) as error:
        return _fail(str(error))
    except ClientError as error:
        return _fail(f"AWS refused {error.operation_name}: {line(error)}")
    except BotoCoreError as error:  # no credentials, no region, no connection: it says so itself
        return _fail(f"AWS was not asked: {' '.join(str(error).split())}")
    return 0


def _fail(reason: str) -> int:
    print(f"deploy.release: {reason}", file=sys.stderr)  # noqa: T201 - what the command is for
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description="Build, release, run.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="build the image of this commit, and say its digest")
    made = commands.add_parser("release", help="make a release of a digest")
    ran = commands.add_parser("run", help="migrate, and give a release the traffic")
    back = commands.add_parser("rollback", help="bring back the release that ran before")
    shown = commands.add_parser("status", help="say what runs, and which releases there are")
    once = commands.add_parser("admin", help="run `python -m service.admin …` of the running release, once")
    for each in (made, ran, back, shown, once):
        each.add_argument("--environment", required=True, metavar="NAME", help="as in deploy/NAME.toml")
    made.add_argument("digest", help="as `build` says it: sha256:…")
    ran.add_argument("number", nargs="?", type=int, help="of the release; the newest if left out")
    once.add_argument("arguments", nargs="+", metavar="-- ARGUMENT", help="such as `-- check`")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
