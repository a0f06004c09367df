"""What happens to ten copies in three zones, one after the other, each by its own word.

A word stands for one act or two: the failure, and the way back. After each act the rehearsal waits until all is well,
looks at every request of the load and at every acknowledged write, and records the figures.
"""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy import smoke
from deploy.rehearse import failures, scheduler, settings
from deploy.rehearse.docker import StageError, until
from deploy.rehearse.failures import WELL_SECONDS
from deploy.rehearse.record import Row, is_failed, reasons
from deploy.rehearse.rehearsal import CLIENT_SECONDS, Rehearsal
from deploy.rehearse.settings import NOTICE_SECONDS

PAGE = 100
"""Items on a page of a list."""

PROBES_SECONDS = 7
"""The longest that the service waits for a database that the network hides, as `docs/operations.md` says."""


@dataclass(frozen=True)
class Act:
    """Something that happens, and what is promised meanwhile."""

    title: str
    look: str
    """What to look at."""
    promise: str
    """How many requests may fail, and why."""
    bound_seconds: float
    """Requests that begin later than that after the act began must not fail. 0 means that no request may fail."""
    action: Callable[[Rehearsal], None]


def run(show: Rehearsal, words: list[str], watch_seconds: float) -> Callable[[], str]:
    """Let the events of these words happen, one after the other. Return what judges them.

    Raises:
        StageError: One of them could not be caused, or did not end.
    """
    show.green_watch_seconds = watch_seconds
    for word in words:
        for act in EVENTS[word]:
            perform(show, word, act)
    return lambda: verdict(show)


def verdict(show: Rehearsal) -> str:
    """Return in one line how it ended, and what did not go as it should."""
    failed = len(show.load.failed)
    if show.faults:
        return f"NOT as it should be: {'; '.join(show.faults)}"
    total = len(show.load.answers)
    return f"as it should be: {failed} of {total} requests failed, and no acknowledged write was lost"


def perform(show: Rehearsal, word: str, act: Act) -> None:
    """Let an act happen, wait until all is well, and record its figures.

    Raises:
        StageError: It could not be caused, or not all was well in time.
    """
    record, fleet, watch = show.record, show.fleet, show.stage.watch
    record.title, record.look = act.title, act.look
    record.mark(act.title)
    record.say(word, act.title)
    watch.peak = watch.now
    began, first = time.monotonic(), len(show.load.answers)
    act.action(show)
    well = settle(show, act.title)
    acknowledged = dict(show.load.acknowledged)
    answers = show.load.answers[first:]
    stored = _stored(show.port)
    row = Row(
        title=act.title,
        requests=len(answers),
        failed=sum(is_failed(answer) for answer in answers),
        promise=act.promise,
        reasons=reasons(answers),
        slowest_seconds=max(answer.seconds for answer in answers),
        lost=sum(stored.get(key) != text for key, text in acknowledged.items()),
        well_seconds=well - began,
        connections=watch.peak,
        budget=settings.budget(fleet.stage.most_tasks),
    )
    record.rows.append(row)
    record.say(word, f"all is well after {row.well_seconds:.1f} s: {row.failed} of {row.requests} requests failed")
    late = [answer for answer in answers if is_failed(answer) and answer.started - began > act.bound_seconds]
    if late and act.bound_seconds:
        show.faults.append(f"{act.title}: {len(late)} requests failed that began after {act.bound_seconds:.0f} s")
    if row.failed and not act.bound_seconds:
        show.faults.append(f"{act.title}: {row.failed} requests failed, and none may")
    if row.lost:
        show.faults.append(f"{act.title}: {row.lost} acknowledged writes were lost")
    if row.connections > row.budget:
        show.faults.append(f"{act.title}: {row.connections} database connections, above the budget of {row.budget}")


