"""What the stacks hold, in all combinations of capacity and controller."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks

from deploy import app, config, environments, lifecycle
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION, Cloud
from deploy.tests.conftest import COMBINATIONS, SPOT, Stacks, changed, deploy, tables

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

SNAPSHOT = Path(__file__).parent / "resources.txt"

LINT_IGNORED = (
    "W3005",  # CDK repeats dependencies that follow from references
    "W3010",  # the zones are configuration, since three are promised
    "W6001",  # the release command reads the outputs of one stack alone, so some of them are the platform's
)


def container(stacks: Stacks) -> dict[str, Any]:
    [found] = definition(stacks)["ContainerDefinitions"]
    return dict(found)


def definition(stacks: Stacks, suffix: str = "") -> dict[str, Any]:
    family = stacks.environment.stack_name + suffix
    [found] = [each for each in stacks.of_type("service", "ECS::TaskDefinition") if each["Family"] == family]
    return found


def test_the_platform_spans_three_zones(stacks: Stacks) -> None:
    subnets = stacks.of_type("platform", "EC2::Subnet")
    assert len({each["AvailabilityZone"] for each in subnets}) == 3
    assert len(stacks.of_type("platform", "EC2::NatGateway")) == 1  # as staging.toml has it


def test_the_balancer_speaks_tls_and_sends_plain_http_there(stacks: Stacks) -> None:
    listeners = {each["Port"]: each for each in stacks.of_type("platform", "ElasticLoadBalancingV2::Listener")}
    assert sorted(listeners) == [80, 443, 9000]
    assert listeners[80]["DefaultActions"][0]["RedirectConfig"]["Protocol"] == "HTTPS"
    assert {listeners[port]["Protocol"] for port in (443, 9000)} == {"HTTPS"}
    assert all("TLS13" in listeners[port]["SslPolicy"] for port in (443, 9000))


def test_only_the_hooks_get_at_the_test_listener(stacks: Stacks) -> None:
    rules = stacks.of_type("platform", "EC2::SecurityGroupIngress")
    inline = [
        rule
        for group in stacks.of_type("platform", "EC2::SecurityGroup")
        for rule in group.get("SecurityGroupIngress", [])
    ]
    reaching = [rule for rule in rules + inline if rule["FromPort"] <= 9000 <= rule["ToPort"]]
    assert ["Hooks" in json.dumps(rule["SourceSecurityGroupId"]) for rule in reaching] == [True]


def test_postgresql_speaks_tls_only(stacks: Stacks) -> None:
    database = stacks.one("platform", "RDS::DBInstance")
    assert database["StorageEncrypted"]
    assert database["BackupRetentionPeriod"] == 7
    assert database["ManageMasterUserPassword"]
    parameters = stacks.one("platform", "RDS::DBParameterGroup")["Parameters"]
    assert parameters["rds.force_ssl"] == "1"
    assert parameters["max_connections"] == "200"


def test_postgresql_is_found_by_a_cname_that_is_forgotten_soon(stacks: Stacks) -> None:
    record = stacks.one("platform", "Route53::RecordSet")
    domain = stacks.environment.domain
    assert (record["Name"], record["Type"], record["TTL"]) == (f"postgres.{domain}.", "CNAME", "5")
    assert "Endpoint.Address" in json.dumps(record["ResourceRecords"])


def test_the_service_is_found_by_a_cname(stacks: Stacks) -> None:
    record = stacks.one("service", "Route53::RecordSet")
    assert record["Name"] == f"{stacks.environment.service_name}.{stacks.environment.domain}."
    assert record["ResourceRecords"] == [{"Fn::ImportValue": "platform-staging-BalancerDnsName"}]


def test_tags_of_images_are_never_moved(stacks: Stacks) -> None:
    assert stacks.one("images", "ECR::Repository")["ImageTagMutability"] == "IMMUTABLE"


def test_the_image_is_named_by_its_digest(stacks: Stacks) -> None:
    assert json.dumps(container(stacks)["Image"]).endswith(f'@{DIGEST}"]]}}')


def test_secrets_come_by_arn_and_key_and_the_rest_as_environment(stacks: Stacks) -> None:
    secrets = {each["Name"]: each["ValueFrom"]["Fn::Join"][1] for each in container(stacks)["Secrets"]}
    assert {name: parts[-1] for name, parts in secrets.items()} == {
        "PGUSER": ":username::",
        "PGPASSWORD": ":password::",
    }
    variables = {each["Name"]: each["Value"] for each in container(stacks)["Environment"]}
    assert variables == {
        "DATABASE_POOL_SIZE": "5",
        "DATABASE_URL": (
            f"postgresql://postgres.{stacks.environment.domain}/{stacks.environment.service_name}"
            "?sslmode=require&channel_binding=require"
        ),
        "DRAIN_SECONDS": "5",
        "FORWARDED_ALLOW_IPS": stacks.environment.platform.cidr,
        "PORT": "8000",
        "SHUTDOWN_SECONDS": "20",
        "URL_PREFIX": stacks.environment.url_prefix,
        "WEB_CONCURRENCY": "2",
    }


def test_the_container_can_do_as_little_as_possible(stacks: Stacks) -> None:
    definition = container(stacks)
    assert definition["ReadonlyRootFilesystem"] is True
    assert definition["User"] == "10001:10001"
    assert definition["LinuxParameters"] == {"Capabilities": {"Drop": ["ALL"]}, "InitProcessEnabled": True}
    assert definition["StopTimeout"] == 60
    assert "Privileged" not in definition


def test_logs_are_kept_for_a_while_and_block_nobody(stacks: Stacks) -> None:
    log = container(stacks)["LogConfiguration"]
    assert (log["LogDriver"], log["Options"]["mode"]) == ("awslogs", "non-blocking")
    groups = stacks.of_type("service", "Logs::LogGroup")
    assert all("RetentionInDays" in each for each in groups)


def test_tasks_on_machines_share_them_by_dynamic_ports(stacks: Stacks) -> None:
    task = definition(stacks)
    [port] = container(stacks)["PortMappings"]
    kinds = {each["TargetType"] for each in stacks.of_type("service", "ElasticLoadBalancingV2::TargetGroup")}
    if stacks.capacity == "FARGATE":
        assert (task["NetworkMode"], kinds) == ("awsvpc", {"ip"})
        assert "HostPort" not in port
    else:
        assert (task["NetworkMode"], kinds, port["HostPort"]) == ("bridge", {"instance"}, 0)


@pytest.mark.parametrize("combination", SPOT, ids="-".join)
def test_spot_tasks_come_from_a_capacity_provider_of_the_cluster(
    all_stacks: Mapping[tuple[str, str], Stacks], combination: tuple[str, str]
) -> None:
    stacks = all_stacks[combination]
    service = stacks.one("service", "ECS::Service")
    assert service["CapacityProviderStrategy"] == [{"CapacityProvider": "FARGATE_SPOT", "Weight": 1}]
    assert "LaunchType" not in service  # ECS refuses both
    assert "FARGATE_SPOT" in stacks.one("platform", "ECS::ClusterCapacityProviderAssociations")["CapacityProviders"]
    assert (definition(stacks)["NetworkMode"], definition(stacks)["RequiresCompatibilities"]) == ("awsvpc", ["FARGATE"])
    # One-off tasks, such as the migration, are not on spot capacity: the command asks for the launch type.
    assert stacks.templates["service"]["Outputs"]["Capacity"]["Value"] == "FARGATE_SPOT"


def test_the_rules_take_the_service_s_paths_and_no_neighbour_s(stacks: Stacks) -> None:
    prefix = f"/api/{stacks.environment.service_name}"
    rules = stacks.of_type("service", "ElasticLoadBalancingV2::ListenerRule")
    assert len(rules) == 2
    for rule in rules:
        [condition] = rule["Conditions"]
        assert condition["PathPatternConfig"]["Values"] == [prefix, f"{prefix}/*"]


def test_blue_and_green_are_asked_whether_they_are_ready(stacks: Stacks) -> None:
    groups = stacks.of_type("service", "ElasticLoadBalancingV2::TargetGroup")
    assert len(groups) == 2
    for group in groups:
        assert group["HealthCheckPath"] == "/readyz"
        attributes = {each["Key"]: each["Value"] for each in group["TargetGroupAttributes"]}
        assert attributes["deregistration_delay.timeout_seconds"] == "30"


def test_the_number_of_tasks_stays_between_two_bounds(stacks: Stacks) -> None:
    target = stacks.one("service", "ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (3, 6)
    assert "DesiredCount" not in stacks.one("service", "ECS::Service")


def test_ten_copies_across_three_zones_are_one_number(tmp_path: Path) -> None:
    changed = tables()
    changed["service"]["tasks_min"] = 10
    changed["service"]["tasks_max"] = 10
    changed["platform"]["database_max_connections"] = 300
    app.build(environments.parse("staging", changed), DIGEST, outdir=str(tmp_path)).synth()
    template = json.loads((tmp_path / f"{config.service_name()}-staging.template.json").read_text(encoding="utf-8"))
    [target] = [each for each in template["Resources"].values() if each["Type"].endswith("ScalableTarget")]
    assert target["Properties"]["MinCapacity"] == 10
    assert template["Outputs"]["TasksMin"]["Value"] == "10"


def test_cloudformation_never_moves_the_service_to_another_release(stacks: Stacks) -> None:
    service = stacks.one("service", "ECS::Service")
    assert service["TaskDefinition"] == stacks.environment.stack_name
    [task] = [
        each
        for each in stacks.templates["service"]["Resources"].values()
        if each["Type"] == "AWS::ECS::TaskDefinition" and each["Properties"]["Family"] == stacks.environment.stack_name
    ]
    assert task["UpdateReplacePolicy"] == "Retain"


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
    assert f'"{expected}"' in (tmp_path / f"{config.service_name()}-staging.template.json").read_text(encoding="utf-8")


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
    ("errors", "requests", "is_breached"),
    [
        (None, 5_000, False),  # a metric that counted nothing has no data
        (2, 2, False),  # too few to mean anything
        (6, 6, True),  # a canary that fails every request, of 60 a minute
        (10, 100, True),
        (100, 10_000, False),  # noise of a busy service
        (600, 10_000, True),
    ],
)
def test_the_ratio_of_errors_sees_an_outage_and_not_noise(
    all_stacks: Mapping[tuple[str, str], Stacks],
    errors: float | None,
    requests: float,
    is_breached: bool,  # noqa: FBT001 - a parameter of the cases
) -> None:
    alarms = all_stacks[COMBINATIONS[0]].of_type("service", "CloudWatch::Alarm")
    [alarm] = [each for each in alarms if "Blue: 5 % of the responses" in each["AlarmDescription"]]
    [expression] = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    value = evaluate(expression, errors=errors, requests=requests)
    assert (value is not None and value >= alarm["Threshold"]) == is_breached


def test_people_are_told_of_the_balancer_and_the_database(tmp_path: Path) -> None:
    template = synthesise(tmp_path, "platform-staging", platform__alarm_email="ops@example.com")
    alarms = of_type(template, "CloudWatch::Alarm")
    assert {each["MetricName"] for each in alarms} == {
        "HTTPCode_ELB_5XX_Count",
        "DatabaseConnections",
        "CPUUtilization",
        "FreeStorageSpace",
    }
    [subscription] = of_type(template, "SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")


def synthesise(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Return the template of a stack, with `table__key=value` changed in the environment file."""
    environment = environments.parse("staging", changed(**changes))
    digest = None if name == environment.platform_name else DIGEST  # without it, the service is left out
    app.build(environment, digest, outdir=str(folder)).synth()
    template: dict[str, Any] = json.loads((folder / f"{name}.template.json").read_text(encoding="utf-8"))
    return template


