"""RDS Proxy, in the service's stack."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import Validations
from cdk_nag import AwsSolutionsChecks

from deploy import app, config, environments
from deploy.tests.cloud import DIGEST
from deploy.tests.conftest import changed, of_type, tables
from deploy.tests.test_stacks import LINT_IGNORED


def built(folder: Path, **changes: Any) -> Any:
    """Return the application with all stacks, with `table__key=value` changed in the environment file."""
    return app.build(environments.parse("staging", changed(**changes)), DIGEST, outdir=str(folder))


def test_a_proxy_admits_tasks_only_and_reads_one_secret(tmp_path: Path) -> None:
    made = built(tmp_path, service__database_proxy_connections=40, service__database_proxy=True)
    Validations.of(made).add_plugins(AwsSolutionsChecks(made))
    made.synth()  # it fails with the findings of cdk-nag
    path = tmp_path / f"{config.service_name()}-staging.template.json"
    template = json.loads(path.read_text(encoding="utf-8"))
    [proxy] = of_type(template, "RDS::DBProxy")
    [target] = of_type(template, "RDS::DBProxyTargetGroup")
    assert proxy["RequireTLS"]
    assert [each["ClientPasswordAuthType"] for each in proxy["Auth"]] == ["POSTGRES_SCRAM_SHA_256"]
    assert target["DBInstanceIdentifiers"] == ["platform-staging"]
    options = target["ConnectionPoolConfigurationInfo"]
    assert options["MaxConnectionsPercent"] == 20  # 40 of 200
    assert f"SET ROLE \"{config.service_name()}\"; SET statement_timeout = '5s';" in options["InitQuery"]
    role = proxy["RoleArn"]["Fn::GetAtt"][0]
    [policy] = [each for each in of_type(template, "IAM::Policy") if {"Ref": role} in each["Roles"]]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Resource"] == proxy["Auth"][0]["SecretArn"]
    [group] = proxy["VpcSecurityGroupIds"]
    rules = of_type(template, "EC2::SecurityGroupIngress")
    assert {str(each["SourceSecurityGroupId"]) for each in rules if each["GroupId"] == group} == {
        "{'Fn::ImportValue': 'platform-staging-TasksSecurityGroup'}"
    }
    assert {str(each["GroupId"]) for each in rules if each["SourceSecurityGroupId"] == group} == {
        "{'Fn::ImportValue': 'platform-staging-DatabaseSecurityGroup'}"
    }
    done = subprocess.run(
        [Path(sys.executable).parent / "cfn-lint", "--ignore-checks", *LINT_IGNORED, "--", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("is_used", [False, True])
def test_tasks_reach_the_proxy_by_its_own_name_and_the_one_that_makes_the_database_goes_to_the_server(
    tmp_path: Path,
    is_used: bool,  # noqa: FBT001 - a parameter of the cases
) -> None:
    built(tmp_path, service__database_proxy_connections=40, service__database_proxy=is_used).synth()
    name = f"{config.service_name()}-staging"
    template = json.loads((tmp_path / f"{name}.template.json").read_text(encoding="utf-8"))
    task, provision = (
        {each["Name"]: json.dumps(each["Value"]) for each in made["ContainerDefinitions"][0]["Environment"]}
        for family in (name, f"{name}-database")
        for made in of_type(template, "ECS::TaskDefinition")
        if made["Family"] == family
    )
    domain = tables()["domain"]
    assert ("Endpoint" in task["DATABASE_URL"], "sslmode=verify-full" in task["DATABASE_URL"]) == (is_used, is_used)
    assert (f"//postgres.{domain}/" in task["DATABASE_URL"]) != is_used
    assert task.get("DATABASE_PREPARE") == ('"false"' if is_used else None)
    assert provision["HOST"] == f'"postgres.{domain}"'
    assert provision["CONNECTIONS"] == ('"40"' if is_used else '"185"')
