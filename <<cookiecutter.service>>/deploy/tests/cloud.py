"""AWS on this machine: moto's server, and the progress of deployments, which moto lacks.

moto records a deployment and leaves it `Created` for ever, and does not implement deployments by ECS itself. `Cloud`
answers those operations from a script. `server.py` forwards everything else to moto.
"""

import json
from collections.abc import Iterator
from typing import Any

from moto.codedeploy.models import codedeploy_backends
from moto.core.utils import utcnow
from moto.ecs.models import ecs_backends

from deploy.tests import gaps, operations  # noqa: F401 - for what they add to moto
from deploy.tests.server import ACCOUNT, REGION, Refusal, Server

DIGEST = f"sha256:{'ab' * 32}"

EVENTS = (
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "AllowTestTraffic",
    "AfterAllowTestTraffic",
    "BeforeAllowTraffic",
    "AllowTraffic",
    "AfterAllowTraffic",
)
"""All events of a deployment to ECS, in their order.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html
"""

STAGES = (
    "PRE_SCALE_UP",
    "SCALE_UP",
    "POST_SCALE_UP",
    "TEST_TRAFFIC_SHIFT",
    "POST_TEST_TRAFFIC_SHIFT",
    "PRODUCTION_TRAFFIC_SHIFT",
    "POST_PRODUCTION_TRAFFIC_SHIFT",
    "BAKE_TIME",
)
"""The same, by ECS."""

ENDINGS: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "success": ("Succeeded", None, {}),
    "failing hook": (
        "Failed",
        "AfterAllowTestTraffic",
        {"code": "HOOK_EXECUTION_FAILURE", "message": "the hook said Failed"},
    ),
    "alarm": ("Stopped", "AllowTraffic", {"code": "ALARM_ACTIVE", "message": "the alarm Errors5xx is active"}),
    "stopped": ("Stopped", "AllowTraffic", {"code": "MANUAL_STOP", "message": "stopped by somebody"}),
    "endless": ("InProgress", None, {}),
}
"""By script: how a deployment ends, at which event, and the error that is told."""


