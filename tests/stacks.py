"""Synthesise all combinations of stacks in a baked service and ask cfn-lint about them, as `make lint` does.

It runs in the service's folder, with the environment of its deployment code.
"""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

from deploy.tests.conftest import COMBINATIONS, SPOT, Stacks
from deploy.tests.test_stacks import LINT_IGNORED

OUT = Path("cdk.out")

for combination in (*COMBINATIONS, *SPOT):
    Stacks(OUT / "-".join(combination), *combination)
Stacks(OUT / "production", "FARGATE", "CODE_DEPLOY", "production")
linter = Path(sys.executable).with_name("cfn-lint")
# Combinations have templates in common, which are linted once.
templates = {path.read_bytes(): path for path in sorted(OUT.glob("*/*.template.json"))}.values()
sys.exit(subprocess.run([linter, "--ignore-checks", *LINT_IGNORED, "--", *templates], check=False).returncode)
