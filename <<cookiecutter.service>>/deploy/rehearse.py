"""A blue/green deployment on this machine, step for step what CodeDeploy does on ECS.

`make rehearse` deploys a green that is as good as blue; `make rehearse GREEN=broken`, `unready` or `slow` one that is
not, and that has to be rolled back. The containers, the load balancer, the database and the load are real, and the
hooks are those of `deploy/hooks.py`. It ends with status 0 if all went as it should for that green.

From the environment: GREEN; SHIFT, `all` or `canary`; PORT and TEST_PORT of the listeners; WATCH_SECONDS for the alarm;
PICTURE, a file.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.faults.load import Answer, Load

from deploy import checks, config, hooks
from deploy.picture import draw
from deploy.stage import Aws, Stage, StageError, until

GREENS = {
    # A bug that no hook meets: only users put notes.
    "broken": ("put", "assert path.note_id.int % 4"),
    # A bug that the hooks meet.
    "slow": ("page", 'page.seen = getattr(page, "seen", 0) + 1; page.seen % 8 or __import__("time").sleep(1.5)'),
}
"""Greens with a bug: the function of `service/routes.py`, and a line that is put into it."""

ENDS = {
    "good": (),
    "broken": ("AllowTraffic", "AfterAllowTraffic", "Wait"),
    "unready": ("Install",),
    "slow": ("AfterAllowTestTraffic",),
}
"""At which of the events each green has to fail."""

UNREADY = "ENV PORT=8080"
"""It listens where the balancer does not ask."""

INSTALL_SECONDS = 30
"""How long green may take until the balancer finds it ready."""

HOOK_SECONDS = 300
"""How long a hook may take, as in `deploy/stack.py`."""

DRAIN_SECONDS = 30
"""How long requests in flight may take when a release is drained, as `deregistration_seconds` in production.toml."""

CANARY_PERCENT = 10
"""Share of the traffic that green gets first, with SHIFT=canary."""

ALARM_SECONDS = 2
"""Period of the alarm; two in a row above the bound ring it, as in `deploy/stack.py`."""

ALARM_SHARE = 0.005
"""The bound: so much of the balancer's answers may be 5xx."""

DEFAULTS = {"GREEN": "good", "SHIFT": "all"}

CLIENTS, PAUSE_SECONDS = 6, 0.03
"""The load: steady, and small enough for any laptop."""

AFTER = 50
"""Requests that are looked at after the last event."""


class DeploymentError(Exception):
    """The deployment failed, and blue is to be brought back."""


class Alarm:
    """Rings when the share of 5xx that the balancer sees is above the bound in two periods in a row."""

    def __init__(self, stage: Stage) -> None:
        self.highest = 0.0
        self._fault = ""
        self._rang, self._over = threading.Event(), threading.Event()
        self._stage = stage
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join()

    def watch(self, seconds: float) -> str:
        """Wait so long, and say what was seen.

        Raises:
            DeploymentError: it rang.
            StageError: it could not look.
        """
        rang = self._rang.wait(seconds)
        if self._fault:
            raise StageError(f"the alarm saw nothing: {self._fault}")
        if rang:
            raise DeploymentError(f"the alarm rang: {self.highest:.1%} of the answers were 5xx")
        return f"at most {self.highest:.1%} of the answers were 5xx"

    def _run(self) -> None:
        try:
            self._listen()
        except StageError as error:
            self._fault = str(error)
            self._rang.set()

    def _listen(self) -> None:
        above = 0
        answers, errors = self._stage.answers()
        while not self._over.wait(ALARM_SECONDS):
            before, errors_before = answers, errors
            answers, errors = self._stage.answers()
            share = (errors - errors_before) / max(answers - before, 1)
            self.highest = max(self.highest, share)
            above = above + 1 if share > ALARM_SHARE else 0
            if above > 1:
                self._rang.set()