class Cloud(Server):
    """AWS, with deployments. `script` says how the next deployments end."""

    def __init__(self) -> None:
        self.script = "success"
        self.blue_looks = 0
        """How many looks longer blue is kept. Green has all traffic after one look for each event."""
        self.seen: dict[str, int] = {}
        self.stopped: set[str] = set()
        self.native: list[dict[str, Any]] = []
        self.hooks: list[dict[str, Any]] = []
        super().__init__()

    def reset(self) -> None:
        """Forget everything."""
        self.reset_moto()
        self.__dict__.update(script="success", blue_looks=0, seen={}, stopped=set(), native=[], hooks=[], requests=[])

    # CodeDeploy

    def on_CreateDeployment(self, _request: dict[str, Any]) -> Any:
        if self.script == "rejected":
            return Refusal("DeploymentLimitExceededException", "there is a deployment in progress")
        return None

    def on_GetDeployment(self, request: dict[str, Any]) -> Any:
        """Each look moves a deployment on by one event."""
        deployment = _deployments()[request["deploymentId"]]
        identity = deployment.deployment_id
        if deployment.status in {"Created", "InProgress"}:
            self.seen[identity] = self.seen.get(identity, 0) + 1
            deployment.status = "InProgress"
            status, last, _ = self._ending(identity)
            if status == "Succeeded" and self.seen[identity] == len(EVENTS):
                deployment.blue = _running()
                _give_traffic(json.loads(_content(deployment.revision)))
            looks = EVENTS.index(last) + 1 if last else len(EVENTS) + self.blue_looks
            if status != "InProgress" and self.seen[identity] >= looks:
                deployment.status = status
        status, _, error = self._ending(identity)
        info = {
            "deploymentId": identity,
            "status": deployment.status,
            "revision": deployment.revision,
            "createTime": utcnow(),
        }
        if deployment.status in {"Failed", "Stopped"}:
            info |= {"errorInformation": error, "rollbackInfo": {"rollbackDeploymentId": self._rollback(deployment)}}
        return {"deploymentInfo": info}

    def on_ListDeploymentTargets(self, _request: dict[str, Any]) -> Any:
        return {"targetIds": ["platform-staging:orders"]}

    def on_GetDeploymentTarget(self, request: dict[str, Any]) -> Any:
        identity = request["deploymentId"]
        done, (status, last, error) = self.seen.get(identity, 0), self._ending(identity)
        events = []
        for place, event in enumerate(EVENTS):
            state = "Succeeded" if place < done else "InProgress" if place == done else "Pending"
            diagnostics: dict[str, Any] = {}
            if last and place >= EVENTS.index(last) and _deployments()[identity].status in {"Failed", "Stopped"}:
                state = "Failed" if event == last and status == "Failed" else "Skipped"
                if state == "Failed":
                    diagnostics = {"diagnostics": {"errorCode": "ScriptFailed", "message": error["message"]}}
            events.append({"lifecycleEventName": event, "status": state, **diagnostics})
        target = {"deploymentId": identity, "targetId": request["targetId"], "lifecycleEvents": events}
        return {"deploymentTarget": {"deploymentTargetType": "ECSTarget", "ecsTarget": target}}

    def on_StopDeployment(self, request: dict[str, Any]) -> Any:
        self.stopped.add(request["deploymentId"])
        self.seen[request["deploymentId"]] = EVENTS.index("AllowTraffic")
        return {"status": "Pending", "statusMessage": "stopping"}

    def on_ContinueDeployment(self, request: dict[str, Any]) -> Any:
        self.seen[request["deploymentId"]] = len(EVENTS) + self.blue_looks
        return dict[str, Any]()

    def on_PutLifecycleEventHookExecutionStatus(self, request: dict[str, Any]) -> Any:
        self.hooks.append(request)
        return {"lifecycleEventHookExecutionId": request["lifecycleEventHookExecutionId"]}

    def _ending(self, identity: str) -> tuple[str, str | None, dict[str, str]]:
        if _deployments()[identity].description == "back":
            return ENDINGS["success"]
        return ENDINGS["stopped" if identity in self.stopped else self.script]

    def _rollback(self, deployment: Any) -> str:
        """CodeDeploy starts a deployment of its own that brings blue back."""
        found: str | None = getattr(deployment, "brought_back_by", None)
        if found is None:
            running = json.loads(_content(deployment.revision))
            running["Resources"][0]["TargetService"]["Properties"]["TaskDefinition"] = getattr(
                deployment, "blue", _running()
            )
            group = deployment.deployment_group_name
            revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": json.dumps(running)}}
            created = self.client("codedeploy").create_deployment(
                applicationName=group, deploymentGroupName=group, description="back", revision=revision
            )
            found = deployment.brought_back_by = str(created["deploymentId"])
        return found

    # ECS's own deployments

    def on_UpdateService(self, request: dict[str, Any]) -> Any:
        if "taskDefinition" in request:
            if self.script == "rejected":
                return Refusal("InvalidParameterException", "the service cannot be updated now")
            arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/platform-staging/orders/{len(self.native)}"
            self.native.insert(0, {"arn": arn, "task": request["taskDefinition"], "status": "IN_PROGRESS", "seen": 0})
        return None

    def on_ListServiceDeployments(self, request: dict[str, Any]) -> Any:
        chosen = [each for each in self.native if each["status"] in request.get("status", [each["status"]])]
        return {"serviceDeployments": [{"serviceDeploymentArn": each["arn"]} for each in chosen]}

    def on_DescribeServiceDeployments(self, request: dict[str, Any]) -> Any:
        [found] = [each for each in self.native if each["arn"] in request["serviceDeploymentArns"]]
        if found["status"] == "IN_PROGRESS" and self.script != "endless":
            found["seen"] += 1
            if self.script != "success" and found["seen"] == STAGES.index("POST_TEST_TRAFFIC_SHIFT"):
                found["status"] = "ROLLBACK_IN_PROGRESS"
            elif found["seen"] >= STAGES.index("BAKE_TIME") + self.blue_looks:
                found["status"] = "SUCCESSFUL"
        elif found["status"] == "ROLLBACK_IN_PROGRESS":
            found["status"] = "ROLLBACK_SUCCESSFUL"
        described = {
            "serviceDeploymentArn": found["arn"],
            "status": found["status"],
            "lifecycleStage": STAGES[min(found["seen"], len(STAGES) - 1)],
            "targetServiceRevision": {"arn": found["arn"].replace("service-deployment", "service-revision")},
        }
        if found["status"].startswith("ROLLBACK"):
            described["rollback"] = {"reason": "a lifecycle hook said FAILED"}
        return {"serviceDeployments": [described]}

    def on_DescribeServiceRevisions(self, request: dict[str, Any]) -> Any:
        arns = [arn.replace("service-revision", "service-deployment") for arn in request["serviceRevisionArns"]]
        found = [each for each in self.native if each["arn"] in arns]
        return {"serviceRevisions": [{"taskDefinition": each["task"]} for each in found]}

    def on_StopServiceDeployment(self, request: dict[str, Any]) -> Any:
        [found] = [each for each in self.native if each["arn"] == request["serviceDeploymentArn"]]
        found["status"] = "ROLLBACK_IN_PROGRESS"
        return {"serviceDeploymentArn": found["arn"]}


def _deployments() -> dict[str, Any]:
    found: dict[str, Any] = codedeploy_backends[ACCOUNT][REGION].deployments
    return found


def _content(revision: dict[str, Any]) -> str:
    return str(revision["appSpecContent"]["content"])


def _services() -> Iterator[Any]:
    yield from ecs_backends[ACCOUNT][REGION].services.values()


def _running() -> str:
    [service] = _services()
    primary = [each.task_definition for each in service.task_sets if each.status == "PRIMARY"]
    return str((primary or [service.task_definition])[0])


def _give_traffic(appspec: dict[str, Any]) -> None:
    """Do what CodeDeploy does at the end: green's task set becomes the primary one, and blue's is deleted."""
    arn = appspec["Resources"][0]["TargetService"]["Properties"]["TaskDefinition"]
    [service] = _services()
    backend = ecs_backends[ACCOUNT][REGION]
    made = backend.create_task_set(service.name, service.cluster_name, arn)
    made.status = "PRIMARY"
    service.task_sets[:] = [made]
