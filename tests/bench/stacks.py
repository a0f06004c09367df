"""What is compared: servers that do the same work on the same table, each started from its environment alone."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

import psutil

from tests.bench import clocks

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent.parent / ".venvs"
START_SECONDS = 60
STOP_SECONDS = 10


@dataclass(frozen=True)
class Stack:
    """A program to be measured."""

    name: str
    environment: str
    """Which of `.venvs` it runs in."""
    command: str
    """As in `Procfile`; `PORT` and `WEB_CONCURRENCY` are variables."""
    is_service: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    image: str = ""
    """The Docker image that it runs in instead, if any."""


SERVICE = Stack("the service", "service", "python -m service", is_service=True)
QUIET = replace(SERVICE, name="the service, without its lines", variables={"LOG_LEVEL": "WARNING"})
LIMIT = Stack("the limit", "bench", "gunicorn --config python:limit limit:app")
PEERS = [
    Stack("Flask + SQLAlchemy", "bench", "gunicorn --threads 4 flask_orm:app"),
    Stack("FastAPI + asyncpg", "bench", "uvicorn --no-access-log fastapi_asyncpg:app"),
    Stack("FastAPI + SQLModel", "bench", "uvicorn --no-access-log fastapi_sqlmodel:app"),
]
STACKS = [SERVICE, LIMIT, *PEERS]


class Server:
    """A running stack, with `processes` workers, that has answered its first request."""

    def __init__(self, stack: Stack, service: Path, database_url: str, processes: int, first: str) -> None:
        self.stack = stack
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port: int = sock.getsockname()[1]
        variables = {
            "DATABASE_URL": database_url,
            "WEB_CONCURRENCY": str(processes),
            "DRAIN_SECONDS": "0",  # the others have no drain: what is compared is the stop itself
            "UVICORN_PORT": str(self.port),
            "PORT": str(self.port),
            **stack.variables,
        }
        self._container = f"bench-{uuid.uuid4().hex[:12]}" if stack.image else ""
        # Its lines go through a pipe, as a container's do, to a reader that costs next to nothing.
        self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        self._process = subprocess.Popen(
            self._command(variables),
            cwd=service if stack.is_service else HERE,
            env={**{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}, **variables},
            stdout=self._reader.stdin,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._reader.stdin:
            self._reader.stdin.close()
        self._wait_for(first)
        self.root = psutil.Process(self._pid())
        self.ready_seconds = time.perf_counter() - started
        if self._container:
            self.ready_seconds = time.time() - self.root.create_time()  # without what Docker needs before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # a peer may hang, after more connections than it takes
            self.stop()
        if self._container:
            subprocess.run(["docker", "rm", "--force", self._container], capture_output=True, check=False)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.wait()

    def stop(self) -> float:
        """Stop it as a platform does. Return how many seconds that took."""
        begun = time.perf_counter()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.root.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)
        return time.perf_counter() - begun

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes since they began."""
        return clocks.cpu_seconds(self.root)

    def worker_bytes(self) -> list[int]:
        """Return the resident memory of each worker."""
        return [process.memory_info().rss for process in clocks.tree(self.root)][1:]

    def connections(self) -> list[int]:
        """Return how many client connections each worker holds, in ascending order."""
        return sorted(states.count("ESTABLISHED") for states in self._states())

    def wait_until_idle(self) -> None:
        """Wait until no worker holds a connection, also of clients that have left. Some peers never come so far."""
        deadline = time.monotonic() + STOP_SECONDS
        while any(self._states()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _states(self) -> list[list[str]]:
        """Return the states of the client connections of each worker."""
        found = []
        for worker in self.root.children():
            sockets = []
            with contextlib.suppress(psutil.NoSuchProcess):
                sockets = worker.net_connections("tcp")
            found.append([one.status for one in sockets if one.laddr.port == self.port and one.status != "LISTEN"])
        return found

    def _command(self, variables: dict[str, str]) -> list[str]:
        program, *arguments = self.stack.command.split()
        if not self.stack.image:
            return [str(ENVIRONMENTS / self.stack.environment / "bin" / program), *arguments]
        folder = parse_qs(urlsplit(variables["DATABASE_URL"]).query).get("host", [""])[0]
        volumes = [f"--volume={folder}:{folder}"] if folder.startswith("/") else []  # PostgreSQL's socket
        if not self.stack.is_service:  # with what it needs and the image does not have: the service's pool is its own
            [pool] = (ENVIRONMENTS / self.stack.environment).glob("lib/*/site-packages/psycopg_pool")
            volumes += [f"--volume={HERE}:/bench:ro", f"--volume={pool}:/packages/psycopg_pool:ro"]
            volumes += ["--workdir=/bench", "--env=PYTHONPATH=/packages"]
        options = ["--rm", f"--name={self._container}", "--network=host", "--user=0", *volumes]
        options += [f"--env={name}={value}" for name, value in variables.items()]
        return ["docker", "run", *options, self.stack.image, program, *arguments]

    def _pid(self) -> int:
        if not self._container:
            return self._process.pid
        command = ["docker", "inspect", "--format", "{{.State.Pid}}", self._container]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                    sock.sendall(request)
                    if sock.recv(64).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 401 ")):
                        return
            except OSError:
                pass
            time.sleep(0.002)
        raise RuntimeError(f"{self.stack.name} does not start: {self.stack.command}")
