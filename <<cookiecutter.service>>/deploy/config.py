"""The settings of an environment: the tables and keys of `deploy/<environment>.toml`, and what follows from them.

`environments.py` makes an `Environment` of such a file, and `rules.py` checks its values.
"""

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
"""TCP port of the load balancer's test listener, at which green is tested before it gets traffic."""

PRIORITIES = 50_000
"""The highest priority of a listener rule.

https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateRule.html (`Priority`)
"""

MIGRATION_CONNECTIONS = 1
"""Database connections of `python -m service.admin migrate`, as `peak_connections` counts them."""

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
"""How long logs may be kept: days, and CDK's name for them."""


class ConfigError(ValueError):
    """An environment cannot be created as its file describes it. The message is one line."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """Existing resources to use instead of creating them. Each is a key of `[existing]`; `None` means: create it."""

    vpc: dict[str, Any] | None = None
    """`id`, `cidr`, and `private_subnets`, the ids of one per availability zone."""
    cluster: str | None = None
    """Name of an ECS cluster."""
    balancer: dict[str, str] | None = None
    """`arn`, `dns_name`, `security_group`, `production_listener` and `test_listener`."""
    zone: str | None = None
    """Id of a private hosted zone for `domain`."""
    database: dict[str, str] | None = None
    """`host`, and `security_group`, to which a rule is added that admits the tasks. `secret` is the ARN of a secret
    with the `username` and `password` of a user who may create roles and databases. Without `secret`, `[secrets]` must
    have `PGUSER` and `PGPASSWORD`."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the services of an environment share: the table `[platform]`."""

    keep: bool
    """Whether the stack and its data are protected against deletion. If not, everything is deleted with the stack."""
    availability_zones: list[str]
    """Three zones of the region."""
    cidr: str
    """The address range of the VPC, in CIDR notation."""
    nat_gateways: int
    """1 to 3. With fewer than three, the outage of one zone may cut tasks in other zones off from the internet."""
    public: bool
    """Whether the load balancer is on the internet. If not, it can be reached from inside the VPC only."""
    public_zone: dict[str, str]
    """`id` and `name` of a public hosted zone that contains `domain`. The certificate is validated by DNS in this zone,
    and a public service has its DNS name there. `{}` if `certificate_arn` is set."""
    certificate_arn: str
    """ARN of the load balancer's certificate, for `*.<domain>`. `""` if one is to be created, with `public_zone`."""
    alarm_email: str
    """Address to which alarms are sent. With `""`, something else has to subscribe to the SNS topic."""
    night: str
    """Hours in UTC at which tasks and the database are stopped and started, such as `"19-5"`. They also stay stopped on
    Saturday and Sunday. `""` for never."""
    idle_timeout_seconds: int
    """Seconds after which the load balancer closes an idle connection."""
    database_instance: str
    """Instance class of the database, without `db.`."""
    database_multi_az: bool
    """Whether the database has a standby in another zone, with automatic failover."""
    database_storage_gib: int
    """Initial storage in GiB. It grows automatically up to four times as much."""
    database_max_connections: int
    """`max_connections` of the server."""
    database_backup_days: int
    """Days for which automatic backups are kept."""
    instance_type: str
    """With EC2 capacity only: type of the instances."""
    instances: int
    """With EC2 capacity only: number of instances, enough for blue and green at the same time. 0 for none."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """The settings of this service: the table `[service]`."""

    architecture: str
    """Processor architecture of the tasks and their images: `ARM64` or `X86_64`."""
    capacity: str
    """`FARGATE`; `FARGATE_SPOT`, whose tasks AWS may stop with two minutes' notice; or `EC2`, with bridge networking
    and dynamic host ports."""
    controller: str
    """What runs a deployment: `CODE_DEPLOY`, or `ECS` for its built-in blue/green deployments."""
    canary: bool
    """Whether 10 % of the traffic is moved to green first, for 15 minutes. Otherwise all of it is moved at once."""
    blue_minutes: int
    """Minutes for which blue keeps running after green has all traffic."""
    tasks_min: int
    """Minimum number of tasks, which are spread over the zones."""
    tasks_max: int
    """Maximum number of tasks. During a deployment, green has as many in addition."""
    cpu_units: int
    """CPU units of a task. 1024 units are one processor."""
    memory_mib: int
    """Memory of a task in MiB."""
    stop_timeout_seconds: int
    """Seconds between SIGTERM and SIGKILL."""
    deregistration_seconds: int
    """Seconds for which the load balancer waits for requests in flight at a task that it deregisters."""
    latency_bound_ms: int
    """Milliseconds. If green is slower, it gets no traffic; if the service is slower, an alarm is raised."""
    log_retention_days: int
    """Days for which logs are kept: one of the keys of `RETENTION`."""
    database_proxy: bool = False
    """Whether tasks connect to PostgreSQL through the service's own RDS Proxy."""
    database_proxy_connections: int = 0
    """Connections to the server that this proxy may open, for all tasks together. With 0 there is no proxy."""
    listener_priority: int | None = None
    """Priority of the service's listener rule, 1 to 50000. No two services of a platform may have the same one. The
    default is a hash of the service's name; set a value if the hashes of two services are equal."""
    token_credentials: str = ""
    """Needed if `JWKS_URL` is set: ARN of a secret with `token_url`, `client_id` and `client_secret`. With these the
    hooks get an access token, by the client credentials grant of OAuth 2."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A deploy of the service, and the platform on which it runs."""

    name: str
    """The name of the file without its suffix, such as `staging`."""
    service_name: str
    """`project.name` in `pyproject.toml`."""
    domain: str
    """The DNS zone with the names of the service and of PostgreSQL."""
    repository: str
    """The repository on GitHub, whose workflows may build and release: `OWNER/NAME`, or `OWNER@ID/NAME@ID` where the
    subject of GitHub's tokens has the numbers. `""` for none."""
    account: str
    """The AWS account, 12 digits."""
    images_account: str
    """The AWS account of the image repository. It is the same in all environments, so that all run the same images."""
    region: str
    """The AWS region."""
    existing: Existing
    platform: Platform
    service: Service
    variables: dict[str, str]
    """The configuration of the service: values by environment variable."""
    secrets: dict[str, str]
    """The secret configuration of the service: by environment variable, the ARN of a secret in Secrets Manager. For one
    key of a secret that is a JSON object, `:key` follows the ARN. The database's user and password are created, unless
    `PGUSER` and `PGPASSWORD` are listed here."""

    @property
    def images_name(self) -> str:
        """Return the name of the stack with the image repository."""
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
        """Return the address range of the VPC, which contains the load balancer's addresses."""
        return str(self.existing.vpc["cidr"]) if self.existing.vpc else self.platform.cidr

    @property
    def url_prefix(self) -> str:
        """Return the path prefix for which the load balancer routes requests to the service."""
        return f"/api/{self.service_name}"

    @property
    def log_group(self) -> str:
        """Return the name of the tasks' log group."""
        return f"/ecs/{self.name}/{self.service_name}"

    @property
    def is_fargate(self) -> bool:
        """Return whether tasks run on Fargate, each with a network interface of its own, and not on EC2 instances."""
        return self.service.capacity != "EC2"

    @property
    def secret_prefix(self) -> str:
        """Return the prefix of the names of the service's secrets. Its tasks may read every secret with this prefix."""
        return f"{self.name}/{self.service_name}/"

    @property
    def night(self) -> tuple[int, int] | None:
        """Return the hours in UTC at which everything is stopped and started, or `None` for never."""
        if not self.platform.night:
            return None
        stop, start = map(int, self.platform.night.split("-"))
        return stop, start

    @property
    def stop_days(self) -> str:
        """Return the days of cron on which everything is stopped: after midnight, they are each a day later."""
        stop, start = self.night or (0, 0)
        return "MON-FRI" if start < stop else "TUE-SAT"

    @property
    def owns_credentials(self) -> bool:
        """Return whether the service's stack creates the database's user and password."""
        return "PGPASSWORD" not in self.secrets

    @property
    def listener_priority(self) -> int:
        """Return the priority of the service's listener rules."""
        by_name = 1 + zlib.crc32(self.service_name.encode()) % PRIORITIES
        return by_name if self.service.listener_priority is None else self.service.listener_priority

    @property
    def peak_connections(self) -> int:
        """Return the number of database connections that a deployment needs: for blue, green and the migration.

        A pool that renews a connection opens the new one before it has closed the old one, so each may hold one more.
        Through a proxy, it is what the proxy opens. One that tasks do not use yet, or no more, still counts: a
        deployment has tasks of both kinds.
        """
        if self.service.database_proxy:
            return self.service.database_proxy_connections
        per_task = int(self.variables["WEB_CONCURRENCY"]) * (int(self.variables["DATABASE_POOL_SIZE"]) + 1)
        direct = 2 * self.service.tasks_max * per_task + MIGRATION_CONNECTIONS
        return direct + self.service.database_proxy_connections

    @property
    def database_url(self) -> str:
        """Return the URL of the service's database at the server itself.

        libpq takes user and password from `PGUSER` and `PGPASSWORD`.
        With `channel_binding=require` the server must prove that it knows the password, so no other can impersonate it.
        """
        return f"postgresql://postgres.{self.domain}/{self.service_name}?sslmode=require&channel_binding=require"

    def function_name(self, event: str) -> str:
        """Return the name of the Lambda function that is the hook of a lifecycle event."""
        return f"{self.stack_name}-{event}"


def service_name() -> str:
    """Return the service's name, which `pyproject.toml` declares."""
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["name"]
