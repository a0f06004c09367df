"""A steady load of idempotent requests over kept-alive connections, by clients that remember every answer.

Each client puts probes under IDs of its own and gets them again. What was acknowledged must be found, unchanged; the
caller compares with the database afterwards. Nothing is retried: a failure is seen by the test as a user would see it.
"""

import http.client
import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request."""

    started: float
    """Seconds of `time.monotonic`."""
    seconds: float
    """From the first byte sent to the last one received, or to the failure."""
    method: str
    status: int
    """0 when there was no answer: the connection was refused, reset or closed, or the time-out passed."""
    retry_after: str | None
    """The header of this name."""
    fault: str
    """Why there was no answer, or what was wrong with it; empty if nothing was."""
    release: str = ""
    """Who answered, where the balancer says so in the header `X-Release`."""
    task: str = ""
    """Which task answered, where the balancer says so in the header `X-Task`."""


@dataclass
class Load:
    """`with Load(port) as load:` puts load on 127.0.0.1:port until the block ends; `answers` grows meanwhile."""

    port: int
    clients: int = 16
    timeout_seconds: float = 30
    path: str = "/probes"
    pause_seconds: float = 0
    """Between two requests of a client, on average, so that clients do not keep step; 0 is as fast as it can."""
    first: int = 0
    """The number of the first client. Two loads at once need different numbers, since IDs are made of them."""
    body: Callable[[str], Any] = lambda text: {"text": text}
    """Makes the body of a PUT of a text."""
    text_of: Callable[[Any], Any] = lambda found: found["text"]
    """Returns the text in the body of a response."""
    answers: list[Answer] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """The text of each probe whose PUT was answered with 200 or 201, by its id."""

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._in_flight: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(number,))
            for number in range(self.first, self.first + self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Answer]:
        """The answers that are not what they should be."""
        return [answer for answer in self.answers if answer.fault or answer.status not in {200, 201}]

    def settled(self, moment: float) -> bool:
        """Return whether every request that began before `moment`, in seconds of `time.monotonic`, is over."""
        return all(started > moment for started in list(self._in_flight.values()))

    def wait_for(self, count: int, seconds: float = 120) -> None:
        """Wait until there are `count` answers in all.

        Raises:
            TimeoutError: there are not, in time.
        """
        deadline = time.monotonic() + seconds
        while len(self.answers) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.answers)} of {count} answers in {seconds} s")
            time.sleep(0.01)

    def _run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_seconds)
        mine: list[str] = []
        chance = random.Random(number)
        while not self._stopping.is_set():
            # As many reads as writes; an id is written a second time now and then, as a client that retries would.
            if mine and chance.random() < 0.5:
                self._request(connection, "GET", chance.choice(mine), None)
            else:
                again = bool(mine) and chance.random() < 0.1
                probe_id = chance.choice(mine) if again else str(uuid.UUID(int=chance.getrandbits(128), version=4))
                # No two texts are the same: in a service that a rehearsal runs, they may have to be unique.
                text = self.acknowledged[probe_id] if again else f"{number}/{probe_id}"
                if self._request(connection, "PUT", probe_id, text) and not again:
                    mine.append(probe_id)
            if self.pause_seconds:
                self._stopping.wait(self.pause_seconds * chance.uniform(0.5, 1.5))
        connection.close()

    def _request(self, connection: http.client.HTTPConnection, method: str, probe_id: str, text: str | None) -> bool:
        """Ask once, and remember the answer; says whether it was a success."""
        body = None if text is None else json.dumps(self.body(text))
        headers = {} if text is None else {"Content-Type": "application/json"}
        started = time.monotonic()
        me = threading.get_ident()
        self._in_flight[me] = started
        status, retry_after, fault, release, task = 0, None, "", "", ""
        try:
            connection.request(method, f"{self.path}/{probe_id}", body, headers)
            response = connection.getresponse()
            received = response.read()
            status, retry_after = response.status, response.headers.get("Retry-After")
            release, task = response.headers.get("X-Release", ""), response.headers.get("X-Task", "")
            if status in {200, 201} and self.text_of(json.loads(received)) != (text or self.acknowledged[probe_id]):
                fault = "another text"
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            fault = f"{type(error).__name__}: {error}"
        succeeded = not fault and status in {200, 201}
        if succeeded and text is not None:
            self.acknowledged[probe_id] = text
        seconds = time.monotonic() - started
        self.answers.append(Answer(started, seconds, method, status, retry_after, fault, release, task))
        del self._in_flight[me]
        return succeeded
