"""Estimate what an environment costs a month, by the list prices in `prices.toml`."""

import tomllib
from pathlib import Path
from typing import Any

from deploy import environments
from deploy.config import Environment
from deploy.machines import cpus
from deploy.release.target import ReleaseError, say
from deploy.rules import ZONES

PRICES = Path(__file__).parent / "prices.toml"

MONTH_HOURS = 730
NIGHT_WEEKDAYS = 5 / 7
"""Share of the days on which what is stopped at night runs at all."""

ALARMS = 10
METRICS = 6
"""As many alarms and metrics as the stacks create, roughly; routes add one metric each."""


def cost(name: str) -> None:
    """Print the estimate, item by item, and its sum."""
    environment = environments.load(name)
    prices: dict[str, Any] = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    items = estimate(environment, prices)
    for item, dollars in items.items():
        say("cost", item=item, dollars_a_month=round(dollars, 2))
    say(
        "cost",
        item="sum",
        dollars_a_month=round(sum(items.values()), 2),
        dollars_a_million_requests=round(per_million(environment, prices), 2),
        prices_of=str(prices["date"]),
        region=prices["region"],
    )


def estimate(environment: Environment, prices: dict[str, Any]) -> dict[str, float]:
    """Return the dollars a month of each item, without traffic, when the smallest number of tasks runs.

    Raises:
        ReleaseError: A class of database or a type of machine has no price.
    """
    platform, hour, month = environment.platform, prices["hour"], prices["month"]
    items = {"tasks" if environment.is_fargate else "machines": _capacity(environment, prices)}
    copies = 2 if platform.database_multi_az else 1
    if not environment.existing.database:
        database = _price(hour["database"], platform.database_instance)
        items["database"] = database * copies * _hours(environment)
        items["database storage"] = month["storage_gib"] * platform.database_storage_gib * copies
    if environment.service.database_proxy_connections:
        items["database proxy"] = hour["proxy_cpu"] * cpus(platform.database_instance) * MONTH_HOURS
    if not environment.existing.vpc:
        items["NAT gateways"] = platform.nat_gateways * (hour["nat_gateway"] + hour["public_address"]) * MONTH_HOURS
    if not environment.existing.balancer:
        addresses = ZONES * hour["public_address"] if platform.public else 0
        items["balancer"] = (hour["balancer"] + hour["capacity_unit"] + addresses) * MONTH_HOURS
    items["zone, secrets, alarms, metrics"] = (
        month["zone"] + 2 * month["secret"] + ALARMS * month["alarm"] + METRICS * month["metric"]
    )
    return items


def per_million(environment: Environment, prices: dict[str, Any]) -> float:
    """Return the dollars of a million requests: their processor time, at full load, and their log."""
    requests, hour = prices["million_requests"], prices["hour"]
    cpu_hours = requests["cpu_ms_each"] * 1_000_000 / 3_600_000
    return float(cpu_hours * _cpu_price(environment, hour) + requests["log_gib"] * requests["log_gib_price"])


def _price(prices: dict[str, float], kind: str) -> float:
    if kind not in prices:
        raise ReleaseError(f"no price for {kind}: add it to deploy/release/prices.toml")
    return prices[kind]


def _capacity(environment: Environment, prices: dict[str, Any]) -> float:
    service, hour = environment.service, prices["hour"]
    if not environment.is_fargate:
        if not environment.platform.instances:  # as on a cluster that exists already
            return 0
        machine = _price(hour["machine"], environment.platform.instance_type)
        return machine * environment.platform.instances * MONTH_HOURS
    memory = hour[f"gib_{service.architecture}"] * service.memory_mib / 1_024 * _share(environment, hour)
    return float(
        (_cpu_price(environment, hour) * service.cpu_units / 1_024 + memory) * service.tasks_min * _hours(environment)
    )


def _cpu_price(environment: Environment, hour: dict[str, Any]) -> float:
    return float(hour[f"cpu_{environment.service.architecture}"] * _share(environment, hour))


def _share(environment: Environment, hour: dict[str, Any]) -> float:
    return float(hour["spot_share"]) if environment.service.capacity == "FARGATE_SPOT" else 1


def _hours(environment: Environment) -> float:
    """Return the hours of a month in which tasks and database run."""
    if not environment.night:
        return MONTH_HOURS
    stop, start = environment.night
    return MONTH_HOURS * NIGHT_WEEKDAYS * ((stop - start) % 24) / 24
