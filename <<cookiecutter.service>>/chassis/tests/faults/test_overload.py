"""What abuse costs the others: nothing. Clients that never finish, floods, and far more clients than connections."""

import http.client
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from chassis.testing.process import BIN, environment, free_port, wait_until
from chassis.tests.faults.load import Load
from chassis.tests.probe.process import AsDeployed, run_admin

TRICKLERS = 200
PROMPT_SECONDS = 2

HEAD = b"POST /probes HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n"
TRICKLES = {"headers": (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"x"), "bodies": (HEAD + b'\r\n{"text": "', b"x")}


@contextmanager
def trickling(port: int, beginning: bytes, drop: bytes, clients: int = TRICKLERS) -> Iterator[None]:
    """Clients that send the beginning of a request, and then a drop each, again and again, until the block ends."""
    begun, stopping = threading.Event(), threading.Event()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(clients)]
        for sock in sockets:
            sock.sendall(beginning)

        def trickle() -> None:
            while not stopping.wait(0.2):
                for sock in sockets:
                    sock.sendall(drop)
                begun.set()

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert begun.wait(20)
            yield
        finally:
            stopping.set()
            thread.join()


def answered(port: int, requests: int) -> float:
    """Return the share of honest requests, each over its own connection, that are answered within `PROMPT_SECONDS`."""

    def ask(_: int) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROMPT_SECONDS)
        started = time.monotonic()
        try:
            connection.request("GET", "/livez")
            return connection.getresponse().status == 200 and time.monotonic() - started < PROMPT_SECONDS
        except OSError:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(ask, range(requests))) / requests


@pytest.fixture
def server(database_url: str, processes: ExitStack) -> AsDeployed:
    """Return a service of two workers, as by default."""
    server = processes.enter_context(AsDeployed(DATABASE_URL=database_url))
    server.wait_for("ready", count=2)
    return server


@pytest.mark.parametrize("what", TRICKLES)
def test_clients_that_trickle_keep_nobody_out(server: AsDeployed, what: str) -> None:
    with trickling(server.port, *TRICKLES[what]):
        with Load(server.port, clients=4, timeout_seconds=PROMPT_SECONDS) as load:
            load.wait_for(1_000, seconds=60)
        fresh = answered(server.port, 200)
    prompt = [answer for answer in load.answers if answer not in load.failed and answer.seconds < PROMPT_SECONDS]
    print(
        f"{TRICKLERS} clients trickle {what}: {len(prompt)} of {len(load.answers)} honest requests over kept-alive "
        f"connections and {fresh:.0%} over new ones answered within {PROMPT_SECONDS} s, "
        f"the slowest after {max(answer.seconds for answer in load.answers):.2f} s"
    )
    assert len(prompt) >= 0.99 * len(load.answers)
    assert fresh >= 0.99


PLAIN = """
wsgi_app = "plain:application"
workers = 1
worker_class = "gthread"
threads = 4
"""


def test_a_stock_server_is_kept_out_by_the_same_clients(tmp_path: Path, processes: ExitStack) -> None:
    (tmp_path / "plain.py").write_text(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"
    )
    (tmp_path / "gunicorn.conf.py").write_text(PLAIN)
    port = free_port()
    process = processes.enter_context(
        subprocess.Popen(
            [BIN / "gunicorn", f"--bind=127.0.0.1:{port}"],
            cwd=tmp_path,
            env=environment(PYTHONDONTWRITEBYTECODE=1),
            stderr=subprocess.DEVNULL,
        )
    )
    processes.callback(process.kill)
    wait_until(lambda: answered(port, 1) == 1)
    with trickling(port, *TRICKLES["headers"]):
        share = answered(port, 8)
    print(f"stock gthread, one worker of 4 threads, under the same {TRICKLERS} clients: {share:.0%} answered")
    assert share < 0.5
    process.terminate()


