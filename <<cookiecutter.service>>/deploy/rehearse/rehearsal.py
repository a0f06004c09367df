"""One rehearsal: its stage, its fleet, its load and its record, and how they are started."""

import contextlib
import threading
from dataclasses import dataclass, field
from typing import Self

from chassis.tests.faults.load import Load
from deploy import checks, smoke
from deploy.rehearse import scheduler, settings
from deploy.rehearse import stage as stages
from deploy.rehearse.docker import StageError, docker, until
from deploy.rehearse.fleet import Fleet, State
from deploy.rehearse.record import Record
from deploy.rehearse.stage import Stage

CLIENTS, PAUSE_SECONDS = 80, 1
"""The load on many copies: about 80 requests per second, which leaves a laptop time for everything else. Each client
waits for its response: were there only a few, all of them would soon wait for a task that hangs."""

CLIENT_SECONDS = 10
"""When a client gives up: above what the service takes in the worst case, 7 s, so that its response is counted."""

SAMPLE_SECONDS = 1
"""How often the tasks of each zone and the connections are recorded for the picture."""


@dataclass
class Rehearsal:
    """The parts of a rehearsal."""

    stage: Stage
    fleet: Fleet
    load: Load
    record: Record
    copies: int
    port: int
    test_port: int
    faults: list[str] = field(default_factory=list)
    """What did not go as it should."""
    green_watch_seconds: float = 8
    """How long the alarm watches green with traffic."""
    extra: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Ends the load that doubles the first one."""


def new(copies: int, zones: int, load: Load, test_port: int) -> Rehearsal:
    """Return a rehearsal of which nothing exists yet."""
    record = Record(load)
    # A zone's share more than the copies: that many tasks may be added under load.
    stage = stages.new(zones, copies + zones)
    fleet = Fleet(stage, lambda text: record.say("scheduler", text))
    return Rehearsal(stage, fleet, load, record, copies, load.port, test_port)


def load(port: int, clients: int, pause_seconds: float, first: int = 0) -> Load:
    """Return a steady load on the production listener."""
    return Load(
        port,
        clients=clients,
        timeout_seconds=CLIENT_SECONDS,
        path=f"{settings.PREFIX}{smoke.PATH}",
        pause_seconds=pause_seconds,
        first=first,
        body=smoke.body,
        text_of=smoke.text_of,
    )


def prepare(show: Rehearsal, green_changes: str) -> None:
    """Build both releases, and start everything but the tasks.

    Raises:
        StageError: That failed.
    """
    stages.build(show.stage, "blue", "")
    stages.build(show.stage, "green", green_changes)
    show.record.say("build", f"{show.stage.image('blue')} and {show.stage.image('green')}")
    stages.start(show.stage, show.port, show.test_port)
    show.record.say("database", "the primary serves; " + where_the_standby_is(show.stage))


def where_the_standby_is(stage: Stage) -> str:
    """Return in words whether the database has a standby."""
    return f"its synchronous standby is in zone {stage.standby.zone}" if stage.standby else "it has no standby"


def start_blue(show: Rehearsal) -> None:
    """Start the tasks of blue, and wait until all of them serve. The scheduler must run.

    Raises:
        StageError: They do not.
        client.CheckError: They are not what they should be.
    """
    show.fleet.wanted["blue"] = show.copies
    seconds = settings.install_seconds(show.copies)
    if not scheduler.wait_until_well(show.fleet, seconds):
        states = ", ".join(f"{task.name} is {task.state.value}" for task in show.fleet.tasks.values())
        raise StageError(f"blue is not ready after {seconds:.0f} s: {states}")
    wanted = show.copies * settings.CONNECTIONS_OF_A_TASK
    if not until(lambda: show.stage.watch.now >= wanted, seconds):
        raise StageError(f"{show.stage.watch.now} of {wanted} database connections after {seconds:.0f} s")
    checks.ready(f"http://127.0.0.1:{show.port}", settings.PREFIX, show.stage.release("blue"))
    tasks = f"{show.copies} tasks serve" if show.copies > 1 else "one task serves"
    show.record.say("blue", f"{tasks} at the production listener; the load begins")


class Sampler:
    """Records for the picture how many tasks each zone has, how many connections there are, and how much memory."""

    def __init__(self, show: Rehearsal) -> None:
        self._show = show
        self._over = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._look, self._weigh)]

    def __enter__(self) -> Self:
        """Begin to record."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        record, fleet = self._show.record, self._show.fleet
        while not self._over.wait(SAMPLE_SECONDS):
            with fleet.lock:
                healthy = [task.zone for task in fleet.tasks.values() if task.state is State.HEALTHY]
            record.tasks.append((record.second(), {zone: healthy.count(zone) for zone in fleet.stage.zones}))
            record.connections.append((record.second(), fleet.stage.watch.now))

    def _weigh(self) -> None:
        while not self._over.wait(10 * SAMPLE_SECONDS):
            try:
                self._show.record.memory_mib = max(self._show.record.memory_mib, memory_mib(self._show.stage))
            except StageError:
                continue  # a container ended meanwhile


def memory_mib(stage: Stage) -> float:
    """Return the memory of all containers of a stage, in MiB.

    Raises:
        StageError: Docker does not say.
    """
    running = docker("ps", "--quiet", f"--filter=label=rehearsal={stage.name}").split()
    units = {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10}
    total = 0.0
    for line in docker("stats", "--no-stream", "--format={{.MemUsage}}", *running).splitlines():
        used = line.partition(" ")[0]
        unit = used.lstrip("0123456789.")
        total += float(used.removesuffix(unit) or 0) * units.get(unit, 0.0)
    return total
