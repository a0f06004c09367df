"""A real name server for one name that can be led elsewhere, and processes that ask it instead of the machine's own."""

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chassis.testing.process import wait_until

NAME = "postgres.mycompany.test"
"""What the service knows: a CNAME, which leads to the host that is the database at the moment."""

IS_USABLE = shutil.which("dnsmasq") is not None and os.geteuid() == 0
"""Whether `names` can be used: only root may give a process its own resolver."""

needs_dnsmasq = pytest.mark.skipif(
    shutil.which("dnsmasq") is None and "CI" not in os.environ,  # there it must not be missed
    reason="dnsmasq is not installed here",
)

SURROUNDINGS = """
mount --bind "$1/resolv.conf" /etc/resolv.conf
if [ -e /etc/nsswitch.conf ]; then mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf; fi
shift
exec "$@"
"""


class Names:
    """The name server. `within` is the command in whose surroundings a process asks it, and nobody else does."""

    def __init__(self, folder: Path, name: str, timeout_seconds: int) -> None:
        self._name = name
        # Any address of 127/8 is the machine itself; port 53 of an arbitrary one is nobody else's.
        self.address = f"127.{random.randint(1, 254)}.{random.randint(1, 254)}.{random.randint(1, 254)}"
        self.log = folder / "queries"
        self.log.touch()
        options = f"options timeout:{timeout_seconds} attempts:2"
        (folder / "resolv.conf").write_text(f"nameserver {self.address}\n{options}\n")
        (folder / "nsswitch.conf").write_text("hosts: dns\n")
        self.within = ["unshare", "--mount", "sh", "-ec", SURROUNDINGS, "sh", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None

    def lead_to(self, host: str, address: str) -> None:
        """Have the name be a CNAME for `host`, which has `address`; it is so when this returns."""
        self.stop()
        self._process = subprocess.Popen(
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"),
                *("--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={self.address}"),
                *("--local=/#/", f"--cname={self._name},{host}", f"--host-record={host},{address}"),
                *("--log-queries", f"--log-facility={self.log}"),
            ]
        )
        wait_until(lambda: self.resolve() == address)

    def stop(self) -> None:
        """Have nobody answer any more. Each question is refused at once."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Have the name server be silent. It takes each question, and answers none."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have the name server answer again."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def queries(self) -> int:
        """How often the name's IPv4 address has been asked for."""
        return self.log.read_text().count(f"query[A] {self._name} ")

    def resolve(self) -> str | None:
        """Return the address that the name leads to, as an answer on the wire says it. RFC 1035, section 4."""
        question = b"".join(bytes([len(label)]) + label.encode() for label in self._name.split(".")) + b"\0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            sock.connect((self.address, 53))
            try:
                sock.send(struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1))
                answer = sock.recv(512)
            except OSError:
                return None
        return socket.inet_ntoa(answer[-4:])  # the last record is the address at the end of the chain


@contextmanager
def names(name: str = NAME, timeout_seconds: int = 1) -> Iterator[Names]:
    """Return a name server for `name` that runs until the block ends.

    A process within waits `timeout_seconds` for each of two attempts to ask it. By default that is short: a name server
    that is away is the business of the service's own time-outs.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = Names(Path(folder), name, timeout_seconds)
        try:
            yield server
        finally:
            server.stop()
