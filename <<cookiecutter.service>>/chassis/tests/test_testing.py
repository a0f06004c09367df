"""What the tests of a team stand on: clean tables, whatever tables there are; and a relay that keeps nothing."""

import os
import threading
from pathlib import Path

import psycopg
import pytest

from chassis.dev import postgres
from chassis.testing.process import connections_of, wait_until
from chassis.testing.relay import Relay

TABLES = """
    CREATE TABLE migrations (name text);
    CREATE SCHEMA "Odd";
    CREATE TABLE "Odd".migrations (name text);
    CREATE TABLE "Odd".catalogue (name text);
    ALTER EXTENSION plpgsql ADD TABLE "Odd".catalogue;
    CREATE TABLE parents (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE "Odd ""name" (
        parent_id bigint NOT NULL REFERENCES parents,
        self_id int UNIQUE REFERENCES "Odd ""name" (self_id)
    );
    INSERT INTO migrations VALUES ('0001.sql');
    INSERT INTO "Odd".migrations VALUES ('birds');
    INSERT INTO "Odd".catalogue VALUES ('of an extension');
    INSERT INTO parents DEFAULT VALUES;
    INSERT INTO "Odd ""name" VALUES (1, 1);
"""


def test_all_tables_are_emptied_but_those_of_extensions_and_the_record_of_migrations(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        postgres.empty(conn)  # no table at all
        conn.execute(TABLES)
        postgres.empty(conn)
        assert conn.execute('SELECT FROM parents UNION ALL SELECT FROM "Odd".migrations').fetchall() == []
        assert conn.execute('SELECT FROM "Odd ""name"').fetchall() == []
        assert conn.execute("INSERT INTO parents DEFAULT VALUES RETURNING id").fetchall() == [(1,)]
        assert conn.execute("SELECT name FROM migrations").fetchall() == [("0001.sql",)]
        assert conn.execute('SELECT name FROM "Odd".catalogue').fetchall() == [("of an extension",)]


only_linux = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="only Linux shows the open files of a process"
)


@only_linux
def test_a_process_may_close_files_while_its_connections_are_counted() -> None:
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            os.close(os.dup(0))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        assert {connections_of(os.getpid(), port=1) for _ in range(1_000)} == {0}
    finally:
        ended.set()
        changing.join()


@only_linux
@pytest.mark.parametrize("end", ["left", "cut", "forgotten"])
def test_a_relay_keeps_no_file_of_a_connection_that_has_ended(database_url: str, end: str) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    place = psycopg.conninfo.conninfo_to_dict(database_url)
    with Relay(str(place.get("host", "")), int(place.get("port") or 5432)) as relay:
        before = files()
        for _ in range(5):
            conn = psycopg.connect(relay.stands_for(database_url))
            if end == "cut":
                relay.cut()
            elif end == "forgotten":
                relay.forget()
                conn.pgconn.send_query(b"SELECT 1")  # and nobody answers
            conn.close()
        wait_until(lambda: files() <= before)
