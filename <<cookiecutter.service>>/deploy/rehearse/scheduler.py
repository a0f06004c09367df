"""The scheduler: a loop that compares the tasks that there are with those that are wanted, as ECS does.

What ECS does beyond it: it places tasks on machines with free memory and processors, pulls images, retries with growing
pauses, stops a deployment whose tasks keep failing, and sends events. The decisions here are the same ones: a task that
ended is replaced; one that fails the health checks of the load balancer is replaced first and then stopped; tasks are
spread over the zones, and moved when a zone comes back.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from deploy.rehearse import balancer, fleet
from deploy.rehearse.docker import POLL_SECONDS, StageError, docker
from deploy.rehearse.fleet import Fleet, State, Task

PERIOD_SECONDS = 1

AT_ONCE = 8
"""Docker commands that run at the same time."""


class Scheduler:
    """Keeps the count of tasks between `with` and its end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin to keep the count."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the commands that run."""
        self._over.set()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def _run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            try:
                tend(self._fleet, self._submit)
            except StageError as error:
                if not self._over.is_set():
                    self._fleet.faults.append(f"the scheduler could not look: {error}")

    def _submit(self, action: Callable[[Fleet, Task], None], task: Task) -> None:
        self._pool.submit(self._do, action, task)

    def _do(self, action: Callable[[Fleet, Task], None], task: Task) -> None:
        try:
            action(self._fleet, task)
        except StageError as error:
            if not self._over.is_set() and task.zone not in self._fleet.stage.cut:
                self._fleet.faults.append(f"{task.name}: {error}")


Submit = Callable[[Callable[[Fleet, Task], None], Task], None]


def tend(those: Fleet, submit: Submit) -> None:
    """Look once at all tasks, and begin what is needed. `submit` runs an action on a task in the background.

    Raises:
        StageError: Docker or the load balancer did not respond.
    """
    observe(those, submit)
    for release, count in list(those.wanted.items()):
        quotas = fleet.quotas(those, release, count)
        start_missing(those, submit, release, quotas)
        stop_surplus(those, submit, release, quotas)


def observe(those: Fleet, submit: Submit) -> None:
    """Bring the states of the tasks up to date, and remove tasks that ended or are unhealthy.

    Raises:
        StageError: Docker or the load balancer did not respond.
    """
    labelled = ["--filter=label=task", f"--filter=label=rehearsal={those.stage.name}"]
    listed = docker("ps", "--all", *labelled, '--format={{.Label "task"}} {{.State}}').splitlines()
    ended = {name for name, _, state in (line.partition(" ") for line in listed) if state in {"exited", "dead"}}
    targets = balancer.targets(those.stage.balancer)
    with those.lock:
        for task in list(those.tasks.values()):
            if task.state in {State.UNHEALTHY, State.STOPPING, State.CUT_OFF}:
                continue
            healthy = targets.get(task.name, {}).get("status", "").startswith("UP")
            if task.name in ended:
                those.say(f"task {task.name} has ended: it is replaced")
                task.state = State.UNHEALTHY
                submit(fleet.remove, task)
            elif healthy:
                task.state = State.HEALTHY
            elif task.state is State.HEALTHY:
                lose(those, submit, task)


def start_missing(those: Fleet, submit: Submit, release: str, quotas: dict[str, int]) -> None:
    """Start tasks in the zones that have too few."""
    present = those.having(release, State.STARTING, State.HEALTHY)
    for zone, quota in quotas.items():
        for _ in range(quota - sum(task.zone == zone for task in present)):
            submit(fleet.start, fleet.add(those, release, zone))


def stop_surplus(those: Fleet, submit: Submit, release: str, quotas: dict[str, int]) -> None:
    """Stop tasks in the zones that have too many, once every zone has enough healthy ones."""
    healthy = those.having(release, State.HEALTHY)
    if any(sum(task.zone == zone for task in healthy) < quota for zone, quota in quotas.items()):
        return
    for zone, quota in quotas.items():
        present = [task for task in those.having(release, State.STARTING, State.HEALTHY) if task.zone == zone]
        # The newest go first, and before them those that are not healthy yet.
        present.sort(key=lambda task: task.state is State.STARTING)
        for task in present[quota:]:
            task.state = State.STOPPING
            submit(fleet.stop, task)


def wait_until_well(those: Fleet, seconds: float) -> bool:
    """Wait until all is well. Return whether it is within `seconds`."""
    deadline = time.monotonic() + seconds
    while not those.is_well():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def lose(those: Fleet, submit: Submit, task: Task) -> None:
    """Give up a task that fails its health checks."""
    if task.zone in those.stage.cut:
        task.state = State.CUT_OFF
        those.avoided.add(task.zone)
        those.say(f"task {task.name} fails its health checks: it is replaced in another zone")
        submit(_deregister, task)
    else:
        task.state = State.UNHEALTHY
        those.say(f"task {task.name} fails its health checks: it is replaced and killed")
        submit(fleet.remove, task)


def _deregister(those: Fleet, task: Task) -> None:
    balancer.deregister(those.stage.balancer, task.release, task.name)