@pytest.mark.parametrize("framing", ["Content-Length: 200000000\r\n", "Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("path", ["/probes", "/nothing"])
def test_a_long_body_that_nobody_wants_keeps_nobody_waiting(
    database_url: str, processes: ExitStack, path: str, framing: str
) -> None:
    server = processes.enter_context(AsDeployed(DATABASE_URL=database_url, WEB_CONCURRENCY=1))
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}\r\n"
    status = b""

    def flood() -> None:
        nonlocal status
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
            sock.sendall(head.encode())
            with suppress(ConnectionError):  # it need not be heard out
                for _ in range(200):
                    sock.sendall(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
            status = sock.recv(12)

    with Load(server.port, clients=1) as load:
        load.wait_for(20)
        thread = threading.Thread(target=flood)
        thread.start()
        thread.join()
        load.wait_for(len(load.answers) + 20)
    slowest = max(answer.seconds for answer in load.answers)
    print(f"200 MB for {path}, {framing.strip()}: {status.decode()}; others waited {slowest:.2f} s at most")
    assert not load.failed
    assert slowest < PROMPT_SECONDS
    assert status in {b"HTTP/1.1 413", b"HTTP/1.1 404"}


def memory(server: AsDeployed) -> float:
    """Resident memory of the workers, in MB. proc(5), `VmRSS`."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in server.workers()]
    return sum(int(status.split("VmRSS:")[1].split()[0]) for status in statuses) / 1024


def seconds_until_served(port: int) -> float:
    """How long it takes until ten requests in a row, that need the database, succeed."""
    started = time.monotonic()

    def ten_succeed() -> bool:
        with Load(port, clients=1) as load:
            load.wait_for(10)
        return not load.failed

    wait_until(ten_succeed)
    return time.monotonic() - started


def test_a_long_queue_that_is_served_in_time_refuses_nobody(database_url: str, processes: ExitStack) -> None:
    # So much time that a busy machine does not matter.
    server = processes.enter_context(
        AsDeployed(
            DATABASE_URL=database_url,
            WEB_CONCURRENCY=1,
            DATABASE_POOL_SIZE=1,
            DATABASE_TIMEOUT_SECONDS=30,
            SHUTDOWN_SECONDS=60,
        )
    )
    with Load(server.port, clients=200) as load:
        load.wait_for(2_000)
    waits = [event.get("db_pool_wait_ms", 0) for event in server.events_named("GET /probes/<probe_id> 200")]
    print(
        f"200 clients, one connection: {len(load.failed)} of {len(load.answers)} failed, waits to {max(waits):.0f} ms"
    )
    assert load.failed == []


SLOW = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN new; END $$;
CREATE TRIGGER wait BEFORE INSERT OR UPDATE ON probes FOR EACH ROW EXECUTE FUNCTION wait();
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the memory of a process so")
def test_far_more_clients_than_can_be_served_get_answers_or_a_prompt_503(
    empty_database_url: str, processes: ExitStack
) -> None:
    assert run_admin("migrate", DATABASE_URL=empty_database_url)[0] == 0
    with psycopg.connect(empty_database_url) as conn:
        conn.execute(SLOW)
    server = processes.enter_context(AsDeployed(DATABASE_URL=empty_database_url, DATABASE_POOL_SIZE=1))
    server.wait_for("ready", count=2)
    sizes, recoveries, answers = [], [], []
    for _wave in range(2):
        with Load(server.port, clients=500) as load:
            load.wait_for(3_000)
        recoveries.append(seconds_until_served(server.port))
        sizes.append(memory(server))
        answers += load.answers
    statuses = Counter(answer.status for answer in answers)
    refused = [answer for answer in answers if answer.status == 503]
    # The server's own clock: 500 clients in one process keep each other waiting.
    seconds = sorted(
        event["duration_ms"] / 1000 for event in server.events if event.get("http.response.status_code") == 503
    )
    print(
        f"500 clients, 1 connection a worker and 20 writes a second on it: {dict(statuses)}; "
        f"a 503 takes {statistics.median(seconds):.3f} s in the median, {seconds[-1]:.2f} s at most; "
        f"memory after each wave {', '.join(f'{size:.0f} MB' for size in sizes)}; "
        f"ten requests in a row served {max(recoveries):.2f} s after the wave"
    )
    assert set(statuses) == {200, 201, 503}, Counter(answer.fault for answer in answers)
    assert not [answer for answer in answers if answer.fault]
    assert {answer.retry_after for answer in refused} == {"1"}
    assert statistics.median(seconds) < PROMPT_SECONDS / 2  # nobody waits for what cannot be
    assert seconds[len(seconds) * 99 // 100] < PROMPT_SECONDS + 1  # those that waited for a connection in vain
    assert sizes[-1] < sizes[0] * 1.1
    assert max(recoveries) < 1
