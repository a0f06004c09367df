"""Behind PgBouncer in transaction mode, several services share connections of the server, and none sees another."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from chassis import config, db
from chassis.testing.process import wait_until
from chassis.tests.faults import pgbouncer
from chassis.tests.faults.load import Load
from chassis.tests.probe.process import AsDeployed, run_admin

pytestmark = pgbouncer.needed


def at(server_url: str, database: str, credentials: str = "") -> str:
    """Return the URL of a database of the server, with `user:password@` or without credentials."""
    parts = urlsplit(server_url)
    return parts._replace(netloc=credentials + parts.netloc.rpartition("@")[2], path=f"/{database}").geturl()


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    """Return the URL of an empty database that belongs to a role of its own, at the server itself."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'only-for-this-test'".encode())
        conn.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        conn.execute(f"ALTER ROLE {name} SET statement_timeout = '3s'".encode())
        try:
            yield at(server_url, name, f"{name}:only-for-this-test@")
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            conn.execute(f"DROP ROLE {name}".encode())


@pytest.fixture
def pooler(url: str) -> Iterator[pgbouncer.PgBouncer]:
    """Return a pooler in front of that database."""
    with pgbouncer.pgbouncer(url) as pooler:
        yield pooler


def settings_of(url: str, times: int = 20) -> set[tuple[Any, ...]]:
    """Return what a stranger finds set and left at the server, in transaction after transaction."""
    statement = (
        "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
        " current_setting('client_connection_check_interval'), current_setting('search_path'),"
        " current_setting('IntervalStyle'), to_regclass('pg_temp.left'),"
        " (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"
    )
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as two:
        found = set()
        for _ in range(times):
            with one.transaction():  # so that the other one is on another server connection
                found |= {*one.execute(statement, prepare=False), *two.execute(statement, prepare=False)}
        return found


