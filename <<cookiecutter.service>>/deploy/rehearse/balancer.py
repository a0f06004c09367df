"""The load balancer: HAProxy, whose targets and weights are changed through its runtime API."""

import csv
import socket
from dataclasses import dataclass, field
from pathlib import Path

from deploy.rehearse import settings
from deploy.rehearse.docker import StageError, docker

IMAGE = "haproxy:3"
FOLDER = "/usr/local/etc/haproxy"
PERCENT = f"{FOLDER}/green-percent.map"


@dataclass
class Balancer:
    """A running load balancer with a production listener and a test listener."""

    container: str
    runtime_port: int = field(init=False, default=0)
    """Where its runtime API listens on this machine, once it was asked for."""


def start(stage: str, networks: list[str], port: int, test_port: int) -> Balancer:
    """Start the load balancer of a stage, with one foot in each network."""
    container = f"{stage}-balancer"
    here = Path(__file__).parent
    mounts = [f"--volume={here / name}:{FOLDER}/{name}:ro" for name in ("haproxy.cfg", "green-percent.map")]
    ports = [f"--publish=127.0.0.1:{port}:8000", f"--publish=127.0.0.1:{test_port}:9000", "--publish=127.0.0.1::9999"]
    labels = [f"--name={container}", f"--label=rehearsal={stage}", f"--env=URL_PREFIX={settings.PREFIX}"]
    docker("create", *labels, *ports, *mounts, f"--network={networks[0]}", IMAGE)
    for network in networks[1:]:
        docker("network", "connect", network, container)
    docker("start", container)
    return Balancer(container)


def tell(balancer: Balancer, command: str) -> str:
    """Send commands to the runtime API and return the response.

    Raises:
        StageError: It does not listen.
    """
    if not balancer.runtime_port:
        balancer.runtime_port = int(docker("port", balancer.container, "9999/tcp").splitlines()[0].rpartition(":")[2])
    try:
        with socket.create_connection(("127.0.0.1", balancer.runtime_port), timeout=10) as conn:
            conn.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: conn.recv(65_536), b"")).decode().strip()
    except OSError as error:
        raise StageError(f"the load balancer does not listen at its runtime API: {error}") from None


def is_listening(balancer: Balancer) -> bool:
    """Return whether the runtime API responds."""
    try:
        return bool(tell(balancer, "show info"))
    except StageError:
        return False


def register(balancer: Balancer, release: str, task: str, address: str) -> None:
    """Register a task in the target group of its release. It gets requests once a health check passes.

    Raises:
        StageError: The load balancer refused it.
    """
    target = f"{release}/{task}"
    checks = f"inter {settings.CHECK_INTERVAL_SECONDS}s fall {settings.CHECKS_TO_FAIL} rise {settings.CHECKS_TO_PASS}"
    found = tell(
        balancer,
        f"add server {target} {address}:8000 check {checks} init-state down;"
        f"enable health {target}; enable server {target}",
    )
    if "registered" not in found:
        raise StageError(f"the load balancer did not register {target}: {found}")


def drain(balancer: Balancer, release: str, task: str) -> None:
    """Send no further requests to a task. Those in flight go on."""
    tell(balancer, f"set server {release}/{task} state drain")


def deregister(balancer: Balancer, release: str, task: str) -> None:
    """Remove a task from its target group, once nothing is in flight any more, or after two seconds."""
    target = f"{release}/{task}"
    tell(balancer, f"set server {target} state maint; wait 2s srv-removable {target}; del server {target}")


def route(balancer: Balancer, listener: str, green_percent: int) -> None:
    """Send `green_percent` of a listener's requests to green, and the rest to blue.

    Raises:
        StageError: The load balancer refused it.
    """
    if found := tell(balancer, f"set map {PERCENT} {listener} {green_percent}"):
        raise StageError(f"the load balancer did not move the traffic: {found}")


def targets(balancer: Balancer) -> dict[str, dict[str, str]]:
    """Return the load balancer's own figures of each registered task, by name."""
    rows = csv.DictReader(tell(balancer, "show stat").removeprefix("# ").splitlines())
    return {row["svname"]: row for row in rows if row["svname"] not in {"FRONTEND", "BACKEND"}}


def responses(balancer: Balancer) -> tuple[int, int]:
    """Return how many responses the production listener gave, and how many of them were 5xx."""
    rows = csv.DictReader(tell(balancer, "show stat").removeprefix("# ").splitlines())
    row = next(row for row in rows if (row["pxname"], row["svname"]) == ("production", "FRONTEND"))
    every = sum(int(row[f"hrsp_{kind}"]) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
    return every, int(row["hrsp_5xx"])
