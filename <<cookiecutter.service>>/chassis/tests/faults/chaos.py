"""Chance combines faults, and what must always hold is checked. `make chaos`, `make chaos SECONDS=600 SEED=7`.

Two services run on one PostgreSQL: one finds it by its name through a proxy, the other through PgBouncer. Clients put
load on both and remember every answer. Meanwhile faults begin and end in random order and overlap, drawn from a seed
that is printed. As Jepsen's nemesis does, and FoundationDB's simulation. https://jepsen.io/analyses
"""

import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from chassis.testing.process import free_port, wait_until
from chassis.testing.relay import Relay
from chassis.tests.faults import cluster, dnsmasq, pgbouncer
from chassis.tests.probe import process

DATABASE_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_SECONDS = 2
SETTINGS: dict[str, Any] = {
    "DATABASE_TIMEOUT_SECONDS": DATABASE_TIMEOUT_SECONDS,
    "STATEMENT_TIMEOUT_SECONDS": STATEMENT_TIMEOUT_SECONDS,
    "DATABASE_MAX_LIFETIME_SECONDS": 5,
    "DATABASE_POOL_SIZE": 4,
    "DRAIN_SECONDS": 1,
    "SHUTDOWN_SECONDS": 10,
}
CONNECTIONS = 2 * 4

MOST_SECONDS = 2 * (DATABASE_TIMEOUT_SECONDS + STATEMENT_TIMEOUT_SECONDS + 1) + 2
"""The longest that an answer may take: a connection, a statement, both once more for a read; and a busy machine."""

RECOVERY_SECONDS = 1
"""After the last fault, requests are answered as if nothing had been."""

TOLERANCE_SECONDS = 2
"""For a machine on which the clients, the servers and the proxies share the processors."""

QUIET_SECONDS = 5
"""How long is looked after that."""

SUCCESSES = {200, 201, 204}
MOST_GROWTH = 1.3


