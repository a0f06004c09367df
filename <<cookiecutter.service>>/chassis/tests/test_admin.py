"""Factor XII: one-off processes, as a platform runs them."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from chassis.dev import contract
from chassis.testing.process import environment, wait_until
from chassis.testing.relay import Relay
from chassis.tests.probe import MIGRATIONS, PACKAGE
from chassis.tests.probe.process import Gunicorn, run_admin

FILES = sorted(path.name for path in MIGRATIONS.glob("*.sql"))


def test_migrate_makes_the_schema_and_may_be_repeated(empty_database_url: str) -> None:
    first = run_admin("migrate", DATABASE_URL=empty_database_url)
    second = run_admin("migrate", DATABASE_URL=empty_database_url)
    assert (first[0], first[2]) == (second[0], second[2]) == (0, "")
    assert first[1][-1]["applied"] == FILES
    assert second[1][-1]["applied"] == []


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Return a release of the probes with two more migrations, the second of which makes an index."""
    shutil.copytree("chassis", tmp_path / "chassis", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", tmp_path)
    write(tmp_path, "9001_tags", "CREATE TABLE tags (probe_id uuid, name text);\n")
    write(tmp_path, "9002_index", INDEX)
    return tmp_path


INDEX = """-- no transaction
DROP INDEX CONCURRENTLY IF EXISTS tags_name;
CREATE INDEX CONCURRENTLY tags_name ON tags (name);
"""


def write(release: Path, name: str, sql: str) -> None:
    """Have `release` contain a migration."""
    (release / f"chassis/tests/probe/migrations/{name}.sql").write_text(sql)


def start_migrate(release: Path, url: str) -> subprocess.Popen[str]:
    """Run `migrate`, and do not wait for its end."""
    command = [sys.executable, "-m", f"{PACKAGE}.admin", "migrate"]
    return subprocess.Popen(command, cwd=release, env=environment(DATABASE_URL=url), stdout=subprocess.PIPE, text=True)


def test_three_migrators_at_once_apply_everything_once(empty_database_url: str, release: Path) -> None:
    write(release, "9001_tags", "CREATE TABLE tags (name text);\nSELECT pg_sleep(2);\n")  # so that they do meet
    migrators = [start_migrate(release, empty_database_url) for _ in range(3)]
    said = [migrator.communicate(timeout=60)[0] for migrator in migrators]
    print(f"\nthree migrators: statuses {[migrator.returncode for migrator in migrators]}")
    assert [migrator.returncode for migrator in migrators] == [0, 0, 0]
    assert sum(text.count('"body":"applied"') for text in said) == len(FILES) + 2


def test_a_migrator_that_is_killed_inside_a_long_statement_leaves_nothing_behind(
    empty_database_url: str, release: Path
) -> None:
    write(release, "9001_tags", "CREATE TABLE half (id int);\nSELECT pg_sleep(600);\nCREATE TABLE tags (name text);\n")
    with psycopg.connect(empty_database_url, autocommit=True) as observer:
        migrator = start_migrate(release, empty_database_url)
        running = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: observer.execute(running).fetchone())
        started = time.monotonic()
        run_admin("check", cwd=release, DATABASE_URL=empty_database_url)
        usual = time.monotonic() - started
        migrator.send_signal(signal.SIGKILL)
        migrator.communicate()
        killed = time.monotonic()
        write(release, "9001_tags", "CREATE TABLE tags (name text);\n")  # it never was applied, so it may be edited
        status, events, _ = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
        seconds = time.monotonic() - killed
        print(f"\nmigrator killed inside a statement of 600 s: the next one was done {seconds:.1f} s later")
        assert (status, events[-1]["applied"]) == (0, ["9001_tags.sql", "9002_index.sql"])
        assert observer.execute("SELECT to_regclass('half')").fetchone() == (None,)
        assert seconds < 10 * usual  # what any command takes on this machine at the moment


