"""Metrics of the log: the filters find in lines of the service what they are for, and the dashboard shows it."""

import json
import os
import re
import subprocess
from typing import Any

import pytest

from deploy import config, smoke
from deploy.tests.conftest import Stacks

PYTHON = config.ROOT / ".venv" / "bin" / "python"
"""The service has packages of its own."""

PROGRAM = f"""
import logging
from chassis import config, logs
from service import app
from service.config import Config
settings = config.load(Config)
logs.configure(settings)
client = app.create_app(settings).test_client()  # its pool is closed, so that the database cannot be had
for method, path in [("GET", "/livez"), ("GET", "/made-up"), ("BREW", "{smoke.PATH}"), ("GET", "{smoke.PATH}")]:
    client.open(path, method=method)
logging.error("on purpose")
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """Return what the service logs for some requests."""
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM], cwd=config.ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def select(selector: str, line: dict[str, Any]) -> Any:
    """Return the value that a property selector points to: a dot steps into an object, unless it is in brackets.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """
    value: Any = line
    keys = re.fullmatch(r"\$\.(?:\['([^']+)'\]|([\w.-]+))", selector)
    assert keys, selector
    for key in [keys[1]] if keys[1] else keys[2].split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def matches(pattern: str, line: dict[str, Any]) -> bool:
    """Return whether a filter matches a line, for as much of the syntax as the filters use."""
    body = re.fullmatch(r"\{ (.*) \}", pattern)
    assert body, pattern
    return any(all(holds(condition, line) for condition in each.split(" && ")) for each in body[1].split(" || "))


def holds(condition: str, line: dict[str, Any]) -> bool:
    """Return whether a line meets one condition."""
    selector, operator, literal = condition.split(" ", 2)
    found, wanted = select(selector, line), json.loads(literal)
    if found is None:
        return False
    return bool({"=": found == wanted, "!=": found != wanted, ">=": operator == ">=" and found >= wanted}[operator])


def test_each_filter_takes_the_lines_that_it_is_for(stacks: Stacks, lines: list[dict[str, Any]]) -> None:
    taken: dict[str, list[str]] = {}
    for each in stacks.of_type("service", "Logs::MetricFilter"):
        [metric] = each["MetricTransformations"]
        assert metric["MetricNamespace"] == stacks.environment.stack_name
        found = [line for line in lines if matches(each["FilterPattern"], line)]
        taken[metric["MetricName"]] = [line["body"] for line in found]
        if metric["MetricValue"] != "1":
            assert all(isinstance(select(metric["MetricValue"], line), float) for line in found)
        for dimension in metric.get("Dimensions", []):
            assert all(isinstance(select(dimension["Value"], line), str) for line in found)
    assert taken == {
        "LoggedErrors": ["on purpose"],
        "LoggedServerErrors": [f"GET {smoke.PATH} 503"],
        "LoggedDuration": ["GET /livez 200", "GET (none) 404", "BREW (none) 405", f"GET {smoke.PATH} 503"],
        "RouteDuration": ["GET /livez 200", f"GET {smoke.PATH} 503"],
        "PoolWait": [f"GET {smoke.PATH} 503"],
    }


def test_the_dashboard_shows_what_the_filters_make(stacks: Stacks) -> None:
    made = {
        (metric["MetricNamespace"], metric["MetricName"]): [each["Key"] for each in metric.get("Dimensions", [])]
        for each in stacks.of_type("service", "Logs::MetricFilter")
        for metric in each["MetricTransformations"]
    }
    dashboard = stacks.one("service", "CloudWatch::Dashboard")
    body = json.loads(
        "".join(each if isinstance(each, str) else "" for each in dashboard["DashboardBody"]["Fn::Join"][1])
    )
    shown = set()
    for widget in body["widgets"]:
        for metric in widget["properties"]["metrics"]:
            if isinstance(metric[0], str):
                shown.add((metric[0], metric[1]))
                assert made[metric[0], metric[1]] == []
            else:
                pattern = r"""SEARCH\('\{"([^"]+)",([\w,]+)\} MetricName="(\w+)"', '\w+', 60\)"""
                search = re.fullmatch(pattern, metric[0]["expression"])
                assert search, metric
                shown.add((search[1], search[3]))
                assert made[search[1], search[3]] == search[2].split(",")
    assert {name for _, name in shown} == {"LoggedErrors", "LoggedServerErrors", "RouteDuration", "PoolWait"}
