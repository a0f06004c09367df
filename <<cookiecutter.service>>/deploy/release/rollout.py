"""How green gets the traffic: by CodeDeploy, or by ECS itself. Both are started, followed and stopped the same way."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

from botocore.exceptions import ClientError

from deploy import config, lifecycle
from deploy.release.target import Release, ReleaseError, Target, line, pause, say


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a deployment."""

    status: str
    """As its controller names it."""
    is_over: bool
    has_succeeded: bool
    task_definition: str
    """ARN of the task definition that gets the traffic."""
    events: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By name, in their order: the state of each, and the error."""
    reason: str = ""
    """Why it ended without success."""
    rollback: str = ""
    """The id of the deployment that brings blue back."""
    has_traffic: bool = False
    """Whether green has all traffic, and passed the hooks. It may not be over then: blue is kept for a while."""


class Controller(Protocol):
    """What moves the traffic."""

    target: Target

    def current(self) -> str | None:
        """Return the id of the deployment that is in progress."""

    def start(self, release: Release, *, despite_alarms: bool) -> str:
        """Start to give `release` the traffic, and return the id of the deployment.

        Raises:
            ReleaseError: It was rejected.
        """

    def finish(self, deployment: str) -> None:
        """Wait until a deployment whose green has all traffic is over; do not keep blue longer, where that is possible.

        Raises:
            ReleaseError: It failed after all.
        """

    def look(self, deployment: str) -> Progress:
        """Return its progress."""

    def stop(self, deployment: str) -> None:
        """Stop it, and wait until blue has the traffic again.

        Raises:
            ReleaseError: That failed.
        """


def of(target: Target) -> Controller:
    """Return the controller of the service."""
    return CodeDeploy(target) if target.controller == "CODE_DEPLOY" else Native(target)


def follow(controller: Controller, deployment: str) -> None:
    """Print each event of the deployment as it happens, until green has all traffic, or it is over.

    Raises:
        ReleaseError: It failed, was stopped or raised an alarm; the text names event, reason and log groups.
    """
    said: dict[str, str] = {}
    while True:
        progress = controller.look(deployment)
        for event, (state, message) in progress.events.items():
            if said.get(event) != state:
                said[event] = state
                say("event", event=event, status=state, **({"reason": message} if message else {}))
        if progress.is_over or progress.has_traffic:
            break
        pause()
    if progress.has_succeeded or progress.has_traffic:
        return
    target = controller.target
    failed = [(event, message) for event, (state, message) in progress.events.items() if state == "Failed"]
    places = [f"/aws/lambda/{target.name}-{event}" for event, _ in failed if event in lifecycle.EVENTS]
    where = ", ".join([*places, target.log_group])
    why = "; ".join([*(f"{event} failed{message and f': {message}'}" for event, message in failed), progress.reason])
    brought_back = f"; deployment {progress.rollback} brings blue back" if progress.rollback else ""
    raise ReleaseError(f"deployment {deployment} ended as {progress.status}: {why}; logs: {where}{brought_back}")


def _wait(controller: Controller, deployment: str) -> None:
    while not (progress := controller.look(deployment)).is_over:
        pause()
    if not progress.has_succeeded:
        raise ReleaseError(f"deployment {deployment} ended as {progress.status}: {progress.reason}")


NO_ALARMS: dict[str, Any] = {"enabled": False, "ignorePollAlarmFailure": True, "alarms": []}
"""What overrides the alarms of a deployment group."""


class CodeDeploy:
    """AWS CodeDeploy, which is configured by an AppSpec."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.api = target.codedeploy
        self.group = {"applicationName": target.name, "deploymentGroupName": target.name}

    def current(self) -> str | None:
        """Return the id of the deployment that is in progress."""
        going = ["Created", "Queued", "InProgress", "Baking", "Ready"]
        listed: list[str] = self.api.list_deployments(**self.group, includeOnlyStatuses=going)["deployments"]
        return listed[0] if listed else None

    def start(self, release: Release, *, despite_alarms: bool) -> str:
        """Start to give `release` the traffic, and return the id of the deployment.

        An alarm that is raised already blocks a deployment, also the one that would repair it: `despite_alarms` ignores
        alarms for this one. https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeployment.html

        Raises:
            ReleaseError: It was rejected.
        """
        content = json.dumps(appspec(self.target, release))
        digest = hashlib.sha256(content.encode()).hexdigest()
        revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content, "sha256": digest}}
        options = {"overrideAlarmConfiguration": NO_ALARMS} if despite_alarms else {}
        try:
            created = self.api.create_deployment(**self.group, description=release.name, revision=revision, **options)
        except ClientError as error:
            raise ReleaseError(f"the deployment was rejected: {line(error)}") from None
        return str(created["deploymentId"])

    def look(self, deployment: str) -> Progress:
        """Return its progress."""
        info = self.api.get_deployment(deploymentId=deployment)["deploymentInfo"]
        content = json.loads((info["revision"].get("appSpecContent") or info["revision"]["string"])["content"])
        events = self._events(deployment)
        error = info.get("errorInformation", {})
        return Progress(
            status=info["status"],
            is_over=info["status"] in {"Succeeded", "Failed", "Stopped"},
            has_succeeded=info["status"] == "Succeeded",
            task_definition=content["Resources"][0]["TargetService"]["Properties"]["TaskDefinition"],
            events=events,
            has_traffic=info["status"] != "Stopped" and events.get(lifecycle.EVENTS[-1], ("",))[0] == "Succeeded",
            reason=f"{error.get('code', 'no code')}: {error.get('message', 'no reason is known')}",
            rollback=info.get("rollbackInfo", {}).get("rollbackDeploymentId", ""),
        )

    def _events(self, deployment: str) -> dict[str, tuple[str, str]]:
        targets = self.api.list_deployment_targets(deploymentId=deployment)["targetIds"]
        found = [self.api.get_deployment_target(deploymentId=deployment, targetId=each) for each in targets]
        return {
            event["lifecycleEventName"]: (event["status"], event.get("diagnostics", {}).get("message", ""))
            for each in found
            for event in each["deploymentTarget"]["ecsTarget"].get("lifecycleEvents", [])
        }

    def stop(self, deployment: str) -> None:
        """Stop it, and wait until blue has the traffic again.

        Raises:
            ReleaseError: The deployment that brings blue back failed.
        """
        self.api.stop_deployment(deploymentId=deployment, autoRollbackEnabled=True)
        while not (progress := self.look(deployment)).is_over:
            pause()
        if progress.rollback:
            follow(self, progress.rollback)

    def finish(self, deployment: str) -> None:
        """End the time for which blue is kept, and wait until the deployment is over.

        Raises:
            ReleaseError: It failed after all.
        """
        self.api.continue_deployment(deploymentId=deployment, deploymentWaitType="TERMINATION_WAIT")
        _wait(self, deployment)


