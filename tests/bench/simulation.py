"""Many small processes before one PgBouncer: is the model of `fleet.py` right about the queue there?

The model: statements that take `STATEMENT_SECONDS` share `SERVER_CONNECTIONS`. As long as there are no more clients
than connections, none waits; beyond that the rate stays, and each waits for its turn. The statements sleep, so that
what is measured is the queue, and not the two processors that everything shares here.
https://en.wikipedia.org/wiki/Little%27s_law
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.bench.bench import Bench
from tests.bench.figures import Figures

STATEMENT_SECONDS = 0.05
SERVER_CONNECTIONS = 10
PROCESSES = 20
CLIENTS = [5, 10, 20, 40, 100]
MEASURED_SECONDS = 4
SETTINGS = """
[databases]
* = host={server} port=5432 user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
logfile = {folder}/log
"""


def simulation(bench: Bench, figures: Figures) -> None:
    """Is the model of the pooler's queue right, where it can be tried?"""
    if not shutil.which("pgbouncer"):
        print("There is no pgbouncer: the model of its queue is not tried.")
        return
    figures.simulation = {}
    with pooler(bench.database.url) as url:
        for clients in CLIENTS[:2] if bench.is_rehearsal else CLIENTS:
            rate, mean_ms = _measure(url, clients)
            expected = min(clients, SERVER_CONNECTIONS) / STATEMENT_SECONDS
            figures.simulation[str(clients)] = [expected, rate, clients / expected * 1e3, mean_ms]


@contextmanager
def pooler(server_url: str) -> Iterator[str]:
    """Start PgBouncer before a server that is found by its socket. Yield the URL of a database behind it."""
    server = parse_qs(urlsplit(server_url).query)["host"][0]
    owner: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as name:
        folder = Path(name)
        settings = folder / "settings.ini"
        text = SETTINGS.format(server=server, folder=folder, size=SERVER_CONNECTIONS)
        settings.write_text(text, encoding="utf-8")
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (folder, settings):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        process = subprocess.Popen(["pgbouncer", "--quiet", str(settings)], stderr=subprocess.DEVNULL, **owner)
        url = f"postgresql://postgres@/postgres?host={folder}&port=6432"
        try:
            _wait_for(url)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _measure(url: str, clients: int) -> tuple[float, float]:
    """Return the statements per second of so many clients in as many processes as there may be, and their mean time."""
    processes = min(PROCESSES, clients)
    command = [sys.executable, "-m", "tests.bench.simulation", url, str(clients // processes)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for one in running:  # all of them are connected before the first begins
        if one.stdout:
            one.stdout.readline()
    for one in running:  # and all begin at once
        if one.stdin:
            one.stdin.write("\n")
            one.stdin.flush()
    counts = [one.communicate()[0].split() for one in running]
    statements = sum(int(count) for count, _ in counts)
    seconds = sum(float(spent) for _, spent in counts)
    return statements / MEASURED_SECONDS, seconds / statements * 1e3


def client(url: str, connections: int) -> None:
    """Run statements over so many connections, when told to begin. Print their number and the time that they took."""
    opened = [psycopg.connect(url, autocommit=True, prepare_threshold=None) for _ in range(connections)]
    print("connected", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + MEASURED_SECONDS
    times: list[float] = []

    def ask(conn: psycopg.Connection[Any]) -> None:
        while (begun := time.monotonic()) < until:
            conn.execute("SELECT pg_sleep(%s)", [STATEMENT_SECONDS])
            if (ended := time.monotonic()) <= until:  # the rate is that of the measured seconds
                times.append(ended - begun)

    threads = [threading.Thread(target=ask, args=[conn]) for conn in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(times), sum(times))


if __name__ == "__main__":
    client(sys.argv[1], int(sys.argv[2]))
