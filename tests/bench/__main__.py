"""`make bench`: everything is measured side by side in one run, in turns, so that the noise of a machine cancels."""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psycopg

from tests.bench import report
from tests.bench.figures import Figures, Turn
from tests.bench.relay import Relay
from tests.bench.stacks import ENVIRONMENTS, HERE, QUIET, SERVICE, STACKS, Server, Stack

TEMPLATE = HERE.parent.parent
ROWS = 1_000
REQUESTS = 100
BODY = '{"text": "Twelve factors, and not one more."}'
KINDS = ["read", "create", "list", "404", "livez"]
CONNECTIONS = [16, 64, 128, 256, 512]
PROCESSES = [1, 2, 4]


class Bench:
    """A run: what is measured, where, and how often."""

    def __init__(self, service: Path, database_url: str, rounds: int, stacks: Sequence[Stack]) -> None:
        self.service, self.database_url, self.rounds, self.stacks = service, database_url, rounds, stacks
        self.few_rounds = max(1, rounds // 3)  # for what differs by more than the noise
        # One round is no measurement: it shows that all of this runs.
        self.connections, self.processes = (CONNECTIONS, PROCESSES) if rounds > 1 else (CONNECTIONS[:2], PROCESSES[:1])
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("INSERT INTO notes (text) SELECT 'Note ' || n FROM generate_series(1, %s) AS n", [ROWS])
            [[note_id]] = conn.execute("SELECT id FROM notes LIMIT 1").fetchall()
        self.paths = {
            "read": f"/notes/{note_id}",
            "create": "/notes",
            "list": "/notes?limit=20",
            "404": "/nothing",
            "livez": "/livez",
        }

    def by_kind(self, kinds: Sequence[str], figures: Figures) -> None:
        """Each kind of request; and what a worker holds after all of them."""
        with self._running(self.stacks) as servers:
            for server in servers:
                self._expect_same(server, servers[0])
            for kind in kinds:
                figures.by_kind[kind] = self._compare(servers, kind)
            figures.worker_mb = {server.stack.name: server.worker_bytes() / 1e6 for server in servers}

    def growth(self, figures: Figures) -> None:
        """Reads by key over more and more connections, and with more and more processes. Each stack is alone.

        All of them at once would want more connections than PostgreSQL has.
        """
        for _ in range(self.few_rounds):
            for stack in self.stacks:
                with self._start(stack) as server:
                    self._turn(server, "read")
                    for count in self.connections:
                        turn = self._turn(server, "read", count)
                        figures.by_connections.setdefault(count, {}).setdefault(stack.name, []).append(turn)
                for count in self.processes:
                    with self._start(stack, count) as server:
                        self._turn(server, "read")
                        turn = self._turn(server, "read")
                        figures.by_processes.setdefault(count, {}).setdefault(stack.name, []).append(turn)

    def line(self, figures: Figures) -> None:
        """What the canonical line costs: the service with it, and without."""
        with self._running([SERVICE, QUIET]) as servers:
            figures.line = self._compare(servers, "read")

    def starts(self, figures: Figures) -> None:
        """From the start to the first note read, and from SIGTERM, without requests, to the exit."""
        for _ in range(self.few_rounds):
            for stack in self.stacks:
                with self._start(stack) as server:
                    figures.ready_seconds.setdefault(stack.name, []).append(server.ready_seconds)
                    time.sleep(1)  # a bare gunicorn may forget a SIGTERM while a worker is being made
                    figures.stop_seconds.setdefault(stack.name, []).append(server.stop())

    def round_trips(self, figures: Figures) -> None:
        """Between a server and PostgreSQL, for one request of each kind: counted on the wire, one after the other."""
        for stack in self.stacks:
            with Relay(self.database_url) as relay, self._start(stack, database_url=relay.url) as server:
                for kind in ["read", "create", "list"]:
                    for _ in range(REQUESTS):  # until each connection of each process knows its statements
                        self._ask(server, kind)
                    before = relay.round_trips
                    for _ in range(REQUESTS):
                        self._ask(server, kind)
                    trips = (relay.round_trips - before) / REQUESTS
                    figures.round_trips.setdefault(kind, {})[stack.name] = trips

    def _compare(self, servers: Sequence[Server], kind: str) -> dict[str, list[Turn]]:
        """What each server did in its turns; of several rounds the first one warms up and does not count."""
        turns: dict[str, list[Turn]] = {server.stack.name: [] for server in servers}
        for _ in range(self.rounds + (self.rounds > 1)):
            for server in servers:
                turns[server.stack.name].append(self._turn(server, kind))
        return {name: found[-self.rounds :] for name, found in turns.items()}

    def _turn(self, server: Server, kind: str, connections: int = 16) -> Turn:
        before = server.cpu_seconds()
        done = self._wrk(server, kind, connections)
        cpu_seconds = server.cpu_seconds() - before
        answered = done["requests"] if kind == "404" else done["requests"] - done["refused"]
        failed = done["lost"] + (done["requests"] - done["refused"] if kind == "404" else done["refused"])
        if connections == CONNECTIONS[0] and (failed or not answered):
            raise RuntimeError(f"{server.stack.name} does not do its work, {kind}: {done}")
        return Turn(
            cpu_us=cpu_seconds / max(answered, 1) * 1e6,
            rate=answered / done["seconds"],
            failed=failed,
            p50_ms=done["p50_ms"],
            p99_ms=done["p99_ms"],
        )

    def _expect_same(self, server: Server, other: Server) -> None:
        """Those who do less work than others are not compared with them."""
        for kind in ["read", "list"]:
            answer, expected = (_times_apart(self._ask(one, kind)) for one in (server, other))
            if answer != expected:
                raise RuntimeError(f"{server.stack.name} answers {answer}, not {expected}")

    def _ask(self, server: Server, kind: str) -> object:
        method, body = ("POST", BODY) if kind == "create" else ("GET", None)
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)  # a new one may reach another process
        connection.request(method, self.paths[kind], body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
        connection.close()
        return answer

    def _wrk(self, server: Server, kind: str, connections: int) -> dict[str, Any]:
        url = f"http://127.0.0.1:{server.port}{self.paths[kind]}"
        command = ["wrk", "-t1", f"-c{connections}", "-d1s", "-s", str(HERE / "wrk.lua"), url]
        command += ["--", BODY] if kind == "create" else []
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        done: dict[str, Any] = json.loads(said.splitlines()[-1])
        return done

    def _start(self, stack: Stack, processes: int = 2, database_url: str | None = None) -> Server:
        return Server(stack, self.service, database_url or self.database_url, processes, self.paths["read"])

    @contextmanager
    def _running(self, stacks: Sequence[Stack], processes: int = 2) -> Iterator[list[Server]]:
        with ExitStack() as running:
            yield [running.enter_context(self._start(stack, processes)) for stack in stacks]


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="turns of each stack; figures are medians over them")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(KINDS)}, nothing else")
    parser.add_argument("--stacks", type=int, default=len(STACKS), help="how many stacks, of the first")
    parser.add_argument("--output", type=Path, default=HERE, help="folder for figures.md and figures.svg")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("wrk is needed; Debian's package has the same name")
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        service = bake(Path(folder), figures)
        with database(service) as url:
            bench = Bench(service, url, options.rounds, STACKS[: options.stacks])
            bench.by_kind(options.only or KINDS, figures)
            if not options.only:
                bench.line(figures)
                bench.starts(figures)
                bench.round_trips(figures)
                bench.growth(figures)
    if options.only:
        print(report.requests(figures))
    else:
        report.write(figures, options.output)


