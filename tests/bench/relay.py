"""A TCP relay before PostgreSQL that counts round trips."""

import contextlib
import socket
import threading
from typing import Self
from urllib.parse import parse_qs, urlsplit


class Relay:
    """`with Relay(database_url) as relay:` answers at `relay.url` in the place of the database.

    A round trip is a change of direction: something sent to the server after it has answered. So it is what the
    network would be waited for, whatever the protocol packs into one message.
    """

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        folder = parse_qs(parts.query).get("host", [""])[0]
        port = parts.port or 5432
        self._target: str | tuple[str, int] = (
            f"{folder}/.s.PGSQL.{port}" if folder else (parts.hostname or "localhost", port)
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        self.url = parts._replace(netloc=f"{user}@127.0.0.1:{self._listener.getsockname()[1]}", query="").geturl()
        self.round_trips = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
                self._sockets += [client, server]
                server.connect(self._target)
                answered = threading.Event()
                threading.Thread(target=self._to_server, args=(client, server, answered), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client, answered), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if answered.is_set():
                    answered.clear()
                    with self._lock:
                        self.round_trips += 1
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _to_client(server: socket.socket, client: socket.socket, answered: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                answered.set()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
