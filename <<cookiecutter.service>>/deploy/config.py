"""What an environment is made of: `deploy/<environment>.toml`, read and checked before anything is created from it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
"""The folder of the service."""

CONTAINER = "web"
"""Name of the container in a task."""

PORT = 8000
"""TCP port of the container."""

TEST_PORT = 9000
"""TCP port of the listener at which green is tested before it gets traffic."""

EVENTS = ("BeforeInstall", "AfterInstall", "AfterAllowTestTraffic", "BeforeAllowTraffic", "AfterAllowTraffic")
"""The lifecycle events of a deployment that may have hooks, in their order.

https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html#reference-appspec-file-structure-hooks-list-ecs
"""

STAGES = {
    "BeforeInstall": "PRE_SCALE_UP",
    "AfterInstall": "POST_SCALE_UP",
    "AfterAllowTestTraffic": "POST_TEST_TRAFFIC_SHIFT",
    "BeforeAllowTraffic": "PRE_PRODUCTION_TRAFFIC_SHIFT",
    "AfterAllowTraffic": "POST_PRODUCTION_TRAFFIC_SHIFT",
}
"""The lifecycle stages of ECS that correspond to CodeDeploy's events.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentLifecycleHook.html
"""

RETENTION = {
    1: "ONE_DAY",
    7: "ONE_WEEK",
    14: "TWO_WEEKS",
    30: "ONE_MONTH",
    60: "TWO_MONTHS",
    90: "THREE_MONTHS",
    180: "SIX_MONTHS",
    365: "ONE_YEAR",
}
"""CDK's names of the periods for which logs may be kept, by days."""


class ConfigError(ValueError):
    """An environment cannot be created as its file describes it. The text is one line."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """Resources that are used instead of created. Each is `None`, or a table of that name in the file."""

    vpc: dict[str, Any] | None = None
    """`id`, `cidr`, and `private_subnets`, the ids of one per availability zone."""
    cluster: str | None = None
    """Name of an ECS cluster."""
    balancer: dict[str, str] | None = None
    """`arn`, `dns_name`, `security_group`, `production_listener` and `test_listener`."""
    zone: str | None = None
    """Id of a private hosted zone for `domain`."""
    database: dict[str, str] | None = None
    """`host`, and `security_group`, which gets a rule that lets tasks in."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the services of an environment share."""

    availability_zones: list[str]
    """Three zones of the region."""
    cidr: str
    """Addresses of the VPC."""
    certificate_arn: str
    """The balancer's certificate, for `*.<domain>`."""
    idle_timeout_seconds: int
    """Seconds after which the balancer closes an idle connection."""
    database_instance: str
    """Instance class of the database, without `db.`."""
    database_storage_gib: int
    """GiB at first; storage grows automatically up to four times as much."""
    database_max_connections: int
    """`max_connections` of the server."""
    database_backup_days: int
    """Days for which backups are kept."""
    instance_type: str
    """EC2 capacity only: type of the machines."""
    instances: int
    """EC2 capacity only: number of machines, enough for blue and green at the same time."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """This service in an environment."""

    capacity: str
    """`FARGATE`, or `EC2`: bridge mode with dynamic host ports."""
    controller: str
    """`CODE_DEPLOY`, or `ECS`: ECS's own blue/green deployments."""
    canary: bool
    """Whether a tenth of the traffic is moved first, for five minutes; otherwise all at once."""
    blue_minutes: int
    """Minutes for which blue is kept after green has all traffic."""
    tasks_min: int
    """Smallest number of tasks, spread over the zones."""
    tasks_max: int
    """Largest number of tasks; a release runs as many again."""
    cpu_units: int
    """CPU of a task; 1024 units are one processor."""
    memory_mib: int
    """Memory of a task in MiB."""
    stop_timeout_seconds: int
    """Seconds between SIGTERM and SIGKILL."""
    deregistration_seconds: int
    """Seconds for which the balancer waits for requests in flight at a task that it deregisters."""
    listener_priority: int
    """Priority among the rules of all services at the listeners, 1 to 50000. Each service needs its own."""
    latency_bound_ms: int
    """Milliseconds. A slower green gets no traffic, and a slower service raises an alarm."""
    log_retention_days: int
    """Days; one of `RETENTION`."""
    secret_arn: str
    """A secret in Secrets Manager, a JSON object."""
    secret_keys: list[str]
    """Its keys; each becomes the environment variable of that name."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One deploy of the service, and the platform that it runs on."""

    name: str
    """The name of the file: `staging`."""
    service_name: str
    """`project.name` in `pyproject.toml`."""
    domain: str
    """The zone with the names of the service and of PostgreSQL."""
    account: str
    """The AWS account, 12 digits."""
    images_account: str
    """The account with the repository of images: the same in all environments, so that they share digests."""
    region: str
    """The AWS region."""
    existing: Existing
    platform: Platform
    service: Service
    variables: dict[str, str]
    """The service's own configuration, by environment variable."""

    @property
    def images_name(self) -> str:
        """Return the name of the stack with the repository of images."""
        return f"{self.service_name}-images"

    @property
    def stack_name(self) -> str:
        """Return the name of the service's stack, task definitions, CodeDeploy application and deployment group."""
        return f"{self.service_name}-{self.name}"

    @property
    def platform_name(self) -> str:
        """Return the name of the platform's stack, which is also the prefix of its exports."""
        return f"platform-{self.name}"

    @property
    def cidr(self) -> str:
        """Return the addresses of the VPC, and so of the balancer."""
        return str(self.existing.vpc["cidr"]) if self.existing.vpc else self.platform.cidr

    @property
    def url_prefix(self) -> str:
        """Return the path of the service at the balancer."""
        return f"/api/{self.service_name}"

    @property
    def log_group(self) -> str:
        """Return the name of the tasks' log group."""
        return f"/ecs/{self.name}/{self.service_name}"

    @property
    def is_fargate(self) -> bool:
        """Return whether tasks run on Fargate: each with a network interface of its own, without our machines."""
        return self.service.capacity == "FARGATE"

    def function_name(self, event: str) -> str:
        """Return the name of the Lambda function that is the hook of a lifecycle event."""
        return f"{self.stack_name}-{event}"


def service_name() -> str:
    """Return the service's name, from the one file that declares it."""
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["name"]


def accounts() -> list[str]:
    """Return the accounts of all environments."""
    return sorted({tomllib.loads(path.read_text(encoding="utf-8"))["account"] for path in ROOT.glob("deploy/*.toml")})


def read(name: str) -> dict[str, Any]:
    """Return the tables of the file of environment `name`, unchecked.

    Raises:
        ConfigError: There is no such file, or it is not TOML.
    """
    path = ROOT / "deploy" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(each.stem for each in path.parent.glob("*.toml")))
        raise ConfigError(f"there is no environment {name!r}: deploy/ has {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None
