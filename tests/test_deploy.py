"""Two baked services on one platform: what one of them deploys leaves the other alone."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import TEMPLATE, Bake

PYTHON = TEMPLATE / ".venvs" / "deploy" / "bin" / "python"

SYNTHESISE = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
from deploy import app, environments
from deploy.tests.conftest import tables
from deploy.tests.cloud import DIGEST
filled = tables(sys.argv[1])
filled["platform"]["instances"] = 12
filled["platform"]["database_max_connections"] = 300
app.build(environments.parse("staging", filled), DIGEST, outdir=sys.argv[2]).synth()
"""

NAMES = {"ApplicationName", "DashboardName", "DeploymentGroupName", "Family", "FunctionName", "LogGroupName", "Name"}
"""Properties that name a resource in its account and region."""

Template = dict[str, Any]


def templates(folder: Path, name: str, capacity: str) -> tuple[str, Template]:
    """Return the template of the platform as the service's repository would deploy it, and that of the service."""
    out = folder / "out" / name / "cdk.out"
    command = [str(PYTHON), "-c", SYNTHESISE, capacity, str(out)]
    subprocess.run(command, cwd=out.parent, check=True)
    platform, service = (
        (out / f"{stack}.template.json").read_text(encoding="utf-8")
        for stack in ("platform-staging", f"{name}-staging")
    )
    return platform, json.loads(service)


def properties(template: Template) -> list[Template]:
    """Return the properties of all resources."""
    return [each.get("Properties", {}) for each in template["Resources"].values()]


def test_two_services_share_a_platform(bake: Bake, tmp_path: Path) -> None:
    capacities = {"orders": "FARGATE", "billing": "EC2"}
    for name in capacities:
        assert bake(f"service={name}").returncode == 0
    platforms, services = zip(*(templates(tmp_path, *each) for each in capacities.items()), strict=True)
    assert platforms[0] == platforms[1]  # whichever repository deploys it, and whatever capacity its service has
    exported = {each["Export"]["Name"] for each in json.loads(platforms[0])["Outputs"].values()}
    imported = set(re.findall(r'"Fn::ImportValue": "([^"]+)"', json.dumps(services)))
    assert imported
    assert imported <= exported
    for key in ("Priority", *sorted(NAMES)):
        orders, billing = (
            {each[key] for each in properties(service) if isinstance(each.get(key), str | int)} for service in services
        )
        assert orders, key
        assert orders.isdisjoint(billing), key
