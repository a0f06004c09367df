"""What the rehearsal takes from the service and from its production environment, and its own constants."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
"""The folder of the service."""

PRODUCTION: dict[str, Any] = tomllib.loads((ROOT / "deploy" / "production.toml").read_text(encoding="utf-8"))
"""The environment whose figures the rehearsal uses."""


def _plain(name: str) -> str:
    """Return `name` as Docker, URLs and DNS accept it, also in a template that is not rendered yet."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")


SERVICE = _plain(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])

PREFIX = f"/api/{SERVICE}"
"""The path under which the load balancer routes to the service."""

DATABASE_NAME = ".".join(["postgres", *(_plain(label) for label in PRODUCTION["domain"].split("."))])
"""The DNS name under which the service finds its database: a CNAME."""

VARIABLES = {name: str(value) for name, value in PRODUCTION["variables"].items()} | {"WEB_CONCURRENCY": "1"}
"""The service's own configuration: that of production, but with one worker, since a task has a processor of its own
there, and here all tasks share those of one machine."""

WORKERS = int(VARIABLES["WEB_CONCURRENCY"])

CONNECTIONS_OF_A_TASK = WORKERS * int(VARIABLES["DATABASE_POOL_SIZE"])
"""Database connections of a task that serves. A worker has one more for the moment in which it renews one."""

MIGRATION_CONNECTIONS = 1

RESERVED_CONNECTIONS = 15
"""Connections of the database server that are not for services, as in `deploy/`."""

STOP_SECONDS: int = PRODUCTION["service"]["stop_timeout_seconds"]
"""Seconds between SIGTERM and SIGKILL."""

DEREGISTRATION_SECONDS: int = PRODUCTION["service"]["deregistration_seconds"]
"""Seconds that a deregistered task has for its requests in flight."""

LATENCY_BOUND_MS: int = PRODUCTION["service"]["latency_bound_ms"]

CHECK_INTERVAL_SECONDS = 5
CHECK_TIMEOUT_SECONDS = 2
CHECKS_TO_FAIL = 2
CHECKS_TO_PASS = 2
"""Health checks of the target groups, as in `deploy/`. The first passed check of a new task is enough, as on an ALB."""

NOTICE_SECONDS = CHECK_INTERVAL_SECONDS * CHECKS_TO_FAIL + CHECK_TIMEOUT_SECONDS
"""When the load balancer has noticed, at the latest, that a task does not respond."""

INSTALL_SECONDS = 30
"""Seconds that a task may take until the balancer finds it healthy. More tasks at once take longer: a laptop starts
them on few processors."""

PASSWORD = "only-for-a-rehearsal"  # noqa: S105 - of a database that ends with the rehearsal


def install_seconds(tasks: int) -> float:
    """Return how long `tasks` tasks may take until all are healthy."""
    return INSTALL_SECONDS + 5 * (tasks - 1)


def budget(most_tasks: int) -> int:
    """Return the most database connections that `most_tasks` tasks need while a release doubles them."""
    return 2 * most_tasks * (CONNECTIONS_OF_A_TASK + WORKERS) + MIGRATION_CONNECTIONS
