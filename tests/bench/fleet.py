"""Ten, a hundred and a thousand tasks, on paper: `python -m tests.bench.fleet` prints the table again.

It is made of the figures of the last run and of what the service's `deploy/production.toml` says: the size of a task,
its connections, the database's limit. What is assumed beside them stands here.
"""

import tomllib
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.figures import Figures, Turn, load

HERE = Path(__file__).parent
PRODUCTION = HERE.parent.parent / "<<cookiecutter.service>>" / "deploy" / "production.toml"

TASKS = [10, 100, 1_000]
BUSY = 0.6
"""Share of its processors that a task uses before autoscaling adds another one."""
CREATES = 0.2
"""Share of requests that write; the others read one note."""
RESERVED_CONNECTIONS = 15
"""As in the service's `deploy/consistency.py`: RDS's own, the superuser's, a person with `psql`."""
MIGRATION_CONNECTIONS = 1
"""As in the service's `deploy/config.py`."""
DATABASE_CPUS = {"m7g.large": 2, "m7g.xlarge": 4, "m7g.2xlarge": 8, "m7g.4xlarge": 16, "m7g.8xlarge": 32}
"""https://aws.amazon.com/rds/instance-types/ (2026)"""
LARGEST_CPUS = 192
"""Of one machine for PostgreSQL. Beyond that there is no larger one to buy."""
CPU_DOLLARS = 0.045
"""Assumed, for one processor of a task on Fargate for an hour; look it up: https://aws.amazon.com/fargate/pricing/"""
GB_DOLLARS = 0.005
"""Assumed, for one GB of memory of a task for an hour."""
DATABASE_DOLLARS = 0.22
"""Assumed, for one processor of a database in two zones for an hour; https://aws.amazon.com/rds/postgresql/pricing/"""
HOURS = 730


def table(figures: Figures) -> str:
    """Return a table of what so many tasks do, need and cost, and of what breaks first."""
    production = tomllib.loads(PRODUCTION.read_text(encoding="utf-8"))
    rows = [" | ".join(_row(figures, production, tasks)) for tasks in TASKS]
    heads = [
        "tasks",
        "requests/s",
        "connections, as they are",
        "with a pooler",
        "database CPUs",
        "a month",
        "breaks first",
    ]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads)), *rows]
    service, variables, platform = production["service"], production["variables"], production["platform"]
    return (
        "## Ten, a hundred, a thousand tasks, on paper\n\n"
        f"Tasks of {service['cpu_units'] / 1024:g} CPU, busy to {BUSY:.0%}, with {variables['WEB_CONCURRENCY']} workers"
        f" of {variables['DATABASE_POOL_SIZE']} connections each; {CREATES:.0%} of the requests create, others read."
        f" A database of class {platform['database_instance']} with {platform['database_max_connections']} connections."
        " CPU per request is as measured; prices are assumed, see fleet.py.\n"
        "Connections count blue and green at once, as in a release, one more for each worker, which opens a new one"
        " before it closes an old one, and the migration's.\n"
        "Behind a pooler the service prepares no statements, so the database needs more CPU there than the table"
        " says.\n\n" + "".join(f"| {line} |\n" for line in lines) + _simulation(figures)
    )


def peak_connections(variables: dict[str, int], tasks: int) -> int:
    """Return what a release needs without a pooler, as the service's `deploy/config.py` counts it."""
    return 2 * tasks * variables["WEB_CONCURRENCY"] * (variables["DATABASE_POOL_SIZE"] + 1) + MIGRATION_CONNECTIONS


def _simulation(figures: Figures) -> str:
    if not figures.simulation:
        return ""
    rows = [
        f"| {clients} | {expected:,.0f}/s | {rate:,.0f}/s | {expected_ms:,.0f} ms | {mean_ms:,.0f} ms |\n"
        for clients, (expected, rate, expected_ms, mean_ms) in figures.simulation.items()
    ]
    return (
        "\nThe queue before a pooler, as the model has it and as it was: clients in up to 20 processes, PgBouncer with"
        " 10 connections to PostgreSQL, statements of 50 ms.\n\n"
        "| clients | rate: model | measured | mean: model | measured |\n| --- | --- | --- | --- | --- |\n"
        + "".join(rows)
    )


def _row(figures: Figures, production: dict[str, Any], tasks: int) -> list[str]:
    service, variables, platform = production["service"], production["variables"], production["platform"]
    cpus = service["cpu_units"] / 1024
    rate = tasks * cpus * BUSY / (_mixed(figures, "cpu_us") / 1e6)
    database_cpus = rate * _mixed(figures, "database_us") / 1e6
    connections = peak_connections(variables, tasks)
    # A pooler needs as many connections to the server as statements are in progress: Little's law, and some to spare.
    pooled = max(2 * round(database_cpus / BUSY), 10)
    free = platform["database_max_connections"] - RESERVED_CONNECTIONS
    owned = DATABASE_CPUS.get(platform["database_instance"], 2)
    dollars = HOURS * (
        tasks * (cpus * CPU_DOLLARS + service["memory_mib"] / 1024 * GB_DOLLARS)
        + max(owned, database_cpus / BUSY) * DATABASE_DOLLARS
    )
    limits = {
        f"connections: {connections:,} of {free}": connections / free,
        f"the database's CPU: {database_cpus:.1f} of {owned}": database_cpus / BUSY / owned,
    }
    if database_cpus / BUSY > LARGEST_CPUS:
        limits["no database is large enough: split it, or cache"] = float("inf")
    first, load_ = max(limits.items(), key=lambda item: item[1])
    return [
        f"{tasks:,}",
        f"{rate:,.0f}",
        f"{connections:,}",
        f"{pooled:,}",
        f"{database_cpus:.1f}",
        f"${dollars:,.0f}",
        first if load_ > 1 else "nothing",
    ]


def _mixed(figures: Figures, key: str) -> float:
    """Return a figure of the service for the mix of reads and creates, in the image if that was measured."""
    found = figures.in_image or figures.by_kind

    def of(turns: list[Turn]) -> float:
        values: list[float] = [getattr(turn, key) for turn in turns]
        return median(values)

    return (1 - CREATES) * of(found["read"]["the service"]) + CREATES * of(found["create"]["the service"])


if __name__ == "__main__":
    print(table(load(HERE / "figures.json")))
