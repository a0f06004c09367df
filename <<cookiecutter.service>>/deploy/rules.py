"""What an environment may not say: values that AWS refuses, or that cannot work together."""

import ast
import re

from deploy.config import EVENTS, RETENTION, ROOT, ConfigError, Environment

FARGATE_STOP_SECONDS = 120
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html (`stopTimeout`)"""

RESERVED_CONNECTIONS = 15
"""Connections of a PostgreSQL server that are not for services: RDS's own, the superuser's, a person with `psql`.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html
"""

MIGRATION_CONNECTIONS = 1
"""Connections of `python -m service.admin migrate`."""

RELATED = ("DRAIN_SECONDS", "SHUTDOWN_SECONDS", "WEB_CONCURRENCY", "DATABASE_POOL_SIZE")
"""Variables that the infrastructure depends on, so that an environment has to set them."""

TRACING_PREFIX = "OTEL_"
"""Prefix of the variables that OpenTelemetry's SDK reads, and the service does not."""

OURS = ("DATABASE_URL", "PORT", "FORWARDED_ALLOW_IPS", "URL_PREFIX", "RELEASE")
"""Variables that the environment file may not set: a secret, and what follows from the infrastructure."""


def faults(environment: Environment) -> list[str]:
    """Return what cannot work, the simplest first, since the later ones may follow from it."""
    checks = (_names, _values, _variables, _times, _connections)
    return [fault for check in checks for fault in check(environment) if fault]


def _names(environment: Environment) -> list[str]:
    found = []
    if not re.fullmatch(r"[a-z][a-z0-9]{1,15}", environment.name):
        found.append("an environment's name is 2 to 16 lower-case letters and digits, since names of AWS contain it")
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,22}[a-z0-9]", environment.service_name):
        found.append(f"the service's name {environment.service_name!r} is not 2 to 24 letters, digits and hyphens")
    longest = max((environment.function_name(event) for event in EVENTS), key=len)
    # https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    # https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateApplication.html
    for what, name, most in (("a function", longest, 64), ("an application", environment.stack_name, 100)):
        if len(name) > most:
            found.append(f"{name!r} is {len(name)} characters long, and the name of {what} may have {most}")
    return found + [
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
            f"[variables] {name} is not a variable that is set here"
            for name in environment.variables
            if name not in known and not name.startswith(TRACING_PREFIX)
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
        _keepalive_seconds(),
    )
    stopping_seconds = int(environment.variables["DRAIN_SECONDS"]) + int(environment.variables["SHUTDOWN_SECONDS"])
    found = []
    if keepalive_seconds <= idle_seconds:
        found.append(
            f"[platform] idle_timeout_seconds {idle_seconds} must be below the keep-alive,"
            f" {keepalive_seconds} s in chassis/server.py, or the balancer sends requests into connections that close"
        )
    if service.stop_timeout_seconds <= stopping_seconds:
        found.append(
            f"[service] stop_timeout_seconds {service.stop_timeout_seconds} must be above DRAIN_SECONDS +"
            f" SHUTDOWN_SECONDS, {stopping_seconds} s, or requests are cut off"
        )
    if environment.is_fargate and service.stop_timeout_seconds > FARGATE_STOP_SECONDS:
        found.append(f"[service] stop_timeout_seconds must be at most {FARGATE_STOP_SECONDS}, Fargate's limit")
    return found


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


def _keepalive_seconds() -> int:
    """Return gunicorn's `keepalive` from `chassis/server.py`, read as text: to import it would need its packages."""
    tree = ast.parse((ROOT / "chassis" / "server.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "keepalive" and isinstance(value, ast.Constant):
                    return int(str(value.value))
    raise ConfigError("chassis/server.py sets no keepalive")
