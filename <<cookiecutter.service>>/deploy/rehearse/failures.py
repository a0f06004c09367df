"""The failures and changes that a rehearsal causes. Each function returns once the rehearsal has noticed it."""

import math
import time

from deploy.rehearse import database, deployment
from deploy.rehearse import stage as stages
from deploy.rehearse.docker import StageError, docker, until
from deploy.rehearse.fleet import State, Task
from deploy.rehearse.rehearsal import CLIENTS, PAUSE_SECONDS, Rehearsal, load
from deploy.rehearse.settings import NOTICE_SECONDS

WELL_SECONDS = 180
"""Timeout until all is well again."""

FAILOVER_CHECKS = 3
"""Failed checks, one a second, after which the standby becomes the primary."""

SCALE_UP = 1.2
"""Requests per second and task, in relation to those at first, above which tasks are added."""

SCALE_SECONDS = 2
"""How often the number of tasks is adapted to the load. An autoscaler on AWS takes minutes."""


def kill(show: Rehearsal) -> None:
    """Kill a task, as a machine does that runs out of memory."""
    task = some_task(show)
    docker("kill", show.fleet.container(task))
    wait_until_gone(show, task)  # else all may look well, since the scheduler has not noticed yet


def hang(show: Rehearsal) -> None:
    """Freeze the workers of a task. Its connections stay open, and nothing responds."""
    task = some_task(show)
    # All processes but the first one and the shell. `docker pause` does not always succeed on a busy machine.
    docker("exec", show.fleet.container(task), "sh", "-c", "kill -STOP -1")
    wait_until_gone(show, task)


def cut(show: Rehearsal) -> None:
    """Cut off a zone in which there is no database server."""
    servers = {server.zone for server in (show.stage.primary, show.stage.standby) if server}
    cut_zone(show, next(zone for zone in reversed(show.stage.zones) if zone not in servers))


def cut_primary(show: Rehearsal) -> None:
    """Cut off the zone of the database's primary, and fail over to the standby as RDS does."""
    stage = show.stage
    primary, standby = stage.primary, stage.standby
    if not standby:
        raise StageError("the database has no standby")
    began = time.monotonic()
    cut_off(show, primary.zone)
    failed = 0
    while failed < FAILOVER_CHECKS:
        failed = 0 if database.sees(standby, primary) else failed + 1
    stages.promote_standby(stage)
    seconds = time.monotonic() - began
    show.record.say("database", f"failed over to zone {standby.zone} after {seconds:.1f} s, and the name has moved")
    wait_until_noticed(show)


def come_back(show: Rehearsal) -> None:
    """Give the zone its network back, with a standby if it had a database server."""
    stage, fleet = show.stage, show.fleet
    [zone] = stage.cut
    stages.restore(stage, zone)
    with fleet.lock:
        for task in [task for task in fleet.tasks.values() if task.zone == zone]:
            del fleet.tasks[task.name]
        fleet.avoided.discard(zone)
    if not stage.standby:
        stages.add_standby(stage, zone)
        show.record.say("database", f"a new standby follows in zone {zone}")


def double(show: Rehearsal) -> None:
    """Double the load, and add tasks as long as each has more requests than before."""
    fleet, before = show.fleet, rate(show)
    extra = load(show.port, CLIENTS, PAUSE_SECONDS, first=CLIENTS)
    extra.answers, extra.acknowledged = show.load.answers, show.load.acknowledged
    show.extra.enter_context(extra)
    scale(show, before / show.copies * SCALE_UP)
    show.record.say("scaling", f"{before:.0f} requests/s became {rate(show):.0f}: {fleet.wanted[fleet.live]} tasks")


def halve(show: Rehearsal) -> None:
    """Take the additional load away, and the tasks with it."""
    show.extra.close()
    show.fleet.wanted[show.fleet.live] = show.copies


def release(show: Rehearsal) -> None:
    """Deploy green, as `make rehearse` alone does."""
    if show.fleet.live == "green":
        raise StageError("green was released already")
    one = deployment.new(show, "good", "canary", show.green_watch_seconds)
    if not deployment.deploy(one):
        raise StageError(f"the release was rolled back at {one.failed_at}")


def move(show: Rehearsal) -> None:
    """Move the database's name to the standby, in order: no write is taken by two servers, and none is lost."""
    stage = show.stage
    database.stop(stage.primary)
    before = stages.promote_standby(stage)
    show.record.say("database", f"the name leads to zone {stage.primary.zone}")
    docker("rm", "--force", "--volumes", before.container)
    stages.add_standby(stage, before.zone)
    show.record.say("database", f"a new standby follows in zone {before.zone}")


def cut_zone(show: Rehearsal, zone: str) -> None:
    """Cut off a zone, and wait until the load balancer has noticed."""
    cut_off(show, zone)
    wait_until_noticed(show)


def cut_off(show: Rehearsal, zone: str) -> None:
    """Cut off a zone."""
    show.record.say("network", f"zone {zone} is cut off")
    stages.cut_off(show.stage, zone)


def wait_until_noticed(show: Rehearsal) -> None:
    """Wait until no task of a zone that is cut off counts as healthy.

    Raises:
        StageError: The load balancer does not notice.
    """

    def is_noticed() -> bool:
        with show.fleet.lock:
            inside = [task for task in show.fleet.tasks.values() if task.zone in show.stage.cut]
        return all(task.state is State.CUT_OFF for task in inside)

    if not until(is_noticed, 3 * NOTICE_SECONDS):
        raise StageError("the load balancer did not notice that a zone is cut off")


def wait_until_gone(show: Rehearsal, task: Task) -> None:
    """Wait until the scheduler has removed a task.

    Raises:
        StageError: It does not.
    """
    if not until(lambda: task.name not in show.fleet.tasks, 3 * NOTICE_SECONDS):
        raise StageError(f"{task.name} was not replaced")


def some_task(show: Rehearsal) -> Task:
    """Return a healthy task of the release that has the traffic."""
    return show.fleet.having(show.fleet.live, State.HEALTHY)[0]


def rate(show: Rehearsal) -> float:
    """Return the responses per second of the last five seconds."""
    since = time.monotonic() - 5
    return sum(answer.started > since for answer in show.load.answers) / 5


def scale(show: Rehearsal, requests_per_task: float) -> None:
    """Add tasks while each has more requests per second than that, until all is well with more tasks than before.

    Raises:
        StageError: That does not happen in time.
    """
    fleet, deadline = show.fleet, time.monotonic() + WELL_SECONDS
    while fleet.wanted[fleet.live] == show.copies or not fleet.is_well():
        if time.monotonic() > deadline:
            raise StageError(f"the load has doubled, and {fleet.wanted[fleet.live]} tasks are wanted")
        time.sleep(SCALE_SECONDS)
        tasks = math.ceil(rate(show) / requests_per_task)
        fleet.wanted[fleet.live] = min(max(tasks, fleet.wanted[fleet.live]), show.stage.most_tasks)
