"""Factor IX: disposability. What SIGTERM does: go on serving while the balancer looks away, then stop.

The state lies in memory that the server process shares with its workers, so all of them see a change at once.
"""

import logging
import mmap
import os
import signal
from types import FrameType
from typing import Protocol

_STARTING, _SERVING, _DRAINING, _STOPPING = range(4)
_state = mmap.mmap(-1, 2)  # what the server does, and for how many seconds it drains

log = logging.getLogger(__name__)


class Server(Protocol):
    """What is needed of gunicorn's arbiter."""

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Queue a signal, to be handled by gunicorn's own rules."""


def started() -> None:
    """Say that this process can serve."""
    if _state[0] == _STARTING:
        _state[0] = _SERVING
    log.info("ready")


def is_ready() -> bool:
    """Whether new requests are welcome: the service has started and is not about to stop."""
    return _state[0] == _SERVING


def is_leaving() -> bool:
    """Whether SIGTERM has come: clients are to be told."""
    return _state[0] >= _DRAINING


def is_draining() -> bool:
    """Whether the service still serves all the same."""
    return _state[0] == _DRAINING


def drain_seconds() -> int:
    """How long a drain takes."""
    return _state[1]


def drain_on_sigterm(server: Server, seconds: int) -> None:
    """Put `seconds` of further service between SIGTERM and gunicorn's own stop.

    gunicorn closes its listening socket at once, which resets the connections that the kernel has accepted but no
    worker has: requests are lost unless the balancer knew beforehand. So the service goes on, says at `/readyz` that it
    is leaving, closes each connection after its next answer, and stops when nobody comes any more. A second SIGTERM
    ends the wait.
    """
    _state[1] = seconds

    def stop(_signum: int, frame: FrameType | None) -> None:
        _state[0] = _STOPPING
        server.signal(signal.SIGTERM, frame)

    def drain(signum: int, frame: FrameType | None) -> None:
        if is_leaving() or not seconds:
            stop(signum, frame)
            return
        _state[0] = _DRAINING
        signal.setitimer(signal.ITIMER_REAL, seconds)
        log.info("draining", extra={"drain_seconds": seconds})

    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, drain)


def hold_signals_while_forking() -> None:
    """Let no signal to stop get lost in a worker that is being made.

    Between the fork and its own handlers a worker has the server's, which would only note the signal: the server would
    then wait for the worker until `SHUTDOWN_SECONDS` are over. So signals wait for the fork, and end a young worker.
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
