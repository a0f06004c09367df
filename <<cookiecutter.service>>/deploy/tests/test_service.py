"""The service's stack defines its image, its tasks, their number and the way to them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy import app, config, environments, files
from deploy.tests.cloud import ACCOUNT, DIGEST, REGION
from deploy.tests.conftest import SPOT, Stacks, of_type, synthesise, tables
from deploy.tests.permissions import several

PULLING = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
"""What a task needs to start. https://docs.aws.amazon.com/AmazonECR/latest/userguide/repository-policy-examples.html"""

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")


def container(stacks: Stacks) -> dict[str, Any]:
    [found] = definition(stacks)["ContainerDefinitions"]
    return dict(found)


def definition(stacks: Stacks, suffix: str = "") -> dict[str, Any]:
    family = stacks.environment.stack_name + suffix
    [found] = [each for each in stacks.of_type("service", "ECS::TaskDefinition") if each["Family"] == family]
    return found


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


def readable(template: dict[str, Any], role: str) -> list[Any]:
    """Return the secrets that a role may read."""
    return [
        statement["Resource"]
        for policy in of_type(template, "IAM::Policy")
        if policy["PolicyName"].startswith(role)
        for statement in policy["PolicyDocument"]["Statement"]
        if "secretsmanager:GetSecretValue" in statement["Action"]
    ]


def test_the_secrets_that_the_file_names_are_read_by_tasks_and_the_token_s_by_hooks(tmp_path: Path) -> None:
    managed, keys, token = (
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf" for name in ("rds!db-1", "keys", "token")
    )
    named = {"PGUSER": f"{managed}:username", "PGPASSWORD": f"{managed}:password", "JWKS_URL": f"{keys}:url"}
    template = synthesise(
        tmp_path,
        f"{config.service_name()}-staging",
        service__token_credentials=token,
        **{f"secrets__{name}": reference for name, reference in named.items()},
    )
    [task] = of_type(template, "ECS::TaskDefinition")  # none that makes the database: its user is there
    secrets = {each["Name"]: each["ValueFrom"] for each in task["ContainerDefinitions"][0]["Secrets"]}
    assert secrets == {name: f"{reference}::" for name, reference in named.items()}
    assert [each for each in readable(template, "ExecutionRole") if isinstance(each, str)] == [managed, keys]
    assert readable(template, "HookRole") == [token]
    functions = of_type(template, "Lambda::Function")
    assert {each["Environment"]["Variables"]["TOKEN_CREDENTIALS"] for each in functions} == {token}


@pytest.mark.parametrize("others", [[], ["210987654321"]])
def test_the_accounts_of_all_environments_may_pull_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    monkeypatch.setattr(files, "accounts", lambda: [ACCOUNT, *others])
    [repository] = of_type(synthesise(tmp_path, f"{config.service_name()}-images"), "ECR::Repository")
    statements = repository.get("RepositoryPolicyText", {"Statement": []})["Statement"]
    allowed = {action for each in statements for action in several(each["Action"])}
    assert allowed == ({*PULLING, "ecr:DescribeImages"} if others else set())
    assert all(f":iam::{others[0]}:root" in json.dumps(each["Principal"]) for each in statements)


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
