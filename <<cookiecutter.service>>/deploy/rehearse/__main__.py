"""Rehearse on this machine what happens to the service in production.

`make rehearse` deploys a green that is as good as blue; `GREEN=broken`, `unready` or `slow` one that has to be rolled
back. `make rehearse COPIES=10 ZONES=3` runs ten copies in three zones and makes them fail in several ways, one after
the other. The containers, the load balancer, the database and the load are real. The exit status is 0 if everything
went as it should.

From the environment: GREEN; SHIFT, `all` or `canary`; COPIES, ZONES; EVENTS, some of the words in `events.py`; PORT and
TEST_PORT of the listeners; PAGE_PORT of the page to watch; WATCH_SECONDS for the alarm; PICTURE, a file.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.client import CheckError
from deploy.rehearse import deployment, events, page, picture, rehearsal
from deploy.rehearse import stage as stages
from deploy.rehearse.alarm import DeploymentError
from deploy.rehearse.deployment import ENDS
from deploy.rehearse.docker import StageError
from deploy.rehearse.record import TERMINAL, table
from deploy.rehearse.rehearsal import Rehearsal, Sampler
from deploy.rehearse.scheduler import Scheduler
from deploy.rehearse.stage import ZONES

AFTER = 50
"""Requests of the load before the first event and after the last one."""

LEAST_ZONES = 3
"""One for the primary, one for the standby, one without a database server."""

DEFAULTS = {"GREEN": "good", "SHIFT": "all"}


@dataclass(frozen=True)
class Plan:
    """What is rehearsed."""

    command: str
    """What was typed, for the picture."""
    copies: int
    zones: int
    clients: int
    pause_seconds: float
    green_changes: str
    run: Callable[[Rehearsal], Callable[[], str]]
    """Run it under the load, and return what judges it once the load is over."""


def plan() -> Plan:
    """Return what the environment asks for.

    Raises:
        ValueError: It asks for something that there is not; the text says what there is.
    """
    watch_seconds = float(os.environ.get("WATCH_SECONDS", "8"))
    green, shift = (os.environ.get(name, default) for name, default in DEFAULTS.items())
    if green not in ENDS or shift not in {"all", "canary"}:
        raise ValueError(f"GREEN is one of {', '.join(ENDS)}, and SHIFT is all or canary")
    changed = {"GREEN": green, "SHIFT": shift}
    shown = [f"{name}={value}" for name, value in changed.items() if value != DEFAULTS[name]]
    if "COPIES" in os.environ:
        copies, zones = int(os.environ["COPIES"]), int(os.environ.get("ZONES", "3"))
        words = os.environ.get("EVENTS", " ".join(events.EVENTS)).split()
        if not LEAST_ZONES <= zones <= min(copies, len(ZONES)) or not set(words) <= set(events.EVENTS):
            raise ValueError(
                f"ZONES is {LEAST_ZONES} to {len(ZONES)}, COPIES no fewer, EVENTS some of {' '.join(events.EVENTS)}"
            )
        shown = [f"COPIES={copies}", f"ZONES={zones}"]
        shown += [f'EVENTS="{" ".join(words)}"'] if "EVENTS" in os.environ else []
        return Plan(
            " ".join(["make rehearse", *shown]),
            copies,
            zones,
            rehearsal.CLIENTS,
            rehearsal.PAUSE_SECONDS,
            "",
            lambda show: events.run(show, words, watch_seconds),
        )
    return Plan(
        " ".join(["make rehearse", *shown]),
        *(1, 1, 6, 0.03),
        deployment.changes(green),
        lambda show: _deploy(show, green, shift, watch_seconds),
    )


def _deploy(show: Rehearsal, green: str, shift: str, watch_seconds: float) -> Callable[[], str]:
    """Deploy green once, and return what judges it."""
    show.record.title = f"A blue/green deployment: green is {green}"
    show.record.look = "Watch which release answers, and the events below."
    one = deployment.new(show, green, shift, watch_seconds)
    deployment.deploy(one)
    show.load.wait_for(len(show.load.answers) + AFTER)
    return lambda: deployment.verdict(one)


def perform(plan: Plan, show: Rehearsal, path: Path) -> str:
    """Run the rehearsal, and return the verdict.

    Raises:
        StageError, CheckError, DeploymentError, TimeoutError, OSError: The rehearsal cannot go on.
    """
    rehearsal.prepare(show, plan.green_changes)
    with Scheduler(show.fleet):
        rehearsal.start_blue(show)
        with contextlib.ExitStack() as stack:
            for each in (show.load, Sampler(show), show.extra):
                stack.enter_context(each)
            show.load.wait_for(AFTER)
            judge = plan.run(show)
    show.faults.extend(show.fleet.faults)
    verdict = show.record.verdict = judge()
    picture.draw(path, f"$ {plan.command}\n{verdict}", show.record, show.stage)
    if show.record.rows:
        print(f"\n{table(show.record.rows)}\n", file=TERMINAL)
        print(f"memory of all containers at the peak: {show.record.memory_mib:,.0f} MiB", file=TERMINAL)
    return f"{verdict}; see {path}"


def interrupt(_signum: int, _frame: object) -> None:
    """Stop, and remove everything. A further Ctrl-C does not interrupt that."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Rehearse and return the exit status."""
    try:
        asked = plan()
    except ValueError as error:
        print(error, file=TERMINAL)
        return 2
    port, test_port = int(os.environ.get("PORT", "8000")), int(os.environ.get("TEST_PORT", "9000"))
    load = rehearsal.load(port, asked.clients, asked.pause_seconds)
    show = rehearsal.new(asked.copies, asked.zones, load, test_port)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    status, last = 1, "NOT as it should be"
    with page.serving(show, int(os.environ.get("PAGE_PORT", "8080"))) as url:
        show.record.say("watch", f"{url} shows what happens")
        try:
            last = perform(asked, show, Path(os.environ.get("PICTURE", "rehearsal.svg")))
            status = int(bool(show.faults))
        except (StageError, CheckError, DeploymentError, TimeoutError, OSError) as error:
            last = f"NOT as it should be: {error}"
        except KeyboardInterrupt:
            status, last = 130, "interrupted"
        finally:
            try:
                stages.remove(show.stage)
                show.record.say("remove", "nothing is left")
            except StageError as error:
                status, last = 1, f"{last}, and not everything could be removed: {error}"
    print(last, file=TERMINAL, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
