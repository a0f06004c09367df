"""Rules for the values of an environment file, one by one: what AWS refuses, and what the service refuses.

`consistency.py` has the rules for values that depend on each other.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from deploy import consistency, files
from deploy.config import PRIORITIES, RETENTION, Environment
from deploy.consistency import RELATED
from deploy.lifecycle import EVENTS

FARGATE_MEMORY_MIB = {
    256: [512, 1024, 2048],
    512: list(range(1024, 4096 + 1, 1024)),
    1024: list(range(2048, 8192 + 1, 1024)),
    2048: list(range(4096, 16_384 + 1, 1024)),
    4096: list(range(8192, 30_720 + 1, 1024)),
    8192: list(range(16_384, 61_440 + 1, 4096)),
    16_384: list(range(32_768, 122_880 + 1, 8192)),
}
"""Memory sizes that Fargate offers, by CPU units. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html"""

MOST_BLUE_MINUTES = {"CODE_DEPLOY": 2_880, "ECS": 1_440}
"""The longest time for which blue may be kept, by controller.

https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_BlueInstanceTerminationOption.html
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html (`bakeTimeInMinutes`)
"""

TRACING_PREFIX = "OTEL_"
"""Prefix of variables that only OpenTelemetry's SDK reads."""

OURS = ("DATABASE_URL", "PORT", "FORWARDED_ALLOW_IPS", "URL_PREFIX", "RELEASE")
"""Variables that an environment file must not set, since the infrastructure determines them."""

CREDENTIALS = ("PGUSER", "PGPASSWORD")
"""The variables from which libpq takes the database's user and password."""

TAKEN = ("platform", "postgres", "none", "public", "rdsadmin", "template0", "template1")
"""Names that a service cannot have: the platform's stack and the database's host are called so, and the others are
databases and names of roles that PostgreSQL or RDS has itself."""

LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""One part of a name of DNS, between the dots."""

OTHER_PARTITIONS = r"(cn|us-gov|us-iso[a-z]?|eu-isoe|eusc-[a-z]+)-"
"""Beginnings of regions outside of the partition `aws`, whose ARNs, host names and services differ.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html"""

EXISTING: dict[str, tuple[set[str], set[str]]] = {
    "vpc": ({"cidr", "id", "private_subnets"}, set()),
    "balancer": ({"arn", "dns_name", "production_listener", "security_group", "test_listener"}, set()),
    "database": ({"host", "security_group"}, {"secret"}),
}
"""The keys of what is named under `[existing]`: those that are needed, and those that may be left out."""

ZONES = 3
"""Number of availability zones."""


def faults(environment: Environment) -> Iterator[str]:
    """Yield a message for each rule that is violated. The simplest come first, since others may follow from them."""
    for check in (_names, _existing, _platform, _service, _secrets, _variables, consistency.faults):
        yield from check(environment)


def _found(*checks: tuple[bool, str]) -> list[str]:
    """Return the messages of the conditions that are true."""
    return [text for is_fault, text in checks if is_fault]


def _names(environment: Environment) -> Iterator[str]:
    name = environment.service_name
    longest = max((environment.function_name(event) for event in EVENTS), key=len)
    yield from _found(
        (
            not re.fullmatch(r"[a-z][a-z0-9]{1,15}", environment.name),
            "an environment's name is 2 to 16 lower-case letters and digits, since names of AWS contain it",
        ),
        (
            not re.fullmatch(r"[a-z][a-z0-9-]{0,22}[a-z0-9]", name) or "--" in name,
            f"the service's name {name!r} is not 2 to 24 letters, digits and single hyphens",
        ),
        (
            name in TAKEN,
            f"the service cannot be called {name!r}: the platform or PostgreSQL has something of that name",
        ),
        (
            environment.name == "images",
            "an environment cannot be called 'images': the stack of the images is called so",
        ),
        # https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
        (len(longest) > 64, f"{longest!r} is longer than the name of a function, 64 characters"),  # noqa: PLR2004
        *(
            (
                not re.fullmatch(r"(?!0{12})[0-9]{12}", account),
                f"account {account!r} is not the number of an AWS account, 12 digits: fill it in",
            )
            for account in (environment.account, environment.images_account)
        ),
        (
            not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", environment.region),
            f"region {environment.region!r} is not a region of AWS",
        ),
        (
            bool(re.match(OTHER_PARTITIONS, environment.region)),
            f"region {environment.region!r} is in another partition of AWS than `aws`, which alone is supported",
        ),
        (
            not re.fullmatch(rf"({LABEL}\.)+{LABEL}", environment.domain),
            f"domain {environment.domain!r} is not a name of DNS",
        ),
        (
            environment.domain.count(".") < 2 and not environment.existing.zone,  # noqa: PLR2004 - three labels
            f"domain {environment.domain!r} must be a subdomain: its private zone hides all public names below it",
        ),
        (
            not re.fullmatch(r"([\w.-]+/[\w.-]+|[\w.-]+@[0-9]+/[\w.-]+@[0-9]+)?", environment.repository),
            f"repository {environment.repository!r} is not OWNER/NAME or OWNER@ID/NAME@ID",
        ),
    )


def _platform(environment: Environment) -> Iterator[str]:
    platform, zones = environment.platform, environment.platform.availability_zones
    yield from _found(
        (not len(zones) == len(set(zones)) == ZONES, "[platform] availability_zones must be three"),
        *(
            (
                not re.fullmatch(re.escape(environment.region) + "[a-z]", zone),
                f"[platform] availability_zones: {zone!r} is not a zone of {environment.region}",
            )
            for zone in zones
        ),
        (not 1 <= platform.nat_gateways <= ZONES, "[platform] nat_gateways must be 1 to 3"),
        (
            bool(platform.alarm_email) and not re.fullmatch(r"[^@\s]+@[^@\s]+", platform.alarm_email),
            "[platform] alarm_email is not an address",
        ),
        (
            bool(platform.night) and not re.fullmatch(r"(1?\d|2[0-3])-(?!\1$)(1?\d|2[0-3])", platform.night),
            '[platform] night must be two different hours, such as "19-5"',
        ),
        (
            bool(platform.night) and platform.keep,
            "[platform] night cannot be combined with keep: what must be there is not stopped",
        ),
        # The limits of RDS; and cdk-nag requires backups.
        (not 1 <= platform.database_backup_days <= 35, "[platform] database_backup_days must be 1 to 35"),  # noqa: PLR2004
        (
            not 20 <= platform.database_storage_gib <= 16_384,  # noqa: PLR2004 - it grows up to four times as much: 64 TiB
            "[platform] database_storage_gib must be 20 to 16384",
        ),
        (
            not re.fullmatch(r"[a-z][a-z0-9]+\.[a-z0-9]+", platform.database_instance),
            "[platform] database_instance must be a class without db., such as t4g.medium",
        ),
    )
    yield from _networks("[existing] vpc: cidr" if environment.existing.vpc else "[platform] cidr", environment.cidr)
    yield from _front(environment)


def _existing(environment: Environment) -> Iterator[str]:
    """Check that what exists already is described completely."""
    for table, (needed, optional) in EXISTING.items():
        values: dict[str, Any] | None = getattr(environment.existing, table)
        if values is not None and (not needed <= set(values) <= needed | optional or not all(values.values())):
            *names, last = sorted(needed)
            also = f", and may have {' and '.join(optional)}" if optional else ""
            yield f"[existing] {table} must have {', '.join(names)} and {last}{also}"
    named = environment.existing.vpc["private_subnets"] if environment.existing.vpc else None
    subnets: list[Any] = named if isinstance(named, list) else []
    if named and not len(subnets) == len({each for each in subnets if str(each).startswith("subnet-")}) == ZONES:
        yield "[existing] vpc: private_subnets must be a list of three, one for each zone"
    balancer, here = environment.existing.balancer or {}, f"{environment.region}:{environment.account}"
    for key, value in balancer.items():
        kind = {"arn": "loadbalancer", "production_listener": "listener", "test_listener": "listener"}.get(key)
        if kind and not re.fullmatch(rf"arn:aws:elasticloadbalancing:{here}:{kind}/app/\S+", value):
            yield f"[existing] balancer: {key} must be arn:aws:elasticloadbalancing:{here}:{kind}/app/…"


def _front(environment: Environment) -> Iterator[str]:
    """Check the load balancer and its certificate."""
    platform, here = environment.platform, f"{environment.region}:{environment.account}"
    public_zone = platform.public_zone
    yield from _found(
        (
            bool(platform.certificate_arn) == bool(public_zone),
            "[platform] must have either certificate_arn or public_zone: fill one of them in",
        ),
        (
            bool(platform.certificate_arn)
            and not re.fullmatch(rf"arn:aws:acm:{here}:certificate/\S+", platform.certificate_arn),
            f"[platform] certificate_arn is not in {here}: fill it in",
        ),
        (
            bool(public_zone) and (set(public_zone) != {"id", "name"} or not all(public_zone.values())),
            "[platform] public_zone must have id and name",
        ),
        (
            bool(public_zone) and not environment.domain.endswith(f".{public_zone.get('name')}"),
            "[platform] public_zone must contain domain, which is a subdomain of it",
        ),
        (platform.public and not public_zone, "[platform] public needs public_zone"),
        (
            platform.public and bool(environment.existing.vpc or environment.existing.balancer),
            "[platform] public cannot be combined with an existing VPC or balancer",
        ),
    )


def _networks(what: str, value: str) -> Iterator[str]:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError:
        yield f"{what} {value!r} is not a network, such as 10.0.0.0/16"
    else:
        # Six subnets of a VPC of at most /16; and AWS takes the length of the prefix, no mask.
        if str(network) != value or not 16 <= network.prefixlen <= 24:  # noqa: PLR2004
            yield f"{what} must be a network of /16 to /24"
        if network.is_loopback or network.is_link_local or network.is_multicast:
            yield f"{what} {value!r} is loopback, link-local or multicast, which no VPC may have"


def _service(environment: Environment) -> Iterator[str]:
    service = environment.service
    most_minutes = MOST_BLUE_MINUTES.get(service.controller, 0)
    yield from _found(
        (service.architecture not in {"ARM64", "X86_64"}, "[service] architecture must be ARM64 or X86_64"),
        (
            service.capacity not in {"FARGATE", "FARGATE_SPOT", "EC2"},
            "[service] capacity must be FARGATE, FARGATE_SPOT or EC2",
        ),
        (service.controller not in MOST_BLUE_MINUTES, "[service] controller must be CODE_DEPLOY or ECS"),
        (not 0 <= service.blue_minutes <= most_minutes, f"[service] blue_minutes must be 0 to {most_minutes}"),
        (not 1 <= service.tasks_min <= service.tasks_max, "[service] tasks_min must be 1 to tasks_max"),
        (service.log_retention_days not in RETENTION, f"[service] log_retention_days must be of {list(RETENTION)}"),
        (
            not 1 <= environment.listener_priority <= PRIORITIES,
            f"[service] listener_priority must be 1 to {PRIORITIES}",
        ),
        (service.latency_bound_ms < 1, "[service] latency_bound_ms must be at least 1"),
    )
    yield from _size(environment)


def _size(environment: Environment) -> Iterator[str]:
    cpu, memory = environment.service.cpu_units, environment.service.memory_mib
    sizes = FARGATE_MEMORY_MIB.get(cpu, [])
    if environment.is_fargate and memory not in sizes:
        rule = f"memory_mib of {sizes}" if sizes else f"cpu_units of {list(FARGATE_MEMORY_MIB)}"
        yield f"[service] Fargate has no tasks of {cpu} CPU units and {memory} MiB: it needs {rule}"
    if not environment.is_fargate and min(cpu, memory) < 128:  # noqa: PLR2004 - ECS's least
        yield "[service] cpu_units and memory_mib must be at least 128"


def _secrets(environment: Environment) -> Iterator[str]:
    here = f"{environment.region}:{environment.account}"
    arn = rf"arn:aws:secretsmanager:{here}:secret:[^\s:]+-[A-Za-z0-9]{{6}}"
    fault = f"is not the ARN of a secret in {here}, with the six characters at its end"
    for name, value in environment.secrets.items():
        if not re.fullmatch(rf"{arn}(:[\w.-]+)?", value):
            yield f"[secrets] {name} {fault}, and :key where it is a JSON object"
    # Of these all of the JSON object is read, so no key follows.
    database = environment.existing.database or {}
    for name, value in (
        ("[service] token_credentials", environment.service.token_credentials),
        ("[existing] database: secret", database.get("secret")),
    ):
        if value and not re.fullmatch(arn, value):
            yield f"{name} {fault}"
    if ("PGUSER" in environment.secrets) != ("PGPASSWORD" in environment.secrets):
        yield "[secrets] must have both PGUSER and PGPASSWORD, or neither"
    if environment.owns_credentials and database and "secret" not in database:
        yield "[existing] database needs secret, or [secrets] needs PGUSER and PGPASSWORD"
    if (environment.variables | environment.secrets).get("JWKS_URL") and not environment.service.token_credentials:
        yield "[service] token_credentials is needed where JWKS_URL is set: the hooks need a token"


def _variables(environment: Environment) -> Iterator[str]:
    known = files.variables().keys() - set(OURS)
    yield from (f"[variables] lacks {name}" for name in RELATED if name not in environment.variables)
    for table, names in (("variables", environment.variables), ("secrets", environment.secrets)):
        allowed = known | set(CREDENTIALS) if table == "secrets" else known
        for name in names:
            if name not in allowed and not name.startswith(TRACING_PREFIX):
                yield f"[{table}] {name} is not a variable that is set here"
            if table == "variables" and name in files.secrets():
                yield f"[variables] {name} is declared as a secret: name its ARN in [secrets] instead"
    yield from (
        f"[secrets] {name} is also in [variables]" for name in environment.secrets if name in environment.variables
    )
    for name, (least, most) in files.bounds().items():
        value = environment.variables.get(name, str(least))
        if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
            yield f"[variables] {name} must be a whole number, {least} to {most}"
