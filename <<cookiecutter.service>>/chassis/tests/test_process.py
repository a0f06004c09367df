"""The service as a process: started by `gunicorn` alone, configured by its environment, heard on stdout."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from chassis.testing.process import environment, wait_until
from chassis.tests.probe import PACKAGE
from chassis.tests.probe.process import Gunicorn


def test_gunicorn_alone_serves_http_on_the_port_it_is_given(gunicorn: Gunicorn) -> None:
    with gunicorn.client() as client:
        created = client.post("/probes", json={"text": "over the wire"})
        assert created.status_code == 201
        assert client.get(created.headers["location"]).json() == created.json()


def test_every_byte_is_an_event_and_stderr_is_silent(database_url: str) -> None:
    with Gunicorn(DATABASE_URL=database_url, DRAIN_SECONDS=0, RELEASE="build-7") as server:
        with server.client() as client:
            client.get("/probes")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert server.stderr == b""
    assert {event["service.version"] for event in server.events} == {"build-7"}
    assert server.events[-1]["body"] == "Shutting down: Master"


@pytest.mark.parametrize(
    "wrong", [{"DRAIN_SECONDS": "soon", "LOG_LEVEL": "loud"}, {"WEB_CONCURRENCY": "abc"}, {"WEB_CONCURRENCY": "-3"}]
)
def test_a_refused_configuration_is_one_line_and_status_78(wrong: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", PACKAGE],
        env=environment(**wrong),
        capture_output=True,
        check=False,
        timeout=60,
    )
    [event] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (78, b"")
    assert set(event["faults"]) == {"DATABASE_URL", *wrong}


def test_the_service_starts_and_answers_without_its_database() -> None:
    with Gunicorn(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", DATABASE_TIMEOUT_SECONDS=1) as server:
        with server.client() as client:
            assert client.get("/readyz").status_code == 200
            answer = client.get("/probes")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"


def test_each_worker_has_connections_of_its_own(database_url: str) -> None:
    with Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=2, DATABASE_POOL_SIZE=3, RELEASE="counted") as server:
        name = f"{server.events[-1]['service.name']}/counted"
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(database_url, autocommit=True) as conn:
            wait_until(lambda: conn.execute(count, [name]).fetchone() == (6,))


def test_a_killed_worker_is_replaced(database_url: str, processes: ExitStack) -> None:
    server = processes.enter_context(Gunicorn(DATABASE_URL=database_url, WEB_CONCURRENCY=2))
    server.wait_for("ready", count=2)
    os.kill(server.workers()[0], signal.SIGKILL)
    server.wait_for("ready", count=3)
    with server.client() as client:
        assert client.get("/probes").status_code == 200


def test_garbage_is_collected_again_once_all_is_loaded(database_url: str) -> None:
    program = (
        "from chassis import web; import gc; from chassis import config, server; on = {True: 'on', False: 'off'};"
        "settings = server.gunicorn_settings(config.load(config.Config));"
        "loading = on[gc.isenabled()]; settings['on_reload'](None);"
        "print(f'loading: {loading}, loaded: {on[gc.isenabled()]}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "loading: off, loaded: on\n"


def test_nothing_reads_a_dotenv_file(database_url: str, tmp_path: Path) -> None:
    for name in ("chassis", "pyproject.toml"):
        (tmp_path / name).symlink_to(Path(name).absolute())
    (tmp_path / ".env").write_text("RELEASE=from-a-file\n")
    with (
        Gunicorn(cwd=tmp_path, DATABASE_URL=database_url, PYTHONDONTWRITEBYTECODE=1) as server,
        server.client() as client,
    ):
        assert client.get("/version").json()["release"] == "unreleased"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "chassis", "pyproject.toml"]
