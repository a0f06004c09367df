"""Requests derived from a service's own contract, valid and not: each is answered as the contract says.

https://schemathesis.readthedocs.io/
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chassis.testing.process import BIN, environment

CONFIGURATION = """
hooks = "hooks.py"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 428, "5xx"]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 412, 413, 414, 415, 422, 428, 431]
"""
"""What may be answered to a request that is valid, and to one that is not. The tool's own lists are shorter: what a
request refers to may not exist, nonsense may be too long to be read, and who runs no other service than this one gets
a 503 where it is asked."""

HOOKS = """
import schemathesis

@schemathesis.hook
def filter_case(context, case):
    return "x-schemathesis-unknown-property" not in (case.headers or {})
"""
"""Header fields that the contract does not name are no fault: a proxy adds some."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has found."""

    requests: int
    failures: int
    chains: int
    """How many sequences of requests were made, each with what the one before was answered."""
    report: str


def run(url: str, *options: str, examples: int = 5) -> Outcome:
    """Send requests to the service at `url`: about `examples` for each operation, and those for all limits of fields.

    `options` are more options of `schemathesis run`, such as `--header=Authorization: Bearer …`.
    """
    with tempfile.TemporaryDirectory() as folder:  # it keeps what it has learnt in the folder that it runs in
        Path(folder, "schemathesis.toml").write_text(CONFIGURATION, encoding="utf-8")
        Path(folder, "hooks.py").write_text(HOOKS, encoding="utf-8")
        command = [str(BIN / "schemathesis"), "--no-color", "run", f"{url}/openapi.json", "--checks=all"]
        command += ["--phases=examples,coverage,fuzzing,stateful", f"--max-examples={examples}", "--seed=1", *options]
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
        )
    if not (counts := re.search(r"(\d+) generated(?:, (\d+) passed)?", done.stdout)):
        raise RuntimeError(done.stdout + done.stderr)
    generated, passed = int(counts[1]), int(counts[2] or 0)
    chains = re.search(r"Scenarios: +(\d+)", done.stdout)
    failures = max(generated - passed, int(done.returncode != 0))
    return Outcome(generated, failures, int(chains[1]) if chains else 0, done.stdout)
