"""The tasks of the service: containers in zones, each registered in the target group of its release."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from deploy.rehearse import balancer, database, settings
from deploy.rehearse import stage as stages
from deploy.rehearse.docker import docker, until
from deploy.rehearse.stage import Stage


class State(Enum):
    """What a task does. The values are what a person reads."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"
    CUT_OFF = "cut off"


@dataclass
class Task:
    """A container of the service."""

    name: str
    """Unique on the stage, such as `blue-a-3`."""
    release: str
    zone: str
    state: State = State.STARTING


@dataclass
class Fleet:
    """The tasks on a stage, and how many of each release there have to be."""

    stage: Stage
    say: Callable[[str], None]
    """Told what the scheduler does, in words."""
    wanted: dict[str, int] = field(default_factory=lambda: {"blue": 0, "green": 0})
    """How many tasks of each release there have to be."""
    live: str = "blue"
    """The release that has the traffic."""
    tasks: dict[str, Task] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What did not go as it should."""
    avoided: set[str] = field(default_factory=set)
    """Zones in which the scheduler cannot start tasks, as it has noticed."""
    numbers: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def container(self, task: Task) -> str:
        """Return the name of a task's container."""
        return f"{self.stage.name}-{task.name}"

    def having(self, release: str, *states: State) -> list[Task]:
        """Return the tasks of a release that are in one of the states."""
        with self.lock:
            return [task for task in self.tasks.values() if task.release == release and task.state in states]

    def open_zones(self) -> list[str]:
        """Return the zones in which tasks can be started."""
        return [zone for zone in self.stage.zones if zone not in self.avoided]

    def is_well(self) -> bool:
        """Return whether each release has its tasks, all healthy and evenly spread over the zones that are open."""
        with self.lock:
            present = [task for task in self.tasks.values() if task.state is not State.CUT_OFF]
            if any(task.state is not State.HEALTHY for task in present):
                return False
            return all(
                Counter(task.zone for task in present if task.release == release)
                == Counter(quotas(self, release, self.wanted[release]))
                for release in self.wanted
            )


def quotas(fleet: Fleet, release: str, count: int) -> dict[str, int]:
    """Return how many of `count` tasks of a release each open zone gets: evenly, with as few moves as possible."""
    present = Counter(task.zone for task in fleet.having(release, State.STARTING, State.HEALTHY))
    zones = sorted(fleet.open_zones(), key=lambda zone: -present[zone])
    each, rest = divmod(count, len(zones))
    return {zone: each + (place < rest) for place, zone in enumerate(zones)}


def add(fleet: Fleet, release: str, zone: str) -> Task:
    """Register a task that is about to be started. `start` starts it."""
    with fleet.lock:
        fleet.numbers[release] += 1
        task = Task(f"{release}-{zone}-{fleet.numbers[release]}", release, zone)
        fleet.tasks[task.name] = task
        return task


def start(fleet: Fleet, task: Task) -> None:
    """Start a task's container and register it in the target group of its release.

    Raises:
        StageError: That failed.
    """
    stage, container = fleet.stage, fleet.container(task)
    labels = [f"--name={container}", f"--label=task={task.name}", f"--label=zone={task.zone}"]
    options = [*labels, f"--network={stage.network(task.zone)}", *stages.service_options(stage)]
    docker("create", *options, stage.image(task.release))
    docker("network", "connect", stage.between, container)
    docker("start", container)
    address = database.address(container, stage.network(task.zone))
    balancer.register(stage.balancer, task.release, task.name, address)


def stop(fleet: Fleet, task: Task) -> None:
    """Stop a task in order: no new requests, those in flight end, SIGTERM, and its exit status is 0.

    Raises:
        StageError: A command failed.
    """
    lb, container = fleet.stage.balancer, fleet.container(task)
    balancer.drain(lb, task.release, task.name)

    def is_idle() -> bool:
        return balancer.targets(lb).get(task.name, {}).get("scur", "0") == "0"

    if not until(is_idle, settings.DEREGISTRATION_SECONDS):
        fleet.faults.append(f"{task.name} still has requests after {settings.DEREGISTRATION_SECONDS} s")
    docker("stop", f"--time={settings.STOP_SECONDS}", container)
    status = docker("inspect", "--format={{.State.ExitCode}}", container)
    if status != "0":
        fleet.faults.append(f"{task.name} ended with status {status}")
    remove(fleet, task)


def remove(fleet: Fleet, task: Task) -> None:
    """Remove a task from its target group and its container from the machine, whatever its state.

    Raises:
        StageError: A command failed.
    """
    balancer.deregister(fleet.stage.balancer, task.release, task.name)
    docker("rm", "--force", "--volumes", fleet.container(task))
    with fleet.lock:
        fleet.tasks.pop(task.name, None)