def test_a_migrator_that_is_killed_while_it_makes_an_index_is_followed_by_one_that_makes_it(
    empty_database_url: str, release: Path
) -> None:
    run_admin("migrate", DATABASE_URL=empty_database_url)
    index = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('tags_name')"
    with (
        psycopg.connect(empty_database_url) as reader,
        psycopg.connect(empty_database_url, autocommit=True) as observer,
    ):
        observer.execute("CREATE TABLE tags (probe_id uuid, name text)")
        write(release, "9001_tags", "SELECT 1;\n")
        reader.execute("LOCK TABLE tags IN ROW EXCLUSIVE MODE")  # who writes to the table makes the index wait
        migrator = start_migrate(release, empty_database_url)
        wait_until(lambda: observer.execute(index).fetchone() == (False,))
        migrator.send_signal(signal.SIGKILL)
        migrator.communicate()
        status, events, _ = run_admin("check", cwd=release, DATABASE_URL=empty_database_url)
        assert (status, "9002_index.sql" in events[-1]["body"]) == (1, True)
        reader.rollback()
        status, events, _ = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
        assert (status, events[-1]["applied"]) == (0, ["9002_index.sql"])
        assert observer.execute(index).fetchone() == (True,)


def test_a_statement_that_fails_in_the_middle_is_one_clear_line_and_the_next_run_goes_on(
    empty_database_url: str, release: Path
) -> None:
    write(
        release,
        "9001_tags",
        "CREATE TABLE tags (name text);\nINSERT INTO tags VALUES (1/0);\nCREATE TABLE c (d int);\n",
    )
    status, events, stderr = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
    assert (status, stderr) == (1, "")
    assert events[-1]["body"].startswith(
        "migrate failed: 9001_tags.sql failed, nothing of it is left: division by zero"
    )
    with psycopg.connect(empty_database_url) as conn:
        assert conn.execute("SELECT to_regclass('probes') IS NULL, to_regclass('tags') IS NULL").fetchone() == (
            False,
            True,
        )
    write(release, "9001_tags", "CREATE TABLE tags (name text);\n")
    status, events, _ = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
    assert (status, events[-1]["applied"]) == (0, ["9001_tags.sql", "9002_index.sql"])


def test_a_file_that_was_edited_is_one_clear_line_and_nothing_is_applied_until_it_is_restored(
    empty_database_url: str, release: Path
) -> None:
    run_admin("migrate", DATABASE_URL=empty_database_url)
    original = (release / "chassis/tests/probe/migrations/0001_probes.sql").read_text()
    write(release, "0001_probes", original + "-- one word more\n")
    status, events, stderr = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
    assert (status, len(events), stderr) == (1, 1, "")
    assert events[0]["body"].startswith("migrate failed: 0001_probes.sql was edited after it was applied: restore it")
    write(release, "0001_probes", original)
    status, events, _ = run_admin("migrate", cwd=release, DATABASE_URL=empty_database_url)
    assert (status, events[-1]["applied"]) == (0, ["9001_tags.sql", "9002_index.sql"])


def test_check_says_what_is_missing_and_then_that_nothing_is(empty_database_url: str) -> None:
    status, events, _ = run_admin("check", DATABASE_URL=empty_database_url)
    assert status == 1
    assert FILES[0] in events[-1]["body"]
    run_admin("migrate", DATABASE_URL=empty_database_url)
    status, events, _ = run_admin("check", DATABASE_URL=empty_database_url)
    assert (status, events[-1]["body"]) == (0, "everything can be reached")


def test_a_database_that_is_away_is_one_line_and_a_failure() -> None:
    status, [event], stderr = run_admin("check", DATABASE_URL="postgresql://me:hunter2-hunter2@127.0.0.1:1/probes")
    assert (status, event["severity_text"], stderr) == (1, "ERROR", "")
    assert "hunter2" not in str(event)


def test_config_shows_everything_but_the_password() -> None:
    status, [event], _ = run_admin("config", DATABASE_URL="postgresql://me:pw@host/probes", DRAIN_SECONDS=7)
    assert status == 0
    assert (event["DRAIN_SECONDS"], event["DATABASE_URL"]) == (7, "postgresql://me:***@host/probes")


@pytest.mark.parametrize("arguments", [[], ["destroy"], ["migrate", "twice"]])
def test_an_unknown_command_is_one_line_and_a_failure(arguments: list[str]) -> None:
    status, [event], stderr = run_admin(*arguments)
    assert (status, event["severity_text"], stderr) == (64, "ERROR", "")


def test_a_refused_configuration_names_every_fault_in_one_line() -> None:
    status, [event], stderr = run_admin("migrate", PORT="http")
    assert (status, set(event["faults"]), stderr) == (78, {"DATABASE_URL", "PORT"}, "")