def of_type(template: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each["Properties"] for each in template["Resources"].values() if each["Type"] == f"AWS::{kind}"]


def test_what_is_kept_is_protected_and_the_rest_goes_with_its_stack(tmp_path: Path) -> None:
    for keep in (True, False):
        template = synthesise(tmp_path / str(keep), "platform-staging", platform__keep=keep)
        [database] = of_type(template, "RDS::DBInstance")
        assert database["DeletionProtection"] == keep
        policies = {each["Type"]: each.get("DeletionPolicy") for each in template["Resources"].values()}
        assert policies["AWS::RDS::DBInstance"] == ("Snapshot" if keep else "Delete")
        assert policies["AWS::S3::Bucket"] == ("Retain" if keep else "Delete")
        retained = [kind for kind, policy in policies.items() if policy in ("Retain", "Snapshot")]
        assert bool(retained) == keep


OUTLIVING = {"AWS::ECS::TaskDefinition": "a revision costs nothing, and a rollback needs it"}
"""Types of resources that stay when the stacks of an environment that is not kept are deleted, and why."""

SNAPSHOT_BY_DEFAULT = ("AWS::RDS::DBInstance", "AWS::RDS::DBCluster")
"""https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html"""


def log_groups(stack: str, resources: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the log groups that AWS would make itself, if they were not there, and those that the stack makes."""
    made, written = set(), set()
    for logical, each in resources.items():
        kind, properties = each["Type"].removeprefix("AWS::"), each.get("Properties", {})
        if kind == "Logs::LogGroup":
            made |= {properties.get("LogGroupName", ""), json.dumps({"Ref": logical})}
        if kind == "Lambda::Function":
            written.add(json.dumps(properties.get("LoggingConfig", {}).get("LogGroup")))
        if kind == "RDS::DBInstance":
            written |= {f"/aws/rds/instance/{stack}/{log}" for log in properties["EnableCloudwatchLogsExports"]}
        if kind == "RDS::DBProxy":
            written.add(f"/aws/rds/proxy/{stack}")
    return written, made


@pytest.mark.parametrize(("capacity", "controller"), COMBINATIONS)
def test_nothing_that_costs_outlives_what_is_not_kept(tmp_path: Path, capacity: str, controller: str) -> None:
    wanted = tables(capacity, controller)
    wanted["platform"] |= {"public_zone": {"id": "Z1", "name": "example.com"}, "certificate_arn": "", "public": True}
    wanted["platform"] |= {"alarm_email": "ops@example.com", "night": "19-5"}
    wanted["service"]["database_proxy_connections"] = 15
    wanted["domain"] = "staging.example.com"
    made = app.build(environments.parse("staging", wanted), DIGEST, outdir=str(tmp_path)).synth()
    for stack in ("platform-staging", f"{config.service_name()}-staging"):
        resources = made.get_stack_by_name(stack).template["Resources"]
        staying = {
            each["Type"]
            for each in resources.values()
            for attribute in ("DeletionPolicy", "UpdateReplacePolicy")
            if each.get(attribute, "Snapshot" if each["Type"] in SNAPSHOT_BY_DEFAULT else "Delete") != "Delete"
        }
        assert staying <= set(OUTLIVING)
        assert made.get_stack_by_name(stack).termination_protection in (None, False)
        written, groups = log_groups(stack, resources)
        assert written
        assert written <= groups
        buckets = {logical for logical, each in resources.items() if each["Type"] == "AWS::S3::Bucket"}
        emptied = [each["Properties"]["BucketName"] for each in resources.values() if "AutoDelete" in each["Type"]]
        assert [each["Ref"] for each in emptied] == list(buckets)
        for each in resources.values():
            if each["Type"] == "AWS::RDS::DBInstance":
                assert each["Properties"]["DeleteAutomatedBackups"]
                assert not each["Properties"]["DeletionProtection"]
            if each["Type"] == "AWS::ElasticLoadBalancingV2::LoadBalancer":
                attributes = {one["Key"]: one["Value"] for one in each["Properties"]["LoadBalancerAttributes"]}
                assert attributes["deletion_protection.enabled"] == "false"


def test_a_small_platform_costs_less(tmp_path: Path) -> None:
    small = synthesise(tmp_path / "small", "platform-staging")
    large = synthesise(
        tmp_path / "large", "platform-staging", platform__nat_gateways=3, platform__database_multi_az=True
    )
    assert [len(of_type(each, "EC2::NatGateway")) for each in (small, large)] == [1, 3]
    assert [of_type(each, "RDS::DBInstance")[0]["MultiAZ"] for each in (small, large)] == [False, True]


@pytest.mark.parametrize(
    ("night", "database", "tasks"),
    [
        ("19-5", ("15 19 ? * MON-FRI *", "45 4 ? * MON-FRI *"), ("0 19 ? * MON-FRI *", "0 5 ? * MON-FRI *")),
        # The database starts before midnight: for Monday, on Sunday.
        ("19-0", ("15 19 ? * MON-FRI *", "45 23 ? * SUN-THU *"), ("0 19 ? * MON-FRI *", "0 0 ? * MON-FRI *")),
        # Friday's work ends on Saturday.
        ("3-13", ("15 3 ? * TUE-SAT *", "45 12 ? * MON-FRI *"), ("0 3 ? * TUE-SAT *", "0 13 ? * MON-FRI *")),
        ("0-1", ("15 0 ? * TUE-SAT *", "45 0 ? * MON-FRI *"), ("0 0 ? * TUE-SAT *", "0 1 ? * MON-FRI *")),
    ],
)
def test_at_night_and_at_weekends_tasks_and_database_are_stopped(
    tmp_path: Path, night: str, database: tuple[str, str], tasks: tuple[str, str]
) -> None:
    service = synthesise(tmp_path, f"{config.service_name()}-staging", platform__night=night)
    platform = json.loads((tmp_path / "platform-staging.template.json").read_text(encoding="utf-8"))
    assert {each["ScheduleExpression"]: each["Target"]["Arn"] for each in of_type(platform, "Scheduler::Schedule")} == {
        f"cron({database[0]})": "arn:aws:scheduler:::aws-sdk:rds:stopDBInstance",
        f"cron({database[1]})": "arn:aws:scheduler:::aws-sdk:rds:startDBInstance",
    }
    [target] = of_type(service, "ApplicationAutoScaling::ScalableTarget")
    assert {each["Schedule"]: each["ScalableTargetAction"]["MaxCapacity"] for each in target["ScheduledActions"]} == {
        f"cron({tasks[0]})": 0,
        f"cron({tasks[1]})": 6,
    }


def test_a_public_balancer_has_a_certificate_by_dns_and_a_public_name(tmp_path: Path) -> None:
    service = synthesise(
        tmp_path,
        f"{config.service_name()}-staging",
        platform__certificate_arn="",
        platform__public_zone={"id": "Z1", "name": "example.com"},
        platform__public=True,
        domain="staging.internal.example.com",
    )
    platform = json.loads((tmp_path / "platform-staging.template.json").read_text(encoding="utf-8"))
    [certificate] = of_type(platform, "CertificateManager::Certificate")
    assert certificate["DomainName"] == "*.staging.internal.example.com"
    assert certificate["DomainValidationOptions"][0]["HostedZoneId"] == "Z1"
    [balancer] = of_type(platform, "ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Scheme"] == "internet-facing"
    [group] = [
        each for each in of_type(platform, "EC2::SecurityGroup") if each["GroupDescription"] == "The load balancer"
    ]
    open_to = {(each["FromPort"], str(each["CidrIp"])) for each in group["SecurityGroupIngress"]}
    assert {(443, "0.0.0.0/0"), (80, "0.0.0.0/0")} <= open_to
    tests = [cidr for port, cidr in open_to if port == config.TEST_PORT]
    assert tests
    assert all("EIP" in cidr for cidr in tests)  # the NAT gateways, through which the hooks come
    zones = {
        each["Name"]: each["HostedZoneId"]
        for each in of_type(service, "Route53::RecordSet")
        if each["HostedZoneId"] == "Z1"
    }
    assert zones == {f"{config.service_name()}.staging.internal.example.com.": "Z1"}


def test_ecs_may_move_the_rules(all_stacks: Mapping[tuple[str, str], Stacks]) -> None:
    roles = all_stacks["FARGATE", "ECS"].of_type("service", "IAM::Role")
    policies = json.dumps([each.get("ManagedPolicyArns", []) for each in roles])
    assert "AmazonECSInfrastructureRolePolicyForLoadBalancers" in policies


def test_workflows_may_assume_their_roles_and_no_other_repository_may(stacks: Stacks) -> None:
    for stack, name, sub in (
        ("images", "BuildRole", "repo:example/orders:ref:refs/heads/main"),
        ("service", "ReleaseRole", "repo:example/orders:environment:staging"),
    ):
        resources = stacks.templates[stack]["Resources"]
        [role] = [
            each["Properties"]
            for key, each in resources.items()
            if key.startswith(name) and each["Type"] == "AWS::IAM::Role"
        ]
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
        assert statement["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"] == sub
        assert role["MaxSessionDuration"] == 7200
        assert f"{name}Arn" in stacks.templates[stack]["Outputs"]


def test_the_service_itself_may_do_nothing(stacks: Stacks) -> None:
    resources = stacks.templates["service"]["Resources"]
    [role] = [name for name in resources if name.startswith("TaskRole")]
    policies = [each for each in resources.values() if each["Type"] == "AWS::IAM::Policy"]
    assert policies
    assert not [each for each in policies if role in json.dumps(each["Properties"]["Roles"])]


def test_the_task_that_creates_the_database_may_read_the_master_s_secret_by_its_whole_arn(stacks: Stacks) -> None:
    master = {"Fn::ImportValue": "platform-staging-DatabaseSecret"}
    policies = stacks.of_type("service", "IAM::Policy")
    [policy] = [each for each in policies if each["PolicyName"].startswith("DatabaseExecutionRole")]
    readable = [
        each["Resource"]
        for each in policy["PolicyDocument"]["Statement"]
        if "secretsmanager:GetSecretValue" in each["Action"]
    ]
    assert master in readable
    # An ARN that RDS or Secrets Manager returns ends with its six characters; `-??????` would demand six more.
    assert "-??????" not in json.dumps(policies)


def test_the_hooks_functions_hold_the_hooks_and_nothing_else(stacks: Stacks) -> None:
    function = stacks.of_type("service", "Lambda::Function")[0]
    key = function["Code"]["S3Key"].partition(".")[0]
    folder = stacks.paths["service"].parent / f"asset.{key}"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == ["deploy/__init__.py", "deploy/checks.py", "deploy/client.py", "deploy/hooks.py", "deploy/smoke.py"]


MASTER_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:theirs-AbCdEf"


def test_what_there_is_can_be_named_instead_of_made(tmp_path: Path) -> None:
    changed = tables()
    changed["existing"] = {
        "vpc": {"id": "vpc-1", "cidr": "10.9.0.0/16", "private_subnets": ["subnet-1", "subnet-2", "subnet-3"]},
        "cluster": "theirs",
        "balancer": {
            "arn": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/theirs/1",
            "dns_name": "theirs.example.com",
            "security_group": "sg-1",
            "production_listener": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/theirs/1/2",
            "test_listener": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/theirs/1/3",
        },
        "zone": "Z1",
        "database": {"host": "db.example.com", "security_group": "sg-2", "secret": MASTER_SECRET},
    }
    app.build(environments.parse("staging", changed), DIGEST, outdir=str(tmp_path)).synth()
    assert environments.parse("staging", changed).cidr == "10.9.0.0/16"
    template = json.loads((tmp_path / "platform-staging.template.json").read_text(encoding="utf-8"))
    made = {each["Type"].removeprefix("AWS::") for each in template["Resources"].values()}
    assert made == {
        "CloudWatch::Alarm",
        "EC2::SecurityGroup",
        "EC2::SecurityGroupIngress",
        "Route53::RecordSet",
        "SNS::Topic",
        "SNS::TopicPolicy",
    }
    exports = {each["Export"]["Name"]: each["Value"] for each in template["Outputs"].values()}
    assert exports["platform-staging-BalancerFullName"] == "app/theirs/1"
    assert exports["platform-staging-Cluster"] == "theirs"


def test_the_resources_are_those_of_the_snapshot(all_stacks: Mapping[tuple[str, str], Stacks]) -> None:
    lines = []
    for combination in COMBINATIONS:
        for name, template in all_stacks[combination].templates.items():
            lines.append(f"# {name}, {', '.join(combination)}")
            kinds = sorted(
                f"{each['Type'].removeprefix('AWS::')} {re.sub('[0-9A-F]{8}$', '', logical)}"
                for logical, each in template["Resources"].items()
            )
            lines.extend(kinds)
    found = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8"), "UPDATE_SNAPSHOT=1 takes the new resources over"


@pytest.mark.parametrize(("capacity", "controller"), COMBINATIONS)
def test_cdk_nag_finds_nothing_that_is_not_explained(tmp_path: Path, capacity: str, controller: str) -> None:
    built = app.build(environments.parse("staging", tables(capacity, controller)), DIGEST, outdir=str(tmp_path))
    Validations.of(built).add_plugins(AwsSolutionsChecks(built))
    built.synth()  # it fails with the findings


def test_cfn_lint_is_content(all_stacks: Mapping[tuple[str, str], Stacks]) -> None:
    # Combinations have templates in common, which are linted once.
    every = map(all_stacks.__getitem__, [*COMBINATIONS, *SPOT])
    paths = {path.read_bytes(): str(path) for each in every for path in each.paths.values()}
    linter = Path(sys.executable).parent / "cfn-lint"
    done = subprocess.run(
        [linter, "--ignore-checks", *LINT_IGNORED, "--", *paths.values()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_cloudformation_creates_the_stacks(cloud: Cloud, stacks: Stacks) -> None:
    deploy(cloud, stacks)
    described = cloud.client("cloudformation").describe_stacks()["Stacks"]
    assert [each["StackStatus"] for each in described] == ["CREATE_COMPLETE"] * 3
    [service] = cloud.client("ecs").describe_services(cluster="platform-staging", services=[config.service_name()])[
        "services"
    ]
    assert service["taskDefinition"].endswith(f":task-definition/{stacks.environment.stack_name}:1")


def test_a_fault_of_the_environment_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.app"],
        env={**os.environ, "CDK_CONTEXT_JSON": '{"environment": "staging"}'},
        cwd=config.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith("b'!!")] == [
        "deploy: deploy/staging.toml: account '000000000000' is not the number of an AWS account, 12 digits: fill it in"
    ]
