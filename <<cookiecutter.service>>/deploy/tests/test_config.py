"""What an environment's file may not say."""

import re
from pathlib import Path
from typing import Any

import pytest

from deploy import config, environments
from deploy.tests.cloud import ACCOUNT, REGION
from deploy.tests.conftest import changed

SECRET = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:staging/orders/api-AbCdEf"

VPC = {"id": "vpc-1", "cidr": "10.0.0.0/16", "private_subnets": ["subnet-1", "subnet-2", "subnet-3"]}

BALANCER = {
    "arn": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/theirs/1",
    "dns_name": "theirs.example.com",
    "security_group": "sg-1",
    "production_listener": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/theirs/1/2",
    "test_listener": f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/theirs/1/3",
}

DATABASE = {"host": "h", "security_group": "sg-1", "secret": SECRET}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"platform__idle_timeout_seconds": 75}, "idle_timeout_seconds 75 must be below the keep-alive, 75 s"),
        (
            {"service__stop_timeout_seconds": 25},
            "stop_timeout_seconds 25 must be above DRAIN_SECONDS + SHUTDOWN_SECONDS, 25 s",
        ),
        ({"service__stop_timeout_seconds": 121}, "stop_timeout_seconds must be at most 120, Fargate's limit"),
        (
            {"service__tasks_max": 10},
            "a release needs 241 database connections (2 * tasks_max * WEB_CONCURRENCY * (DATABASE_POOL_SIZE + 1) + 1)",
        ),
        ({"variables__WEB_CONCURRENCY": 4}, "and the server has 185 (database_max_connections - 15)"),
        (
            {"service__database_proxy_connections": 60},
            "(DATABASE_POOL_SIZE + 1) + 1 + database_proxy_connections), and the server has 185",
        ),
        (
            {"service__database_proxy": True, "service__database_proxy_connections": 186},
            "a release needs 186 database connections (database_proxy_connections), and the server has 185",
        ),
        ({"service__database_proxy": True}, "[service] database_proxy needs database_proxy_connections"),
        (
            {"service__database_proxy_connections": 1},
            "[service] database_proxy_connections must be 0 or at least 2, 1 % of database_max_connections",
        ),
        (
            {"service__database_proxy_connections": 20} | {"existing__database": DATABASE},
            "[service] database_proxy_connections must be 0 with [existing] database: RDS Proxy needs a server of RDS",
        ),
        (
            {"service__database_proxy_connections": 20}
            | {"secrets__PGUSER": f"{SECRET}:username", "secrets__PGPASSWORD": f"{SECRET}:password"},
            "[service] database_proxy_connections needs the user that the stack creates: no PGUSER in [secrets]",
        ),
        ({"account": "12"}, "account '12' is not the number of an AWS account"),
        ({"service__capacity": "LAMBDA"}, "[service] capacity must be FARGATE, FARGATE_SPOT or EC2"),
        ({"service__controller": "EXTERNAL"}, "[service] controller must be CODE_DEPLOY or ECS"),
        (
            {"service__log_retention_days": 31},
            "[service] log_retention_days must be of [1, 7, 14, 30",
        ),
        ({"service__tasks_min": 7}, "[service] tasks_min must be 1 to tasks_max"),
        ({"service__tasks_min": "3"}, "[service] tasks_min must be a whole number"),
        ({"service__tasks_min": None}, "[service] missing 1 required keyword-only argument: 'tasks_min'"),
        ({"service__colour": "blue"}, "[service] got an unexpected keyword argument 'colour'"),
        ({"domain": None}, "missing 1 required keyword-only argument: 'domain'"),
        ({"name": "production"}, "toml: got an unexpected keyword argument 'name'"),
        ({"service_name": "ledger"}, "toml: got an unexpected keyword argument 'service_name'"),
        (
            {"secrets__API_KEY": "x"},
            "[secrets] API_KEY is not the ARN of a secret in eu-central-1:123456789012, with the six",
        ),
        (
            {"secrets__API_KEY": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:staging/orders/api"},
            "with the six characters at its end",
        ),
        (
            {"secrets__API_KEY": SECRET.replace("arn:aws:", "arn:aws-cn:")},
            "[secrets] API_KEY is not the ARN of a secret in eu-central-1",
        ),
        (
            {"service__token_credentials": f"{SECRET}:client_secret"},
            "[service] token_credentials is not the ARN of a secret in eu-central-1:123456789012",
        ),
        ({"secrets__API_KEY": SECRET}, "[secrets] API_KEY is not a variable that is set here"),
        ({"secrets__PGPASSWORD": f"{SECRET}:password"}, "[secrets] must have both PGUSER and PGPASSWORD, or neither"),
        ({"secrets__LOG_LEVEL": SECRET, "variables__LOG_LEVEL": "INFO"}, "[secrets] LOG_LEVEL is also in [variables]"),
        (
            {"existing__database": {"host": "h", "security_group": "sg-1"}},
            "[existing] database needs secret, or [secrets]",
        ),
        ({"existing__vpc": {"id": "vpc-1"}}, "[existing] vpc must have cidr, id and private_subnets"),
        ({"existing__vpc": {}}, "[existing] vpc must have cidr, id and private_subnets"),
        ({"existing__vpc": VPC | {"name": "theirs"}}, "[existing] vpc must have cidr, id and private_subnets"),
        (
            {"existing__vpc": VPC | {"private_subnets": ["subnet-1", "subnet-2"]}},
            "[existing] vpc: private_subnets must be a list of three, one for each zone",
        ),
        (
            {"existing__vpc": VPC | {"private_subnets": "subnet-1,subnet-2,subnet-3"}},
            "[existing] vpc: private_subnets must be a list of three, one for each zone",
        ),
        (
            {"existing__vpc": VPC | {"private_subnets": [1, 2, 3]}},
            "[existing] vpc: private_subnets must be a list of three, one for each zone",
        ),
        ({"existing__vpc": VPC | {"private_subnets": 3}}, "[existing] vpc: private_subnets must be a list of three"),
        ({"existing__vpc": VPC | {"private_subnets": []}}, "[existing] vpc must have cidr, id and private_subnets"),
        ({"existing__balancer": BALANCER | {"arn": 1}}, "[existing] balancer"),
        (
            {"existing__vpc": VPC | {"private_subnets": ["subnet-1", "subnet-1", "subnet-1"]}},
            "[existing] vpc: private_subnets must be a list of three, one for each zone",
        ),
        ({"existing__vpc": VPC | {"cidr": "10.0.0.0"}}, "[existing] vpc: cidr must be a network of /16 to /24"),
        (
            {"existing__balancer": {"arn": "arn"}},
            "[existing] balancer must have arn, dns_name, production_listener, security_group and test_listener",
        ),
        (
            {"existing__balancer": BALANCER | {"arn": "x"}},
            f"[existing] balancer: arn must be arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/app/…",
        ),
        (
            {"existing__balancer": BALANCER | {"test_listener": BALANCER["arn"]}},
            f"balancer: test_listener must be arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:listener/app/…",
        ),
        ({"existing__database": {"secret": SECRET}}, "[existing] database must have host and security_group"),
        ({"existing__database": DATABASE | {"port": "5433"}}, "[existing] database must have host and security_group"),
        ({"existing__database": DATABASE | {"host": ""}}, "[existing] database must have host and security_group"),
        (
            {"existing__database": DATABASE | {"secret": "arn"}},
            "[existing] database: secret is not the ARN of a secret",
        ),
        (
            {"existing__database": DATABASE | {"secret": f"{SECRET}:password"}},
            "[existing] database: secret is not the ARN of a secret in eu-central-1:123456789012, with the six",
        ),
        ({"variables__JWKS_URL": "https://issuer/keys"}, "[service] token_credentials is needed where JWKS_URL is set"),
        ({"secrets__JWKS_URL": SECRET}, "[service] token_credentials is needed where JWKS_URL is set"),
        ({"service__cpu_units": 300, "service__memory_mib": 700}, "Fargate has no tasks of 300 CPU units and 700 MiB"),
        (
            {"service__memory_mib": 8192},
            "of 512 CPU units and 8192 MiB: it needs memory_mib of [1024, 2048, 3072, 4096]",
        ),
        ({"service__blue_minutes": 3000}, "[service] blue_minutes must be 0 to 2880"),
        ({"service__blue_minutes": 1441, "service__controller": "ECS"}, "[service] blue_minutes must be 0 to 1440"),
        ({"service__listener_priority": 0}, "[service] listener_priority must be 1 to 50000"),
        ({"service__deregistration_seconds": 20}, "deregistration_seconds 20 must be above SHUTDOWN_SECONDS, 20 s"),
        ({"service__latency_bound_ms": 0}, "[service] latency_bound_ms must be at least 1"),
        ({"service__architecture": "POWER"}, "[service] architecture must be ARM64 or X86_64"),
        (
            {"platform__availability_zones": ["eu-central-1a", "eu-central-1b", "eu-west-1a"]},
            "'eu-west-1a' is not a zone of eu-central-1",
        ),
        ({"platform__availability_zones": "eu-central-1a"}, "[platform] availability_zones must be a list"),
        ({"platform__availability_zones": [1, 2, 3]}, "[platform] availability_zones must contain texts only"),
        ({"platform__cidr": "10.0.0.0"}, "[platform] cidr must be a network of /16 to /24"),
        ({"platform__cidr": "10.0.0.0/255.255.0.0"}, "[platform] cidr must be a network of /16 to /24"),
        ({"platform__cidr": "2001:db8::/20"}, "[platform] cidr '2001:db8::/20' is not a network, such as 10.0.0.0/16"),
        ({"platform__nat_gateways": 0}, "[platform] nat_gateways must be 1 to 3"),
        ({"platform__night": "19 to 5"}, '[platform] night must be two different hours, such as "19-5"'),
        ({"platform__night": "19-19"}, '[platform] night must be two different hours, such as "19-5"'),
        ({"platform__database_storage_gib": 19}, "[platform] database_storage_gib must be 20 to 16384"),
        ({"platform__database_storage_gib": 16_385}, "[platform] database_storage_gib must be 20 to 16384"),
        ({"platform__database_instance": "db.t4g.medium"}, "[platform] database_instance must be a class without db."),
        ({"platform__database_instance": ""}, "[platform] database_instance must be a class without db."),
        ({"platform__night": "19-5", "platform__keep": True}, "[platform] night cannot be combined with keep"),
        ({"platform__alarm_email": "me"}, "[platform] alarm_email is not an address"),
        ({"platform__public": True}, "[platform] public needs public_zone"),
        ({"platform__certificate_arn": ""}, "must have either certificate_arn or public_zone: fill one of them in"),
        (
            {"platform__certificate_arn": "arn:aws:acm:us-east-1:1:certificate/1"},
            "certificate_arn is not in eu-central-1",
        ),
        (
            {"platform__certificate_arn": f"arn:aws-cn:acm:{REGION}:{ACCOUNT}:certificate/1"},
            "certificate_arn is not in eu-central-1",
        ),
        (
            {"platform__certificate_arn": "", "platform__public_zone": {"id": "", "name": "example.com"}},
            "[platform] public_zone must have id and name",
        ),
        (
            {"platform__certificate_arn": "", "platform__public_zone": {"id": "Z1", "name": "other.org"}},
            "public_zone must contain domain",
        ),
        (
            {"service__capacity": "EC2", "platform__instances": 9, "platform__instance_type": "m7g.large"}
            | {"service__tasks_max": 10, "service__cpu_units": 1024, "service__memory_mib": 2048}
            | {"platform__database_max_connections": 300},
            "9 machines of m7g.large have room for 18 tasks, and a release needs 20",
        ),
        (
            {"service__capacity": "EC2", "platform__instance_type": "m7i.large"},
            "instance_type 'm7i.large' does not run ARM64",
        ),
        ({"service__capacity": "EC2", "platform__instance_type": "mac1.metal"}, "'mac1.metal' is not known here"),
        ({"platform__instances": 2, "platform__instance_type": "large"}, "instance_type 'large' is not known here"),
        ({"region": "Frankfurt"}, "region 'Frankfurt' is not a region of AWS"),
        ({"region": "cn-north-1"}, "region 'cn-north-1' is in another partition of AWS"),
        ({"region": "us-gov-west-1"}, "region 'us-gov-west-1' is in another partition of AWS"),
        ({"account": "\N{ARABIC-INDIC DIGIT ONE}" * 12}, "is not the number of an AWS account"),
        ({"domain": "example com"}, "domain 'example com' is not a name of DNS"),
        ({"domain": 1}, "domain must be a text"),
        ({"service": 1}, "[service] must be a table"),
        ({"repository": "orders"}, "repository 'orders' is not OWNER/NAME"),
        ({"repository": "octocat@1/orders"}, "repository 'octocat@1/orders' is not OWNER/NAME or OWNER@ID/NAME@ID"),
        ({"domain": "-staging.example.com"}, "domain '-staging.example.com' is not a name of DNS"),
        ({"domain": "staging-.example.com"}, "domain 'staging-.example.com' is not a name of DNS"),
        ({"domain": "example.com"}, "domain 'example.com' must be a subdomain: its private zone hides all public"),
        ({"platform__cidr": "127.0.0.0/16"}, "[platform] cidr '127.0.0.0/16' is loopback, link-local or multicast"),
        ({"platform__cidr": "224.0.0.0/16"}, "[platform] cidr '224.0.0.0/16' is loopback, link-local or multicast"),
        ({"existing__vpc": VPC | {"cidr": "169.254.0.0/16"}}, "cidr '169.254.0.0/16' is loopback, link-local or"),
        (
            {"platform__database_max_connections": 262_144},
            "[platform] database_max_connections must be at most 262143, PostgreSQL's limit",
        ),
        ({"platform__availability_zones": ["eu-central-1a"]}, "availability_zones must be three"),
        (
            {"platform__availability_zones": [f"eu-central-1{letter}" for letter in "abcc"]},
            "availability_zones must be three",
        ),
        ({"variables__WEB_CONCURENCY": 2}, "[variables] WEB_CONCURENCY is not a variable that is set here"),
        ({"variables__RELEASE": "1"}, "[variables] RELEASE is not a variable that is set here"),
        ({"variables__FORWARDED_ALLOW_IPS": "0.0.0.0/0"}, "FORWARDED_ALLOW_IPS is not a variable that is set here"),
        ({"variables__DRAIN_SECONDS": None}, "[variables] lacks DRAIN_SECONDS"),
        ({"variables__DRAIN_SECONDS": "soon"}, "[variables] DRAIN_SECONDS must be a whole number, 0 to 110"),
        ({"variables__WEB_CONCURRENCY": 0}, "[variables] WEB_CONCURRENCY must be a whole number, 1 to 64"),
        ({"variables__DATABASE_POOL_SIZE": 0}, "[variables] DATABASE_POOL_SIZE must be a whole number, 1 to 100"),
        ({"variables__SHUTDOWN_SECONDS": 0}, "[variables] SHUTDOWN_SECONDS must be a whole number, 1 to 110"),
        ({"variables__WEB_THREADS": 10_001}, "[variables] WEB_THREADS must be a whole number, 1 to 10000"),
        ({"variables__STATEMENT_TIMEOUT_SECONDS": "5s"}, "STATEMENT_TIMEOUT_SECONDS must be a whole number"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ", ".join(value),
)
def test_what_cannot_work_is_one_line(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(config.ConfigError, match=re.escape(fault)) as refused:
        environments.parse("staging", changed(**changes))
    assert str(refused.value).startswith("deploy/staging.toml: ")
    assert "\n" not in str(refused.value)


def test_tasks_that_need_more_connections_than_the_server_has_may_share_those_of_a_proxy() -> None:
    many = {"service__tasks_max": 100, "service__database_proxy_connections": 40}
    with pytest.raises(config.ConfigError, match="a release needs 2441 database connections"):
        environments.parse("staging", changed(**many))
    assert environments.parse("staging", changed(**many, service__database_proxy=True)).peak_connections == 40


def test_names_may_have_digits_and_what_is_declared_as_a_secret_is_never_plain_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, plain = changed(secrets__S3_BUCKET_URL=SECRET), changed(variables__S3_BUCKET_URL="https://user:word@bucket")
    declaration = '    s3_bucket_url: str = config.variable("where files are", unit="URL", is_secret=True)\n'
    added = {".env.example": "S3_BUCKET_URL=\n", "service/config.py": declaration}
    for name in ("pyproject.toml", ".env.example", "chassis/config.py", "service/config.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (config.ROOT / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text + added.get(name, ""), encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    assert environments.parse("staging", named).secrets == {"S3_BUCKET_URL": SECRET}
    with pytest.raises(config.ConfigError, match=r"\[variables\] S3_BUCKET_URL is declared as a secret"):
        environments.parse("staging", plain)


@pytest.mark.parametrize("repository", ["", "octocat/my-repo", "octocat@123456/my-repo@456789"])
def test_a_repository_may_be_named_with_its_numbers(repository: str) -> None:
    assert environments.parse("staging", changed(repository=repository)).repository == repository


def test_traces_are_configured_as_anything_else() -> None:
    variables = {"variables__OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "variables__OTEL_BSP_X": 1}
    assert environments.parse("staging", changed(**variables)).variables["OTEL_BSP_X"] == "1"


def test_a_stop_may_take_longer_on_machines() -> None:
    assert environments.parse(
        "staging", changed(service__stop_timeout_seconds=121, service__capacity="EC2", platform__instances=12)
    )


def test_a_service_may_stop_without_a_drain_and_a_neighbour_may_have_machines_of_another_architecture() -> None:
    changes = {"variables__DRAIN_SECONDS": 0, "platform__instances": 2, "platform__instance_type": "m7i.large"}
    assert environments.parse("staging", changed(**changes)).variables["DRAIN_SECONDS"] == "0"
