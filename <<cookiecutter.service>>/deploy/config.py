"""What an environment is made of: `deploy/<environment>.toml`, read and refused before anything is made of it."""

import ast
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
"""The folder of the service."""

CONTAINER = "web"
"""Name of the container in a task."""

PORT = 8000
"""TCP port of the container, as the service's configuration and the image have it."""

TEST_PORT = 9000
"""TCP port of the listener at which green is asked before it gets traffic."""

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
"""What CodeDeploy's lifecycle events are to ECS.

https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentLifecycleHook.html
"""

FARGATE_STOP_SECONDS = 120
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html (`stopTimeout`)"""

RESERVED_CONNECTIONS = 15
"""Connections of a PostgreSQL server that are not for services: RDS's own, the superuser's, a person with `psql`.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html
"""

MIGRATION_CONNECTIONS = 1
"""Connections of `python -m service.admin migrate`."""

RELATED = ("DRAIN_SECONDS", "SHUTDOWN_SECONDS", "WEB_CONCURRENCY", "DATABASE_POOL_SIZE")
"""Variables that infrastructure depends on, so that an environment has to say them."""

OF_THE_SDK = "OTEL_"
"""How the variables begin that OpenTelemetry's SDK knows, and the service does not."""

OURS = ("DATABASE_URL", "PORT", "FORWARDED_ALLOW_IPS", "URL_PREFIX", "RELEASE")
"""Variables that are not the environment file's to set: a secret, and what follows from the infrastructure."""


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
"""CDK's names of the periods that logs may be kept, by days."""


class ConfigError(ValueError):
    """An environment cannot be made as its file describes it; the text is one line."""


@dataclass(frozen=True, kw_only=True)
class Existing:
    """What is named instead of made. Each is `None`, or a table of that name in the file."""

    vpc: dict[str, Any] | None = None
    """`id`, `cidr`, and `private_subnets`, the ids of one per availability zone."""
    cluster: str | None = None
    """Name of an ECS cluster."""
    balancer: dict[str, str] | None = None
    """`arn`, `dns_name`, `security_group`, `production_listener` and `test_listener`."""
    zone: str | None = None
    """Id of a private hosted zone for `domain`."""
    database: dict[str, str] | None = None
    """`host`, and `security_group`, which is told to let the tasks in."""


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the services of an environment share."""

    availability_zones: list[str]
    """Three of the region's."""
    cidr: str
    """Addresses of the VPC."""
    certificate_arn: str
    """The balancer's certificate, for `*.<domain>`."""
    idle_timeout_seconds: int
    """Seconds after which the balancer closes an idle connection."""
    database_instance: str
    """Class of the database's machines, without `db.`."""
    database_storage_gib: int
    """GiB at first; it grows by itself to four times as much."""
    database_max_connections: int
    """The server's limit."""
    database_backup_days: int
    """Days that backups are kept."""
    instance_type: str
    """EC2 capacity only: type of the machines."""
    instances: int
    """EC2 capacity only: how many machines, enough for blue and green at once."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """This service in an environment."""

    capacity: str
    """`FARGATE`, or `EC2`: bridge mode with dynamic host ports."""
    controller: str
    """`CODE_DEPLOY`, or `ECS`: ECS's own blue/green."""
    canary: bool
    """Whether a tenth of the traffic goes first, for five minutes; else all at once."""
    blue_minutes: int
    """Minutes that blue is kept once green has all traffic."""
    tasks_min: int
    """Copies of the service, spread over the zones, when there is little to do."""
    tasks_max: int
    """Copies at most; a release runs as many again."""
    cpu_units: int
    """1024 are one processor."""
    memory_mib: int
    """MiB of a task."""
    stop_timeout_seconds: int
    """Seconds between SIGTERM and SIGKILL."""
    deregistration_seconds: int
    """Seconds that the balancer waits for requests in flight at a task that it has let go."""
    listener_priority: int
    """Place among the rules of all services at the listeners, 1 to 50000: each service needs its own."""
    latency_bound_ms: int
    """Milliseconds: slower than that, green gets no traffic, and an alarm rings."""
    log_retention_days: int
    """Days; one of `RETENTION`."""
    secret_arn: str
    """A secret in Secrets Manager, a JSON object."""
    secret_keys: list[str]
    """Its keys; each becomes the environment variable of that name."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One deploy of the service, and the platform that it stands on."""

    name: str
    """The file's name: `staging`."""
    service_name: str
    """`project.name` in `pyproject.toml`."""
    domain: str
    """The zone in which the service and PostgreSQL are found."""
    account: str
    """The AWS account, 12 digits."""
    images_account: str
    """The account whose registry has the images: the same in all environments, or there is no common digest."""
    region: str
    """The AWS region."""
    existing: Existing
    platform: Platform
    service: Service
    variables: dict[str, str]
    """The service's own configuration, by environment variable."""

    @property
    def stack_name(self) -> str:
        """Of the service's stack, its task definitions, its CodeDeploy application and group."""
        return f"{self.service_name}-{self.name}"

    @property
    def platform_name(self) -> str:
        """Of the platform's stack, and the prefix of what it exports."""
        return f"platform-{self.name}"

    @property
    def cidr(self) -> str:
        """Addresses of the VPC, and so of the balancer."""
        return str(self.existing.vpc["cidr"]) if self.existing.vpc else self.platform.cidr

    @property
    def url_prefix(self) -> str:
        """Path of the service at the balancer."""
        return f"/api/{self.service_name}"

    @property
    def log_group(self) -> str:
        """Of the tasks."""
        return f"/ecs/{self.name}/{self.service_name}"

    def function_name(self, event: str) -> str:
        """Of the Lambda function that is the hook of a lifecycle event."""
        return f"{self.stack_name}-{event}"


