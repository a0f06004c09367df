"""AWS on this machine: moto's server, and what it lacks, the progress of deployments.

moto records a deployment and leaves it `Created` for ever, and does not implement deployments by ECS itself. `Cloud`
answers those operations from a script, and forwards everything else to moto. botocore validates the requests, and the
scripted answers are validated against its service models.
"""

import functools
import gzip
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from botocore.session import Session
from botocore.validate import validate_parameters
from moto.codedeploy.models import codedeploy_backends
from moto.core.utils import utcnow
from moto.ecs.models import ecs_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from deploy.tests import gaps  # noqa: F401 - for what it adds to moto

ACCOUNT, REGION = "123456789012", "eu-central-1"
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


class Cloud:
    """The server. `script` says how the next deployments end."""

    def __init__(self) -> None:
        self.script = "success"
        self.blue_looks = 0
        """How many looks longer blue is kept. Green has all traffic after one look for each event."""
        self.seen: dict[str, int] = {}
        self.stopped: set[str] = set()
        self.native: list[dict[str, Any]] = []
        self.hooks: list[dict[str, Any]] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def client(self, service: str) -> Any:
        """Return a client of this AWS."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106 - of nothing
        )

    def reset(self) -> None:
        """Forget everything."""
        request = b"{}"
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/moto-api/reset",
            "HTTP_HOST": "localhost",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "CONTENT_LENGTH": str(len(request)),
            "wsgi.url_scheme": "http",
            "wsgi.input": _Body(request),
        }
        list(self.moto(environ, _ignore))
        self.__dict__.update(script="success", blue_looks=0, seen={}, stopped=set(), native=[], hooks=[], requests=[])

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request of WSGI: from the script, or else by moto."""
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        answer = getattr(self, f"on_{operation}", None)
        if answer is None or not service.startswith(("CodeDeploy", "AmazonEC2ContainerService")):
            return self._moto(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if environ.get("HTTP_CONTENT_ENCODING") == "gzip":
            body = gzip.decompress(body)
        request = json.loads(body)
        self.requests.append((operation, request))
        result = answer(request)
        if result is None:
            environ["wsgi.input"] = _Body(body)
            return self._moto(environ, start_response)
        if isinstance(result, Refusal):
            text = json.dumps({"__type": result.code, "message": result.message}).encode()
            start_response("400 Bad Request", _headers(text))
            return [text]
        name = "codedeploy" if service.startswith("CodeDeploy") else "ecs"
        shape = _model(name).operation_model(operation).output_shape
        if shape is not None:
            validate_parameters(result, shape)
        text = json.dumps(result, default=lambda time: time.timestamp()).encode()
        start_response("200 OK", _headers(text))
        return [text]

    def _moto(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response: Iterable[bytes] = self.moto(environ, start_response)
        return response

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


class Refusal:
    """An error as AWS answers it."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


def _ignore(*_arguments: Any) -> None:
    pass


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as in the class above
        """Print nothing."""


class _Body:
    """What WSGI reads a request from."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, size: int = -1) -> bytes:
        taken = self.content if size < 0 else self.content[:size]
        self.content = self.content[len(taken) :]
        return taken


@functools.cache
def _model(service: str) -> Any:
    """Return botocore's description of a service, which it takes a tenth of a second to read."""
    return Session().get_service_model(service)


def _headers(text: bytes) -> list[tuple[str, str]]:
    return [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(text)))]


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
