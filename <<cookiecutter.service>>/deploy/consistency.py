"""Rules for values of an environment file that depend on each other: timeouts, instances and database connections."""

import ast
import re
from collections.abc import Iterator

from deploy.config import MIGRATION_CONNECTIONS, ROOT, ConfigError, Environment
from deploy.machines import MachineError, fits, memory_mib

FARGATE_STOP_SECONDS = 120
"""https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html (`stopTimeout`)"""

MOST_DEREGISTRATION_SECONDS = 3_600
"""https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-target-group-attributes.html"""

RESERVED_CONNECTIONS = 15
"""Connections of a PostgreSQL server that services cannot use: for RDS itself, the superuser, and a person with `psql`.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html
"""

MOST_CONNECTIONS = 262_143
"""The greatest `max_connections` that PostgreSQL accepts. https://www.postgresql.org/docs/current/view-pg-settings.html"""

RELATED = ("DRAIN_SECONDS", "SHUTDOWN_SECONDS", "WEB_CONCURRENCY", "DATABASE_POOL_SIZE")
"""Variables that these rules compare with the infrastructure. An environment file must set them."""


def faults(environment: Environment) -> Iterator[str]:
    """Yield a message for each rule that is violated."""
    for check in (_times, _machines, _connections, _proxy):
        yield from check(environment)


def _numbers(environment: Environment) -> dict[str, int] | None:
    """Return the variables of `RELATED` as numbers, or `None` if one is missing or malformed."""
    found = {name: environment.variables.get(name, "") for name in RELATED}
    if any(not re.fullmatch("[0-9]{1,6}", value) for value in found.values()):
        return None
    return {name: int(value) for name, value in found.items()}


def _times(environment: Environment) -> Iterator[str]:
    numbers = _numbers(environment)
    if not numbers:
        return
    service, idle_seconds, keepalive_seconds = (
        environment.service,
        environment.platform.idle_timeout_seconds,
        _keepalive_seconds(),
    )
    stopping_seconds = numbers["DRAIN_SECONDS"] + numbers["SHUTDOWN_SECONDS"]
    if not 1 <= idle_seconds < keepalive_seconds:
        yield (
            f"[platform] idle_timeout_seconds {idle_seconds} must be below the keep-alive,"
            f" {keepalive_seconds} s in chassis/server.py, or the balancer sends requests into connections that close"
        )
    if service.stop_timeout_seconds <= stopping_seconds:
        yield (
            f"[service] stop_timeout_seconds {service.stop_timeout_seconds} must be above DRAIN_SECONDS +"
            f" SHUTDOWN_SECONDS, {stopping_seconds} s, or requests are cut off"
        )
    if environment.is_fargate and service.stop_timeout_seconds > FARGATE_STOP_SECONDS:
        yield f"[service] stop_timeout_seconds must be at most {FARGATE_STOP_SECONDS}, Fargate's limit"
    if not numbers["SHUTDOWN_SECONDS"] < service.deregistration_seconds <= MOST_DEREGISTRATION_SECONDS:
        yield (
            f"[service] deregistration_seconds {service.deregistration_seconds} must be above SHUTDOWN_SECONDS,"
            f" {numbers['SHUTDOWN_SECONDS']} s, or requests are cut off, and at most {MOST_DEREGISTRATION_SECONDS}"
        )


def _machines(environment: Environment) -> Iterator[str]:
    platform, service = environment.platform, environment.service
    if platform.instances < 0:
        yield "[platform] instances must not be negative"
    if environment.existing.cluster or (environment.is_fargate and not platform.instances):
        return
    try:
        if environment.is_fargate:  # the machines are for other services, perhaps of another architecture
            memory_mib(platform.instance_type)
            return
        room = platform.instances * fits(platform.instance_type, service)
    except MachineError as error:
        yield f"[platform] {error}"
        return
    if room < 2 * service.tasks_max:
        yield (
            f"[platform] {platform.instances} machines of {platform.instance_type} have room for {room} tasks, and a"
            f" release needs {2 * service.tasks_max}: blue and green of tasks_max each"
        )


def _connections(environment: Environment) -> Iterator[str]:
    if not _numbers(environment):
        return
    if environment.platform.database_max_connections > MOST_CONNECTIONS:
        yield f"[platform] database_max_connections must be at most {MOST_CONNECTIONS}, PostgreSQL's limit"
    peak = environment.peak_connections
    free = environment.platform.database_max_connections - RESERVED_CONNECTIONS
    if peak > free:
        own = environment.service
        direct = f"2 * tasks_max * WEB_CONCURRENCY * (DATABASE_POOL_SIZE + 1) + {MIGRATION_CONNECTIONS}"
        proxied = "database_proxy_connections" if own.database_proxy_connections else ""
        formula = proxied if own.database_proxy else " + ".join(filter(None, (direct, proxied)))
        supply = f"database_max_connections - {RESERVED_CONNECTIONS}"
        yield f"a release needs {peak} database connections ({formula}), and the server has {free} ({supply})"


def _proxy(environment: Environment) -> Iterator[str]:
    own = environment.service
    connections, least = own.database_proxy_connections, -(-environment.platform.database_max_connections // 100)
    if own.database_proxy and not connections:
        yield "[service] database_proxy needs database_proxy_connections: what the proxy may open at the server"
    if not connections:
        return
    # https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_ConnectionPoolConfiguration.html
    if connections < least:
        yield f"[service] database_proxy_connections must be 0 or at least {least}, 1 % of database_max_connections"
    if environment.existing.database:
        yield "[service] database_proxy_connections must be 0 with [existing] database: RDS Proxy needs a server of RDS"
    if not environment.owns_credentials:
        yield "[service] database_proxy_connections needs the user that the stack creates: no PGUSER in [secrets]"


def _keepalive_seconds() -> int:
    """Return gunicorn's `keepalive` from `chassis/server.py`, read as text: to import it would need its packages."""
    tree = ast.parse((ROOT / "chassis" / "server.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "keepalive" and isinstance(value, ast.Constant):
                    return int(str(value.value))
    raise ConfigError("chassis/server.py sets no keepalive")
