"""Rehearse on this machine what happens to the service in production.

`make rehearse` deploys a green that is as good as blue; `GREEN=broken`, `unready` or `slow` one that has to be rolled
back. `make rehearse COPIES=10 ZONES=3` runs ten copies in three zones and makes them fail in several ways, one after
the other. The containers, the load balancer, the database and the load are real. The exit status is 0 if everything
went as it should.

From the environment: GREEN; SHIFT, `all` or `canary`; or else COPIES, ZONES and EVENTS, some of the words in
`events.py`; PORT and TEST_PORT of the listeners; PAGE_PORT of the page to watch; WATCH_SECONDS for the alarm; PICTURE,
a file.
"""

import contextlib
import os
import re
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
from deploy.rehearse.docker import StageError, docker
from deploy.rehearse.record import TERMINAL, table
from deploy.rehearse.rehearsal import Rehearsal, Sampler
from deploy.rehearse.scheduler import Scheduler
from deploy.rehearse.stage import ZONES

AFTER = 50
"""Requests of the load before the first event and after the last one."""

LEAST_ZONES = 3
"""One for the primary, one for the standby, one without a database server."""

DEFAULTS = {"GREEN": "good", "SHIFT": "all"}

LAST_PORT = 65_535

FAILURES = (StageError, CheckError, DeploymentError, TimeoutError, OSError)
"""After these a rehearsal cannot go on."""


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
    watch_seconds = number("WATCH_SECONDS", 8)
    green, shift = (os.environ.get(name, default) for name, default in DEFAULTS.items())
    if green not in ENDS or shift not in {"all", "canary"}:
        raise ValueError(f"GREEN is one of {', '.join(ENDS)}, and SHIFT is all or canary")
    changed = {"GREEN": green, "SHIFT": shift}
    shown = [f"{name}={value}" for name, value in changed.items() if value != DEFAULTS[name]]
    several = "COPIES" in os.environ
    if unused := [name for name in (DEFAULTS if several else ("ZONES", "EVENTS")) if name in os.environ]:
        raise ValueError(
            f"{' and '.join(unused)} would have no effect: ZONES and EVENTS need COPIES, GREEN and SHIFT exclude it"
        )
    if several:
        copies, zones = number("COPIES", 0), number("ZONES", LEAST_ZONES)
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


def number(name: str, default: int, most: int = 1_000) -> int:
    """Return the whole number in an environment variable: at least 1, and `most` at most.

    Raises:
        ValueError: The variable has something else.
    """
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[1-9][0-9]{0,8}", text) or int(text) > most:
        raise ValueError(f"{name} is a whole number from 1 to {most}, and not {text!r}")
    return int(text)


def _deploy(show: Rehearsal, green: str, shift: str, watch_seconds: float) -> Callable[[], str]:
    """Deploy green once, and return what judges it."""
    show.record.title = f"A blue/green deployment: green is {green}"
    show.record.look = "Watch which release answers, and the events below."
    one = deployment.new(show, green, shift, watch_seconds)
    deployment.deploy(one)
    show.load.wait_for(len(show.load.answers) + AFTER)
    return lambda: deployment.verdict(one)


def perform(plan: Plan, show: Rehearsal, path: Path) -> str:
    """Run the rehearsal, show what there is to see of it, also if it cannot go on, and return the verdict.

    Raises:
        OSError: The picture cannot be written.
    """
    try:
        verdict = play(plan, show)
    except FAILURES as error:
        show.faults.append(str(error))
        verdict = f"NOT as it should be: {'; '.join(show.faults)}"
    show.record.verdict = verdict
    if not show.load.answers:
        return verdict
    picture.draw(path, f"$ {plan.command}\n{verdict}", show.record, show.stage)
    if show.record.rows:
        print(f"\n{table(show.record.rows)}\n", file=TERMINAL)
        print(f"memory of all containers at the peak: {show.record.memory_mib:,.0f} MiB", file=TERMINAL)
    return f"{verdict}; see {path}"


def play(plan: Plan, show: Rehearsal) -> str:
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
    return judge()


def interrupt(_signum: int, _frame: object) -> None:
    """Stop, and remove everything. A further Ctrl-C does not interrupt that."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Rehearse and return the exit status."""
    try:
        asked = plan()
        ports = {"PORT": 8000, "TEST_PORT": 9000, "PAGE_PORT": 8080}
        port, test_port, page_port = (number(name, default, LAST_PORT) for name, default in ports.items())
    except ValueError as error:
        print(error, file=TERMINAL)
        return 2
    load = rehearsal.load(port, asked.clients, asked.pause_seconds)
    show = rehearsal.new(asked.copies, asked.zones, load, test_port)
    status, last = 1, "NOT as it should be"
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(page.serving(show, page_port))
            docker("version")
        except OSError as error:
            print(
                f"the page cannot be served at port {page_port}, but PAGE_PORT chooses another: {error}", file=TERMINAL
            )
            return 2
        except StageError as error:
            print(error, file=TERMINAL)
            return 2
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, interrupt)
        show.record.say("watch", f"{url} shows what happens")
        try:
            last = perform(asked, show, Path(os.environ.get("PICTURE", "rehearsal.svg")))
            status = int(bool(show.faults))
        except OSError as error:
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
