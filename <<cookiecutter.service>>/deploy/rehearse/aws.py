"""What the hooks ask of AWS, answered from the stage."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deploy.rehearse.docker import docker
from deploy.rehearse.fleet import Fleet, State


class Aws:
    """CodeDeploy and ECS as the hooks need them, over HTTP. `told` holds what the hooks report, by execution."""

    def __init__(self, fleet: Fleet) -> None:
        self.told: dict[str, str] = {}
        self._fleet = fleet
        aws = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                operation = self.headers["X-Amz-Target"].partition(".")[2]
                answer = json.dumps(aws.answer(operation, request)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
                """Write nothing: the terminal is for the rehearsal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def attach(self) -> None:
        """Direct the hooks here, whatever this machine's environment says of AWS."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_port}",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "rehearsal",
            "AWS_SECRET_ACCESS_KEY": "rehearsal",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
        }

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the response to one request."""
        stage, arn = self._fleet.stage, "green"
        if operation == "GetDeployment":
            properties = {"TaskDefinition": arn}
            content = json.dumps({"Resources": [{"TargetService": {"Properties": properties}}]})
            revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
            return {"deploymentInfo": {"revision": revision}}
        if operation == "DescribeTaskDefinition":
            digest = docker("image", "inspect", "--format={{.Id}}", stage.image("green"))
            variables = [{"name": "RELEASE", "value": stage.release("green")}]
            container = {"image": f"{stage.name}@{digest}", "environment": variables}
            return {"taskDefinition": {"taskDefinitionArn": arn, "containerDefinitions": [container]}}
        tasks = self._fleet.having("green", State.STARTING, State.HEALTHY)
        if operation == "DescribeServices":
            return {"services": [{"desiredCount": len(tasks)}]}
        if operation == "ListTasks":
            return {"taskArns": [task.name for task in tasks]}
        if operation == "DescribeTasks":
            about = {"taskDefinitionArn": arn, "lastStatus": "RUNNING"}
            return {"tasks": [about | {"taskArn": task.name, "availabilityZone": task.zone} for task in tasks]}
        if operation == "PutLifecycleEventHookExecutionStatus":
            self.told[request["lifecycleEventHookExecutionId"]] = request["status"]
            return {}
        raise NotImplementedError(operation)