def test_migrate_ends_again_and_again_and_leaves_nothing_behind(pooler: pgbouncer.PgBouncer, tmp_path: Path) -> None:
    before = settings_of(pooler.url)
    shutil.copytree("chassis", tmp_path / "chassis", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", tmp_path)
    file = tmp_path / "chassis/tests/probe/migrations/0002_more.sql"
    file.write_text(
        "CREATE SCHEMA more;\nSET search_path = more;\nSET lock_timeout = '7s';\nCREATE TABLE a (id int);\n"
        'CREATE TEMP TABLE "left" (id int);\nPREPARE "Left" AS SELECT 1;\nSELECT pg_advisory_lock(7);\n'
    )
    for _ in range(5):
        status, events, _ = run_admin("migrate", cwd=tmp_path, DATABASE_URL=pooler.url)
        assert status == 0, events
    assert run_admin("check", cwd=tmp_path, DATABASE_URL=pooler.url)[0] == 0
    assert settings_of(pooler.url) == before
    (file.parent / "0003_index.sql").write_text("-- no transaction\nCREATE INDEX CONCURRENTLY a_id ON more.a (id);\n")
    status, events, _ = run_admin("migrate", cwd=tmp_path, DATABASE_URL=pooler.url)
    assert status == 1
    assert "0003_index.sql needs a session of its own" in events[-1]["body"]
    assert settings_of(pooler.url) == before


def test_a_role_that_does_not_limit_its_statements_is_refused_in_one_line(
    pooler: pgbouncer.PgBouncer, url: str
) -> None:
    role = urlsplit(url).username
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE {role} SET statement_timeout = 0".encode())
    pooler.command("RECONNECT")
    for command in ("check", "migrate"):
        status, events, _ = run_admin(command, DATABASE_URL=pooler.url)
        assert (status, len(events)) == (1, 1)
        assert f"ALTER ROLE {role} SET statement_timeout = '5s'" in events[0]["body"]


def test_settings_that_the_service_relies_upon_are_asked_for_or_refused_in_one_line(
    pooler: pgbouncer.PgBouncer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = urlsplit(url).username
    relied_upon = {
        "IntervalStyle": "iso_8601",
        "DateStyle": "German",
        "TimeZone": "Asia/Tokyo",
        "client_encoding": "LATIN1",
    }
    with psycopg.connect(url, autocommit=True) as conn:
        for name, value in relied_upon.items():
            conn.execute(f"ALTER ROLE {role} SET {name} = '{value}'".encode())
        pooler.command("RECONNECT")
        for command in ("check", "migrate"):
            status, events, _ = run_admin(command, DATABASE_URL=pooler.url)
            assert (status, len(events)) == (1, 1)
            assert f"ALTER ROLE {role} SET IntervalStyle = 'postgres'" in events[0]["body"]
        conn.execute(f"ALTER ROLE {role} SET IntervalStyle = 'postgres'".encode())
        pooler.command("RECONNECT")
    monkeypatch.setenv("DATABASE_URL", pooler.url)
    settings = config.load(config.Config)
    for name, value in relied_upon.items():
        with db.connect(settings) as through:
            assert (through.is_pooled, db.find_unfit(through, settings)) == (True, None)
            through.execute(f"SET {name} = '{value}'".encode())  # as a pooler does that passes on something else
            assert f"ALTER ROLE {role} SET {name} = " in (db.find_unfit(through, settings) or "")
            through.execute(f"RESET {name}".encode())


def test_two_services_on_one_pooler_lose_nothing_and_set_nothing(pooler: pgbouncer.PgBouncer) -> None:
    assert run_admin("migrate", DATABASE_URL=pooler.url)[0] == 0
    before = settings_of(pooler.url)
    with ExitStack() as stack:
        one, two = (stack.enter_context(AsDeployed(DATABASE_URL=pooler.url)) for _ in range(2))
        with Load(one.port, clients=8) as on_one, Load(two.port, clients=8) as on_two:
            for _ in range(3):
                wanted = len(on_one.answers) + 500
                wait_until(lambda wanted=wanted: len(on_one.answers) > wanted)  # type: ignore[misc]
                pooler.command("RECONNECT")  # the server connections are replaced when they are free
            during = settings_of(pooler.url)
            on_two.wait_for(1_000)
    print(
        f"\nPgBouncer, transaction mode: {len(on_one.failed) + len(on_two.failed)} of"
        f" {len(on_one.answers) + len(on_two.answers)} requests of two services failed over 3 RECONNECTs"
    )
    assert on_one.failed == on_two.failed == []
    assert during == before
    assert {setting for setting, *_ in before} == {"3s"}


def test_a_pooler_that_is_frozen_is_found_again(pooler: pgbouncer.PgBouncer) -> None:
    assert run_admin("migrate", DATABASE_URL=pooler.url)[0] == 0
    variables: dict[str, Any] = {"DATABASE_TIMEOUT_SECONDS": 1, "STATEMENT_TIMEOUT_SECONDS": 3}
    with AsDeployed(DATABASE_URL=pooler.url, **variables) as service, Load(service.port, clients=8) as load:
        load.wait_for(200)
        pooler.command("PAUSE")
        wait_until(lambda: len(load.failed) > 20)
        pooler.command("RESUME")
        wait_until(lambda: len(load.answers) > len(load.failed) + 2_00)
        answered = len(load.answers)
        load.wait_for(answered + 300)
    assert {(answer.status, answer.fault, answer.retry_after) for answer in load.failed} == {(503, "", "1")}
    assert max(answer.seconds for answer in load.failed) < 3 + 1 + 1 + 1.5
    assert [answer for answer in load.answers[answered:] if answer.fault] == []


def test_a_password_of_any_characters_may_stand_beside_the_url(server_url: str) -> None:
    # What AWS Secrets Manager generates: every printable character, and more than it does.
    password = "".join(map(chr, range(0x20, 0x7F))) + "ä"
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        quoted = sql.Literal(password).as_string(conn)
        conn.execute(f"CREATE ROLE {name} LOGIN PASSWORD {quoted}".encode())
        conn.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        try:
            url = at(server_url, name)
            beside: dict[str, Any] = {"DATABASE_URL": url, "PGUSER": name, "PGPASSWORD": password}
            within: dict[str, Any] = {"DATABASE_URL": at(server_url, name, f"{name}:{quote(password, safe='')}@")}
            for variables in (beside, within):
                statuses = [run_admin(command, **variables)[0] for command in ("migrate", "check")]
                status, events, _ = run_admin("config", **variables)
                assert [*statuses, status] == [0, 0, 0]
                assert password[:20] not in str(events)
            if conn.pgconn.used_password:  # an embedded server trusts everybody on this machine
                wrong = run_admin("check", **{**beside, "PGPASSWORD": "another-" + password})
                assert (wrong[0], len(wrong[1])) == (1, 1)
        finally:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            conn.execute(f"DROP ROLE {name}".encode())
