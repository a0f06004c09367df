"""A shell for the experiments of `docs/twelve-factors.md`: `make lab`.

It has an empty database in `DATABASE_URL`, two free ports in `A` and `B`, and a folder of its own in `LAB`. curl waits
there until a server that has just been started listens, for 10 s at most, and uses no proxy.
"""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chassis.dev import install, postgres

CURL = """silent
show-error
noproxy = "*"
retry = 100
retry-delay = 1
retry-max-time = 10
retry-connrefused
"""


@contextmanager
def environment(database_url: str) -> Iterator[dict[str, str]]:
    """Return the variables of the shell, beside those that it inherits."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, ExitStack() as sockets:
        Path(folder, ".curlrc").write_text(CURL, encoding="utf-8")
        listeners = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [str(listener.getsockname()[1]) for listener in listeners]
        sockets.close()  # both ports were taken at once, so they differ
        yield {
            **install.settings_of_pip(),
            "DATABASE_URL": database_url,
            "A": ports[0],
            "B": ports[1],
            "LAB": folder,
            "CURL_HOME": folder,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }


def main() -> int:
    """Run a shell and return its exit status."""
    with (
        postgres.server() as (server_url, origin),
        postgres.database(server_url) as url,
        environment(url) as variables,
    ):
        print(f"PostgreSQL, {origin}. `exit` ends the shell, and removes all that it has made.")
        return subprocess.run(["bash"], env=os.environ | variables, check=False).returncode  # noqa: S607


if __name__ == "__main__":
    sys.exit(main())
