"""How a stack is measured: it does its work for a second or more, and what that took is read from the kernel."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.bench.database import Database
from tests.bench.figures import Turn
from tests.bench.stacks import HERE, Server, Stack

BODY = '{"text": "Twelve factors, and not one more."}'
CONNECTIONS = 16


@dataclass(frozen=True)
class Request:
    """What is asked for in a turn, beside the kind."""

    kind: str
    body: str = ""
    """A body other than the usual one."""
    paths: tuple[str, ...] = ()
    """Paths to ask for in turn, instead of the kind's own."""
    authorization: str = ""


class Bench:
    """A run: what is measured, where, and how often."""

    def __init__(  # noqa: PLR0913 - all of it belongs to a run
        self, *, service: Path, database: Database, folder: Path, rounds: int, stacks: Sequence[Stack], kinds: list[str]
    ) -> None:
        self.service, self.database, self.folder, self.kinds = service, database, folder, kinds
        self.rounds, self.stacks = rounds, stacks
        self.few_rounds = max(1, rounds // 3)  # for what differs by more than the noise
        self.is_rehearsal = rounds == 1  # one round is no measurement: it shows that all of this runs
        [note_id] = database.some(1)
        self.paths = {
            "read": f"/notes/{note_id}",
            "create": "/notes",
            "list": "/notes?limit=20",
            "404": "/nothing",
            "livez": "/livez",
        }

    def compare(self, servers: Sequence[Server], kind: str) -> dict[str, list[Turn]]:
        """Return what each server did in its turns. Of several rounds the first one warms up and does not count."""
        turns: dict[str, list[Turn]] = {server.stack.name: [] for server in servers}
        for _ in range(self.rounds + (not self.is_rehearsal)):
            for server in servers:
                turns[server.stack.name].append(self.turn(server, kind))
        return {name: found[-self.rounds :] for name, found in turns.items()}

    def turn(self, server: Server, request: str | Request, connections: int = CONNECTIONS, seconds: int = 1) -> Turn:
        """Let a server do its work, and return what it did."""
        request = request if isinstance(request, Request) else Request(request)
        server.wait_until_idle()  # turns do not meet: else this one would wait for what the last one has left
        before, before_of_database = server.cpu_seconds(), self.database.cpu_seconds()
        done, spread = self._wrk(server, request, connections, seconds)
        cpu_seconds = server.cpu_seconds() - before
        database_seconds = self.database.cpu_seconds() - before_of_database
        refused = done["refused"]
        right = refused if request.kind == "404" else done["requests"] - refused
        failed = done["lost"] + done["requests"] - right
        if connections == CONNECTIONS and (failed or not right):
            raise RuntimeError(f"{server.stack.name} does not do its work, {request.kind}: {done}")
        return Turn(
            cpu_us=cpu_seconds / max(right, 1) * 1e6,
            database_us=database_seconds / max(right, 1) * 1e6,
            rate=right / done["seconds"],
            failed=failed,
            mean_ms=done["mean_ms"],
            p50_ms=done["p50_ms"],
            p99_ms=done["p99_ms"],
            spread=spread,
        )

    def expect_same(self, servers: Sequence[Server]) -> None:
        """Refuse to compare a server that does less work than the others.

        Raises:
            RuntimeError: An answer differs from the first server's.

        """
        for kind in ["read", "list"]:
            expected, *answers = (_times_apart(self.ask(server, kind)) for server in servers)
            for server, answer in zip(servers[1:], answers, strict=True):
                if answer != expected:
                    raise RuntimeError(f"{server.stack.name} answers {answer}, not {expected}")

    def ask(self, server: Server, kind: str) -> object:
        """Return the answer to one request, over a connection of its own, which may reach any process."""
        method, body = ("POST", BODY) if kind == "create" else ("GET", None)
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request(method, self.paths[kind], body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
        connection.close()
        return answer

    def start(self, stack: Stack, processes: int = 2, database_url: str = "") -> Server:
        """Start a stack."""
        return Server(stack, self.service, database_url or self.database.url, processes, self.paths["read"])

    @contextmanager
    def running(self, stacks: Sequence[Stack], processes: int = 2) -> Iterator[list[Server]]:
        """Start several stacks, to be measured in turns."""
        with ExitStack() as running:
            yield [running.enter_context(self.start(stack, processes)) for stack in stacks]

    def _wrk(
        self, server: Server, request: Request, connections: int, seconds: int
    ) -> tuple[dict[str, Any], list[int]]:
        """Run wrk. Return what it says, and how many connections each worker held meanwhile."""
        arguments = [f"authorization={request.authorization}"] if request.authorization else []
        if request.kind == "create":
            arguments.append(f"body={self._file('body', request.body or BODY)}")
        if request.paths:
            arguments.append(f"paths={self._file('paths', *request.paths)}")
        url = f"http://127.0.0.1:{server.port}{self.paths[request.kind]}"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "-s", str(HERE / "wrk.lua")]
        with subprocess.Popen([*command, url, "--", *arguments], stdout=subprocess.PIPE, text=True) as process:
            spread = []
            if seconds > 1:
                try:
                    process.wait(seconds / 2)
                except subprocess.TimeoutExpired:
                    spread = server.connections()
            said = process.communicate(timeout=seconds + 60)[0]
        if process.returncode:
            raise RuntimeError(f"wrk failed: {said}")
        done: dict[str, Any] = json.loads(said.splitlines()[-1])
        return done, spread

    def _file(self, name: str, *lines: str) -> Path:
        path = self.folder / name
        path.write_text("\n".join(lines), encoding="utf-8")
        return path


def _times_apart(answer: object) -> object:
    """Return `answer` with times as such, since each stack writes them in its own way, and without the next page's."""
    if isinstance(answer, list):
        return [_times_apart(item) for item in answer]
    if isinstance(answer, dict):
        return {name: _times_apart(value) for name, value in answer.items() if name != "next"}
    try:
        return datetime.fromisoformat(str(answer))
    except ValueError:
        return answer
