"""Factor IX: disposability. On SIGTERM the service drains: it serves while the balancer moves away. Then it stops.

The state is in memory that the server process shares with its workers, so all of them see a change at once.
"""

import logging
import mmap
import os
import signal
from enum import IntEnum
from types import FrameType
from typing import Protocol


class State(IntEnum):
    """What the service is doing."""

    STARTING = 0
    SERVING = 1
    DRAINING = 2
    STOPPING = 3


_shared = mmap.mmap(-1, 2)  # the state, and how many seconds a drain takes

log = logging.getLogger(__name__)


class Server(Protocol):
    """What this module needs of gunicorn's arbiter."""

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Queue a signal for gunicorn's own handler."""


def started() -> None:
    """Record that this process can serve."""
    if state() == State.STARTING:
        _shared[0] = State.SERVING
    log.info("ready")


def state() -> State:
    """Return what the service is doing."""
    return State(_shared[0])


def is_ready() -> bool:
    """Return whether new requests are welcome: the service has started and is not about to stop."""
    return state() == State.SERVING


def is_leaving() -> bool:
    """Return whether SIGTERM was received: from then on, each response closes its connection."""
    return _shared[0] >= State.DRAINING  # without `state`, since each request asks


def is_draining() -> bool:
    """Return whether the service is between SIGTERM and its stop, and still serves."""
    return state() == State.DRAINING


def drain_seconds() -> int:
    """Return how long a drain takes."""
    return _shared[1]


def drain_on_sigterm(server: Server, seconds: int) -> None:
    """Serve for `seconds` more between SIGTERM and gunicorn's own stop.

    gunicorn closes its listening socket at once, which resets the connections that the kernel has accepted but no
    worker has: requests are lost unless the balancer knew beforehand. So the service goes on, says at `/readyz` that it
    is leaving, closes each connection after its next response, and then stops. A second SIGTERM ends the drain.
    """
    _shared[1] = seconds

    def stop(_signum: int, frame: FrameType | None) -> None:
        _shared[0] = State.STOPPING
        server.signal(signal.SIGTERM, frame)

    def drain(signum: int, frame: FrameType | None) -> None:
        if is_leaving() or not seconds:
            stop(signum, frame)
            return
        _shared[0] = State.DRAINING
        signal.setitimer(signal.ITIMER_REAL, seconds)
        log.info("draining", extra={"drain_seconds": seconds})

    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, drain)


def hold_signals_while_forking() -> None:
    """Make sure that no signal to stop is lost in a worker that is just being forked.

    Between the fork and its own handlers a worker has the server's handlers, which would only queue the signal: the
    server would then wait for that worker until `SHUTDOWN_SECONDS` are over. So signals are blocked during the fork,
    and end a worker that has no handlers yet.
    """
    held = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}

    def begin_as_child() -> None:
        for signum in held:
            signal.signal(signum, lambda *_: os._exit(0))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, held),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, held),
        after_in_child=begin_as_child,
    )
