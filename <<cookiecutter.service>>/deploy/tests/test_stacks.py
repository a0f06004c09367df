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

from deploy import app, config, environments
from deploy.tests.cloud import DIGEST, Cloud
from deploy.tests.conftest import COMBINATIONS, SPOT, Stacks, deploy, of_type, synthesise, tables

# moto's CloudFormation passes over CodeDeploy, scaling, capacity providers and rules of security groups.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse")

SNAPSHOT = Path(__file__).parent / "resources.txt"

LINT_IGNORED = (
    "W3005",  # CDK repeats dependencies that follow from references
    "W3010",  # the zones are configuration, since three are promised
    "W6001",  # the release command reads the outputs of one stack alone, so some of them are the platform's
)


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


def test_the_workflows_are_those_of_the_repository_with_these_numbers(tmp_path: Path) -> None:
    repository, name = "octocat@123456/my-repo@456789", config.service_name()
    service = synthesise(tmp_path, f"{name}-staging", repository=repository)
    images = json.loads((tmp_path / f"{name}-images.template.json").read_text(encoding="utf-8"))
    for template, place in ((images, "ref:refs/heads/main"), (service, "environment:staging")):
        policies = [json.dumps(each["AssumeRolePolicyDocument"]) for each in of_type(template, "IAM::Role")]
        [trusting] = [each for each in policies if "WebIdentity" in each]
        assert f'"token.actions.githubusercontent.com:sub": "repo:{repository}:{place}"' in trusting


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


@pytest.mark.parametrize(
    ("capacity", "controller", "name"),
    [*((*combination, "staging") for combination in COMBINATIONS), ("FARGATE", "CODE_DEPLOY", "production")],
)
def test_cdk_nag_finds_nothing_that_is_not_explained(tmp_path: Path, capacity: str, controller: str, name: str) -> None:
    built = app.build(environments.parse(name, tables(capacity, controller, name)), DIGEST, outdir=str(tmp_path))
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


@pytest.mark.parametrize(
    ("context", "fault"),
    [
        (
            {"environment": "staging"},
            "deploy/staging.toml: account '000000000000' is not the number of an AWS account, 12 digits: fill it in",
        ),
        # Of a script that has lost it. CDK would leave the service out, and delete nothing.
        ({"environment": "staging", "digest": ""}, "'' is no digest: a digest is sha256: and 64 hexadecimal digits"),
    ],
    ids=["environment", "digest"],
)
def test_a_fault_of_what_is_asked_for_is_one_line(context: dict[str, str], fault: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.app"],
        env={**os.environ, "CDK_CONTEXT_JSON": json.dumps(context)},
        cwd=config.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if not line.startswith("b'!!")] == [f"deploy: {fault}"]
