"""Instructions per request, counted by valgrind: on a busy machine they are the same as on an idle one.

`python -m tests.bench.instructions` prints them for the service and for the limit. They are those of the program and
its libraries; what the kernel does for it is not among them.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

from tests.bench.bench import BODY
from tests.bench.database import PYTHON, ROWS, Database, database
from tests.bench.stacks import ENVIRONMENTS, HERE

STACKS = {"the service": ["service"], "the limit": ["gunicorn", "--config", "python:limit", "limit:app"]}
PYTHONS = {"the service": PYTHON, "the limit": str(ENVIRONMENTS / "bench/bin/python")}
KINDS = ["read", "create", "404", "livez"]
WARM = 15
"""Requests before the first one that counts: by then psycopg has prepared each statement, and caches are full."""
REQUESTS = 4
"""At once. Several, so that the garbage collector has its part; few, so that there are turns without a heartbeat."""
TURNS = 12
START_SECONDS = 240
VARIABLES = {
    "WEB_CONCURRENCY": "1",
    "DRAIN_SECONDS": "0",
    # Under valgrind the handshake with PostgreSQL takes long; it shall neither fail nor be repeated.
    "DATABASE_POOL_SIZE": "1",
    "DATABASE_TIMEOUT_SECONDS": "10",
    "DATABASE_MAX_LIFETIME_SECONDS": "3600",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Counted:
    """A server under valgrind, in one process."""

    def __init__(self, name: str, cwd: Path, server: Database, folder: Path) -> None:
        [note_id] = server.some(1)
        self._paths = {"read": f"/notes/{note_id}", "create": "/notes", "404": "/nothing", "livez": "/livez"}
        self._folder = folder
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self._log = (folder / "log").open("wb")
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            [*valgrind, PYTHONS[name], str(HERE / "single.py"), *STACKS[name]],
            cwd=cwd,
            env={**kept, **VARIABLES, "DATABASE_URL": server.url, "PORT": str(port)},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._client = HTTPConnection("127.0.0.1", port, timeout=60)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._ask("livez")
                return self
            self._client.close()
            time.sleep(0.1)
        self._process.kill()
        raise RuntimeError((self._folder / "log").read_text(encoding="utf-8"))

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def count(self, kinds: Sequence[str]) -> dict[str, float]:
        """Return the instructions per request of each kind: the fewest of several turns, since heartbeats add some."""
        for kind in kinds:
            for _ in range(WARM):
                self._ask(kind)
        self._tell("instrumentation", "on")
        found = {}
        for kind in kinds:
            self._ask(kind)
            counts = []
            for _ in range(TURNS):
                self._tell("zero")
                for _ in range(REQUESTS):
                    self._ask(kind)
                counts.append(self._dump() / REQUESTS)
            found[kind] = min(counts)
        return found

    def _ask(self, kind: str) -> None:
        if kind == "create":
            self._client.request("POST", self._paths[kind], BODY, {"Content-Type": "application/json"})
        else:
            self._client.request("GET", self._paths[kind])
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status != {"create": 201, "404": 404}.get(kind, 200):
            raise RuntimeError(f"{kind}: {answer.status} {body!r}")

    def _tell(self, *words: str) -> None:
        subprocess.run(["vgdb", f"--pid={self._process.pid}", *words], capture_output=True, check=True, timeout=60)

    def _dump(self) -> int:
        """Return the instructions since the last call or `zero`."""
        self._tell("dump")
        [path] = self._folder.glob("counts.*")
        found = re.search(r"^totals: (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        path.unlink()
        if not found:
            raise RuntimeError(f"callgrind wrote no totals to {path}")
        return int(found[1])


def measure(service: Path, kinds: Sequence[str], names: Sequence[str] = tuple(STACKS)) -> dict[str, dict[str, float]]:
    """Return the instructions per request, by stack and kind of request."""
    found = {}
    with database(service) as server:
        server.fill(ROWS)
        for name in names:
            cwd = service if name == "the service" else HERE
            with tempfile.TemporaryDirectory() as folder, Counted(name, cwd, server, Path(folder)) as counted:
                found[name] = counted.count(list(kinds))
    return found


def main() -> None:
    """Print the instructions of the service in a folder, and of the limit, for the kinds of requests that are named."""
    if not shutil.which("valgrind"):
        sys.exit("valgrind is needed; Debian's package has the same name")
    service = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent.parent / "<<cookiecutter.service>>"
    found = measure(service, sys.argv[2:] or KINDS)
    limit = found["the limit"]
    for name, counts in found.items():
        for kind, count in counts.items():
            print(f"{name}, {kind}: {count:,.0f} instructions, {count / limit[kind]:.3f} of the limit")


if __name__ == "__main__":
    main()
