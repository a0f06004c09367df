"""The stage of a rehearsal: containers, a load balancer that is told at run time, and what the hooks ask of AWS."""

import csv
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from deploy import config

FILE = config.ROOT / "deploy" / "rehearse.yaml"
COMMAND_SECONDS = 600
"""Bound of a Docker command: a first build downloads images and packages."""

REMOVE_SECONDS = 60
"""Bound on the time until everything is seen to be gone."""


class StageError(Exception):
    """The rehearsal could not go on: it says nothing about green."""


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether `condition()` comes to hold within `seconds`, asked where nobody announces it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class Stage:
    """The containers of one rehearsal, under a name of its own. `remove` leaves nothing of them."""

    def __init__(self, port: int, test_port: int) -> None:
        self.name = f"{config.service_name()}-rehearsal-{os.urandom(3).hex()}"
        self._variables = {
            "PORT": str(port),
            "TEST_PORT": str(test_port),
            "BLUE_IMAGE": self.image("blue"),
            "GREEN_IMAGE": self.image("green"),
        }
        self._runtime = 0

    def image(self, release: str) -> str:
        """The tag of a release's image: it is given once, and never moved."""
        return f"{self.name}:{release}"

    def release(self, colour: str) -> str:
        """What a release says of itself."""
        return f"{self.name}-{colour}"

    def build(self, colour: str, changes: str) -> None:
        """Make the image of a release from the service's Dockerfile; `changes` are further lines for it."""
        tag = self.image(colour)
        base = f"{tag}-unchanged" if changes else tag
        release = f"--build-arg=RELEASE={self.release(colour)}"
        self.docker("build", "--quiet", release, f"--tag={base}", str(config.ROOT))
        if changes:
            self.docker("build", "--quiet", f"--tag={tag}", "-", given=f"FROM {base}\n{changes}\n")

    def docker(self, *arguments: str, given: str = "") -> str:
        """The output of a Docker command.

        Raises:
            StageError: it failed.
        """
        # In a session of its own: Ctrl-C is for this program, which ends the command in its own time.
        process = subprocess.Popen(  # noqa: S603 - the commands are our own
            ["docker", *arguments],  # noqa: S607 - it is wherever the machine has it
            env={**os.environ, **self._variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(given, timeout=COMMAND_SECONDS)
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            raise
        if process.returncode:
            raise StageError(f"docker {' '.join(arguments)} ended with {process.returncode}: {errors[-1000:]}")
        return output.strip()

    def compose(self, *arguments: str) -> str:
        """The output of a Compose command.

        Raises:
            StageError: it failed.
        """
        return self.docker("compose", f"--project-name={self.name}", f"--file={FILE}", *arguments)

    def migrate(self, colour: str) -> None:
        """A one-off process of a release brings the schema up to date.

        Raises:
            StageError: it failed.
        """
        self.compose("run", "--rm", "--no-TTY", "--no-deps", colour, "python", "-m", "service.admin", "migrate")

    def look(self, colour: str) -> dict[str, Any]:
        """What Docker knows of the container of a release."""
        container = self.compose("ps", "--all", "--quiet", colour)
        found: dict[str, Any] = json.loads(self.docker("inspect", container))[0]
        return found

    def tell(self, command: str) -> str:
        """The load balancer's answer at its runtime API.

        Raises:
            StageError: it does not listen, or did not understand.
        """
        if not self._runtime:
            self._runtime = int(self.compose("port", "balancer", "9999").rpartition(":")[2])
        try:
            with socket.create_connection(("127.0.0.1", self._runtime), timeout=10) as conn:
                conn.sendall(f"{command}\n".encode())
                answer = b"".join(iter(lambda: conn.recv(65_536), b"")).decode().strip()
        except OSError as error:
            raise StageError(f"the load balancer does not listen at its runtime API: {error}") from None
        if answer and command.startswith("set "):
            raise StageError(f"{command}: {answer}")
        return answer

    def is_told(self) -> bool:
        """Whether the load balancer listens at its runtime API."""
        try:
            return bool(self.tell("show info"))
        except StageError:
            return False

    def route(self, listener: str, green_percent: int) -> None:
        """Let so much of a listener's traffic go to green, and the rest to blue."""
        weights = {"green": green_percent, "blue": 100 - green_percent}
        # The larger one first: between the two commands no moment may have nobody to go to.
        for server in sorted(weights, key=lambda name: weights[name], reverse=True):
            self.tell(f"set server {listener}/{server} weight {weights[server]}")

    def statistics(self, server: str) -> dict[str, str]:
        """The load balancer's own figures of a server behind the production listener, or of all: `BACKEND`."""
        rows = csv.DictReader(self.tell("show stat").removeprefix("# ").splitlines())
        return next(row for row in rows if (row["pxname"], row["svname"]) == ("production", server))

    def is_healthy(self, colour: str) -> bool:
        """Whether the load balancer finds a release ready."""
        return self.statistics(colour)["status"] == "UP"

    def answers(self) -> tuple[int, int]:
        """How often the load balancer has answered at the production listener, and how often with 5xx."""
        row = self.statistics("BACKEND")
        return sum(int(row[f"hrsp_{kind}"]) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other")), int(
            row["hrsp_5xx"]
        )

    def remove(self) -> None:
        """Take everything away, and see that it is gone.

        Raises:
            StageError: something is left.
        """
        deadline = time.monotonic() + REMOVE_SECONDS
        # More than once: a command that was interrupted may have asked for a container that comes only now.
        while True:
            self.compose("down", "--volumes", "--remove-orphans", "--timeout=1")
            for image in set(self.docker("image", "ls", "--quiet", self.name).split()):
                self.docker("image", "rm", "--force", image)
            if not self.left():
                return
            if time.monotonic() > deadline:
                raise StageError(f"this is left: {self.left()}")
            time.sleep(1)

    def left(self) -> str:
        """The ids of what is still there of the containers, networks and volumes."""
        mine = f"--filter=label=com.docker.compose.project={self.name}"
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return " ".join(self.docker(*kind, "--quiet", mine) for kind in kinds).strip()


class Aws:
    """What the hooks ask of CodeDeploy and ECS, answered from the stage over HTTP; `told` is what they say of green."""

    def __init__(self, stage: Stage) -> None:
        self.told: dict[str, str] = {}
        self._stage = stage
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

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the class above
                """Print nothing: the terminal is for the deployment."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def attach(self) -> None:
        """Have the hooks come here, whatever this machine's environment says of AWS."""
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
        """The answer to one request."""
        stage, arn = self._stage, "green"
        if operation == "GetDeployment":
            properties = {"TaskDefinition": arn}
            content = json.dumps({"Resources": [{"TargetService": {"Properties": properties}}]})
            revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
            return {"deploymentInfo": {"revision": revision}}
        if operation == "DescribeTaskDefinition":
            digest = stage.docker("image", "inspect", "--format={{.Id}}", stage.image("green"))
            variables = [{"name": "RELEASE", "value": stage.release("green")}]
            container = {"image": f"{stage.name}@{digest}", "environment": variables}
            return {"taskDefinition": {"taskDefinitionArn": arn, "containerDefinitions": [container]}}
        if operation == "DescribeServices":
            return {"services": [{"desiredCount": 1}]}
        if operation == "ListTasks":
            return {"taskArns": ["green"]}
        if operation == "DescribeTasks":
            status = "RUNNING" if stage.look("green")["State"]["Running"] else "STOPPED"
            return {"tasks": [{"taskDefinitionArn": arn, "lastStatus": status, "availabilityZone": "laptop"}]}
        if operation == "PutLifecycleEventHookExecutionStatus":
            self.told[request["lifecycleEventHookExecutionId"]] = request["status"]
            return {}
        raise NotImplementedError(operation)
