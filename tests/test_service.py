"""The baked service does what its README says: its gates pass, it runs, and it stops."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx


def environment(**variables: str) -> dict[str, str]:
    """The environment of the tests without what belongs to the template or to a database of this machine."""
    removed = {"DATABASE_URL", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    return {name: value for name, value in os.environ.items() if name not in removed} | variables


def test_its_own_gates_pass(service: Path) -> None:
    # Its output is shown as it comes: it is the longest step, and it says what was skipped and why.
    done = subprocess.run(["make", f"PYTHON={sys.executable}", "test"], cwd=service, env=environment(), check=False)
    assert done.returncode == 0


def test_it_runs_with_nothing_but_python_and_stops_at_an_interrupt(service: Path) -> None:
    port = "8765"
    process = subprocess.Popen(
        ["make", f"PYTHON={sys.executable}", "run"],
        cwd=service,
        env=environment(PORT=port, DRAIN_SECONDS="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            if '"ready"' in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert ready.wait(180), lines
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        created = client.post("/notes", json={"text": "hello"})
        assert created.status_code == 201, lines
        assert client.get(created.headers["location"]).json() == created.json()
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    process.wait(60)
    reader.join(60)
    process.stdout.close()  # type: ignore[union-attr]
    said = "".join(lines)
    assert "curl -i http://127.0.0.1:8000/notes" in said
    assert "Traceback" not in said
    running = subprocess.run(["pgrep", "-f", str(service)], capture_output=True, text=True, check=False)
    assert running.stdout == ""