def settle(show: Rehearsal, title: str) -> float:
    """Wait until all is well, and every request that began before is over. Return when that was.

    Raises:
        StageError: That does not happen in time.
    """
    deadline = time.monotonic() + WELL_SECONDS
    while time.monotonic() < deadline:
        if not scheduler.wait_until_well(show.fleet, WELL_SECONDS):
            break
        well, seen = time.monotonic(), len(show.load.answers)
        until(lambda moment=well: show.load.settled(moment), CLIENT_SECONDS + 5)  # type: ignore[misc]
        if show.fleet.is_well() and not any(is_failed(answer) for answer in show.load.answers[seen:]):
            return well
    states = ", ".join(f"{task.name} is {task.state.value}" for task in show.fleet.tasks.values())
    raise StageError(f"{title}: not all is well after {WELL_SECONDS} s: {states}")


NONE = "none"

BACK = Act(
    title="The zone comes back",
    look="New tasks start in the zone. When they are healthy, as many are stopped in the other zones.",
    promise=NONE,
    bound_seconds=0,
    action=failures.come_back,
)

EVENTS: dict[str, list[Act]] = {
    "kill": [
        Act(
            title="A task is killed",
            look="One task disappears, and the scheduler starts another. Few requests fail: those that were on it.",
            promise="those on the task, and those sent to it until the scheduler notices",
            bound_seconds=5,
            action=failures.kill,
        )
    ],
    "hang": [
        Act(
            title="A task hangs",
            look="One task does not respond any more. The health checks need some seconds to be sure.",
            promise=f"those sent to the task until two health checks fail, at most {NOTICE_SECONDS} s",
            bound_seconds=NOTICE_SECONDS + 3,
            action=failures.hang,
        )
    ],
    "cut": [
        Act(
            title="A zone is cut off",
            look="All tasks of a zone stop responding. The other zones get more tasks, so that the count is the same.",
            promise=f"those sent to the zone until two health checks fail, at most {NOTICE_SECONDS} s",
            bound_seconds=NOTICE_SECONDS + 3,
            action=failures.cut,
        ),
        BACK,
    ],
    "cut-primary": [
        Act(
            title="The zone of the primary is cut off",
            look="The database is in the zone that is cut off: the standby takes over, and the name moves to it.",
            promise=f"as above, and those that need the database until the failover and {PROBES_SECONDS} s after it",
            bound_seconds=NOTICE_SECONDS + 3 + PROBES_SECONDS,
            action=failures.cut_primary,
        ),
        BACK,
    ],
    "double": [
        Act(
            title="The load doubles",
            look="There are twice as many requests, and tasks are added.",
            promise=NONE,
            bound_seconds=0,
            action=failures.double,
        ),
        Act(
            title="The load is as before",
            look="The additional tasks finish their requests and stop.",
            promise=NONE,
            bound_seconds=0,
            action=failures.halve,
        ),
    ],
    "release": [
        Act(
            title="Green is released",
            look="Green starts beside blue, is checked, gets a tenth of the traffic and then all of it. Blue stops.",
            promise=NONE,
            bound_seconds=0,
            action=failures.release,
        )
    ],
    "move": [
        Act(
            title="The name of the database moves",
            look="The standby becomes the primary, and the name leads to it. No task restarts.",
            promise="those that need the database between the stop of one server and the move of the name",
            bound_seconds=10,
            action=failures.move,
        )
    ],
}
"""The acts of each word, in the order in which they happen without EVENTS."""


def _stored(port: int) -> dict[str, str]:
    """Return the text of everything that is stored, by ID, as the service at `port` lists it.

    Raises:
        OSError: There was no response, or its status is not 200.
    """
    found: dict[str, str] = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    path = f"{settings.PREFIX}{smoke.PATH}?limit={PAGE}"
    while path:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise OSError(f"GET {path}: {response.status}")
        page = json.loads(content)
        found |= {item["id"]: smoke.text_of(item) for item in page["items"]}
        path = page["next"]
    connection.close()
    return found