def test_routes_lists_every_route_with_its_statuses_one_a_line() -> None:
    nowhere = "postgresql://nobody@nowhere/nothing"
    command = [sys.executable, "-m", f"{PACKAGE}.admin", "routes"]
    env = environment(DATABASE_URL=nowhere, DOCS="true", URL_PREFIX="/api")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = {tuple(line.split(maxsplit=2)) for line in done.stdout.splitlines()}
    assert ("GET", "/api/probes/{probe_id}", "200 400 404 405 408 414 417 431 500 501 503") in listed
    assert {("GET", "/version", "not in the contract"), ("GET", "/api/docs", "not in the contract")} <= listed
    described = {
        (method.upper(), f"/api{path}", " ".join(sorted(operation["responses"])))
        for path, item in contract.now(PACKAGE)["paths"].items()
        for method, operation in item.items()
    }
    assert described <= listed


def test_help_is_for_people() -> None:
    command = [sys.executable, "-m", f"{PACKAGE}.admin", "--help"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in ("migrate", "config", "check", "routes"))


@pytest.fixture
def relay(empty_database_url: str) -> Iterator[Relay]:
    """Return a proxy between the commands and an empty database."""
    with psycopg.connect(empty_database_url) as conn, Relay(conn.info.host, conn.info.port) as relay:
        yield relay


@pytest.mark.parametrize("after_login", [False, True])
@pytest.mark.parametrize("command", ["check", "migrate"])
def test_a_server_that_is_silent_ends_a_command(
    relay: Relay, empty_database_url: str, command: str, *, after_login: bool
) -> None:
    relay.freeze(after_login=after_login)
    status, events, stderr = run_admin(command, DATABASE_URL=relay.stands_for(empty_database_url))
    assert (status, len(events), stderr) == (1, 1, "")
    assert re.search(r"did not answer within|timeout expired", events[0]["body"])


@pytest.mark.parametrize("fall_silent", [Relay.freeze, Relay.forget])
def test_a_server_that_falls_silent_ends_a_long_migration(
    relay: Relay, empty_database_url: str, release: Path, fall_silent: Callable[[Relay], None]
) -> None:
    write(release, "9001_tags", "CREATE TABLE tags (name text);\nSELECT pg_sleep(600);\n")
    with psycopg.connect(empty_database_url, autocommit=True) as observer:
        migrator = start_migrate(release, relay.stands_for(empty_database_url))
        running = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: observer.execute(running).fetchone())
        fall_silent(relay)
        try:
            said, _ = migrator.communicate(timeout=60)
        finally:
            migrator.kill()
    assert migrator.returncode == 1
    assert "the server has stopped answering" in said.splitlines()[-1]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
@pytest.mark.parametrize("command", ["check", "migrate"])
def test_a_database_in_another_encoding_is_refused(server_url: str, encoding: str, command: str) -> None:
    name = f"test_{encoding}_{command}".lower()
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode())
        try:
            url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
            status, events, _ = run_admin(command, DATABASE_URL=url)
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    assert (status, len(events)) == (1, 1)
    assert f"the database's encoding is {encoding}" in events[0]["body"]


def test_settings_of_the_server_that_the_client_cannot_read_change_nothing(
    empty_database_url: str, release: Path, processes: ExitStack
) -> None:
    write(release, "9001_tags", "CREATE TABLE tags (name text DEFAULT 'ä😀');\n")
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        for setting in (
            "datestyle = 'German, DMY'",
            "intervalstyle = 'iso_8601'",
            "timezone = 'Asia/Tokyo'",
            "client_encoding = 'LATIN1'",
            "statement_timeout = '0'",
        ):
            conn.execute(f"ALTER DATABASE {conn.info.dbname} SET {setting}".encode())
    variables: dict[str, Any] = {
        "DATABASE_URL": empty_database_url,
        "PGCLIENTENCODING": "LATIN1",
        "PGDATESTYLE": "German",
    }
    assert run_admin("migrate", cwd=release, **variables)[0] == 0
    with psycopg.connect(empty_database_url, client_encoding="UTF8") as conn:
        assert conn.execute("INSERT INTO tags DEFAULT VALUES RETURNING name").fetchone() == ("ä😀",)
    server = processes.enter_context(Gunicorn(**variables))
    with server.client() as client:
        created = client.post("/probes", json={"text": "ä😀"})
        assert created.status_code == 201
        assert client.get(created.headers["location"]).json()["text"] == "ä😀"
        assert created.json()["created_at"].endswith("Z")