def service_name() -> str:
    """The service's name, from the one file that declares it."""
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["name"]


def accounts() -> list[str]:
    """The accounts of all environments."""
    return sorted({tomllib.loads(path.read_text(encoding="utf-8"))["account"] for path in ROOT.glob("deploy/*.toml")})


def read(name: str) -> dict[str, Any]:
    """The file of the environment `name`, as it is.

    Raises:
        ConfigError: there is no such file, or it is not TOML.
    """
    path = ROOT / "deploy" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(each.stem for each in path.parent.glob("*.toml")))
        raise ConfigError(f"there is no environment {name!r}: deploy/ has {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None


def load(name: str) -> Environment:
    """The environment `name`.

    Raises:
        ConfigError: its file is missing or malformed, or what it says cannot work together.
    """
    return parse(name, read(name))


def parse(name: str, tables: dict[str, Any]) -> Environment:
    """The environment `name` from the tables of its file.

    Raises:
        ConfigError: as `load`.
    """
    top = dict(tables)
    try:
        environment = Environment(
            name=name,
            service_name=service_name(),
            existing=_build(Existing, "existing", top.pop("existing", {})),
            platform=_build(Platform, "platform", top.pop("platform", {})),
            service=_build(Service, "service", top.pop("service", {})),
            variables={key: str(value) for key, value in top.pop("variables", {}).items()},
            **top,
        )
    except TypeError as error:
        raise ConfigError(f"deploy/{name}.toml: {str(error).partition('() ')[2]}") from None
    for fault in _faults(environment):
        raise ConfigError(f"deploy/{name}.toml: {fault}")
    return environment


def _build(kind: type[Any], table: str, values: dict[str, Any]) -> Any:
    try:
        instance = kind(**values)
    except TypeError as error:
        raise TypeError(f"{kind.__name__}() [{table}] {str(error).partition('() ')[2]}") from None
    for field, value in values.items():
        expected = kind.__annotations__[field]
        if expected in (int, str, bool) and type(value) is not expected:
            raise TypeError(f"{kind.__name__}() [{table}] {field} must be of type {expected.__name__}")
    return instance


def _faults(environment: Environment) -> list[str]:
    """What cannot work, the simplest first, since the later ones may follow from it."""
    return [
        fault for check in (_names, _values, _variables, _times, _connections) for fault in check(environment) if fault
    ]


def _names(environment: Environment) -> list[str]:
    faults = []
    if not re.fullmatch(r"[a-z][a-z0-9]{1,15}", environment.name):
        faults.append("an environment's name is 2 to 16 lower-case letters and digits, since names of AWS contain it")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,22}[a-z0-9]", environment.service_name):
        faults.append(f"the service's name {environment.service_name!r} is not 2 to 24 letters, digits and hyphens")
    longest = max((environment.function_name(event) for event in EVENTS), key=len)
    # https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    # https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateApplication.html
    for what, name, most in (("a function", longest, 64), ("an application", environment.stack_name, 100)):
        if len(name) > most:
            faults.append(f"{name!r} is {len(name)} characters long, and the name of {what} may have {most}")
    return faults + [
        f"account {account!r} is not the number of an AWS account, 12 digits: fill it in"
        for account in (environment.account, environment.images_account)
        if not re.fullmatch(r"(?!0{12})\d{12}", account)
    ]