@dataclass(eq=False, repr=False)
class Client(threading.Thread):
    """A client that sends one request after the other, and knows what may be stored under each of its keys."""

    port: int
    chance: random.Random
    ended: threading.Event
    answers: list[tuple[float, float, str, int, str]] = field(default_factory=list)
    """When each began, its seconds, the method, the status, and what was wrong with it."""
    states: dict[str, set[str | None]] = field(default_factory=dict)
    """What may be stored under each ID: texts, or `None`."""
    posted: dict[str, bool] = field(default_factory=dict)
    """The texts that were sent by POST, and whether they were acknowledged."""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        """Send requests until `ended`."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ended.wait(0.02):
            certain = [key for key, texts in self.states.items() if len(texts) == 1]
            method = self.chance.choice(["POST", "PUT", "GET", "DELETE"] if certain else ["POST", "PUT"])
            getattr(self, f"_send_{method.lower()}")(certain)
        self._connection.close()

    def _send_post(self, _certain: list[str]) -> None:
        text = str(uuid.UUID(int=self.chance.getrandbits(128)))
        status, _ = self._ask("POST", "/probes", text)
        self.posted[text] = status == http.HTTPStatus.CREATED

    def _send_put(self, certain: list[str]) -> None:
        key = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        if certain and self.chance.random() < 0.5:
            key = self.chance.choice(certain)
        self._write("PUT", key, str(self.chance.getrandbits(64)))

    def _send_delete(self, certain: list[str]) -> None:
        self._write("DELETE", self.chance.choice(certain), None)

    def _write(self, method: str, key: str, text: str | None) -> None:
        before = self.states.get(key, {None})
        status, _ = self._ask(method, f"/probes/{key}", text)
        # Without a success it may have happened, also later: the key is left alone from then on.
        self.states[key] = {text} if status in SUCCESSES else {*before, text}

    def _send_get(self, certain: list[str]) -> None:
        key = self.chance.choice(certain)
        status, body = self._ask("GET", f"/probes/{key}", None)
        [expected] = self.states[key]
        if status in {200, 404} and (body["text"] if status == http.HTTPStatus.OK else None) != expected:
            self.answers[-1] = (*self.answers[-1][:4], "not what was stored")

    def _ask(self, method: str, path: str, text: str | None) -> tuple[int, Any]:
        body = None if text is None else json.dumps({"text": text})
        headers = {} if text is None else {"Content-Type": "application/json"}
        began, status, fault, received = time.monotonic(), 0, "", b""
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            received, status = response.read(), response.status
            if status == http.HTTPStatus.SERVICE_UNAVAILABLE and response.headers["Retry-After"] != "1":
                fault = "no Retry-After"
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            fault = type(error).__name__
            time.sleep(0.05)
        self.answers.append((began, time.monotonic() - began, method, status, fault))
        return status, json.loads(received or b"null")


class Service(process.Gunicorn):
    """A running service whose log may be left unread for a while."""

    def __init__(self, **options: Any) -> None:
        self.is_read = threading.Event()
        self.is_read.set()
        super().__init__(**options)

    def _read_events(self) -> None:
        for line in self._process.stdout or ():
            self.is_read.wait()
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()


class World:
    """Everything that can break."""

    def __init__(self, stack: ExitStack, chance: random.Random) -> None:
        self.chance = chance
        self.server = stack.enter_context(cluster.primary())
        self.server.ask(f"ALTER ROLE service SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'")
        assert process.run_admin("migrate", DATABASE_URL=self.server.url())[0] == 0
        self.relays = [stack.enter_context(Relay(self.server.address, cluster.PORT))]
        second = ("127.0.0.2", self.relays[0].port)
        self.relays.append(stack.enter_context(Relay(self.server.address, cluster.PORT, listen=second)))
        self.names = stack.enter_context(dnsmasq.names())
        self.names.lead_to("one.internal", "127.0.0.1")
        self.pooler = stack.enter_context(pgbouncer.pgbouncer(self.server.url(), size=CONNECTIONS))
        by_name = f"postgresql://service:{cluster.PASSWORD}@{dnsmasq.NAME}:{self.relays[0].port}/probes"
        self._options: dict[int, dict[str, Any]] = {
            free_port(): {"DATABASE_URL": by_name, "within": self.names.within},
            free_port(): {"DATABASE_URL": self.pooler.url},
        }
        self._stack = stack
        self.lines: list[bytes] = []
        self.services = {port: self._start(port) for port in self._options}
        self.disturbed: dict[int, list[tuple[float, float]]] = {port: [] for port in self.services}
        """From when to when a service may close connections without an answer."""

    def _start(self, port: int) -> Service:
        service = Service(PORT=port, **self._options[port], **SETTINGS)
        self._stack.callback(service.signal, signal.SIGKILL)
        service.wait_for("ready", count=2, seconds=60)
        return service

    @contextmanager
    def disturbing(self) -> Iterator[int]:
        """Choose a service, and note that its connections may be closed."""
        port = self.chance.choice(list(self.services))
        began = time.monotonic()
        self.disturbed[port].append((began, began + 3_600))
        yield port
        self.disturbed[port][-1] = (began, time.monotonic() + 2)

    def faults(self) -> dict[str, Callable[[float], object]]:
        """Return what may happen, by name. Each lasts for about the seconds that it is given."""
        return {
            "server frozen": self.freeze_server,
            "server restarted": lambda _: self.restart_server("fast"),
            "server crashed": lambda _: self.restart_server("immediate"),
            "packets dropped": self.drop_packets,
            "connections killed": lambda _: self.kill_connections(),
            "proxy frozen": lambda seconds: self.freeze_proxy(seconds, after_login=False),
            "proxy frozen after logins": lambda seconds: self.freeze_proxy(seconds, after_login=True),
            "connections forgotten for ever": lambda _: self.relays[0].forget(),
            "connections cut": lambda _: self.relays[0].cut(),
            "connections refused": self.refuse,
            "name server frozen": self.freeze_names,
            "name server away": self.stop_names,
            "name moved": lambda _: self.move_name(),
            "pooler paused": self.pause_pooler,
            "pooler frozen": self.freeze_pooler,
            "pooler reconnects": lambda _: self.pooler.command("RECONNECT"),
            "reload": lambda _: self.reload(),
            "stop and start": lambda _: self.replace(),
            "worker killed": lambda _: self.kill_worker(),
            "log reader asleep": self.leave_log_unread,
            "clients that trickle": self.trickle,
            "clients that reset": lambda _: self.reset(),
            "clients that pile up": self.pile_up,
        }

    def freeze_server(self, seconds: float) -> None:
        """Freeze the processes of the server."""
        with self.server.frozen():
            time.sleep(seconds)

    def restart_server(self, mode: str) -> None:
        """Restart the server."""
        self.server.stop(mode)
        self.server.start()

    def drop_packets(self, seconds: float) -> None:
        """Drop all packets from and to the server."""
        with self.server.cut_off():
            time.sleep(seconds)

    def kill_connections(self) -> None:
        """End all connections, as an administrator does."""
        with suppress(psycopg.OperationalError):  # the server may be away
            self.server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'")

    def freeze_proxy(self, seconds: float, *, after_login: bool) -> None:
        """Have the proxies accept and confirm, and pass nothing on."""
        for relay in self.relays:
            relay.freeze(after_login=after_login)
        time.sleep(seconds)
        for relay in self.relays:
            relay.thaw()

    def refuse(self, seconds: float) -> None:
        """Close each new connection at once."""
        for relay in self.relays:
            relay.refuse()
        time.sleep(seconds)
        for relay in self.relays:
            relay.accept()

    def freeze_names(self, seconds: float) -> None:
        """Have the name server be silent."""
        self.names.freeze()
        time.sleep(seconds)
        self.names.thaw()

    def stop_names(self, seconds: float) -> None:
        """Have the name server be away."""
        self.names.stop()
        time.sleep(seconds)
        self.move_name()

    def move_name(self) -> None:
        """Lead the name to another address."""
        self.names.lead_to("some.internal", self.chance.choice(["127.0.0.1", "127.0.0.2"]))

    def pause_pooler(self, seconds: float) -> None:
        """Have the pooler accept logins, and lend no connection."""

        def pause() -> None:
            with suppress(psycopg.Error):  # resumed meanwhile
                self.pooler.command("PAUSE")  # it waits for transactions

        pausing = threading.Thread(target=pause, daemon=True)
        pausing.start()
        time.sleep(seconds)
        while pausing.is_alive():
            with suppress(psycopg.Error):  # not paused yet
                self.pooler.command("RESUME")
            pausing.join(0.1)
        with suppress(psycopg.Error):  # not paused any more
            self.pooler.command("RESUME")

    def freeze_pooler(self, seconds: float) -> None:
        """Freeze the pooler."""
        self.pooler.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.pooler.process.send_signal(signal.SIGCONT)

    def reload(self) -> None:
        """Replace the workers, by SIGHUP."""
        with self.disturbing() as port:
            service = self.services[port]
            ready = len(service.events_named("ready"))
            service.signal(signal.SIGHUP)
            service.wait_for("ready", count=ready + 2, seconds=60)

    def replace(self) -> None:
        """Stop a service and start another one."""
        with self.disturbing() as port:
            self.services[port].signal(signal.SIGTERM)
            assert self.services[port].wait() == 0
            self.lines += self.services[port].lines
            self.services[port] = self._start(port)

    def kill_worker(self) -> None:
        """Kill a worker."""
        with self.disturbing() as port, suppress(ProcessLookupError, IndexError):
            service = self.services[port]
            ready = len(service.events_named("ready"))
            os.kill(service.workers()[-1], signal.SIGKILL)  # an older one may be leaving already
            service.wait_for("ready", count=ready + 1, seconds=60)

    def leave_log_unread(self, seconds: float) -> None:
        """Have the reader of the log sleep."""
        service = self.services[self.chance.choice(list(self.services))]
        service.is_read.clear()
        time.sleep(seconds)
        service.is_read.set()

    def trickle(self, seconds: float) -> None:
        """Connect fifty clients that never finish a request."""
        with ExitStack() as stack, suppress(OSError):
            sockets = [self._connect(stack) for _ in range(50)]
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                for sock in sockets:
                    with suppress(OSError):
                        sock.sendall(b"P")
                time.sleep(0.3)

    def reset(self) -> None:
        """Connect fifty clients that reset their connections."""
        with ExitStack() as stack, suppress(OSError):
            for _ in range(50):
                sock = self._connect(stack)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(b"GET /probes HTTP/1.1\r\nHost: a\r\n\r\n")

    def pile_up(self, seconds: float) -> None:
        """Connect two hundred clients that do not read."""
        with ExitStack() as stack, suppress(OSError):
            for _ in range(200):
                self._connect(stack).sendall(b"GET /probes HTTP/1.1\r\nHost: a\r\n\r\n")
            time.sleep(seconds)

    def _connect(self, stack: ExitStack) -> socket.socket:
        return stack.enter_context(
            socket.create_connection(("127.0.0.1", self.chance.choice(list(self.services))), timeout=10)
        )

    def footprint(self) -> dict[str, int]:
        """Return open files and resident memory, in KB, of the workers of each service, on average of a worker."""
        found: dict[str, int] = {}
        for port, service in self.services.items():
            pids = service.workers()
            files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
            sizes = [int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) for pid in pids]
            found |= {f"files of {port}": files // len(pids), f"memory of {port}": sum(sizes) // len(pids)}
        return found


def run(seconds: float, seed: int) -> list[str]:
    """Run for `seconds`, and return what did not hold."""
    chance = random.Random(seed)
    print(f"chaos: SECONDS={seconds:g} SEED={seed}", flush=True)
    with ExitStack() as stack:
        world = World(stack, random.Random(seed))
        ended = threading.Event()
        clients = [
            Client(port, random.Random(f"{seed} {port} {number}"), ended)
            for number in range(6)
            for port in world.services
        ]
        for client in clients:
            client.start()
        time.sleep(3)
        before = world.footprint()
        began = time.monotonic()
        happened = _nemesis(world, chance, began + seconds)
        quiet = time.monotonic()
        time.sleep(RECOVERY_SECONDS + TOLERANCE_SECONDS + QUIET_SECONDS)
        ended.set()
        for client in clients:
            client.join()
        print(f"chaos: {dict(happened.most_common())}", flush=True)
        world.server.wait_until_reachable()
        return [*_judge_answers(world, clients, quiet), *_judge_rows(world, clients), *_judge_leaks(world, before)]


def _nemesis(world: World, chance: random.Random, ends: float) -> Counter[str]:
    """Begin faults until `ends`, up to three at once and each once at a time; return when all are over."""
    faults = world.faults()
    running: dict[str, threading.Thread] = {}
    happened: Counter[str] = Counter()
    broken: list[BaseException] = []

    def inflict(name: str, seconds: float) -> None:
        try:
            faults[name](seconds)
        except BaseException as error:  # noqa: BLE001 - shown at the end
            broken.append(error)

    groups = {name: name.split()[0] for name in faults} | dict.fromkeys(
        ("packets dropped", "connections killed", "pooler reconnects"), "server"
    )
    groups |= dict.fromkeys(("pooler paused", "pooler frozen", "pooler reconnects"), "pooler")
    groups |= dict.fromkeys(("reload", "stop and start", "worker killed", "log reader asleep"), "process")
    while time.monotonic() < ends and not broken:
        running = {name: thread for name, thread in running.items() if thread.is_alive()}
        busy = {groups[name] for name in running}
        free = [name for name in faults if groups[name] not in busy]
        if len(running) < 3 and free:
            # Stops meet requests that begin within a hair's breadth, so they need more attempts than the others.
            often = [name for name in free if name in {"reload", "stop and start"}] * 4
            name, lasts = chance.choice(free + often), chance.choice([0.3, 1, 3, 7])
            print(f"chaos: {time.monotonic() - ends:8.1f} s {name}, {lasts} s", flush=True)
            happened[name] += 1
            running[name] = threading.Thread(target=inflict, args=[name, lasts], daemon=True)
            running[name].start()
        time.sleep(chance.choice([0.1, 0.5, 2]))
    for thread in running.values():
        thread.join()
    if broken:
        raise broken[0]
    return happened


def _judge_answers(world: World, clients: list[Client], quiet: float) -> Iterator[str]:
    counted: Counter[str] = Counter()
    last = quiet
    for client in clients:
        for began, seconds, method, status, fault in client.answers:
            counted[f"{status} {fault}".strip()] += 1
            may_close = any(a <= began + seconds and began <= b for a, b in world.disturbed[client.port])
            where = f"{method} at {began - quiet:.1f} s on {client.port}: {status} {fault}, {seconds:.1f} s"
            is_failure = bool(fault) or status not in {*SUCCESSES, 404}
            if fault and not (status == 0 and may_close):
                yield f"an answer that is not documented: {where}"
            if status not in {*SUCCESSES, 404, 503, 0}:
                yield f"a status that is not documented: {where}"
            if seconds > MOST_SECONDS:
                yield f"an answer that took too long: {where}"
            if is_failure:
                last = max(last, began + seconds)
                if began > quiet + RECOVERY_SECONDS + TOLERANCE_SECONDS:
                    yield f"a failure long after the last fault: {where}"
        if not any(began > quiet + RECOVERY_SECONDS + TOLERANCE_SECONDS for began, *_ in client.answers):
            yield f"a client on {client.port} gets no answers any more"
    print(f"chaos: answers {dict(counted.most_common())}, the last failure {last - quiet:.2f} s after the last fault")


def _judge_rows(world: World, clients: list[Client]) -> Iterator[str]:
    rows = world.server.ask("SELECT id::text, text FROM probes")
    texts, stored = Counter(text for _, text in rows), dict(rows)
    writes = 0
    for client in clients:
        for text, is_acknowledged in client.posted.items():
            writes += is_acknowledged
            if texts[text] > 1 or texts[text] < is_acknowledged:
                yield f"POST of {text}, {'' if is_acknowledged else 'not '}acknowledged, is there {texts[text]} times"
        for key, possible in client.states.items():
            writes += len(possible) == 1
            if stored.get(key) not in possible:
                yield f"{key} is {stored.get(key)!r}, not one of {possible}"
    print(f"chaos: {writes} acknowledged states compared with {len(rows)} rows")


def _judge_leaks(world: World, before: dict[str, int]) -> Iterator[str]:
    lines = world.lines + [line for service in world.services.values() for line in service.lines]
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            yield f"a line that is not JSON: {line!r}"
    for service in world.services.values():
        if service.stderr:
            yield f"something on stderr: {service.stderr!r}"
    with suppress(TimeoutError):
        wait_until(lambda: world.server.sessions() <= 2 * CONNECTIONS, 10)
    if world.server.sessions() > 2 * CONNECTIONS + 1:
        yield f"{world.server.sessions()} connections to the server, where {2 * CONNECTIONS} should be"
    after = world.footprint()
    print(f"chaos: {len(lines)} lines of JSON; before {before}; after {after}")
    for name, amount in after.items():
        limit = before[name] * MOST_GROWTH + (20 if name.startswith("files") else 10_000)
        if amount > limit:
            yield f"{name}: {amount}, before {before[name]}"


def main() -> int:
    """Run as the environment says, and return the exit status."""
    seconds = float(os.environ.get("SECONDS") or 120)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    try:
        violations = run(seconds, seed)
    except psycopg.Error as error:
        violations = [f"the world broke: {error}"]
    for violation in violations[:30]:
        print(f"chaos: VIOLATED: {violation}")
    print(f"chaos: {len(violations)} violations; to repeat: make chaos SECONDS={seconds:g} SEED={seed}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
