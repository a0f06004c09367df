"""PostgreSQL: a primary, a synchronous standby in another zone, and the name that leads to whichever is the primary."""

import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from deploy.rehearse import names, settings
from deploy.rehearse.docker import StageError, docker, logs, until

IMAGE = "postgres:18"
START_SECONDS = 60
DATA = "/var/lib/postgresql"

STANDBY = """
install --directory --owner=postgres --mode=700 "$PGDATA"
become="setpriv --reuid=postgres --regid=postgres --init-groups"
$become pg_basebackup --dbname="host=$0 user=service password=$1" \
    --pgdata="$PGDATA" --checkpoint=fast --write-recovery-conf
shift
exec $become "$@" --cluster_name=standby
"""
"""Copies the primary, then follows it as `standby`. The first two arguments are the primary's address and the password.
"""

COUNT = """
SELECT count(*) FROM pg_stat_activity
WHERE usename = 'service' AND backend_type = 'client backend' AND application_name <> 'psql' \\watch 0.5
"""
"""Counts the connections of all processes of the service, twice a second."""


@dataclass
class Server:
    """A PostgreSQL server."""

    container: str
    zone: str
    address: str
    """On the network between the zones."""


def start_name_server(stage: str, network: str, image: str) -> str:
    """Start the name server of a stage and return its address. `image` is any that has Python."""
    container = f"{stage}-names"
    program = Path(names.__file__).read_text(encoding="utf-8")
    # Port 53 is below 1024, so it needs root, as any name server does when it starts.
    options = [f"--name={container}", f"--label=rehearsal={stage}", f"--network={network}", "--user=0"]
    options.append("--no-healthcheck")  # the image's own one asks the service
    docker("run", "--detach", *options, image, "python", "-c", program, settings.DATABASE_NAME)
    return address(container, network)


def move_name(stage: str, server: Server) -> None:
    """Let the database's name lead to `server`."""
    answer = f"{server.container}.internal {server.address}"
    # A file is replaced by a rename, so that no query meets half of it.
    docker("exec", f"{stage}-names", "sh", "-c", f"echo {answer} > /tmp/new && mv /tmp/new {names.ANSWER}")


def start_primary(stage: str, zone: str, network: str, connections: int) -> Server:
    """Start a PostgreSQL server that takes writes from `connections` connections at most.

    Raises:
        StageError: It does not start.
    """
    options = ["--env=POSTGRES_USER=service", f"--env=POSTGRES_PASSWORD={settings.PASSWORD}"]
    server = _start(stage, "1", zone, network, [*options, IMAGE, *_configuration(connections)])
    # The entrypoint starts a server on a socket first, to prepare it; the real one listens on TCP.
    if not until(lambda: _answers(server), START_SECONDS):
        raise StageError("the database does not start")
    ask(server, "SELECT 1")
    docker(
        "exec", server.container, "sh", "-c", 'echo "host replication all all scram-sha-256" >> "$PGDATA/pg_hba.conf"'
    )
    ask(server, "SELECT pg_reload_conf()")
    return server


def start_standby(primary: Server, stage: str, number: int, zone: str, *, network: str, connections: int) -> Server:  # noqa: PLR0913 - after whom, and where
    """Start a server that follows `primary`. From then on a write is acknowledged only when both servers have it.

    Raises:
        StageError: It does not follow the primary.
    """
    command = ["--entrypoint=sh", IMAGE, "-ec", STANDBY, primary.address, settings.PASSWORD]
    server = _start(stage, str(number), zone, network, [*command, *_configuration(connections)])
    following = "SELECT state FROM pg_stat_replication WHERE application_name = 'standby'"
    if not until(lambda: ask(primary, following) == "streaming", START_SECONDS):
        raise StageError(f"the standby does not follow the primary: {logs(server.container)}")
    set_synchronous(primary, "standby")
    if not until(lambda: ask(primary, "SELECT sync_state FROM pg_stat_replication") == "sync", START_SECONDS):
        raise StageError("the standby is not synchronous")
    # Once it is the primary it has no standby of its own, so it must wait for none.
    set_synchronous(server, "")
    return server


def set_synchronous(primary: Server, standbys: str) -> None:
    """Let the primary wait for the standbys of these names before it acknowledges a write."""
    ask(primary, f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'")
    ask(primary, "SELECT pg_reload_conf()")


def promote(standby: Server) -> None:
    """Make a standby the primary."""
    docker("exec", "--user=postgres", standby.container, "sh", "-c", 'pg_ctl --pgdata="$PGDATA" promote')


def stop(primary: Server) -> None:
    """Stop a primary in order: it sends all that was written to its standby before it ends."""
    docker("kill", "--signal=INT", primary.container)  # to PostgreSQL this is a fast stop, and not a crash
    docker("wait", primary.container)


def sees(standby: Server, primary: Server) -> bool:
    """Return whether the primary responds to the standby within a second."""
    try:
        docker("exec", standby.container, "pg_isready", f"--host={primary.address}", "--timeout=1")
    except StageError:
        return False
    return True


def ask(server: Server, statement: str) -> str:
    """Return the result of a statement, as text, asked by the administrator inside the container.

    Raises:
        StageError: The statement failed.
    """
    psql = ["psql", "--username=service", "--dbname=service", "--no-align", "--tuples-only", "--command", statement]
    return docker("exec", server.container, *psql)


def address(container: str, network: str) -> str:
    """Return the address of a container on a network.

    Raises:
        StageError: It has none: it ended, or is not connected.
    """
    form = f'{{{{with index .NetworkSettings.Networks "{network}"}}}}{{{{.IPAddress}}}}{{{{end}}}}'
    if found := docker("inspect", f"--format={form}", container):
        return found
    raise StageError(f"{container} has no address in {network}: {logs(container)}")


class Watch:
    """Counts the service's connections to the primary all the time, and remembers the peak."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def follow(self, server: Server) -> None:
        """Watch this server from now on."""
        self.close()
        psql = ["psql", "--username=service", "--dbname=service", "--no-align", "--tuples-only", "--quiet"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            ["docker", "exec", "--interactive", server.container, *psql],  # noqa: S607 - wherever the machine has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        if self._process.stdin:
            self._process.stdin.write(COUNT)
            self._process.stdin.flush()
        self._thread = threading.Thread(target=self._read, args=[self._process], daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        if self._process and self._thread:
            self._process.kill()
            self._process.wait()
            self._thread.join()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process = self._thread = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if line.strip().isdigit():
                self.now = int(line)
                self.peak = max(self.peak, self.now)


def _start(stage: str, number: str, zone: str, network: str, arguments: list[str]) -> Server:
    container = f"{stage}-postgres-{number}"
    # In memory: the rehearsal is about copies of the data, not about disks.
    options = [
        f"--name={container}",
        f"--label=rehearsal={stage}",
        f"--label=zone={zone}",
        f"--network={network}",
        f"--tmpfs={DATA}",
    ]
    docker("run", "--detach", *options, *arguments)
    return Server(container, zone, address(container, network))


def _configuration(connections: int) -> list[str]:
    values = {
        "listen_addresses": "*",
        "max_connections": connections,
        "shared_buffers": "64MB",
        "max_wal_size": "128MB",
    }
    return ["postgres", *(f"--{name}={value}" for name, value in values.items())]


def _answers(server: Server) -> bool:
    try:
        return "accepting" in docker("exec", server.container, "pg_isready", "--host=127.0.0.1", "--username=service")
    except StageError:
        return False