def _values(environment: Environment) -> list[str]:
    service, platform = environment.service, environment.platform
    here = f":{environment.region}:{environment.account}:"
    return [
        "" if service.capacity in {"FARGATE", "EC2"} else "[service] capacity must be FARGATE or EC2",
        "" if service.controller in {"CODE_DEPLOY", "ECS"} else "[service] controller must be CODE_DEPLOY or ECS",
        "" if len(platform.availability_zones) == 3 else "[platform] availability_zones must be three",  # noqa: PLR2004 - said beside it
        "" if 1 <= service.tasks_min <= service.tasks_max else "[service] tasks_min must be 1 to tasks_max",
        "" if here in service.secret_arn else f"[service] secret_arn is not an ARN in {here.strip(':')}: fill it in",
        "" if service.log_retention_days in RETENTION else f"[service] log_retention_days must be of {list(RETENTION)}",
        "" if "DATABASE_URL" in service.secret_keys else "[service] secret_keys must contain DATABASE_URL",
        ""
        if here in platform.certificate_arn
        else f"[platform] certificate_arn is not in {here.strip(':')}: fill it in",
    ]


def _variables(environment: Environment) -> list[str]:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    known = set(re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE)) - set(OURS)
    return [
        *(f"[variables] lacks {name}" for name in RELATED if name not in environment.variables),
        *(
            f"[variables] {name} is none that is set here"
            for name in environment.variables
            if name not in known and not name.startswith(OF_THE_SDK)
        ),
        *(f"[variables] {name} must be a whole number" for name in RELATED if not _is_number(environment, name)),
    ]


def _is_number(environment: Environment, name: str) -> bool:
    return environment.variables.get(name, "0").isascii() and environment.variables.get(name, "0").isdigit()


def _times(environment: Environment) -> list[str]:
    if any(not environment.variables.get(name, "").isdigit() for name in RELATED):
        return []
    service, idle_seconds, keepalive_seconds = (
        environment.service,
        environment.platform.idle_timeout_seconds,
        _keepalive(),
    )
    stopping_seconds = int(environment.variables["DRAIN_SECONDS"]) + int(environment.variables["SHUTDOWN_SECONDS"])
    faults = []
    if keepalive_seconds <= idle_seconds:
        faults.append(
            f"[platform] idle_timeout_seconds {idle_seconds} must be below the keep-alive,"
            f" {keepalive_seconds} s in gunicorn.conf.py, or the balancer sends requests into connections that close"
        )
    if service.stop_timeout_seconds <= stopping_seconds:
        faults.append(
            f"[service] stop_timeout_seconds {service.stop_timeout_seconds} must be above DRAIN_SECONDS +"
            f" SHUTDOWN_SECONDS, {stopping_seconds} s, or requests are cut off"
        )
    if service.capacity == "FARGATE" and service.stop_timeout_seconds > FARGATE_STOP_SECONDS:
        faults.append(f"[service] stop_timeout_seconds must be at most {FARGATE_STOP_SECONDS}, Fargate's limit")
    return faults


def _connections(environment: Environment) -> list[str]:
    if any(not environment.variables.get(name, "").isdigit() for name in RELATED):
        return []
    of_a_task = int(environment.variables["WEB_CONCURRENCY"]) * int(environment.variables["DATABASE_POOL_SIZE"])
    peak = 2 * environment.service.tasks_max * of_a_task + MIGRATION_CONNECTIONS
    free = environment.platform.database_max_connections - RESERVED_CONNECTIONS
    if peak <= free:
        return []
    formula = f"2 * tasks_max * WEB_CONCURRENCY * DATABASE_POOL_SIZE + {MIGRATION_CONNECTIONS}"
    supply = f"database_max_connections - {RESERVED_CONNECTIONS}"
    return [f"a release needs {peak} database connections ({formula}), and the server has {free} ({supply})"]


def _keepalive() -> int:
    """`keepalive` in `gunicorn.conf.py`, in seconds. Read, not run: it needs the service's own packages."""
    tree = ast.parse((ROOT / "gunicorn.conf.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "keepalive":
            return int(ast.literal_eval(node.value))
    raise ConfigError("gunicorn.conf.py sets no keepalive")
