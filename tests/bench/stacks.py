"""What is compared: servers that do the same work on the same table, each started from its environment alone."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

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


SERVICE = Stack("the service", "service", "gunicorn", is_service=True)
QUIET = Stack(
    "the service, without its lines", "service", "gunicorn", is_service=True, variables={"LOG_LEVEL": "WARNING"}
)
LIMIT = Stack("the limit", "service", "gunicorn --config python:limit limit:app")
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
            **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}},
            **stack.variables,
        }
        program, *arguments = stack.command.split()
        # Its lines go through a pipe, as a container's do, to a reader that costs next to nothing.
        self._reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [ENVIRONMENTS / stack.environment / "bin" / program, *arguments],
            cwd=service if stack.is_service else HERE,
            env=variables,
            stdout=self._reader.stdin,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._reader.stdin:
            self._reader.stdin.close()
        self._wait_for(first)
        self.ready_seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # a peer may hang, after more connections than it takes
            self.stop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.wait()

    def stop(self) -> float:
        """Stop it as a platform does; says how many seconds it took."""
        begun = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_SECONDS)
        return time.perf_counter() - begun

    def cpu_seconds(self) -> float:
        """Of all its processes, since they began."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def worker_bytes(self) -> int:
        """Resident memory of its largest worker."""
        return int(max(process.memory_info().rss for process in self._processes()[1:]))

    def _processes(self) -> list[psutil.Process]:
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode()
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                    sock.sendall(request)
                    if b" 200 " in sock.recv(64):
                        return
            except OSError:
                pass
            time.sleep(0.002)
        raise RuntimeError(f"{self.stack.name} does not start: {self.stack.command}")