class Native:
    """ECS's own blue/green deployments."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.api = target.ecs
        self.service = {"cluster": target.cluster, "service": config.service_name()}

    def current(self) -> str | None:
        """Return the ARN of the deployment that is in progress."""
        going = ["PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"]
        listed = self._deployments(status=going)
        return listed[0] if listed else None

    def start(self, release: Release, *, despite_alarms: bool) -> str:
        """Start to give `release` the traffic, and return the id of the deployment.

        ECS itself does not watch alarms that are raised when a deployment starts.
        https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html

        Raises:
            ReleaseError: It was rejected, or does not appear.
        """
        del despite_alarms
        before = self._deployments()
        try:
            self.api.update_service(**self.service, taskDefinition=release.arn)
        except ClientError as error:
            raise ReleaseError(f"the deployment was rejected: {line(error)}") from None
        for _ in range(60):
            if new := [arn for arn in self._deployments() if arn not in before]:
                return new[0]
            time.sleep(1)
        raise ReleaseError("the deployment does not appear: `run` again finds it")

    def look(self, deployment: str) -> Progress:
        """Return its progress."""
        described = self.api.describe_service_deployments(serviceDeploymentArns=[deployment])["serviceDeployments"][0]
        target = [described["targetServiceRevision"]["arn"]]
        revision = self.api.describe_service_revisions(serviceRevisionArns=target)["serviceRevisions"][0]
        status = described["status"]
        failing = status.startswith(("ROLLBACK", "STOP"))
        reason = described.get("rollback", {}).get("reason") or described.get("statusReason", "no reason is known")
        stage = described.get("lifecycleStage", "")
        event = {ours: name for name, ours in lifecycle.STAGES.items()}.get(stage, stage)
        return Progress(
            status=status,
            is_over=status in {"SUCCESSFUL", "STOPPED", "ROLLBACK_SUCCESSFUL", "ROLLBACK_FAILED"},
            has_succeeded=status == "SUCCESSFUL",
            task_definition=revision["taskDefinition"],
            events={event: ("Failed", reason) if failing else ("InProgress", "")} if event else {},
            has_traffic=not failing and stage in {"BAKE_TIME", "CLEAN_UP"},
            reason=reason,
        )

    def stop(self, deployment: str) -> None:
        """Stop it, and wait until blue has the traffic again.

        Raises:
            ReleaseError: It does not come back.
        """
        self.api.stop_service_deployment(serviceDeploymentArn=deployment, stopType="ROLLBACK")
        while not (progress := self.look(deployment)).is_over:
            pause()
        if progress.status != "ROLLBACK_SUCCESSFUL":
            raise ReleaseError(f"deployment {deployment} ended as {progress.status}: {progress.reason}")

    def finish(self, deployment: str) -> None:
        """Wait until the deployment is over: ECS cannot cut the bake time short.

        Raises:
            ReleaseError: It failed after all.
        """
        _wait(self, deployment)

    def _deployments(self, **options: Any) -> list[str]:
        listed = self.api.list_service_deployments(**self.service, **options)["serviceDeployments"]
        return [each["serviceDeploymentArn"] for each in listed]


def appspec(target: Target, release: Release) -> dict[str, Any]:
    """Return the AppSpec: what CodeDeploy is to do.

    https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file.html
    """
    service: dict[str, Any] = {
        "TaskDefinition": release.arn,
        "LoadBalancerInfo": {"ContainerName": config.CONTAINER, "ContainerPort": config.PORT},
    }
    if target.capacity == "FARGATE_SPOT":
        service["CapacityProviderStrategy"] = [{"Base": 0, "CapacityProvider": "FARGATE_SPOT", "Weight": 1}]
    return {
        "version": 0.0,
        "Resources": [{"TargetService": {"Type": "AWS::ECS::Service", "Properties": service}}],
        "Hooks": [{event: f"{target.name}-{event}"} for event in lifecycle.EVENTS],
    }
