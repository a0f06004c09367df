"""A blue/green deployment, step for step what CodeDeploy does on ECS, with the hooks of `deploy/hooks.py`.

Green is as good as blue, or it has a fault and has to be rolled back.
"""

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import hooks, smoke
from deploy.rehearse import balancer, settings
from deploy.rehearse import stage as stages
from deploy.rehearse.alarm import Alarm, DeploymentError
from deploy.rehearse.aws import Aws
from deploy.rehearse.docker import until
from deploy.rehearse.fleet import State
from deploy.rehearse.record import count, is_failed
from deploy.rehearse.rehearsal import Rehearsal

ENDS = {
    "good": (),
    "broken": ("AllowTraffic", "AfterAllowTraffic", "Wait"),
    "unready": ("Install",),
    "slow": ("AfterAllowTestTraffic",),
}
"""At which of the events each green has to fail."""

UNREADY = "ENV PORT=8080"
"""It listens where the load balancer does not ask."""

HOOK_SECONDS = 300
"""How long a hook may take, as in `deploy/`."""

CANARY_PERCENT = 10
"""Share of the traffic that green gets first, with SHIFT=canary."""


@dataclass
class Deployment:
    """One deployment of green."""

    show: Rehearsal
    green: str
    """Which green: a key of `ENDS`."""
    shift: str
    """`all` at once, or `canary`."""
    watch_seconds: float
    """How long the alarm watches green with traffic."""
    aws: Aws
    failed_at: str = ""
    settled: float = 0
    """When the traffic was where it stays."""


def new(show: Rehearsal, green: str, shift: str, watch_seconds: float) -> Deployment:
    """Return a deployment that has not begun."""
    return Deployment(show, green, shift, watch_seconds, Aws(show.fleet))


def changes(green: str) -> str:
    """Return further lines of a Dockerfile, by which green becomes what it is to be."""
    if green == "unready":
        return UNREADY
    if green not in smoke.FAULTS:
        return ""
    path, function, fault = smoke.FAULTS[green]
    return "\n".join(
        [
            "USER 0",
            f'RUN sed -i \'/^def {function}(/,/"""/ s/.*""".*/&\\n    {fault}/\' {path}',
            # It fails where there was nothing to change.
            f"RUN grep -qF '{fault}' {path}",
            "RUN python -m compileall -q -f --invalidation-mode unchecked-hash service",
            "USER 10001:10001",
        ]
    )


def deploy(deployment: Deployment) -> bool:
    """Deploy green, and roll back if it fails. Return whether green has the traffic.

    Raises:
        DeploymentError: The rollback failed.
        StageError: Something failed that has nothing to do with green.
    """
    fleet = deployment.show.fleet
    blue = sorted(task.name for task in fleet.having("blue", State.HEALTHY))
    try:
        _events(deployment)
    except DeploymentError:
        _roll_back(deployment)
        if sorted(task.name for task in fleet.having("blue", State.HEALTHY)) != blue:
            deployment.show.faults.append("blue was stopped")
        return False
    fleet.live = "green"
    return True


def judge(deployment: Deployment) -> None:
    """Find what did not go as it should for this green."""
    show, green = deployment.show, deployment.green
    answers, ends = show.load.answers, ENDS[green]
    after = [answer for answer in answers if answer.started > deployment.settled]
    stays = "blue" if ends else "green"
    if deployment.failed_at not in (ends or ("",)):
        show.faults.append(f"it failed at {deployment.failed_at or 'no event'}")
    if strays := [answer for answer in after if answer.release != stays or is_failed(answer)]:
        show.faults.append(f"{len(strays)} of the last {len(after)} requests were not answered well by {stays}")
    if bad := [answer for answer in answers if is_failed(answer) and answer.release != "green"]:
        show.faults.append(f"{len(bad)} requests failed that green did not answer: {bad[:3]}")
    if green == "good" and show.load.failed:
        show.faults.append(f"{len(show.load.failed)} requests failed")
    if bool(count(answers, "green")) != (green in {"good", "broken"}):
        show.faults.append(f"{count(answers, 'green')} requests saw green")


def verdict(deployment: Deployment) -> str:
    """Return in one line how it ended, and what did not go as it should."""
    judge(deployment)
    show = deployment.show
    total, failed, green = len(show.load.answers), len(show.load.failed), count(show.load.answers, "green")
    if show.faults:
        return f"NOT as it should be: {'; '.join(show.faults)}"
    if deployment.green == "good":
        return f"as it should be: {failed} of {total} requests failed, {green} saw green, and all traffic is on it"
    return (
        f"as it should be: rolled back at {deployment.failed_at}; {green} of {total} requests saw green,"
        f" {failed} failed, and blue was never stopped"
    )


