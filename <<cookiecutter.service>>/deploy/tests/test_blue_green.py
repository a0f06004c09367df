"""The service's stack has blue/green deployments by either controller, with hooks and alarms."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy import app, config, environments, lifecycle
from deploy.tests.cloud import DIGEST
from deploy.tests.conftest import COMBINATIONS, Stacks, of_type, tables

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


def test_blue_and_green_are_asked_whether_they_are_ready(stacks: Stacks) -> None:
    groups = stacks.of_type("service", "ElasticLoadBalancingV2::TargetGroup")
    assert len(groups) == 2
    for group in groups:
        assert group["HealthCheckPath"] == "/readyz"
        attributes = {each["Key"]: each["Value"] for each in group["TargetGroupAttributes"]}
        assert attributes["deregistration_delay.timeout_seconds"] == "30"


def test_codedeploy_tests_green_and_brings_blue_back(stacks: Stacks) -> None:
    groups = stacks.of_type("service", "CodeDeploy::DeploymentGroup")
    if stacks.controller == "ECS":
        assert groups == []
        return
    [group] = groups
    assert set(group["AutoRollbackConfiguration"]["Events"]) == {
        "DEPLOYMENT_FAILURE",
        "DEPLOYMENT_STOP_ON_REQUEST",
        "DEPLOYMENT_STOP_ON_ALARM",
    }
    assert len(group["AlarmConfiguration"]["Alarms"]) == 6
    options = group["BlueGreenDeploymentConfiguration"]
    assert options["TerminateBlueInstancesOnDeploymentSuccess"]["TerminationWaitTimeInMinutes"] == 5
    assert options["DeploymentReadyOption"]["ActionOnTimeout"] == "CONTINUE_DEPLOYMENT"
    [pair] = group["LoadBalancerInfo"]["TargetGroupPairInfoList"]
    assert pair["ProdTrafficRoute"] != pair["TestTrafficRoute"]
    assert group["DeploymentConfigName"] == "CodeDeployDefault.ECSAllAtOnce"
    assert stacks.one("service", "ECS::Service")["DeploymentController"] == {"Type": "CODE_DEPLOY"}


def test_ecs_runs_the_same_hooks_at_the_stages_that_are_the_same(stacks: Stacks) -> None:
    service = stacks.one("service", "ECS::Service")
    hooks = service.get("DeploymentConfiguration", {}).get("LifecycleHooks", [])
    if stacks.controller == "CODE_DEPLOY":
        assert hooks == []
        return
    functions = {each["FunctionName"] for each in stacks.of_type("service", "Lambda::Function")}
    assert functions == {stacks.environment.function_name(event) for event in lifecycle.EVENTS}
    called = {
        re.sub(r"[0-9A-F]{8}$", "", each["HookTargetArn"]["Fn::GetAtt"][0]): each["LifecycleStages"] for each in hooks
    }
    assert called == {
        "BeforeInstall": ["PRE_SCALE_UP"],
        "AfterInstall": ["POST_SCALE_UP"],
        "AfterAllowTestTraffic": ["POST_TEST_TRAFFIC_SHIFT"],
        "BeforeAllowTraffic": ["PRE_PRODUCTION_TRAFFIC_SHIFT"],
        "AfterAllowTraffic": ["POST_PRODUCTION_TRAFFIC_SHIFT"],
    }
    assert service["DeploymentConfiguration"]["Strategy"] == "BLUE_GREEN"
    assert service["DeploymentConfiguration"]["Alarms"]["Rollback"]
    assert "AlternateTargetGroupArn" in service["LoadBalancers"][0]["AdvancedConfiguration"]


@pytest.mark.parametrize(
    ("controller", "expected"),
    [("CODE_DEPLOY", "CodeDeployDefault.ECSCanary10Percent15Minutes"), ("ECS", "CANARY")],
)
def test_a_canary_is_one_word_of_configuration(tmp_path: Path, controller: str, expected: str) -> None:
    changed = tables(controller=controller)
    changed["service"]["canary"] = True
    app.build(environments.parse("staging", changed), DIGEST, outdir=str(tmp_path)).synth()
    text = (tmp_path / f"{config.service_name()}-staging.template.json").read_text(encoding="utf-8")
    assert f'"{expected}"' in text
    if controller == "ECS":
        [service] = of_type(json.loads(text), "ECS::Service")
        traffic = service["DeploymentConfiguration"]["CanaryConfiguration"]
        assert traffic == {"CanaryPercent": 10, "CanaryBakeTimeInMinutes": 15}


def test_alarms_watch_each_colour_by_ratio_and_tell_people(stacks: Stacks) -> None:
    every = stacks.of_type("service", "CloudWatch::Alarm")
    assert len(every) == 6
    for each in every:
        assert (each["DatapointsToAlarm"], each["EvaluationPeriods"]) == (2, 3)
        assert each["TreatMissingData"] == "notBreaching"
        assert each["AlarmActions"] == [{"Fn::ImportValue": "platform-staging-Topic"}]
    text = json.dumps(every)
    assert "FILL" not in text
    names = ("HTTPCode_Target_5XX_Count", "RequestCount", "TargetResponseTime", "UnHealthyHostCount")
    assert {name: text.count(f'"{name}"') for name in names} == dict(zip(names, (2, 4, 2, 2), strict=True))


def evaluate(expression: str, **metrics: float | None) -> float | None:
    """Return what CloudWatch makes of an expression, for as much of the syntax as the alarms use.

    A metric without data points makes the result one.
    """
    if any(metrics[name] is None for name in re.findall(r"[a-z]+", expression)):
        return None
    condition, then, otherwise = re.fullmatch(r"IF\((.+), (.+), (.+)\)", expression).groups()  # type: ignore[union-attr]
    return float(eval(then if eval(condition, {}, metrics) else otherwise, {}, metrics))  # noqa: S307 - our own text


@pytest.mark.parametrize(
    ("metric", "measured", "requests", "is_breached"),
    [
        ("errors", None, 5_000, False),  # a metric that counted nothing has no data
        ("errors", 2, 2, False),  # too few to mean anything
        ("errors", 6, 6, True),  # a canary that fails every request, of 60 a minute
        ("errors", 10, 100, True),
        ("errors", 100, 10_000, False),  # noise of a busy service
        ("errors", 600, 10_000, True),
        ("latency", 9.0, 49, False),  # the 99th percentile is just the slowest request
        ("latency", 1.0, 50, True),
        ("latency", 0.9, 10_000, False),
        ("latency", 1.1, 10_000, True),
    ],
)
def test_errors_and_latency_show_an_outage_and_not_noise(
    all_stacks: Mapping[tuple[str, str], Stacks],
    metric: str,
    measured: float | None,
    requests: float,
    is_breached: bool,  # noqa: FBT001 - a parameter of the cases
) -> None:
    alarms = all_stacks[COMBINATIONS[0]].of_type("service", "CloudWatch::Alarm")
    text = {"errors": "Blue: 5 % of the responses", "latency": "Blue: p99 of a minute"}[metric]
    [alarm] = [each for each in alarms if text in each["AlarmDescription"]]
    [expression] = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    value = evaluate(expression, **{metric: measured}, requests=requests)
    assert (value is not None and value >= alarm["Threshold"]) == is_breached


def test_ecs_may_move_the_rules(all_stacks: Mapping[tuple[str, str], Stacks]) -> None:
    roles = all_stacks["FARGATE", "ECS"].of_type("service", "IAM::Role")
    policies = json.dumps([each.get("ManagedPolicyArns", []) for each in roles])
    assert "AmazonECSInfrastructureRolePolicyForLoadBalancers" in policies


def test_the_hooks_functions_hold_the_hooks_and_nothing_else(stacks: Stacks) -> None:
    function = stacks.of_type("service", "Lambda::Function")[0]
    key = function["Code"]["S3Key"].partition(".")[0]
    folder = stacks.paths["service"].parent / f"asset.{key}"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == ["deploy/__init__.py", "deploy/checks.py", "deploy/client.py", "deploy/hooks.py", "deploy/smoke.py"]
