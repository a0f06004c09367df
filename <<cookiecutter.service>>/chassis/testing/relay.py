"""A TCP relay on loopback that slows connections down or falls silent, as a frozen server or proxy does."""

import contextlib
import select
import socket
import threading
import time
from typing import Self
from urllib.parse import parse_qsl, urlencode, urlsplit

READY_FOR_QUERY = b"Z\x00\x00\x00\x05"
"""https://www.postgresql.org/docs/18/protocol-message-formats.html"""


def moved(database_url: str, port: int) -> str:
    """Return `database_url` with 127.0.0.1:`port` in the place of its server, be that at a port or a Unix socket."""
    parts = urlsplit(database_url)
    location = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name != "host"])
    return parts._replace(netloc=location, query=query).geturl()


class Relay:
    """`with Relay(host, port, delay_seconds) as relay:` answers on 127.0.0.1:`relay.port` in the place of host:port.

    A host that begins with `/` is a folder with the server's Unix socket, as libpq has it.

    What the client sends is passed on `delay_seconds` late, so each round trip takes that much longer.

    Between `freeze` and `thaw` nothing is passed on, but every packet is confirmed and every connection accepted.
    """

    def __init__(
        self, host: str, port: int, delay_seconds: float = 0, listen: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self._lets_log_in = self._refuses = False
        self._speaking = threading.Event()
        self._speaking.set()
        self._forgotten: list[threading.Event] = []
        self.delay_seconds = delay_seconds
        self.lead_to(host, port)
        self._listener = socket.create_server(listen)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []  # a client's connection, and ours to the server

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        for speaking in (*self._forgotten, self._speaking):
            speaking.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.cut()

    def stands_for(self, database_url: str) -> str:
        """Return `database_url` with this relay in the place of its server."""
        return moved(database_url, self.port)

    def lead_to(self, host: str, port: int) -> None:
        """Have new connections lead to another server."""
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)

    def freeze(self, *, after_login: bool = False) -> None:
        """Pass nothing on any more, or with `after_login` nothing but logins, which a relay sees only without TLS."""
        self._lets_log_in = after_login
        self._speaking.clear()

    def thaw(self) -> None:
        """Pass everything on again, also what was held back."""
        self._speaking.set()

    def forget(self) -> None:
        """Be a new relay: nobody answers on the connections that there were, and the server has lost them."""
        self._speaking.clear()
        for _, server in list(self._pairs):
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
        self._forgotten.append(self._speaking)
        self._speaking = threading.Event()
        self._speaking.set()

    def cut(self) -> None:
        """Close all connections."""
        for pair in list(self._pairs):
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Close each new connection at once, and pass on what the others say."""
        self._refuses = True

    def accept(self) -> None:
        """Take new connections again."""
        self._refuses = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            if self._refuses:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            try:
                server.connect(self._target)
            except OSError:  # the server is away
                server.close()
                client.close()
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._carry, args=(client, server, self._speaking), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket, speaking: threading.Event) -> None:
        answering = threading.Thread(target=self._pass_answers, args=(server, client, speaking), daemon=True)
        answering.start()
        self._pass_requests(client, server, speaking)
        answering.join()
        self._pairs.remove((client, server))
        client.close()
        server.close()

    def _wait(self, speaking: threading.Event, client: socket.socket) -> None:
        """Wait until the relay passes something on. A connection that it has forgotten waits until its client leaves.

        Raises:
            OSError: The client has left.
        """
        hang_up = select.poll()
        hang_up.register(client, getattr(select, "POLLRDHUP", select.POLLHUP))  # macOS has no RDHUP
        while not speaking.wait(1):
            if speaking is not self._speaking and hang_up.poll(0):
                raise ConnectionAbortedError

    def _pass_requests(self, client: socket.socket, server: socket.socket, speaking: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                time.sleep(self.delay_seconds)
                if not self._lets_log_in:
                    self._wait(speaking, client)
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _pass_answers(self, server: socket.socket, client: socket.socket, speaking: threading.Event) -> None:
        is_logged_in = False
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if is_logged_in or not self._lets_log_in:
                    self._wait(speaking, client)
                is_logged_in = is_logged_in or READY_FOR_QUERY in data
                client.sendall(data)
            if is_logged_in or not self._lets_log_in:
                self._wait(speaking, client)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
