"""Make releases, give them the traffic, and roll back.

A release is a revision of a task definition: an image by its digest, and the configuration that the service's stack
holds. Revisions are numbered and immutable.
"""

import re
from datetime import UTC, datetime

from deploy import config
from deploy.release import rollout, scaling
from deploy.release.target import Release, ReleaseError, Target, client, revision, say
from deploy.release.task import ADMIN, run_once


def make(target: Target, digest: str | None, *, again: bool = False) -> Release:
    """Return a release of the image with `digest` and the configuration of the stack: the newest one, if it matches.

    Args:
        target: Where.
        digest: The image; `None` for the one that runs.
        again: Whether a new release is made even so: its tasks read secrets anew.

    Raises:
        ReleaseError: The digest is malformed, or not in the repository.
    """
    if not target.is_current:
        raise ReleaseError(
            f"deploy/{target.environment}.toml has changed since {target.name} was deployed: deploy the stack first"
        )
    digest = target.digest() if digest is None else digest
    if not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise ReleaseError(f"{digest!r} is no digest: a digest is sha256: and 64 hexadecimal digits")
    newest = next(target.releases(), None)
    if newest and not again and (newest.digest, newest.configuration) == (digest, target.configuration):
        say("release", release=newest.name, number=newest.number, digest=digest, status="was there")
        return newest
    task = target.ecs.describe_task_definition(taskDefinition=target.configuration)["taskDefinition"]
    accepted = target.ecs.meta.service_model.operation_model("RegisterTaskDefinition").input_shape.members
    body = {key: value for key, value in task.items() if key in accepted}
    tag = _tag(target, digest)
    [container] = [each for each in body["containerDefinitions"] if each["name"] == config.CONTAINER]
    container["image"] = f"{target.image}@{digest}"
    variables = [each for each in container.get("environment", []) if each["name"] != "RELEASE"]
    # The release's name contains its number, and the release contains its name: so the number is predicted, and
    # predicted again if somebody else registered a revision in the meantime.
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


def run(target: Target, release: Release, *, despite_alarms: bool = False) -> None:
    """Migrate with `release`, give it the traffic, and wait until it has all of it.

    Blue is kept for a while after that. A deployment that has come so far is finished first.

    Raises:
        ReleaseError: The migration or the deployment failed; blue keeps the traffic.
    """
    controller = rollout.of(target)
    going = controller.current()
    if going:
        progress = controller.look(going)
        if progress.task_definition != release.arn:
            if not progress.has_traffic:
                raise ReleaseError(f"deployment {going} is not over: wait for it, or end it with `rollback`")
            say("finish", deployment=going, status="waiting")
            controller.finish(going)
            going = None
    if not going:
        _forget(target)
    if going or target.running() != release.arn:
        with scaling.suspended(target):
            if not going:
                going = _start(target, controller, release, despite_alarms=despite_alarms)
            rollout.follow(controller, going)
    else:
        scaling.resume(target)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    target.ecs.tag_resource(resourceArn=release.arn, tags=[{"key": "deployed", "value": now}])
    say("run", release=release.name, status="succeeded")


def _start(target: Target, controller: rollout.Controller, release: Release, *, despite_alarms: bool) -> str:
    _scale(target)
    say("migrate", release=release.name, status="starting")
    if exit_status := run_once(target, release.arn, "migrate", [*ADMIN, "migrate"]):
        raise ReleaseError(f"the migration of release {release.name} ended with status {exit_status}: see above")
    started = controller.start(release, despite_alarms=despite_alarms)
    say("deploy", release=release.name, deployment=started, status="started")
    return started


def _forget(target: Target) -> None:
    """Take the mark from releases that had the traffic and lost it to an earlier one: nobody rolls back to them.

    The controller itself may have rolled back, after `run` had ended.
    """
    running = revision(target.running())
    for each in target.releases():
        if each.deployed_at and each.number > running:
            target.ecs.untag_resource(resourceArn=each.arn, tagKeys=["deployed"])


def _scale(target: Target) -> None:
    """Bring a new service to its smallest number of tasks: it starts with one, and scaling reacts to load only."""
    service = target.service()
    if service["desiredCount"] < target.tasks_min:
        target.ecs.update_service(cluster=target.cluster, service=service["serviceName"], desiredCount=target.tasks_min)


def rollback(target: Target) -> None:
    """Bring back the release that ran before: stop the deployment in progress, or else deploy that release.

    Raises:
        ReleaseError: There is none, or `run` failed.
    """
    controller = rollout.of(target)
    if going := controller.current():
        say("rollback", deployment=going, status="stopping")
        with scaling.suspended(target):
            controller.stop(going)
        _forget(target)
        say("rollback", status="succeeded")
        return
    current = target.release_of(target.running())
    # Revisions outlive a tear-down, and the roles of their tasks do not: a new environment has roles of its own.
    deployed = [
        each
        for each in target.releases()
        if current
        and each.deployed_at
        and each.number < current.number
        and each.execution_role == current.execution_role
    ]
    if not current or not deployed:
        raise ReleaseError(f"{target.name} has no release before the one that runs")
    say("rollback", release=deployed[0].name, instead_of=current.name, status="starting")
    run(target, deployed[0], despite_alarms=True)
    # A release that was rolled back is not rolled back to: the next rollback goes further.
    target.ecs.untag_resource(resourceArn=current.arn, tagKeys=["deployed"])


def status(target: Target) -> None:
    """Print what runs, which deployment is in progress, and which releases there are."""
    service = target.service()
    for each in target.releases():
        say("known", release=each.name, number=each.number, digest=each.digest, deployed_at=each.deployed_at)
    say(
        "status",
        running=revision(target.running()),
        digest=target.digest(),
        tasks=service["runningCount"],
        deployment=rollout.of(target).current(),
        scaling="suspended" if scaling.is_suspended(target) else "on",
    )