def bake(folder: Path, figures: Figures) -> Path:
    """A service, in `folder`."""
    program = str(TEMPLATE / ".venv/bin/cookiecutter")
    for number in range(3):
        command = [program, str(TEMPLATE), "--no-input", "--output-dir", str(folder / str(number))]
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        figures.bake_seconds.append(time.perf_counter() - begun)
    return folder / "0" / "orders"


@contextmanager
def database(service: Path) -> Iterator[str]:
    """The URL of a PostgreSQL with the service's tables: the one of `make run`, or what `DATABASE_URL` names."""
    python = str(ENVIRONMENTS / "service/bin/python")
    say = "import os; print(os.environ['DATABASE_URL'], flush=True); input()"
    command = [python, "-m", "tests.postgres", python, "-c", say]
    with subprocess.Popen(command, cwd=service, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip() if process.stdout else ""
        migrate = [python, "-m", "service.admin", "migrate"]
        subprocess.run(migrate, cwd=service, env={"DATABASE_URL": url}, check=True, stdout=subprocess.DEVNULL)
        try:
            yield url
        finally:
            process.communicate("\n")


def _times_apart(answer: object) -> object:
    """`answer` with its times as such, since each stack has its own way to write them, and without the next page's."""
    if isinstance(answer, list):
        return [_times_apart(item) for item in answer]
    if isinstance(answer, dict):
        return {name: _times_apart(value) for name, value in answer.items() if name != "next"}
    try:
        return datetime.fromisoformat(str(answer))
    except ValueError:
        return answer


if __name__ == "__main__":
    main()
