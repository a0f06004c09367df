"""The commands of `docs/operations.md` say what is in a log."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chassis.testing.process import free_port, wait_until
from chassis.tests.probe.process import Gunicorn


@pytest.mark.skipif(shutil.which("jq") is None and "CI" not in os.environ, reason="there is no jq here")
def test_the_commands_over_a_log_say_what_is_in_it(gunicorn: Gunicorn, processes: ExitStack, tmp_path: Path) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    without_database = processes.enter_context(Gunicorn(DATABASE_URL=nowhere, DATABASE_TIMEOUT_SECONDS=1))
    without_database.get("/probes")
    with gunicorn.client() as client:
        for path in ["/livez", "/made-up", "/probes?limit=0", *["/probes"] * 20]:
            client.get(path)
    without_database.wait_for("GET /probes 503")
    os.kill(without_database.workers()[0], signal.SIGKILL)
    wait_until(lambda: any(event["severity_text"] == "ERROR" for event in without_database.events))
    gunicorn.wait_for("GET /probes 200", 20)
    log = list(gunicorn.lines) + list(without_database.lines)
    (tmp_path / "service.log").write_bytes(b"".join(log))
    [block] = re.findall(
        r"^```sh\n(.*?)^```", Path("docs/operations.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    rates, failures, operations, waits = (
        subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout  # noqa: S607
        for command in block.split("\n\n")
    )

    events = [json.loads(line) for line in log]
    lines = [event for event in events if event["logger"] == "access"]
    assert counted(rates) == Counter(line["timestamp"][:16] for line in lines)
    failed = (e for e in events if e.get("http.response.status_code", 0) >= 500 or e["severity_text"] == "ERROR")
    assert counted(failures) == Counter(event["body"] for event in failed)
    assert "GET /probes 503" in failures
    by_operation: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        by_operation.setdefault((line["http.request.method"], line["http.route"]), []).append(line["duration_ms"])
    assert {(method, route): figures for method, route, *figures in rows(operations)} == {
        operation: [len(times), percentile(times, 0.5), percentile(times, 0.99)]
        for operation, times in by_operation.items()
    }
    waited = [line["db_pool_wait_ms"] for line in lines if "db_pool_wait_ms" in line]
    assert rows(waits) == [[len(waited), percentile(waited, 0.5), percentile(waited, 0.99), max(waited)]]
    assert max(waited) > 900


def counted(output: str) -> Counter[str]:
    """Return what `uniq -c` counted."""
    return Counter({text: int(count) for count, text in (line.split(maxsplit=1) for line in output.splitlines())})


def rows(output: str) -> list[list[Any]]:
    """Return a table whose columns are tabs apart."""
    return [
        [float(cell) if re.fullmatch(r"[0-9.e-]+", cell) else cell for cell in line.split("\t")]
        for line in output.splitlines()
    ]


def percentile(values: list[float], share: float) -> float:
    """Return the least value that so much of them does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]
