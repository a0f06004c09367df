"""PostgreSQL servers that a test may stop, cut off and promote: processes in containers that outlive them.

The container is the machine: it keeps its address while the server in it is restarted, and what is done to its network
ends with it. Each server has a certificate of a private CA for its own name, `Server.host`.
"""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from chassis.dev import postgres
from chassis.testing import containers
from chassis.testing.process import wait_until

PASSWORD = "only-for-this-test"  # noqa: S105 - it opens nothing else
PORT = 5432

needs_docker = containers.needed
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ,
    reason="only root may give a process its own resolver and drop the packets of a container",
)

CERTIFICATES = """
umask 077 && cd /data && mkdir tls && cd tls
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=a private CA" \
    -keyout ca.key -out ca.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout server.key -out server.csr
printf 'subjectAltName=DNS:%s' "$1" > server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
"""

PRIMARY = """
umask 077 && echo "$1" > /data/password
initdb --pgdata=/data/db --username=postgres --pwfile=/data/password --auth-local=trust --no-sync \
    --set=listen_addresses='*' --set=shared_buffers=32MB --set=max_wal_size=128MB \
    --set=ssl=on --set=ssl_cert_file=/data/tls/server.pem --set=ssl_key_file=/data/tls/server.key
printf 'host %s all all scram-sha-256\\n' all replication | tee -a /data/db/pg_hba.conf
"""


def run(*command: str) -> str:
    """Return the output of a command that succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass
class Server:
    """A PostgreSQL with a database `probes`, which belongs to the role `service`."""

    container: str
    address: str
    """Of the container, on the network that Docker calls `bridge`."""
    host: str
    """The name in its certificate."""

    def url(self, host: str | None = None, user: str = "service", **parameters: str) -> str:
        """Return the URL of the database, at the server's address or under another `host`."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        return f"postgresql://{user}:{PASSWORD}@{host or self.address}:{PORT}/probes{query}"

    def ask(self, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement, asked by the administrator over a connection of its own."""
        with self.connect() as conn:
            cursor = conn.execute(statement.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the administrator's."""
        return psycopg.connect(
            self.url(user="postgres"), autocommit=True, connect_timeout=10, application_name="administrator"
        )

    def sessions(self) -> int:
        """How many connections of the service there are."""
        [(count,)] = self.ask("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'service%'")
        return int(count)

    def start(self) -> float:
        """Start the server; says when it was first there for everybody, in seconds of `time.monotonic`."""
        self.execute("pg_ctl", "--pgdata=/data/db", "--no-wait", "--log=/data/log", "start")
        return self.wait_until_reachable()

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `fast` ends what goes on in order, `immediate` is a crash."""
        self.execute("pg_ctl", "--pgdata=/data/db", f"--mode={mode}", "stop")

    def promote(self) -> None:
        """Have a standby be a primary."""
        self.execute("pg_ctl", "--pgdata=/data/db", "promote")

    def follow(self, primary: "Server") -> None:
        """Become a standby of `primary`, which from then on confirms a write once this server has it."""
        self.execute("rm", "-rf", "/data/db")
        source = f"host={primary.address} user=postgres password={PASSWORD} application_name=standby"
        self.execute(
            "pg_basebackup", f"--dbname={source}", "--pgdata=/data/db", "--checkpoint=fast", "--write-recovery-conf"
        )
        self.execute("pg_ctl", "--pgdata=/data/db", "--log=/data/log", "start")
        primary.configure("synchronous_standby_names", "standby")
        wait_until(lambda: primary.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def configure(self, name: str, value: str) -> None:
        """Change a setting and tell the server, which heeds it within moments."""
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")

    def wait_until_reachable(self) -> float:
        """Wait for a server that takes connections; says when that was, in seconds of `time.monotonic`."""

        def connects() -> bool:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(connects)
        return time.monotonic()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Return a network that swallows every packet from and to the server, and reports nothing."""
        # In the container's own namespace, so that no rule outlives it.
        namespace = f"--net=/proc/{run('docker', 'inspect', '--format={{.State.Pid}}', self.container)}/ns/net"
        with ExitStack() as stack:
            for chain, port in (("INPUT", "--dport"), ("OUTPUT", "--sport")):
                rule = (chain, "-p", "tcp", port, str(PORT), "-j", "DROP")
                run("nsenter", namespace, "iptables", "--wait", "-I", *rule)
                stack.callback(run, "nsenter", namespace, "iptables", "--wait", "-D", *rule)
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Have no process of the server go on, while the kernel accepts connections and confirms packets."""
        pause = ["docker", "pause", self.container]
        # The engine cannot freeze a process that is just being made, and then says that it was unable to.
        wait_until(lambda: subprocess.run(pause, capture_output=True, check=False, timeout=60).returncode == 0)
        try:
            yield
        finally:
            run("docker", "unpause", self.container)

    def execute(self, *command: str, user: str = "postgres") -> str:
        """Return the output of a command that succeeds in the container."""
        return run("docker", "exec", f"--user={user}", self.container, *command)


@contextmanager
def primary(host: str = "postgres-1.internal") -> Iterator[Server]:
    """Return a new server that takes reads and writes."""
    with machine(host) as server:
        server.execute("sh", "-ec", PRIMARY, "sh", PASSWORD)
        server.execute("pg_ctl", "--pgdata=/data/db", "--log=/data/log", "start")
        server.execute("psql", "--quiet", "--command", f"CREATE ROLE service LOGIN PASSWORD '{PASSWORD}'")
        server.execute("psql", "--quiet", "--command", "CREATE DATABASE probes OWNER service")
        yield server


@contextmanager
def standby(of: Server, host: str = "postgres-2.internal") -> Iterator[Server]:
    """Return a new standby of the primary `of`, which from then on confirms a write once the standby has it."""
    with machine(host) as server:
        server.follow(of)
        yield server


@contextmanager
def second_address(server: Server) -> Iterator[str]:
    """Another address at which `server` can be reached, on a network of its own; what comes over it shows there."""
    network = f"test-{uuid.uuid4().hex[:12]}"
    run("docker", "network", "create", network)
    try:
        run("docker", "network", "connect", network, server.container)
        yield run(
            "docker",
            "inspect",
            f"--format={{{{(index .NetworkSettings.Networks {network!r}).IPAddress}}}}".replace("'", '"'),
            server.container,
        )
    finally:
        run("docker", "network", "disconnect", "--force", network, server.container)
        run("docker", "network", "rm", network)


def certificate_authority(server: Server, folder: Path) -> Path:
    """Return a file in `folder` with the certificate of the private CA that vouches for `server`."""
    path = folder / f"{server.host}.pem"
    path.write_text(server.execute("cat", "/data/tls/ca.pem"))
    return path


@contextmanager
def machine(host: str) -> Iterator[Server]:
    """Return a container in which nothing runs yet, with a folder `/data` in memory and a certificate for `host`."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    run(
        "docker",
        "run",
        "--detach",
        "--rm",
        "--init",
        f"--name={name}",
        "--tmpfs=/data",
        "--entrypoint=sleep",
        postgres.IMAGE,
        "infinity",
    )
    try:
        address = run("docker", "inspect", "--format={{.NetworkSettings.Networks.bridge.IPAddress}}", name)
        server = Server(name, address, host)
        server.execute("chown", "postgres", "/data", user="root")
        server.execute("sh", "-ec", CERTIFICATES, "sh", host)
        yield server
    finally:
        run("docker", "rm", "--force", "--volumes", name)
