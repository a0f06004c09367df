"""A real HAProxy in front of instances of the service, as a cloud's load balancer stands before tasks."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chassis.testing.process import free_port, wait_until

BINARY = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")

needed = pytest.mark.skipif(
    BINARY is None and "CI" not in os.environ,  # there it must not be missed
    reason="HAProxy is not installed here (Debian: apt-get install haproxy)",
)
"""The mark of a test that needs HAProxy."""

# Nothing is tried twice: what the service loses, a client sees.
CONFIGURATION = """
global
    stats socket {folder}/admin level admin
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 0
    no option redispatch
listen service
    bind 127.0.0.1:{port}
    {tls}
    # As an ALB: it adds the client's address to those that came, and says how it was asked.
    option forwardfor
    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]
    http-request set-header X-Forwarded-Port %[dst_port]
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fall 2 rise 1
{servers}
"""


class HAProxy:
    """A running balancer on 127.0.0.1:`port`, and with TLS on `tls_port`; its servers are known by their ports."""

    def __init__(self, port: int, tls_port: int, admin: Path) -> None:
        self.port, self.tls_port = port, tls_port
        self._admin = admin

    def command(self, text: str) -> str:
        """Return what it answers to a command of its runtime interface.

        https://docs.haproxy.org/2.6/management.html#9.3
        """
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self._admin))
            sock.sendall(f"{text}\n".encode())
            answer = b""
            while chunk := sock.recv(65_536):
                answer += chunk
        return answer.decode()

    def status(self, server: int) -> str:
        """`UP`, `DOWN` or `DRAIN`, perhaps with the checks that are missing to the next: `UP 1/2`."""
        names, *rows = self.command("show stat").lstrip("# ").splitlines()
        columns = names.split(",")
        table = [dict(zip(columns, row.split(","), strict=True)) for row in rows if row]
        [status] = [row["status"] for row in table if row["svname"] == str(server)]
        return status

    def wait_for(self, server: int, status: str) -> None:
        """Wait until it thinks so of a server.

        Raises:
            TimeoutError: it does not, in time.
        """
        wait_until(lambda: self.status(server) == status)

    def drain(self, server: int) -> None:
        """Send nothing new to a server."""
        assert not self.command(f"set server service/{server} state drain").strip()
        self.wait_for(server, "DRAIN")

    def ready(self, server: int) -> None:
        """Use a server again, as soon as its check succeeds."""
        assert not self.command(f"set server service/{server} state ready").strip()


@contextmanager
def haproxy(*servers: int, certificate: Path | None = None) -> Iterator[HAProxy]:
    """Return a balancer over the servers on these ports, which checks each every 500 ms and retries nothing.

    It speaks TLS too, if it is given a certificate: a file, with the key.
    """
    port, tls_port = free_port(), free_port()
    tls = f"bind 127.0.0.1:{tls_port} ssl crt {certificate}" if certificate else ""
    with tempfile.TemporaryDirectory() as name:  # short: the path of a socket may have 107 bytes
        folder = Path(name)
        lines = "\n".join(f"    server {server} 127.0.0.1:{server}" for server in servers)
        (folder / "haproxy.cfg").write_text(CONFIGURATION.format(folder=folder, port=port, tls=tls, servers=lines))
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen([BINARY or "haproxy", "-db", "-f", folder / "haproxy.cfg"], stderr=said)
        try:
            wait_until(lambda: (folder / "admin").exists() or process.poll() is not None)
            assert process.poll() is None, (folder / "said").read_text()
            yield HAProxy(port, tls_port, folder / "admin")
        finally:
            process.kill()
            process.wait(20)
