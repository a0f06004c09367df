"""A TCP relay on loopback that slows a connection down, for effects that a fast machine would hide."""

import contextlib
import socket
import threading
import time
from typing import Self


class Relay:
    """`with Relay(host, port, delay_seconds) as relay:` answers on 127.0.0.1:`relay.port` in the place of host:port.

    A host that begins with `/` is a folder with the server's Unix socket, as libpq has it.

    What the client sends is passed on `delay_seconds` late, so each round trip takes that much longer.
    """

    def __init__(self, host: str, port: int, delay_seconds: float) -> None:
        self._target = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._delay_seconds = delay_seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
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
        while True:
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            self._sockets.append(server)
            try:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server.connect(self._target)
            except OSError:  # closed, or the server is away
                server.close()
                return
            threading.Thread(target=self._pass, args=(client, server, self._delay_seconds), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, 0), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, delay_seconds: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(delay_seconds)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
