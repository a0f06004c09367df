"""The world of `chaos.py`: two services, what they depend on, and everything that can break."""

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from chassis.testing import dnsmasq
from chassis.testing.process import connections_of, free_port
from chassis.testing.relay import Relay
from chassis.tests.faults import clients, cluster, pgbouncer
from chassis.tests.faults.load import Load
from chassis.tests.probe import process

DATABASE_TIMEOUT_SECONDS = STATEMENT_TIMEOUT_SECONDS = 2
LIFETIME_SECONDS, POOL_SIZE = 5, 4
SETTINGS: dict[str, Any] = {
    "DATABASE_TIMEOUT_SECONDS": DATABASE_TIMEOUT_SECONDS,
    "STATEMENT_TIMEOUT_SECONDS": STATEMENT_TIMEOUT_SECONDS,
    "DATABASE_MAX_LIFETIME_SECONDS": LIFETIME_SECONDS,
    "DATABASE_POOL_SIZE": POOL_SIZE,
    "SHUTDOWN_SECONDS": 20,
}
CONNECTIONS = 2 * POOL_SIZE


class World:
    """Everything that can break."""

    def __init__(self, stack: ExitStack, chance: random.Random, folder: Path | None) -> None:
        """Start everything. The code of the services is in `folder`, or it is the current one."""
        self.chance, self._folder = chance, folder
        self.server = stack.enter_context(cluster.primary())
        self.spare = stack.enter_context(cluster.machine("postgres-2.internal"))
        self.server.ask(f"ALTER ROLE service SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'")
        assert process.run_admin("migrate", DATABASE_URL=self.server.url())[0] == 0
        self.relays = [stack.enter_context(Relay(self.server.address, cluster.PORT))]
        second = ("127.0.0.2", self.relays[0].port)
        self.relays.append(stack.enter_context(Relay(self.server.address, cluster.PORT, listen=second)))
        self.names = stack.enter_context(dnsmasq.names())
        self.names.lead_to("one.internal", "127.0.0.1")
        self.ways = [*self.relays, stack.enter_context(Relay(self.server.address, cluster.PORT))]
        """All ways to the server: by its name, and the pooler's."""
        at_relay = self.ways[-1].stands_for(self.server.url())
        self.pooler = stack.enter_context(pgbouncer.pgbouncer(at_relay, size=CONNECTIONS))
        # Without TLS, so that the relays see when a login has succeeded.
        by_name = f"postgresql://service:{cluster.PASSWORD}@{dnsmasq.NAME}:{self.relays[0].port}/probes?sslmode=disable"
        self._options: dict[int, dict[str, Any]] = {
            free_port(): {"DATABASE_URL": by_name, "within": self.names.within, "DRAIN_SECONDS": 1},
            free_port(): {"DATABASE_URL": self.pooler.url, "DRAIN_SECONDS": 0},
        }
        at = (self.relays[0].port, urlsplit(self.pooler.url).port or 0)
        self._database_ports = dict(zip(self._options, at, strict=True))
        self.crowds: list[tuple[int, Load]] = []
        """The clients that were there when a service stopped, with its port."""
        self._stack = stack
        self.lines: list[bytes] = []
        self.services = {port: self._start(port) for port in self._options}
        self.disturbed: dict[int, list[tuple[float, float]]] = {port: [] for port in self.services}
        """From when to when a service may close connections without an answer."""

    def _start(self, port: int) -> process.Unread:
        service = process.Unread(PORT=port, cwd=self._folder, **self._options[port], **SETTINGS)
        self._stack.push(service)  # which ends it
        service.wait_for("ready", count=2, seconds=60)
        return service

    def any_port(self) -> int:
        """Choose a service, by its port."""
        return self.chance.choice(list(self.services))

    @contextmanager
    def disturbing(self) -> Iterator[int]:
        """Choose a service, and note that its connections may be closed."""
        port = self.any_port()
        began = time.monotonic()
        self.disturbed[port].append((began, began + 3_600))
        yield port
        self.disturbed[port][-1] = (began, time.monotonic() + 5)  # old workers close idle connections until then

    def look_after(self) -> bool:
        """Start the pooler again if it has ended by itself, as a platform does. Return whether it had."""
        if words := self.pooler.last_words():
            print(f"chaos: the pooler has ended: {words}", flush=True)
            self.pooler.start()
        return bool(words)

    @contextmanager
    def crowd(self, port: int) -> Iterator[None]:
        """Have many clients send requests without a pause: a stop meets some that have just begun."""
        load = Load(port, clients=24, pause_seconds=0.001, timeout_seconds=60, first=100 * (1 + len(self.crowds)))
        self.crowds.append((port, load))
        with load:
            load.wait_for(200)
            yield

    def faults(self) -> dict[str, Callable[[float], object]]:
        """Return what may happen, by name. Each lasts for about the seconds that it is given."""
        return {
            "server frozen": self.freeze_server,
            "server restarted": lambda _: self.restart_server("fast"),
            "server crashed": lambda _: self.restart_server("immediate"),
            "server failed over": lambda _: self.fail_over(),
            "link slow": self.slow_link,
            "packets dropped": self.drop_packets,
            "connections killed": lambda _: self.kill_connections(),
            "proxy frozen": lambda seconds: self.freeze_proxy(seconds, after_login=False),
            "proxy frozen after logins": lambda seconds: self.freeze_proxy(seconds, after_login=True),
            "proxy frozen and replaced": lambda _: self.replace_proxy(7),  # all attempts to connect hang by then
            "connections forgotten for ever": lambda _: self.forget(self.relays[:1]),
            "connections cut": lambda _: self.relays[0].cut(),
            "connections refused": self.refuse,
            "name server frozen": self.freeze_names,
            "name server slow": self.slow_names,
            "name server away": self.stop_names,
            "name moved": lambda _: self.move_name(),
            "pooler paused": self.pause_pooler,
            "pooler frozen": self.freeze_pooler,
            "pooler killed": lambda _: self.restart_pooler(),
            "pooler reconnects": lambda _: self.pooler.command("RECONNECT"),
            "reload": lambda _: self.reload(),
            "stop and start": lambda _: self.replace(),
            "worker killed": lambda _: self.kill_worker(),
            "log reader asleep": self.leave_log_unread,
            "clients that trickle": lambda seconds: clients.trickle(self.any_port(), seconds),
            "clients that reset": lambda _: clients.reset(self.any_port()),
            "clients that pile up": lambda seconds: clients.pile_up(self.any_port(), seconds),
        }

    def freeze_server(self, seconds: float) -> None:
        """Freeze the processes of the server."""
        with self.server.frozen():
            time.sleep(seconds)

    def restart_server(self, mode: str) -> None:
        """Restart the server."""
        self.server.stop(mode)
        self.server.start()

    def fail_over(self) -> None:
        """Have a new standby confirm every write, then crash the primary and promote the standby."""
        self.spare.follow(self.server)
        self.server.stop("immediate")
        self.spare.promote()
        self.server, self.spare = self.spare, self.server
        for relay in self.ways:
            relay.lead_to(self.server.address, cluster.PORT)

    def slow_link(self, seconds: float) -> None:
        """Have each packet to the server take a fifth of a second."""
        for relay in self.ways:
            relay.delay_seconds = 0.2
        time.sleep(seconds)
        for relay in self.ways:
            relay.delay_seconds = 0

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

    def replace_proxy(self, seconds: float) -> None:
        """Have the proxies be silent after logins, and then be new ones: the connections of then stay silent."""
        for relay in self.relays:
            relay.freeze(after_login=True)
        time.sleep(seconds)
        self.forget(self.relays)

    def forget(self, relays: list[Relay]) -> None:
        """Have nobody answer on the connections that there are. One that was idle fails its first request, if any."""
        for relay in relays:
            relay.forget()
        time.sleep(LIFETIME_SECONDS)  # until there is none of them

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

    def slow_names(self, seconds: float) -> None:
        """Have the name server answer up to 0.8 s late."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.freeze_names(0.8)

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
        console = self.pooler.console()

        def pause() -> None:
            with suppress(psycopg.Error):  # it waits for transactions, and its connection is closed meanwhile
                console.execute(b"PAUSE")

        pausing = threading.Thread(target=pause, daemon=True)
        pausing.start()
        time.sleep(seconds)
        # A PAUSE that still waits ends with its connection. After RESUME it would wait for ever.
        with suppress(OSError), socket.socket(fileno=os.dup(console.fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        pausing.join()
        console.close()
        with suppress(psycopg.Error):  # not paused any more
            self.pooler.command("RESUME")

    def restart_pooler(self) -> None:
        """End the pooler, and start another one."""
        self.pooler.process.kill()
        self.pooler.process.wait()
        self.pooler.start()

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
            with self.crowd(port):
                service.signal(signal.SIGHUP)
                service.wait_for("ready", count=ready + 2, seconds=60)

    def replace(self) -> None:
        """Stop a service and start another one."""
        with self.disturbing() as port:
            with self.crowd(port):
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
        service = self.services[self.any_port()]
        service.is_read.clear()
        time.sleep(seconds)
        service.is_read.set()

    def footprint(self) -> dict[str, int]:
        """Return open files, resident memory in KB, and connections to the database, of a worker of each service."""
        found: dict[str, int] = {}
        for port, service in self.services.items():
            pids = service.workers()
            files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
            sizes = [int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) for pid in pids]
            found |= {f"files of {port}": files // len(pids), f"memory of {port}": sum(sizes) // len(pids)}
            found[f"connections of {port}"] = max(connections_of(pid, self._database_ports[port]) for pid in pids)
        return found
