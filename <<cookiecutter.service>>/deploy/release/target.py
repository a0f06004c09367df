"""The service in an environment, as AWS has it: its stack, its releases, and what runs."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.exceptions import ClientError

from deploy import config, files

POLL_SECONDS = 3.0
"""Time between two requests for the state of a deployment or a task."""


class ReleaseError(Exception):
    """A command failed. The text says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A revision of the service's task definition that `release` made."""

    number: int
    arn: str
    name: str
    """What the service returns at `/version`: the number and the build, `7+build-1234`."""
    digest: str
    configuration: str
    """ARN of the revision that its configuration was copied from."""
    execution_role: str
    """ARN of the role that starts its tasks."""
    deployed_at: str
    """When it last got all traffic, in UTC; empty if never, or if it was rolled back since then."""


def say(step: str, **details: Any) -> None:
    """Print one line of progress."""
    print(json.dumps({"step": step, **details}, default=str), flush=True)  # noqa: T201 - the command's output


def pause() -> None:
    """Wait before the state of a deployment or a task is requested again: AWS does not announce changes."""
    time.sleep(POLL_SECONDS)


class Target:
    """The service in an environment, as AWS has it."""

    def __init__(self, environment: str) -> None:
        self.environment = environment
        self.region = str(files.read(environment)["region"])
        self.name = f"{config.service_name()}-{environment}"
        self.log_group = f"/ecs/{environment}/{config.service_name()}"
        self.ecs = client("ecs", self.region)
        self.codedeploy = client("codedeploy", self.region)
        try:
            [stack] = client("cloudformation", self.region).describe_stacks(StackName=self.name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise ReleaseError(f"there is no stack {self.name} in {self.region}: deploy it first") from None
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])}
        if "ClusterName" not in outputs:  # as after a creation that failed
            raise ReleaseError(f"the stack {self.name} is {stack['StackStatus']}, without outputs: deploy it first")
        self.cluster = outputs["ClusterName"]
        self.configuration = outputs["Configuration"]
        self.controller = outputs["Controller"]
        self.image = outputs["Image"]
        self.capacity = outputs["Capacity"]
        self.shell_role = outputs["ShellRole"]
        self.is_current = outputs["Fingerprint"] == files.fingerprint(files.read(environment))
        self.tasks_min = int(outputs["TasksMin"])
        self.network = {
            "awsvpcConfiguration": {
                "subnets": outputs["SubnetIds"].split(","),
                "securityGroups": [outputs["SecurityGroupId"]],
                "assignPublicIp": "DISABLED",
            }
        }

    def revisions(self) -> list[str]:
        """Return the ARNs of all revisions of the service's task definition, newest first, with the stack's own."""
        pages = self.ecs.get_paginator("list_task_definitions").paginate(familyPrefix=self.name)
        arns = [arn for page in pages for arn in page["taskDefinitionArns"] if family(arn) == self.name]
        return sorted(arns, key=revision, reverse=True)

    def releases(self) -> Iterator[Release]:
        """Yield all releases, newest first."""
        for arn in self.revisions():
            if found := self.release_of(arn):
                yield found

    def release_of(self, arn: str) -> Release | None:
        """Return the release that the task definition is; `None` if the stack made it, and not `release`."""
        described = self.ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
        task, tags = described["taskDefinition"], {each["key"]: each["value"] for each in described.get("tags", [])}
        if "release" not in tags or task["status"] != "ACTIVE":
            return None
        return Release(
            number=task["revision"],
            arn=task["taskDefinitionArn"],
            name=tags["release"],
            digest=task["containerDefinitions"][0]["image"].partition("@")[2],
            configuration=tags["configuration"],
            execution_role=task.get("executionRoleArn", ""),
            deployed_at=tags.get("deployed", ""),
        )

    def release(self, number: int | None) -> Release:
        """Return the release `number`, or the newest.

        Raises:
            ReleaseError: There is none.
        """
        if number is None:
            found = next(self.releases(), None)
        else:
            try:
                found = self.release_of(f"{self.name}:{number}")
            except self.ecs.exceptions.ClientException:
                found = None
        if not found:
            which = "no release yet" if number is None else f"no release {number}"
            raise ReleaseError(f"{self.name} has {which}: `status` shows those that there are")
        return found

    def service(self) -> dict[str, Any]:
        """Return the description of the service by ECS.

        Raises:
            ReleaseError: There is none.
        """
        name = config.service_name()
        services = self.ecs.describe_services(cluster=self.cluster, services=[name])["services"]
        if not services or services[0]["status"] != "ACTIVE":
            raise ReleaseError(f"the cluster {self.cluster} has no service {name}: deploy the stack {self.name}")
        service: dict[str, Any] = services[0]
        return service

    def digest(self) -> str:
        """Return the digest of the image that has the traffic."""
        task = self.ecs.describe_task_definition(taskDefinition=self.running())["taskDefinition"]
        return str(task["containerDefinitions"][0]["image"].partition("@")[2])

    def running(self) -> str:
        """Return the ARN of the task definition that has the traffic."""
        service = self.service()
        primary = [each for each in service.get("taskSets", []) if each["status"] == "PRIMARY"]
        return str((primary or [service])[0]["taskDefinition"])


def family(arn: str) -> str:
    """Return the family of a task definition."""
    return arn.rpartition("/")[2].partition(":")[0]


def revision(arn: str) -> int:
    """Return the revision of a task definition."""
    return int(arn.rpartition(":")[2])


def client(service: str, region: str | None = None) -> Any:
    """Return a client of an AWS service.

    Raises:
        ReleaseError: What the environment or `~/.aws` says of AWS cannot be used.
    """
    try:
        return boto3.client(service, region_name=region)
    except (ValueError, OSError) as error:  # botocore lets those of its settings through
        raise ReleaseError(f"AWS was not asked: {' '.join(str(error).split())}") from None


def line(error: ClientError) -> str:
    """Return an error of AWS as one line."""
    return f"{error.response['Error']['Code']}: {' '.join(error.response['Error']['Message'].split())}"
