"""A real PgBouncer in transaction mode: each transaction may run on another connection of the server."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from chassis.testing.process import free_port, wait_until
from chassis.testing.relay import moved

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")

needed = pytest.mark.skipif(
    BINARY is None and "CI" not in os.environ,  # there it must not be missed
    reason="PgBouncer is not installed here (Debian: apt-get install pgbouncer)",
)
"""The mark of a test that needs PgBouncer."""

# Few server connections, so that clients have to share them.
CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = plain
auth_file = {folder}/users
admin_users = {user}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_reset_query =
# By default it waits for 15 s after the server was away, and as long for one that is silent.
server_login_retry = 0.5
server_connect_timeout = 2
tcp_user_timeout = 2000
"""


class PgBouncer:
    """A running pooler on 127.0.0.1:`port`. `url` leads through it to the database."""

    def __init__(self, url: str, port: int, folder: Path) -> None:
        self.url = moved(url, port)
        self._console = urlsplit(self.url)._replace(path="/pgbouncer").geturl()
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start its process, and wait until it answers."""
        user = ["--user=nobody"] if os.geteuid() == 0 else []
        command: list[str | Path] = [BINARY or "pgbouncer", *user, self._folder / "pgbouncer.ini"]
        with (self._folder / "said").open("ab") as said:
            self.process = subprocess.Popen(command, stderr=said, stdout=said)
        wait_until(self._answers)

    def last_words(self) -> str | None:
        """Return the end of what its process has said, if that has ended."""
        if self.process.poll() is None:
            return None
        return f"status {self.process.returncode}: {(self._folder / 'said').read_text()[-500:]}"

    def _answers(self) -> bool:
        try:
            return bool(self.command("SHOW VERSION"))
        except psycopg.OperationalError:
            assert self.process.poll() is None, self.last_words()
            return False

    def command(self, text: str) -> list[tuple[Any, ...]]:
        """Return what the console answers. https://www.pgbouncer.org/usage.html#admin-console"""
        with self.console() as conn:
            cursor = conn.execute(text.encode())
            return cursor.fetchall() if cursor.description else []

    def console(self) -> psycopg.Connection[Any]:
        """Return a connection to the console. It understands the simple protocol only, and neither BEGIN nor COMMIT."""
        return psycopg.connect(self._console, autocommit=True)


@contextmanager
def pgbouncer(url: str, size: int = 3) -> Iterator[PgBouncer]:
    """Run a pooler in front of the database at `url`, with `size` connections to the server."""
    server, port = conninfo_to_dict(url), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "users").write_text(f'"{server["user"]}" "{server["password"]}"\n')
        (folder / "pgbouncer.ini").write_text(
            CONFIGURATION.format(
                host=server["host"], port=server["port"], listen=port, folder=folder, user=server["user"], size=size
            )
        )
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
        pooler = PgBouncer(url, port, folder)
        try:
            yield pooler
        finally:
            pooler.process.kill()
            pooler.process.wait(20)
