"""What an environment is made of: `deploy/<environment>.toml`, read and checked before anything is created from it."""

import hashlib
import json
import tomllib
import zlib
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

UNFILLED = "000000000000"
"""Account of an environment file that is not filled in yet."""

PRIORITIES = 50_000
"""https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html (`Priority`)"""

MIGRATION_CONNECTIONS = 1
"""Connections of `python -m service.admin migrate`."""

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
    """`host`, and `security_group`, which gets a rule that lets tasks in. `secret` is the ARN of a secret with
    `username` and `password` of a user who may create roles and databases; without it, `PGUSER` and `PGPASSWORD` stand
    under `[secrets]`."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the services of an environment share."""

    keep: bool
    """Whether the stack and its data are protected against deletion; if not, deleting the stack leaves nothing."""
    availability_zones: list[str]
    """Three zones of the region."""
    cidr: str
    """Addresses of the VPC."""
    nat_gateways: int
    """1 to 3. With fewer than three, an outage of a zone may cut the tasks of others off from outside."""
    public: bool
    """Whether the balancer is on the internet; if not, it is reachable inside the VPC only."""
    public_zone: dict[str, str]
    """`id` and `name` of a public hosted zone that contains `domain`: the certificate is issued by DNS in it, and a
    public service has its name there. `{}` if `certificate_arn` is set."""
    certificate_arn: str
    """The balancer's certificate, for `*.<domain>`; `""` if it is issued by DNS."""
    alarm_email: str
    """Who gets the alarms; `""` for nobody, and then something else has to subscribe to the topic."""
    night: str
    """Hours in UTC in which tasks and the database are stopped, such as `"19-5"`; also on Saturday and Sunday. `""` for
    never."""
    idle_timeout_seconds: int
    """Seconds after which the balancer closes an idle connection."""
    database_instance: str
    """Instance class of the database, without `db.`."""
    database_multi_az: bool
    """Whether the database has a standby in another zone, which takes over by itself."""
    database_storage_gib: int
    """GiB at first; storage grows automatically up to four times as much."""
    database_max_connections: int
    """`max_connections` of the server."""
    database_backup_days: int
    """Days for which backups are kept."""
    instance_type: str
    """EC2 capacity only: type of the machines."""
    instances: int
    """EC2 capacity only: number of machines, enough for blue and green at the same time; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """This service in an environment."""

    architecture: str
    """`ARM64`, or `X86_64`: of tasks, and so of images."""
    capacity: str
    """`FARGATE`; `FARGATE_SPOT`, which AWS may take away with two minutes' notice; or `EC2`: bridge mode with dynamic
    host ports."""
    controller: str
    """`CODE_DEPLOY`, or `ECS`: ECS's own blue/green deployments."""
    canary: bool
    """Whether a tenth of the traffic is moved first, for fifteen minutes; otherwise all at once."""
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
    latency_bound_ms: int
    """Milliseconds. A slower green gets no traffic, and a slower service raises an alarm."""
    log_retention_days: int
    """Days; one of `RETENTION`."""
    listener_priority: int | None = None
    """Priority among the rules of all services at the listeners, 1 to 50000. By default it follows from the service's
    name, so that services on one platform differ; set it if two happen to be equal."""
    token_credentials: str = ""
    """Where `JWKS_URL` is set: ARN of a secret with `token_url`, `client_id` and `client_secret`, with which the hooks
    get a token by OAuth 2's client credentials."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One deploy of the service, and the platform that it runs on."""

    name: str
    """The name of the file: `staging`."""
    service_name: str
    """`project.name` in `pyproject.toml`."""
    domain: str
    """The zone with the names of the service and of PostgreSQL."""
    repository: str
    """The repository on GitHub, `OWNER/NAME`, whose workflows may build and release; `""` for none."""
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
    secrets: dict[str, str]
    """Configuration that is secret, by environment variable: the ARN of a secret in Secrets Manager, and for one key of
    a JSON object `:key` after it. The database's user and password are among them without being named here."""

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
        return self.service.capacity != "EC2"

    @property
    def secret_prefix(self) -> str:
        """Return the prefix of the names of this service's secrets, all of which its tasks may read."""
        return f"{self.name}/{self.service_name}/"

    @property
    def night(self) -> tuple[int, int] | None:
        """Return the hours in UTC at which everything is stopped and started; `None` for never."""
        if not self.platform.night:
            return None
        stop, start = map(int, self.platform.night.split("-"))
        return stop, start

    @property
    def owns_credentials(self) -> bool:
        """Return whether the service's stack makes the database's user and password."""
        return "PGPASSWORD" not in self.secrets

    @property
    def listener_priority(self) -> int:
        """Return the priority of the service's rules at the listeners."""
        by_name = 1 + zlib.crc32(self.service_name.encode()) % PRIORITIES
        return by_name if self.service.listener_priority is None else self.service.listener_priority

    @property
    def peak_connections(self) -> int:
        """Return the number of database connections that a release needs: blue, green and the migration."""
        per_task = int(self.variables["WEB_CONCURRENCY"]) * int(self.variables["DATABASE_POOL_SIZE"])
        return 2 * self.service.tasks_max * per_task + MIGRATION_CONNECTIONS

    @property
    def database_url(self) -> str:
        """Return the URL of the service's database. User and password are `PGUSER` and `PGPASSWORD`, as libpq has it.

        `channel_binding=require` has the server prove that it knows the password, so that no other can stand in for it.
        """
        return f"postgresql://postgres.{self.domain}/{self.service_name}?sslmode=require&channel_binding=require"

    @property
    def fingerprint(self) -> str:
        """Return a digest of the environment file. `release` compares it with the one that the stack was made from."""
        return fingerprint(read(self.name))

    def function_name(self, event: str) -> str:
        """Return the name of the Lambda function that is the hook of a lifecycle event."""
        return f"{self.stack_name}-{event}"


def service_name() -> str:
    """Return the service's name, from the one file that declares it."""
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["name"]


def environments() -> list[str]:
    """Return the names of all environments."""
    return sorted(path.stem for path in ROOT.glob("deploy/*.toml"))


def accounts() -> list[str]:
    """Return the accounts of all environments whose file is filled in."""
    return sorted({read(name)["account"] for name in environments()} - {UNFILLED})


def platforms() -> str:
    """Return the platforms of the images, as `docker build` names them: the architectures of all environments."""
    names = {"ARM64": "linux/arm64", "X86_64": "linux/amd64"}
    return ",".join(sorted({names[read(name)["service"]["architecture"]] for name in environments()}))


def fingerprint(tables: dict[str, Any]) -> str:
    """Return a digest of the tables of an environment file. Comments and order do not count."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def read(name: str) -> dict[str, Any]:
    """Return the tables of the file of environment `name`, unchecked.

    Raises:
        ConfigError: There is no such file, or it is not TOML.
    """
    path = ROOT / "deploy" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(environments())
        raise ConfigError(f"there is no environment {name!r}: deploy/ has {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None