def _events(deployment: Deployment) -> None:
    """Run the events of a deployment, by CodeDeploy's names.

    Raises:
        DeploymentError: One of them failed.
    """
    show = deployment.show
    stages.migrate(show.stage, "green")
    show.record.say("migrate", "the schema is up to date, by a one-off process of green")
    deployment.aws.attach()
    _event(deployment, "BeforeInstall", lambda: _hook(deployment, hooks.before_install))
    _event(deployment, "Install", lambda: _install(deployment))
    _event(deployment, "AfterInstall", lambda: _hook(deployment, hooks.after_install))
    _event(deployment, "AllowTestTraffic", lambda: _allow_test_traffic(deployment))
    _event(deployment, "AfterAllowTestTraffic", lambda: _hook(deployment, hooks.after_allow_test_traffic))
    _event(deployment, "BeforeAllowTraffic", lambda: _hook(deployment, hooks.before_allow_traffic))
    with Alarm(show.stage.balancer) as alarm:
        _event(deployment, "AllowTraffic", lambda: _allow_traffic(deployment, alarm))
        _event(deployment, "AfterAllowTraffic", lambda: _hook(deployment, hooks.after_allow_traffic))
        _event(deployment, "Wait", lambda: alarm.watch(deployment.watch_seconds))
    _event(deployment, "Terminate", lambda: _stop(deployment, "blue"))


def _install(deployment: Deployment) -> str:
    """Start as many tasks of green as there are of blue, and wait until the load balancer finds them healthy."""
    fleet = deployment.show.fleet
    count = fleet.wanted["green"] = fleet.wanted["blue"]
    seconds = settings.install_seconds(count)
    if until(lambda: len(fleet.having("green", State.HEALTHY)) >= count, seconds):
        return f"{count} tasks of green are ready" if count > 1 else "green is ready"
    states = ", ".join(f"{task.name} is {task.state.value}" for task in fleet.having("green", *State))
    raise DeploymentError(f"green is not ready after {seconds:.0f} s: {states}")


def _allow_test_traffic(deployment: Deployment) -> str:
    balancer.route(deployment.show.stage.balancer, "test", 100)
    return "green has the test listener"


def _allow_traffic(deployment: Deployment, alarm: Alarm) -> str:
    show = deployment.show
    if deployment.shift == "canary":
        balancer.route(show.stage.balancer, "production", CANARY_PERCENT)
        show.record.say("canary", f"{CANARY_PERCENT} % of the traffic goes to green")
        alarm.watch(deployment.watch_seconds)
    balancer.route(show.stage.balancer, "production", 100)
    deployment.settled = time.monotonic()
    return "all traffic goes to green"


def _stop(deployment: Deployment, colour: str) -> str:
    """Stop all tasks of a release in order.

    Raises:
        DeploymentError: They do not stop.
    """
    fleet = deployment.show.fleet
    fleet.wanted[colour] = 0
    if not until(lambda: not fleet.having(colour, *State), settings.STOP_SECONDS + settings.DEREGISTRATION_SECONDS):
        raise DeploymentError(f"{colour} does not stop")
    return f"{colour} is drained and stopped"


def _roll_back(deployment: Deployment) -> None:
    """Give blue all traffic again, and stop green."""
    show = deployment.show
    balancer.route(show.stage.balancer, "production", 0)
    deployment.settled = time.monotonic()
    balancer.route(show.stage.balancer, "test", 0)
    show.record.mark("Rollback")
    show.record.say("Rollback", "all traffic goes to blue")
    if deployment.failed_at != "BeforeInstall":
        show.record.say("Rollback", _stop(deployment, "green"))


def _event(deployment: Deployment, name: str, action: Callable[[], str]) -> None:
    """Run one lifecycle event.

    Raises:
        DeploymentError: It failed.
    """
    record = deployment.show.record
    record.mark(name)
    try:
        seen = action()
    except DeploymentError as error:
        deployment.failed_at = name
        record.say(name, f"FAILED: {error}")
        raise
    record.say(name, seen or "done")


class _Context:
    """The context of a Lambda function."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + HOOK_SECONDS

    def get_remaining_time_in_millis(self) -> float:
        """Return the milliseconds until the function is ended."""
        return (self._deadline - time.monotonic()) * 1_000


def _hook(deployment: Deployment, function: Callable[[dict[str, Any], Any], dict[str, str]]) -> str:
    """Call a hook as Lambda does, and return what it saw.

    Raises:
        DeploymentError: It reported `Failed`.
    """
    show = deployment.show
    os.environ.update(
        BASE_URL=f"http://127.0.0.1:{show.port}" if function is hooks.after_allow_traffic else "http://127.0.0.1",
        TEST_PORT=str(show.test_port),
        URL_PREFIX=settings.PREFIX,
        LATENCY_BOUND_MS=str(settings.LATENCY_BOUND_MS),
        CLUSTER="laptop",
        FAMILY=settings.SERVICE,
        SERVICE=settings.SERVICE,
    )
    execution = function.__name__
    with contextlib.redirect_stdout(io.StringIO()) as log:
        function({"DeploymentId": "d-REHEARSAL", "LifecycleEventHookExecutionId": execution}, _Context())
    outcome = json.loads(log.getvalue().splitlines()[-1])
    if deployment.aws.told.get(execution) != "Succeeded":
        raise DeploymentError(outcome.get("reason", "the hook said nothing"))
    return ", ".join(f"{name} {value}" for name, value in outcome["seen"].items())
