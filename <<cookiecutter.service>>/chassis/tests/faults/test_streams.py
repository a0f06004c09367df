"""Factor XI: hostile events from many processes in one pipe, and readers that sleep or hang up."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any, Self

import pytest

from chassis import logs
from chassis.testing.process import environment, free_port, wait_until
from chassis.tests.faults.load import Load
from chassis.tests.probe import PACKAGE

PROCESSES = 8
LINES = 500

HOSTILE = """
import json, logging, math, sys
from chassis import logs
logs.capture("INFO")
cycle = []
cycle.append(cycle)
VALUES = [
    "carriage\\rreturn", "line\\nfeed\\r\\n", "\\x1b[2J\\x1b]0;title\\x07", '"quotes" and \\\\ and \\'', "x" * 100_000,
    '"' * 100_000, "\\x00" * 100_000, "\\U0001f600" * 100_000, "\\u2028\\u2029\\x85", "half \\ud800", math.nan,
    -math.inf, 2**100, b"\\xff\\xfe", cycle, {"a" * 10_000: 1}, {1: {2: {3: {4: {5: {6: 7}}}}}}, object(), None,
    '{"timestamp":"2000-01-01","severity_text":"INFO","body":"forged"}',
]
log = logging.getLogger("hostile")
for number in range(LINES):
    value = VALUES[number % len(VALUES)]
    extra = {"event.number": number, "value": value}
    if number % 3 == 0:
        log.warning("%s", value, extra=extra)
    elif number % 3 == 1:
        try:
            raise ValueError(value)
        except ValueError:
            log.exception("failed", extra=extra)
    else:
        logs.emit("INFO", "hostile", str(value).encode("utf-8", "replace").decode(), extra)
"""


def strictly(line: bytes) -> dict[str, Any]:
    """Return the event of a line, which holds no constants that JSON does not know."""
    event: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return event


def test_hostile_lines_of_many_processes_in_one_pipe_arrive_whole() -> None:
    reading, writing = os.pipe()
    program = HOSTILE.replace("LINES", str(LINES))
    writers = [
        subprocess.Popen([sys.executable, "-c", program], env=environment(), stdout=writing, stderr=writing)
        for _ in range(PROCESSES)
    ]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().split(b"\n")
    assert [writer.wait(60) for writer in writers] == [0] * PROCESSES
    assert lines.pop() == b""
    events = [strictly(line) for line in lines]
    seen = Counter((event.get("process.pid"), event.get("event.number")) for event in events)
    expected = {(writer.pid, number) for writer in writers for number in range(LINES)}
    longest = max(len(line) + 1 for line in lines)
    print(
        f"{PROCESSES} processes, {PROCESSES * LINES} hostile events: {len(lines)} lines, all parse, "
        f"{len(expected - set(seen))} lost, the longest has {longest} bytes"
    )
    assert set(seen) == expected
    assert set(seen.values()) == {1}
    assert longest <= 4096


class Unread:
    """A service whose stdout is a pipe that nobody reads, until `follow` is called."""

    def __init__(self, database_url: str) -> None:
        self.port = free_port()
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)  # the smallest one: full after a dozen requests
        self.pipe = os.fdopen(reading, "rb", buffering=0)
        self.lines: list[bytes] = []
        variables = environment(DATABASE_URL=database_url, PORT=self.port, DRAIN_SECONDS=1)
        self.process = subprocess.Popen(
            [sys.executable, "-m", PACKAGE], env=variables, stdout=writing, stderr=subprocess.DEVNULL
        )
        os.close(writing)

    def __enter__(self) -> Self:
        wait_until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.pipe.close()  # it would wake whoever waited for a reader
        self.process.wait(20)

    def follow(self, pause_seconds: float = 0) -> threading.Thread:
        """Read until the service ends, a page at a time with a pause after each; `lines` grows meanwhile."""

        def read() -> None:
            rest = b""
            while page := self.pipe.read(4096):
                *lines, rest = (rest + page).split(b"\n")
                self.lines += lines
                time.sleep(pause_seconds)  # what is slow in a slow reader

        thread = threading.Thread(target=read)
        thread.start()
        return thread

    def stop(self) -> int:
        """End it as a platform would; says its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets one process use a pipe without blocking")


@linux
def test_a_reader_that_sleeps_stops_no_request_and_hears_later_what_it_missed(database_url: str) -> None:
    with Unread(database_url) as service:
        with Load(service.port, clients=8) as load:
            load.wait_for(2_000, seconds=60)
        reader = service.follow()
        with Load(service.port, clients=8) as awake:
            awake.wait_for(500)
        assert service.stop() == 0
        reader.join(20)
    slowest = max(answer.seconds for answer in load.answers)
    events = [strictly(line) for line in service.lines]
    requests = len(load.answers) + len(awake.answers)
    heard = sum(event["logger"] == "access" for event in events)
    missed = sum(event["dropped"] for event in events if event["body"] == "log lines were dropped")
    print(
        f"nobody reads the log: {len(load.failed)} failed of {len(load.answers)} requests, the slowest took "
        f"{slowest:.2f} s; later {heard} of {requests} lines of requests and {missed} counted as dropped"
    )
    assert not load.failed
    assert not awake.failed
    assert slowest < logs.MAX_WAIT_SECONDS + 1
    assert missed > 1_000
    assert requests <= heard + missed <= requests + 40  # the server's own lines


@linux
def test_a_slow_reader_delays_a_request_no_longer_than_documented(database_url: str) -> None:
    with Unread(database_url) as service:
        reader = service.follow(pause_seconds=2.5)
        with Load(service.port, clients=8) as load:
            wait_until(lambda: len(service.lines) > 12)  # some pages
        service.process.send_signal(signal.SIGQUIT)
        reader.join(20)
    slowest = max(answer.seconds for answer in load.answers)
    print(f"a slow reader: {len(load.failed)} failed of {len(load.answers)} requests, the slowest took {slowest:.2f} s")
    assert not load.failed
    assert slowest < 2 * logs.MAX_WAIT_SECONDS + 1  # its own line, and perhaps that of what was dropped


@linux
def test_a_reader_that_hangs_up_stops_nothing(database_url: str) -> None:
    with Unread(database_url) as service:
        service.pipe.close()
        with Load(service.port, clients=8) as load:
            load.wait_for(1_000)
        assert service.stop() == 0
    slowest = max(answer.seconds for answer in load.answers)
    print(f"nobody holds the log: {len(load.failed)} failed of {len(load.answers)} requests, slowest {slowest:.2f} s")
    assert not load.failed
    assert slowest < logs.MAX_WAIT_SECONDS + 1
