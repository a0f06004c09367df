"""Processes of the service, as a platform runs them: a command, an environment, signals, a stream of events."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx

from chassis.dev.variables import examples

BIN = Path(sys.executable).parent
START_SECONDS = 60
"""How long a start may take on a machine that runs other tests at the same time."""


def environment(**variables: object) -> dict[str, str]:
    """Return an environment with `variables`, examples of what the service requires, and nothing else that it reads."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "PYTHONPYCACHEPREFIX"}
    inherited = {name: value for name, value in os.environ.items() if name in kept}
    return {**inherited, **examples(), **{name: str(value) for name, value in variables.items()}}


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def exists(pid: int) -> bool:
    """Whether there is a process of this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def parent(pid: int) -> int | None:
    """Return the parent of a process, where Linux tells it.

    A busy machine gives the ID of a dead worker to somebody else's process within minutes, and tests kill workers.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return None


def connections_of(pid: int, port: int) -> int:
    """Return how many TCP connections from or to `port` a process holds. proc(5), `/proc/net/tcp`."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(descriptor.readlink()))
    table = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
    end = f":{port:04X}"
    established = [row[9] for row in table if (row[1].endswith(end) or row[2].endswith(end)) and row[3] == "01"]
    return len([inode for inode in established if f"socket:[{inode}]" in sockets])


def wait_until(condition: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Poll `condition` until it is true.

    Raises:
        TimeoutError: It is not true within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def run_admin(
    *arguments: str,
    package: str = "service",
    cwd: Path | None = None,
    within: Sequence[str] = (),
    **variables: object,
) -> tuple[int, list[dict[str, Any]], str]:
    """Run `python -m service.admin`. Return its exit status, its events, and what it wrote to stderr.

    `within` is a command that makes its surroundings and becomes it.
    """
    command = [*within, sys.executable, "-m", f"{package}.admin", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


class Gunicorn:
    """A running service. `url` is where it answers, `events` what it has logged.

    `within` is a command that makes its surroundings and becomes it.
    """

    package = "service"
    defaults: ClassVar[Mapping[str, object]] = {"DATABASE_TIMEOUT_SECONDS": 10}
    """Variables that hold unless a test gives others: a machine that also runs other tests is slow to connect."""

    def __init__(
        self,
        *,
        package: str = "",
        cwd: Path | None = None,
        command: Sequence[str | Path] = (),
        within: Sequence[str] = (),
        **variables: Any,
    ) -> None:
        self.port = int(str(variables.get("PORT", free_port())))
        self.url = f"http://127.0.0.1:{self.port}"
        self.lines: list[bytes] = []
        self._process = subprocess.Popen(
            [*within, *(command or (sys.executable, "-m", package or self.package))],
            cwd=cwd,
            env=environment(**{"PORT": self.port, **self.defaults, **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        self.stderr = b""
        self._changed = threading.Condition()
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        try:
            self.wait_for("ready")
        except BaseException:
            self._process.kill()  # `__exit__` is not called
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self.wait()

    @property
    def pid(self) -> int:
        """Of the process that a platform would signal."""
        return self._process.pid

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the service has logged so far."""
        return [json.loads(line) for line in list(self.lines)]

    def events_named(self, body: str) -> list[dict[str, Any]]:
        """Return the events with this body."""
        return [event for event in self.events if event.get("body") == body]

    def workers(self) -> list[int]:
        """Return the process IDs of the workers that are ready and still exist, oldest first."""
        pids = [event["process.pid"] for event in self.events if event.get("body") == "ready"]
        return [pid for pid in pids if exists(pid) and parent(pid) in {self.pid, None}]

    def signal(self, signum: int) -> float:
        """Send a signal to the service. Return the time of `time.monotonic`, in seconds."""
        self._process.send_signal(signum)
        return time.monotonic()

    def wait(self, seconds: float = 60) -> int:
        """Wait until the service and its output have ended. Return its exit status."""
        status = self._process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
        return status

    def wait_for(self, body: str, count: int = 1, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Wait until the service has logged `body` `count` times. Return the last of these events.

        Raises:
            AssertionError: It does not within `seconds`; the message contains its output.
        """
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [event for event in self.events if event.get("body") == body]
            return len(found) >= count or self._process.poll() is not None

        with self._changed:
            self._changed.wait_for(is_there, seconds)
        assert len(found) >= count, f"no {body!r} in {self.lines} {self.stderr!r}"
        return found[-1]

    def access(self, request_id: str) -> dict[str, Any]:
        """Wait for the canonical line of a request.

        Raises:
            TimeoutError: it does not come, in time.
        """
        wait_until(lambda: any(event.get("request_id") == request_id for event in self.events))
        [line] = [event for event in self.events if event.get("request_id") == request_id]
        return line

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the service; it ignores proxies that this machine may have."""
        return httpx.Client(base_url=self.url, trust_env=False, **{"timeout": 30, **options})

    def get(self, path: str) -> httpx.Response:
        """Return the answer to one request over a connection of its own."""
        with self.client() as client:
            return client.get(path)

    def _read_events(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _read_errors(self) -> None:
        for line in self._process.stderr or ():
            self.stderr += line
