"""What an environment's file may not say."""

import re
from typing import Any

import pytest

from deploy import config, environments
from deploy.tests.conftest import tables


def changed(**changes: Any) -> dict[str, Any]:
    """Return the filled-in environment with `table__key=value` changed. `None` removes the key."""
    filled = tables()
    for path, value in changes.items():
        table, _, key = path.rpartition("__")
        target = filled[table] if table else filled
        if value is None:
            del target[key]
        else:
            target[key] = value
    return filled


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_files_are_whole_but_for_what_only_their_owner_knows(name: str) -> None:
    with pytest.raises(config.ConfigError, match="account '000000000000' is not the number of an AWS account"):
        environments.load(name)
    filled = config.read(name)
    filled |= {key: tables()[key] for key in ("account", "images_account", "region")}
    filled["platform"]["certificate_arn"] = tables()["platform"]["certificate_arn"]
    filled["service"]["secret_arn"] = tables()["service"]["secret_arn"]
    assert environments.parse(name, filled).service.tasks_min >= 3


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"platform__idle_timeout_seconds": 75}, "idle_timeout_seconds 75 must be below the keep-alive, 75 s"),
        (
            {"service__stop_timeout_seconds": 25},
            "stop_timeout_seconds 25 must be above DRAIN_SECONDS + SHUTDOWN_SECONDS, 25 s",
        ),
        ({"service__stop_timeout_seconds": 121}, "stop_timeout_seconds must be at most 120, Fargate's limit"),
        ({"service__tasks_max": 10}, "a release needs 201 database connections"),
        ({"variables__WEB_CONCURRENCY": 4}, "and the server has 185 (database_max_connections - 15)"),
        ({"account": "12"}, "account '12' is not the number of an AWS account"),
        ({"service__capacity": "LAMBDA"}, "[service] capacity must be FARGATE or EC2"),
        ({"service__controller": "EXTERNAL"}, "[service] controller must be CODE_DEPLOY or ECS"),
        (
            {"service__log_retention_days": 31},
            "[service] log_retention_days must be of [1, 7, 14, 30",
        ),
        ({"service__tasks_min": 7}, "[service] tasks_min must be 1 to tasks_max"),
        ({"service__tasks_min": "3"}, "[service] tasks_min must be of type int"),
        ({"service__tasks_min": None}, "[service] missing 1 required keyword-only argument: 'tasks_min'"),
        ({"service__colour": "blue"}, "[service] got an unexpected keyword argument 'colour'"),
        ({"domain": None}, "missing 1 required keyword-only argument: 'domain'"),
        (
            {"service__secret_arn": "arn:aws:secretsmanager:us-east-1:1:secret:x"},
            "secret_arn is not an ARN in eu-central-1",
        ),
        ({"service__secret_keys": ["OTHER"]}, "secret_keys must contain DATABASE_URL"),
        ({"platform__availability_zones": ["eu-central-1a"]}, "availability_zones must be three"),
        ({"variables__WEB_CONCURENCY": 2}, "[variables] WEB_CONCURENCY is not a variable that is set here"),
        ({"variables__RELEASE": "1"}, "[variables] RELEASE is not a variable that is set here"),
        ({"variables__FORWARDED_ALLOW_IPS": "0.0.0.0/0"}, "FORWARDED_ALLOW_IPS is not a variable that is set here"),
        ({"variables__DRAIN_SECONDS": None}, "[variables] lacks DRAIN_SECONDS"),
        ({"variables__DRAIN_SECONDS": "soon"}, "[variables] DRAIN_SECONDS must be a whole number"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ", ".join(value),
)
def test_what_cannot_work_is_one_line(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(config.ConfigError, match=re.escape(fault)) as refused:
        environments.parse("staging", changed(**changes))
    assert str(refused.value).startswith("deploy/staging.toml: ")
    assert "\n" not in str(refused.value)


def test_traces_are_configured_as_anything_else() -> None:
    variables = {"variables__OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "variables__OTEL_BSP_X": 1}
    assert environments.parse("staging", changed(**variables)).variables["OTEL_BSP_X"] == "1"


def test_a_stop_may_take_longer_on_machines() -> None:
    assert environments.parse("staging", changed(service__stop_timeout_seconds=121, service__capacity="EC2"))


@pytest.mark.parametrize("name", ["x", "a-b", "averyveryverylongname"])
def test_names_that_do_not_fit_into_aws_s_are_refused(name: str) -> None:
    with pytest.raises(config.ConfigError, match="an environment's name is 2 to 16"):
        environments.parse(name, tables())


def test_the_longest_names_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "service_name", lambda: "a" * 24)
    longest = environments.parse("e" * 16, changed())
    assert max(len(longest.function_name(event)) for event in config.EVENTS) <= 64
    monkeypatch.setattr(config, "service_name", lambda: "a" * 25)
    with pytest.raises(config.ConfigError, match=r"the service's name 'a{25}' is not 2 to 24"):
        environments.parse("staging", tables())


def test_an_unknown_environment_says_which_there_are() -> None:
    with pytest.raises(config.ConfigError, match="there is no environment 'moon': deploy/ has production, staging"):
        environments.load("moon")
