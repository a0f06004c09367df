"""Look for known vulnerabilities of the packages that the lock files pin, as `make audit` does.

checkov's own lock file is left out: checkov pins what it needs to the patch, and reads nothing but our own files.
"""

import os
import subprocess
import sys
from pathlib import Path

from chassis.dev.install import settings_of_pip

TEMPLATE = Path(__file__).parents[1]
SERVICE = TEMPLATE / "<<cookiecutter.service>>"
OPTIONS = ["--progress-spinner", "off", "--disable-pip"]

names = ("bake", "dev", "bench")
files = [TEMPLATE / "tests" / "requirements" / f"{name}.txt" for name in names]
files += [*SERVICE.glob("requirements*.txt"), *SERVICE.glob("deploy/requirements*.txt")]
certificates = settings_of_pip().get("SSL_CERT_FILE")
environment = ({"REQUESTS_CA_BUNDLE": certificates} if certificates else {}) | dict(os.environ)
for file in files:
    command: list[str | Path] = [Path(sys.executable).with_name("pip-audit"), *OPTIONS, "--requirement", file]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    said = done.stderr.strip()
    if done.returncode and "requests.exceptions" in said and "CI" not in os.environ:
        sys.stderr.write(f"Nothing was audited, since no index answers: {said.splitlines()[-1][:200]}\n")
        break
    sys.stderr.write(f"{said}\n")
    if done.returncode:
        sys.exit(done.returncode)
