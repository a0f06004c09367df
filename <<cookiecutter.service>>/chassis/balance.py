"""Factor VIII: concurrency. The workers share the connections evenly, so that none of them makes its clients wait.

They accept from one listening socket. The kernel wakes all of them, and whoever is quickest would take most: two
workers held 180 and 332 of 512 connections, and the clients of the second one waited twice as long. So each worker
publishes in shared memory how many connections it has, and leaves a new one to others while it is ahead of them.
Connections that are kept alive stay where they are, also when a worker has a new successor that has none: so a worker
that stays far ahead closes some of its own after their responses, and their clients connect again.

`SO_REUSEPORT` would give each worker a queue of its own. What waits in it is lost when its worker ends.
"""

import mmap
import time
from typing import Any

from gevent.pool import Pool
from gevent.server import StreamServer

SLOTS = 128
"""Places for workers: at a reload each one runs beside its successor, and `WEB_CONCURRENCY` is at most 64."""

CLOSED = 0xFFFF_FFFF
"""The count of a worker that accepts nothing: it starts, stops, or is none."""

SLACK = 8
"""A worker may be ahead of the least busy one by one in so many. Less would make it wait at each step for the others,
one turn of their event loop each time."""

PATIENCE_SECONDS = 0.02
"""How long a connection is left to the other workers. After that they are busy or stuck, and the worker that waited
takes it: one, then two, then four and so on, as long as the others take none. A busy worker needs about this long for
one turn of its event loop."""

LOOK_SECONDS = 0.002
"""How often a worker that leaves a connection to others looks whether it is its turn again."""

AT_ONCE = 64
"""How many connections a worker accepts before it turns to requests again. With one at a time, the loop of a busy
worker would need as many turns as there are connections, and its turns grow longer with each."""

FAR_AHEAD = 4
"""A worker is far ahead if it has one connection in so many more than the least busy one, and as many besides, such as
13 beside 7, or 45 beside 32. It is more than `SLACK` grants, or connections would move for ever."""

GIVEN_AWAY = 4
"""A worker that has been far ahead for long closes the connection of one response in so many."""

LONG_AHEAD = 20
"""After so many heartbeats, 2 s, a worker that is still far ahead gives connections away. While hundreds of clients
connect at once it is so for a moment, and closing their connections would have them connect once more."""

_counts = memoryview(mmap.mmap(-1, SLOTS * 4)).cast("I")  # shared with the workers, which are forked
_counts[:] = memoryview(CLOSED.to_bytes(4, "little") * SLOTS).cast("I")
_free = list(range(SLOTS))


def claim(worker: Any) -> None:
    """Give a worker its slot. Called by the server process, before the fork."""
    worker.slot = _free.pop(0) if _free else None


def release(worker: Any) -> None:
    """Take back the slot of a worker that has ended, however it did. Called by the server process."""
    if worker.slot is not None:
        _counts[worker.slot] = CLOSED
        _free.append(worker.slot)


def watch(worker: Any) -> None:
    """Count for how many heartbeats a worker has been far ahead. Called by the worker at each heartbeat."""
    fewest = min(_counts)
    is_far_ahead = worker.slot is not None and _counts[worker.slot] > fewest + fewest // FAR_AHEAD + FAR_AHEAD
    worker.beats_ahead = worker.beats_ahead + 1 if is_far_ahead else 0


def gives_away(worker: Any) -> bool:
    """Return whether a worker closes the connection of the request that it begins to handle."""
    return bool(worker.beats_ahead > LONG_AHEAD and worker.nr % GIVEN_AWAY == 0)


class Listener(StreamServer):
    """Accepts the share of one worker. Its connections are the green threads of its pool."""

    max_accept = AT_ONCE

    def __init__(self, listener: Any, *, handle: Any, spawn: Pool, slot: int | None) -> None:
        super().__init__(listener, handle=handle, spawn=spawn)
        self._connections, self._slot = spawn, slot
        self._deadline = 0.0
        self._batch = self._granted = 0

    def start(self) -> None:
        """Accept connections from now on."""
        self._publish(len(self._connections))
        super().start()

    def close(self) -> None:
        """Accept no more connections."""
        self._publish(CLOSED)
        super().close()

    def do_read(self) -> Any:
        """Accept a connection. Return `None` if there is none, or if it is left to another worker for the moment."""
        if not self._is_ahead():
            self._deadline, self._batch, self._granted = 0.0, 0, 0
        elif not self._granted and not self._has_waited():
            return None
        self._granted = max(self._granted - 1, 0)
        accepted = super().do_read()
        if not accepted:  # others have taken it
            self._deadline, self._batch, self._granted = 0.0, 0, 0
        return accepted

    def do_handle(self, *args: Any) -> None:
        """Serve a connection in a green thread of its own."""
        super().do_handle(*args)
        self._publish(len(self._connections))

    def do_close(self, *args: Any) -> None:
        """End a connection. Called by its green thread, which ends too."""
        super().do_close(*args)
        if self.started:
            self._publish(len(self._connections) - 1)

    def _has_waited(self) -> bool:
        """Return whether the others have had their time. Otherwise accept nothing until it is over."""
        now = time.monotonic()
        if self._deadline and now >= self._deadline:
            self._deadline = 0.0
            self._batch = self._granted = 2 * self._batch or 1
            return True
        self._deadline = self._deadline or now + PATIENCE_SECONDS
        self.stop_accepting()  # else the loop would turn without a pause while the connection waits
        self._timer = self.loop.timer(min(self._deadline - now, LOOK_SECONDS))
        self._timer.start(self._resume)
        return False

    def _resume(self) -> None:
        if self.started:
            self.start_accepting()
            self._do_read()  # type: ignore[attr-defined] # at once, to see whether the connection still waits

    def _is_ahead(self) -> bool:
        fewest = min(_counts)
        return len(self._connections) > fewest + fewest // SLACK

    def _publish(self, count: int) -> None:
        if self._slot is not None:
            _counts[self._slot] = count
