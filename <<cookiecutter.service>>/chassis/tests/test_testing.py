"""What the tests of a team stand on: clean tables, whatever tables there are."""

import psycopg

from chassis.dev import postgres

TABLES = """
    CREATE TABLE migrations (name text);
    CREATE TABLE parents (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE "Odd ""name" (
        parent_id bigint NOT NULL REFERENCES parents,
        self_id int UNIQUE REFERENCES "Odd ""name" (self_id)
    );
    INSERT INTO migrations VALUES ('0001.sql');
    INSERT INTO parents DEFAULT VALUES;
    INSERT INTO "Odd ""name" VALUES (1, 1);
"""


def test_all_tables_are_emptied_but_the_record_of_the_migrations(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        postgres.empty(conn)  # no table at all
        conn.execute(TABLES)
        postgres.empty(conn)
        assert conn.execute("SELECT FROM parents").fetchall() == []
        assert conn.execute('SELECT FROM "Odd ""name"').fetchall() == []
        assert conn.execute("INSERT INTO parents DEFAULT VALUES RETURNING id").fetchall() == [(1,)]
        assert conn.execute("SELECT name FROM migrations").fetchall() == [("0001.sql",)]
