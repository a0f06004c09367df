"""The clients of `chaos.py`: some remember every answer and what may be stored because of it, others do harm."""

import http.client
import json
import random
import socket
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

SUCCESSES = {200, 201, 204}


@dataclass(eq=False, repr=False)
class Client(threading.Thread):
    """A client that sends one request after the other, and knows what may be stored under each of its keys."""

    port: int
    chance: random.Random
    ended: threading.Event
    answers: list[tuple[float, float, str, int, str]] = field(default_factory=list)
    """When each began, its seconds, the method, the status, and what was wrong with it."""
    states: dict[str, set[str | None]] = field(default_factory=dict)
    """What may be stored under each ID: texts, or `None`."""
    posted: dict[str, bool] = field(default_factory=dict)
    """The texts that were sent by POST, and whether they were acknowledged."""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        """Send requests until `ended`."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.ended.wait(0.02):
            certain = [key for key, texts in self.states.items() if len(texts) == 1]
            method = self.chance.choice(["POST", "PUT", "GET", "DELETE"] if certain else ["POST", "PUT"])
            getattr(self, f"_send_{method.lower()}")(certain)
        self._connection.close()

    def _send_post(self, _certain: list[str]) -> None:
        text = str(uuid.UUID(int=self.chance.getrandbits(128)))
        status, _ = self._ask("POST", "/probes", text)
        self.posted[text] = status == HTTPStatus.CREATED

    def _send_put(self, certain: list[str]) -> None:
        key = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
        if certain and self.chance.random() < 0.5:
            key = self.chance.choice(certain)
        self._write("PUT", key, str(self.chance.getrandbits(64)))

    def _send_delete(self, certain: list[str]) -> None:
        self._write("DELETE", self.chance.choice(certain), None)

    def _write(self, method: str, key: str, text: str | None) -> None:
        before = self.states.get(key, {None})
        status, _ = self._ask(method, f"/probes/{key}", text)
        # Without a success it may have happened, also later: the key is left alone from then on.
        self.states[key] = {text} if status in SUCCESSES else {*before, text}

    def _send_get(self, certain: list[str]) -> None:
        key = self.chance.choice(certain)
        status, body = self._ask("GET", f"/probes/{key}", None)
        [expected] = self.states[key]
        if status in {200, 404} and (body["text"] if status == HTTPStatus.OK else None) != expected:
            self.answers[-1] = (*self.answers[-1][:4], "not what was stored")

    def _ask(self, method: str, path: str, text: str | None) -> tuple[int, Any]:
        body = None if text is None else json.dumps({"text": text})
        headers = {} if text is None else {"Content-Type": "application/json"}
        began, status, fault, received = time.monotonic(), 0, "", b""
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            received, status = response.read(), response.status
            if status == HTTPStatus.SERVICE_UNAVAILABLE and response.headers["Retry-After"] != "1":
                fault = "no Retry-After"
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            fault = type(error).__name__
            time.sleep(0.05)
        self.answers.append((began, time.monotonic() - began, method, status, fault))
        return status, json.loads(received or b"null")


def trickle(port: int, seconds: float) -> None:
    """Connect fifty clients that never finish a request."""
    with ExitStack() as stack, suppress(OSError):
        sockets = [_connect(port, stack) for _ in range(50)]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for sock in sockets:
                with suppress(OSError):
                    sock.sendall(b"P")
            time.sleep(0.3)


def reset(port: int) -> None:
    """Connect fifty clients that reset their connections."""
    with ExitStack() as stack, suppress(OSError):
        for _ in range(50):
            sock = _connect(port, stack)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.sendall(b"GET /probes HTTP/1.1\r\nHost: a\r\n\r\n")


def pile_up(port: int, seconds: float) -> None:
    """Connect two hundred clients that do not read."""
    with ExitStack() as stack, suppress(OSError):
        for _ in range(200):
            _connect(port, stack).sendall(b"GET /probes HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(seconds)


def _connect(port: int, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