class Remaining:
    """A Lambda function's context."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + HOOK_SECONDS

    def get_remaining_time_in_millis(self) -> float:
        """Until the function is ended."""
        return (self._deadline - time.monotonic()) * 1_000


class Rehearsal:
    """One deployment of `green` to a stage, under load."""

    def __init__(self, green: str, shift: str, port: int, test_port: int, watch_seconds: float) -> None:
        self.green, self.shift, self.port, self.test_port = green, shift, port, test_port
        self.watch_seconds = watch_seconds
        self.stage = Stage(port, test_port)
        self.prefix = f"/api/{config.service_name()}"
        self.load = Load(port, clients=CLIENTS, path=f"{self.prefix}/notes", pause_seconds=PAUSE_SECONDS)
        self.began = time.monotonic()
        self.events: list[tuple[float, str]] = []
        self.failed_at = ""
        self.settled = 0.0
        """When the traffic had come to where it stays."""
        self.faults: list[str] = []
        """What did not go as it should."""

    def run(self) -> None:
        """All of it.

        Raises:
            StageError: something that has nothing to do with green did not work.
            checks.CheckError: blue does not serve.
            DeploymentError: the rollback failed.
            TimeoutError: the load got no answers.
        """
        self.prepare()
        blue = self.stage.look("blue")["State"]
        with self.load:
            self.load.wait_for(AFTER)
            try:
                self.deploy()
            except DeploymentError:
                self.roll_back()
                now = self.stage.look("blue")
                if (now["State"]["Status"], now["State"]["StartedAt"]) != ("running", blue["StartedAt"]):
                    self.faults.append("blue was stopped")
            self.load.wait_for(len(self.load.answers) + AFTER)
        self.judge()

    def prepare(self) -> None:
        """Build both releases, and start blue behind the balancer."""
        self.stage.build("blue", "")
        self.stage.build("green", changes(self.green))
        self.say("build", f"{self.stage.image('blue')} and {self.stage.image('green')}")
        self.stage.compose("up", "--detach", "--wait", "postgres")
        self.stage.migrate("blue")
        self.stage.compose("up", "--detach", "blue", "balancer")
        if not until(lambda: self.stage.is_told() and self.stage.is_healthy("blue"), INSTALL_SECONDS):
            raise StageError(f"blue is not ready after {INSTALL_SECONDS} s")
        checks.ready(f"http://127.0.0.1:{self.port}", self.prefix, self.stage.release("blue"))
        self.say("blue", "serves at the production listener; the load begins")

    def deploy(self) -> None:
        """The events of a deployment, by CodeDeploy's names.

        Raises:
            DeploymentError: it failed.
        """
        self.stage.migrate("green")
        self.say("migrate", "the schema is up to date, by a one-off process of green")
        aws = Aws(self.stage)
        aws.attach()
        self.event("BeforeInstall", lambda: self.hook(aws, hooks.before_install))
        self.event("Install", self.install)
        self.event("AfterInstall", lambda: self.hook(aws, hooks.after_install))
        self.event("AllowTestTraffic", self.allow_test_traffic)
        self.event("AfterAllowTestTraffic", lambda: self.hook(aws, hooks.after_allow_test_traffic))
        self.event("BeforeAllowTraffic", lambda: self.hook(aws, hooks.before_allow_traffic))
        with Alarm(self.stage) as alarm:
            self.event("AllowTraffic", lambda: self.allow_traffic(alarm))
            self.event("AfterAllowTraffic", lambda: self.hook(aws, hooks.after_allow_traffic))
            self.event("Wait", lambda: alarm.watch(self.watch_seconds))
        self.event("Terminate", lambda: self.stop("blue"))

    def install(self) -> str:
        """Start green, and wait until the balancer finds it ready."""
        self.stage.compose("up", "--detach", "--no-deps", "green")
        if until(lambda: self.stage.is_healthy("green"), INSTALL_SECONDS):
            return "green is ready"
        found = self.stage.look("green")
        state, restarts = found["State"]["Status"], found["RestartCount"]
        raise DeploymentError(
            f"green is not ready after {INSTALL_SECONDS} s: its container is {state}, after {restarts} restarts"
        )

    def allow_test_traffic(self) -> str:
        """Shift the test listener to green."""
        self.stage.route("test", 100)
        return "green has the test listener"

    def allow_traffic(self, alarm: Alarm) -> str:
        """Shift the production listener to green."""
        if self.shift == "canary":
            self.stage.route("production", CANARY_PERCENT)
            self.say("canary", f"{CANARY_PERCENT} % of the traffic goes to green")
            alarm.watch(self.watch_seconds)
        self.stage.route("production", 100)
        self.settled = time.monotonic()
        return "all traffic goes to green"

    def stop(self, colour: str) -> str:
        """Take a release out of the balancer, let it finish what is in flight, and stop it."""
        for listener in ("test", "production"):
            self.stage.tell(f"set server {listener}/{colour} state drain")
        if not until(lambda: self.stage.statistics(colour)["scur"] == "0", DRAIN_SECONDS):
            raise DeploymentError(f"{colour} still has requests after {DRAIN_SECONDS} s")
        self.stage.compose("stop", colour)
        status = self.stage.look(colour)["State"]["ExitCode"]
        if status:
            self.faults.append(f"{colour} ended with status {status}")
        return f"{colour} is drained and stopped"

    def roll_back(self) -> None:
        """Blue has everything again, and green goes."""
        self.stage.route("production", 0)
        self.settled = time.monotonic()
        self.stage.route("test", 0)
        self.events.append((self.settled - self.began, "Rollback"))
        self.say("Rollback", "all traffic goes to blue")
        if self.failed_at != "BeforeInstall":
            self.say("Rollback", self.stop("green"))

    def event(self, name: str, action: Callable[[], object]) -> None:
        """One lifecycle event.

        Raises:
            DeploymentError: it failed.
        """
        self.events.append((time.monotonic() - self.began, name))
        try:
            seen = action()
        except DeploymentError as error:
            self.failed_at = name
            self.say(name, f"FAILED: {error}")
            raise
        self.say(name, str(seen or "done"))

    def hook(self, aws: Aws, function: Callable[[dict[str, Any], Any], dict[str, str]]) -> str:
        """Call a hook as Lambda does, and take what it tells CodeDeploy.

        Raises:
            DeploymentError: it told `Failed`.
        """
        listener = f"http://127.0.0.1:{self.port}" if function is hooks.after_allow_traffic else "http://127.0.0.1"
        bound_ms = config.read("production")["service"]["latency_bound_ms"]
        os.environ.update(
            BASE_URL=listener,
            TEST_PORT=str(self.test_port),
            URL_PREFIX=self.prefix,
            LATENCY_BOUND_MS=str(bound_ms),
            CLUSTER="laptop",
            FAMILY=config.service_name(),
            SERVICE=config.service_name(),
        )
        execution = function.__name__
        with contextlib.redirect_stdout(io.StringIO()) as log:
            function({"DeploymentId": "d-REHEARSAL", "LifecycleEventHookExecutionId": execution}, Remaining())
        outcome = json.loads(log.getvalue().splitlines()[-1])
        if aws.told.get(execution) != "Succeeded":
            raise DeploymentError(outcome.get("reason", "the hook said nothing"))
        return ", ".join(f"{name} {value}" for name, value in outcome["seen"].items())

    def say(self, what: str, text: str) -> None:
        """One line of progress, with the load's figures."""
        blue, green, failed = self.count("blue"), self.count("green"), len(self.load.failed)
        figures = f"blue {blue:5}  green {green:5}  failed {failed:4}" if self.load.answers else f"{'':36}"
        seconds = time.monotonic() - self.began
        print(f"{seconds:6.1f} s  {what:21}  {figures}  {text}", flush=True)  # noqa: T201 - what the command is for

    def judge(self) -> None:
        """Find what did not go as it should for this green."""
        answers, ends = self.load.answers, ENDS[self.green]
        after = [answer for answer in answers if answer.started > self.settled]
        stays = "blue" if ends else "green"
        if self.failed_at not in (ends or ("",)):
            self.faults.append(f"it failed at {self.failed_at or 'no event'}")
        if strays := [answer for answer in after if answer.release != stays or is_failed(answer)]:
            self.faults.append(f"{len(strays)} of the last {len(after)} requests were not answered well by {stays}")
        if bad := [answer for answer in answers if is_failed(answer) and answer.release != "green"]:
            self.faults.append(f"{len(bad)} requests failed that green did not answer: {bad[:3]}")
        if self.green == "good" and self.load.failed:
            self.faults.append(f"{len(self.load.failed)} requests failed")
        if bool(self.count("green")) != (self.green in {"good", "broken"}):
            self.faults.append(f"{self.count('green')} requests saw green")

    def count(self, release: str) -> int:
        """How many requests a release answered."""
        return sum(answer.release == release for answer in self.load.answers)

    def verdict(self) -> str:
        """The last line."""
        total, failed, green = len(self.load.answers), len(self.load.failed), self.count("green")
        if self.faults:
            return f"NOT as it should be: {'; '.join(self.faults)}"
        if self.green == "good":
            return f"as it should be: {failed} of {total} requests failed, {green} saw green, and all traffic is on it"
        return (
            f"as it should be: rolled back at {self.failed_at}; {green} of {total} requests saw green,"
            f" {failed} failed, and blue was never stopped"
        )

    def draw(self, path: Path) -> None:
        """The picture."""
        first = min(answer.started for answer in self.load.answers)
        shift = first - self.began
        requests = [
            (answer.started + answer.seconds - first, "failed" if is_failed(answer) else answer.release)
            for answer in self.load.answers
        ]
        events = [(max(second - shift, 0), name) for second, name in self.events]
        changed = {"GREEN": self.green, "SHIFT": self.shift}
        command = ["make rehearse", *(f"{name}={value}" for name, value in changed.items() if value != DEFAULTS[name])]
        draw(path, f"$ {' '.join(command)}\n{self.verdict()}", requests, events)


