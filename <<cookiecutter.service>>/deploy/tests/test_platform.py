"""The platform's stack has what the environment's file asks for, and takes over what there is."""

import json
from pathlib import Path

import pytest

from deploy import app, config, environments
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION
from deploy.tests.conftest import Stacks, of_type, synthesise, tables

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


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


MASTER_SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:theirs-AbCdEf"


def test_what_there_is_can_be_named_instead_of_made(tmp_path: Path) -> None:
    changed = tables() | {"domain": "example.com"}  # a zone of theirs may be that of the whole domain
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
