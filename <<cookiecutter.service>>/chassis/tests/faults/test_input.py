"""Requests derived from the service's own description, valid and not: each is answered as the description says."""

import re
import subprocess
from pathlib import Path

from chassis.testing.process import BIN
from chassis.tests.probe.process import Gunicorn

EXAMPLES = 220
"""For each operation; with those for the limits of each parameter and the chains of requests, above 2,000 in all."""


CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 413, 414, 415, 431]
"""
"""What a refusal looks like. 413, 414 and 431 are not in the tool's own list: nonsense may be too long to be read."""


def test_no_request_that_the_contract_can_think_of_gets_a_wrong_answer(gunicorn: Gunicorn, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        *(str(BIN / "schemathesis"), "--no-color", "run", f"{gunicorn.url}/openapi.json", "--checks=all"),
        *("--phases=examples,coverage,fuzzing,stateful", f"--max-examples={EXAMPLES}", "--seed=1"),
    ]
    # It stores what it has learnt in the folder that it runs in.
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    [(generated, passed)] = re.findall(r"(\d+) generated, (\d+) passed", done.stdout)
    [scenarios] = re.findall(r"Scenarios: +(\d+)", done.stdout)
    print(f"\ncontract: {generated} requests, {scenarios} chains of them, {int(generated) - int(passed)} failures")
    assert int(generated) == int(passed) >= 2_000
    assert [event for event in gunicorn.events if event.get("severity_text") == "ERROR"] == []