def is_failed(answer: Answer) -> bool:
    """Whether a user would complain."""
    return bool(answer.fault) or answer.status not in {200, 201}


def changes(green: str) -> str:
    """Further lines of a Dockerfile, by which green becomes what it is to be."""
    if green == "unready":
        return UNREADY
    if green not in GREENS:
        return ""
    function, bug = GREENS[green]
    return "\n".join(
        [
            "USER 0",
            f"RUN sed -i 's/^def {function}(.*/&\\n    {bug}/' service/routes.py",
            # It fails where there was nothing to break.
            f"RUN grep -qF '{bug}' service/routes.py",
            "RUN python -m compileall -q -f --invalidation-mode unchecked-hash service",
            "USER 10001:10001",
        ]
    )


def interrupt(_signum: int, _frame: object) -> None:
    """Stop, and take everything away; a second Ctrl-C does not stop that."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Rehearse; says the exit status."""
    green, shift = (os.environ.get(name, default) for name, default in DEFAULTS.items())
    if green not in ENDS or shift not in {"all", "canary"}:
        print(f"GREEN is one of {', '.join(ENDS)}, and SHIFT is all or canary")  # noqa: T201 - for a person
        return 2
    port, test_port = int(os.environ.get("PORT", "8000")), int(os.environ.get("TEST_PORT", str(config.TEST_PORT)))
    rehearsal = Rehearsal(green, shift, port, test_port, float(os.environ.get("WATCH_SECONDS", "8")))
    picture = Path(os.environ.get("PICTURE", "rehearsal.svg"))
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, interrupt)
    status, last = 1, "NOT as it should be"
    try:
        rehearsal.run()
        rehearsal.draw(picture)
        status, last = int(bool(rehearsal.faults)), f"{rehearsal.verdict()}; see {picture}"
    except (StageError, checks.CheckError, DeploymentError, TimeoutError) as error:
        last = f"NOT as it should be: {error}"
    except KeyboardInterrupt:
        status, last = 130, "interrupted"
    finally:
        try:
            rehearsal.stage.remove()
            rehearsal.say("remove", "nothing is left")
        except StageError as error:
            status, last = 1, f"{last}, and not everything could be removed: {error}"
    print(last, flush=True)  # noqa: T201 - for a person
    return status


if __name__ == "__main__":
    sys.exit(main())
