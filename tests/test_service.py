"""The baked service does what its README says: its gates pass, it runs, and it stops."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.conftest import baked, clone, needs_docker


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of the tests without what belongs to the template or to a database of this machine."""
    removed = {"DATABASE_URL", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    return {name: value for name, value in os.environ.items() if name not in removed} | variables


def test_its_own_gates_pass(service: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():  # the longest step shows its progress, and what was skipped and why
        done = subprocess.run(["make", f"PYTHON={sys.executable}", "test"], cwd=service, env=environment(), check=False)
    assert done.returncode == 0


def test_it_runs_with_nothing_but_python_and_stops_at_an_interrupt(service: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
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
    assert f"curl -i http://127.0.0.1:{port}/notes" in said
    assert "Traceback" not in said
    running = subprocess.run(["pgrep", "-f", str(service)], capture_output=True, text=True, check=False)
    assert running.stdout == ""


@needs_docker
def test_compose_migrates_and_then_serves_from_the_image(service: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

    def compose(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", "compose", "--project-name", f"test-{port}", *arguments],
            cwd=service,
            env=environment(PORT=str(port)),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        compose("up", "--build", "--wait", "--quiet-pull")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.post("/notes", json={"text": "hello"}).status_code == 201
        [shell] = re.findall("`docker compose (exec .*?)`", (service / "README.md").read_text(encoding="utf-8"))
        assert "hello" in compose(*shell.split(), "--command=SELECT text FROM notes")
        ended = [json.loads(line) for line in compose("ps", "--all", "--format", "json", "release").splitlines()]
        assert [(process["State"], process["ExitCode"]) for process in ended] == [("exited", 0)]
        compose("stop", "web")
        stopped = [json.loads(line) for line in compose("ps", "--all", "--format", "json", "web").splitlines()]
        assert [process["ExitCode"] for process in stopped] == [0]
    finally:
        compose("down", "--volumes", "--remove-orphans", "--rmi", "local")


def test_the_demo_answers_from_a_bare_clone(tmp_path: Path) -> None:
    template = clone(tmp_path / "template")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    process = subprocess.Popen(
        ["make", f"PYTHON={sys.executable}", "demo"],
        cwd=template,
        env=environment(PORT=str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    for line in process.stdout or ():
        lines.append(line)
        if '"ready"' in line:
            os.killpg(process.pid, signal.SIGINT)
    process.stdout.close()  # type: ignore[union-attr]
    assert process.wait(60) in {0, 2, -signal.SIGINT}  # make ends by the signal if its own handler is first
    said = "".join(lines)
    assert f"http://127.0.0.1:{port}/notes" in said
    assert '"ready"' in said
    assert len(said.partition("http://")[0].splitlines()) < 12, said  # a line for each step, and no more


def test_an_environment_that_is_incomplete_or_has_lost_its_python_is_made_anew(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir(mode=0o555)
    with baked() as folder:
        command = ["make", f"PYTHON={sys.executable}", ".venv/run"]
        variables = environment(HOME=str(nowhere / "home"), XDG_CACHE_HOME="")  # a user without a home
        variables.pop("INSTALLER", None)
        # What this user's own configuration of pip says, which is in the home; `conftest.py` has told uv.
        for ours, theirs in {"UV_DEFAULT_INDEX": "PIP_INDEX_URL", "SSL_CERT_FILE": "PIP_CERT"}.items():
            if ours in variables:
                variables[theirs] = variables[ours]

        def makes_it() -> str:
            subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
            say = [str(folder / ".venv" / "bin" / "python"), "-c", "import flask; print('complete')"]
            return subprocess.run(say, capture_output=True, text=True, check=True).stdout.strip()

        # What is there when pip is killed while it writes uv.
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / ".venv"], check=True)
        (folder / ".venv" / "bin" / "uv").write_bytes(b"\x7fELF")
        [packages] = (folder / ".venv" / "lib").glob("python*/site-packages")
        (packages / "uv-0.9.0.dist-info").mkdir()
        (packages / "uv-0.9.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.4\nName: uv\nVersion: 0.9.0\n")
        assert makes_it() == "complete"

        python = folder / ".venv" / "bin" / "python"
        python.unlink()
        python.symlink_to(nowhere / "python")
        assert makes_it() == "complete"
