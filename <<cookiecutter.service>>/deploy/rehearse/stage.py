"""The stage of a rehearsal: images, zones with a network between them, the database and the load balancer."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from deploy.rehearse import balancer, database, settings
from deploy.rehearse.balancer import Balancer
from deploy.rehearse.database import Server, Watch
from deploy.rehearse.docker import StageError, docker, logs, until

T = TypeVar("T")

REMOVE_SECONDS = 60
"""Timeout until everything is removed."""

ZONES = "abcdef"
"""Names of zones."""

HARDENED = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--no-healthcheck"]
"""What a task may not do. ECS ignores the health check of the image; the load balancer's decides."""


@dataclass
class Stage:
    """The parts of one rehearsal, under a name of its own. `remove` leaves nothing of them."""

    name: str
    zones: list[str]
    most_tasks: int
    """How many tasks of a release there may be."""
    name_server: str = ""
    """Its address."""
    cut: set[str] = field(default_factory=set)
    """Zones whose network is gone."""
    watch: Watch = field(default_factory=Watch)
    started_balancer: Balancer | None = None
    started_primary: Server | None = None
    standby: Server | None = None
    servers: int = 1
    """How many database servers there have been."""

    @property
    def balancer(self) -> Balancer:
        """The load balancer, which must have been started."""
        return _started(self.started_balancer)

    @property
    def primary(self) -> Server:
        """The database's primary, which must have been started."""
        return _started(self.started_primary)

    @property
    def between(self) -> str:
        """The network between the zones, by which tasks reach the database."""
        return f"{self.name}-between"

    @property
    def connections(self) -> int:
        """What the database server allows: the service's budget, and what is reserved."""
        return settings.budget(self.most_tasks) + settings.RESERVED_CONNECTIONS

    def network(self, zone: str) -> str:
        """Return the network of a zone."""
        return f"{self.name}-zone-{zone}"

    def image(self, release: str) -> str:
        """Return the tag of a release's image. It is given once and never moved."""
        return f"{self.name}:{release}"

    def release(self, colour: str) -> str:
        """Return what a release calls itself."""
        return f"{self.name}-{colour}"


def new(zones: int, most_tasks: int) -> Stage:
    """Return a stage of which nothing exists yet."""
    return Stage(f"{settings.SERVICE}-rehearsal-{os.urandom(3).hex()}", list(ZONES[:zones]), most_tasks)


def build(stage: Stage, colour: str, changes: str) -> None:
    """Build the image of a release from the service's Dockerfile. `changes` are further lines for it."""
    tag = stage.image(colour)
    base = f"{tag}-unchanged" if changes else tag
    docker("build", "--quiet", f"--build-arg=RELEASE={stage.release(colour)}", f"--tag={base}", str(settings.ROOT))
    if changes:
        docker("build", "--quiet", f"--tag={tag}", "-", given=f"FROM {base}\n{changes}\n")


def start(stage: Stage, port: int, test_port: int) -> None:
    """Start the networks, the name server, the database with the schema of blue, and the load balancer.

    Raises:
        StageError: One of them does not start.
    """
    for network in (stage.between, *(stage.network(zone) for zone in stage.zones)):
        docker("network", "create", f"--label=rehearsal={stage.name}", network)
    stage.name_server = database.start_name_server(stage.name, stage.between, stage.image("blue"))
    stage.started_primary = database.start_primary(stage.name, stage.zones[0], stage.between, stage.connections)
    database.move_name(stage.name, stage.primary)
    stage.watch.follow(stage.primary)
    migrate(stage, "blue")
    if len(stage.zones) > 1:
        add_standby(stage, stage.zones[1])
    networks = [stage.network(zone) for zone in stage.zones]
    stage.started_balancer = balancer.start(stage.name, networks, port, test_port)
    if not until(lambda: balancer.is_listening(stage.balancer), settings.INSTALL_SECONDS):
        raise StageError(f"the load balancer does not start: {logs(stage.balancer.container)}")


def service_options(stage: Stage) -> list[str]:
    """Return the options of `docker run` for a process of the service: its configuration, and what it may not do."""
    url = f"postgresql://service:{settings.PASSWORD}@{settings.DATABASE_NAME}/service"
    variables = {**settings.VARIABLES, "DATABASE_URL": url, "URL_PREFIX": settings.PREFIX}
    environment = [f"--env={name}={value}" for name, value in variables.items()]
    return [f"--label=rehearsal={stage.name}", f"--dns={stage.name_server}", *environment, *HARDENED]


def migrate(stage: Stage, colour: str) -> None:
    """Bring the schema up to date by a one-off process of a release.

    Raises:
        StageError: The migration failed.
    """
    command = [stage.image(colour), "python", "-m", "service.admin", "migrate"]
    docker("run", "--rm", f"--network={stage.between}", *service_options(stage), *command)


def add_standby(stage: Stage, zone: str) -> None:
    """Start a synchronous standby in a zone.

    Raises:
        StageError: It does not follow the primary.
    """
    stage.servers += 1
    stage.standby = database.start_standby(
        stage.primary, stage.name, stage.servers, zone, network=stage.between, connections=stage.connections
    )


def promote_standby(stage: Stage) -> Server:
    """Make the standby the primary and let the name lead to it. Return the server that was the primary.

    Raises:
        StageError: There is no standby, or it does not become the primary.
    """
    before, stage.started_primary, stage.standby = stage.primary, _started(stage.standby), None
    database.promote(stage.primary)
    database.move_name(stage.name, stage.primary)
    stage.watch.follow(stage.primary)
    return before


def cut_off(stage: Stage, zone: str) -> None:
    """Take the network away from every container in a zone, at once."""
    stage.cut.add(zone)
    networks = (stage.network(zone), stage.between)
    names = docker("ps", f"--filter=label=rehearsal={stage.name}", f"--filter=label=zone={zone}", "--format={{.Names}}")
    with ThreadPoolExecutor() as pool:
        for each in [pool.submit(_disconnect, network, name) for name in names.split() for network in networks]:
            each.result()


def restore(stage: Stage, zone: str) -> None:
    """Give a zone its network back. What was in it is removed first: all of it was replaced meanwhile."""
    inside = docker("ps", "--all", "--quiet", f"--filter=label=rehearsal={stage.name}", f"--filter=label=zone={zone}")
    if inside:
        docker("rm", "--force", "--volumes", *inside.split())
    stage.cut.discard(zone)


def remove(stage: Stage) -> None:
    """Remove everything and check that it is gone.

    Raises:
        StageError: Something is left.
    """
    stage.watch.close()
    deadline = time.monotonic() + REMOVE_SECONDS
    # More than once: a command that was interrupted may have asked for a container that appears only now.
    while True:
        if containers := _left(stage, "ps", "--all"):
            docker("rm", "--force", "--volumes", *containers)
        if networks := _left(stage, "network", "ls"):
            docker("network", "rm", *networks)
        if images := set(docker("image", "ls", "--quiet", stage.name).split()):
            docker("image", "rm", "--force", *images)
        if not (_left(stage, "ps", "--all") or _left(stage, "network", "ls")):
            return
        if time.monotonic() > deadline:
            raise StageError(f"this is left: {_left(stage, 'ps', '--all')} {_left(stage, 'network', 'ls')}")
        time.sleep(1)


def _left(stage: Stage, *kind: str) -> list[str]:
    return docker(*kind, "--quiet", f"--filter=label=rehearsal={stage.name}").split()


def _disconnect(network: str, container: str) -> None:
    try:
        docker("network", "disconnect", "--force", network, container)
    except StageError as error:
        if "is not connected" not in str(error):  # a database server is in one of the networks only
            raise


def _started(part: T | None) -> T:
    if part is None:
        raise StageError("a part of the stage was not started")
    return part
