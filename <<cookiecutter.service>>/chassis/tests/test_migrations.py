"""Migrations: once each, in order, by one at a time, all or nothing."""

import time
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from chassis import migrations
from chassis.sql import transaction_control


@pytest.fixture
def empty(empty_database_url: str) -> Connection:
    """Return a connection to a database with nothing in it."""
    return psycopg.connect(empty_database_url, autocommit=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int);\nINSERT INTO one VALUES (1);\n")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (id int);\n")
    return tmp_path


def apply(conn: Connection, folder: Path) -> list[str]:
    """Apply the files to the database of `conn`."""
    return migrations.apply(partial(psycopg.connect, url(conn), autocommit=True), folder)


def url(conn: Connection) -> str:
    """Return how another connection to the database of `conn` is made."""
    return make_conninfo(conn.info.dsn, password=conn.info.password)


def tables(conn: Connection) -> set[str]:
    rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def test_files_are_applied_once_and_in_order(empty: Connection, folder: Path) -> None:
    with empty:
        assert apply(empty, folder) == ["0001_one.sql", "0002_two.sql"]
        assert apply(empty, folder) == []
        assert tables(empty) == {"migrations", "one", "two"}


def test_what_is_pending_can_be_asked_without_changing_anything(empty: Connection, folder: Path) -> None:
    with empty:
        assert migrations.pending(empty, folder) == ["0001_one.sql", "0002_two.sql"]
        assert tables(empty) == set()


def test_a_failing_statement_leaves_nothing_of_its_file(empty: Connection, folder: Path) -> None:
    (folder / "0002_two.sql").write_text("CREATE TABLE two (id int);\nSELECT 1/0;\n")
    with empty:
        with pytest.raises(migrations.MigrationError, match=r"0002_two\.sql failed, nothing of it .* division by zero"):
            apply(empty, folder)
        assert tables(empty) == {"migrations", "one"}
        (folder / "0002_two.sql").write_text("CREATE TABLE two (id int);\n")
        assert apply(empty, folder) == ["0002_two.sql"]


def test_a_file_that_was_edited_after_it_was_applied_is_refused(empty: Connection, folder: Path) -> None:
    with empty:
        apply(empty, folder)
        (folder / "0001_one.sql").write_text("CREATE TABLE one (id bigint);\n")
        for attempt in (apply, migrations.pending):
            with pytest.raises(migrations.MigrationError, match=r"0001_one\.sql was edited after it was applied"):
                attempt(empty, folder)


def test_an_index_is_built_without_a_lock_where_the_file_asks_for_it(empty: Connection, folder: Path) -> None:
    (folder / "0003_index.sql").write_text(
        "-- no transaction\nDROP INDEX CONCURRENTLY IF EXISTS one_id;\nCREATE INDEX CONCURRENTLY one_id ON one (id);\n"
    )
    with empty:
        assert "0003_index.sql" in apply(empty, folder)
        [(valid,)] = empty.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_id'::regclass")
        assert valid


def test_a_file_without_a_transaction_runs_again_from_its_start(empty: Connection, folder: Path) -> None:
    before, after = "-- no transaction\nDROP INDEX CONCURRENTLY IF EXISTS one_id;\nCREATE", "one_id ON one (id);\n"
    (folder / "0003_index.sql").write_text(f"{before} UNIQUE INDEX CONCURRENTLY {after}")
    with empty:
        empty.execute("CREATE TABLE one (id int)")
        empty.execute("INSERT INTO one VALUES (1), (1)")
        (folder / "0001_one.sql").write_text("SELECT 1;\n")
        with pytest.raises(
            migrations.MigrationError,
            match=r"0003_index\.sql failed, it will run again from its start: could not create",
        ):
            apply(empty, folder)
        assert migrations.pending(empty, folder) == ["0003_index.sql"]
        (folder / "0003_index.sql").write_text(f"{before} INDEX CONCURRENTLY {after}")
        assert apply(empty, folder) == ["0003_index.sql"]
        [(valid,)] = empty.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_id'::regclass")
        assert valid


def test_a_second_migrator_waits_for_the_first_and_gives_up(
    empty: Connection, empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_PATIENCE_SECONDS", 0)
    with empty, psycopg.connect(empty_database_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [migrations.LOCK])
        with pytest.raises(migrations.MigrationError, match="another migration"):
            apply(empty, folder)
        other.rollback()
        assert len(apply(empty, folder)) == 2


def refused(conn: Connection, folder: Path, reason: str) -> None:
    """Assert that the files are refused, for `reason`, before anything of them is applied."""
    before = tables(conn)
    for attempt in (apply, migrations.pending):
        with pytest.raises(migrations.MigrationError, match=reason):
            attempt(conn, folder)
    assert tables(conn) - {"migrations"} == before - {"migrations"}


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "commit work",
        "ROLLBACK",
        "END",
        "ABORT",
        "BEGIN",
        "START  TRANSACTION",
        "PREPARE TRANSACTION 'a'",
        "/* hello */ -- there\n COMMIT",
        "-- there\r COMMIT",
        "ROLLBACK AND CHAIN",
    ],
)
@pytest.mark.parametrize("first_line", ["", "-- no transaction\n"])
def test_a_file_that_ends_its_transaction_is_refused(
    empty: Connection, folder: Path, first_line: str, statement: str
) -> None:
    (folder / "0003_three.sql").write_text(f"{first_line}CREATE TABLE three (id int);\n{statement};\nSELECT 1;\n")
    with empty:
        refused(empty, folder, r"0003_three\.sql contains \w+")


def test_what_only_looks_like_the_end_of_a_transaction_is_applied(empty: Connection, folder: Path) -> None:
    (folder / "0003_three.sql").write_text(
        """
        CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN; -- COMMIT;
          RETURN 1; END; $body$;
        CREATE OR REPLACE FUNCTION g(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC
          SELECT CASE WHEN a > 0 THEN 1 ELSE 2 END; SELECT a; END;
        DO $$ BEGIN PERFORM 1; END $$;
        SAVEPOINT here; ROLLBACK TO SAVEPOINT here; ROLLBACK TRANSACTION TO here;
        CREATE TABLE "three;COMMIT;" (a text DEFAULT 'it''s; COMMIT;', b text DEFAULT E'\\'; COMMIT;');
        /* nested /* comment; */ COMMIT; */ SELECT (1) /* ; */ ; -- '
        CREATE RULE r AS ON DELETE TO one DO INSTEAD (SELECT 1; SELECT 2);
        """.replace("BEGIN; --", "BEGIN --")
    )
    with empty:
        assert "0003_three.sql" in apply(empty, folder)
        assert "three;COMMIT;" in tables(empty)


def test_a_file_that_ends_its_transaction_unseen_is_not_recorded(
    empty: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "transaction_control", lambda _sql: None)
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int);\nCOMMIT;\nBEGIN;\n")
    (folder / "0004_four.sql").write_text("SELECT 1;\nROLLBACK;\n")
    with empty:
        with pytest.raises(migrations.MigrationError, match=r"0003_three\.sql ended its transaction"):
            apply(empty, folder)
        (folder / "0003_three.sql").write_text("SELECT 1;\n")
        with pytest.raises(migrations.MigrationError, match=r"0004_four\.sql ended its transaction"):
            apply(empty, folder)
        assert [name for (name,) in empty.execute("SELECT name FROM migrations ORDER BY 1")][-1] == "0003_three.sql"


@pytest.mark.parametrize(
    "create",
    [
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS one_id ON one (id)",
        "CREATE UNIQUE INDEX CONCURRENTLY ON one (id)",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS One_Id ON ONE (id)",
    ],
)
def test_an_index_that_failed_half_way_is_not_recorded_as_applied(empty: Connection, folder: Path, create: str) -> None:
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id int);\nINSERT INTO one VALUES (1), (1);\n")
    (folder / "0003_index.sql").write_text(f"-- no transaction\n{create};\n")
    with empty:
        with pytest.raises(migrations.MigrationError, match="could not create unique index"):
            apply(empty, folder)
        empty.execute("DELETE FROM one WHERE ctid IN (SELECT ctid FROM one LIMIT 1)")
        with pytest.raises(
            migrations.MigrationError, match=r"0003_index\.sql left an index that is not valid.* one_id"
        ):
            apply(empty, folder)
        assert migrations.pending(empty, folder) == ["0003_index.sql"]


@pytest.mark.parametrize(
    "statement",
    [
        "SET search_path TO elsewhere",
        "SELECT set_config('search_path', 'elsewhere', false)",
        "SET SESSION AUTHORIZATION test_migrations",
        "SET ROLE test_migrations",
    ],
)
@pytest.mark.parametrize("first_line", ["", "-- no transaction\n"])
def test_what_a_file_sets_ends_with_it(empty: Connection, folder: Path, first_line: str, statement: str) -> None:
    (folder / "0001_one.sql").write_text(
        "CREATE SCHEMA elsewhere;\nCREATE ROLE test_migrations;\n"
        "GRANT ALL ON SCHEMA elsewhere, public TO test_migrations;\n"
    )
    (folder / "0002_two.sql").write_text(f"{first_line}{statement};\nSELECT 1;\n")
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int);\n")
    with empty:
        try:
            assert len(apply(empty, folder)) == 3
            assert tables(empty) == {"migrations", "three"}
        finally:
            empty.execute("DROP OWNED BY test_migrations")
            empty.execute("DROP ROLE test_migrations")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("0003_a.down.sql", b"SELECT 1;", r"0003_a\.down\.sql is not named like a migration"),
        ("._0003_a.sql", b"\0\1\2", r"\._0003_a\.sql is not named"),
        ("3_a.sql", b"SELECT 1;", r"3_a\.sql is not named"),
        ("README.md", b"", r"README\.md is not named"),
        (".DS_Store", b"", r"\.DS_Store is not named"),
        ("0003_a.sql.orig", b"", r"0003_a\.sql\.orig is not named"),
        ("0003_a.sql", "SELECT 'ä';".encode("latin-1"), r"0003_a\.sql is not UTF-8 at byte 8"),
        ("0003_a.sql", "SELECT 1;".encode("utf-16"), r"0003_a\.sql is not UTF-8"),
        ("0003_a.sql", b"SELECT 1;\0", r"0003_a\.sql contains a zero byte"),
        ("0002_other.sql", b"SELECT 1;", r"0002_other\.sql and 0002_two\.sql have the same number"),
    ],
)
def test_what_is_no_migration_is_named_and_refused(
    empty: Connection, folder: Path, name: str, content: bytes, reason: str
) -> None:
    (folder / name).write_bytes(content)
    with empty:
        refused(empty, folder, reason)


@pytest.mark.parametrize("first_line", [b"", b"-- no transaction\n"])
def test_how_an_editor_ends_lines_changes_nothing(empty: Connection, folder: Path, first_line: bytes) -> None:
    path, text = folder / "0003_three.sql", first_line + b"CREATE TABLE three (id int);\nSELECT '\xc3\xa4';\n"
    variants = [text, b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n")]
    with empty:
        path.write_bytes(variants[1])
        assert "0003_three.sql" in apply(empty, folder)
        for variant in variants:
            path.write_bytes(variant)
            assert apply(empty, folder) == []
            path.write_bytes(variant)
            empty.execute("DROP TABLE three")
            empty.execute("DELETE FROM migrations WHERE name = '0003_three.sql'")
            assert apply(empty, folder) == ["0003_three.sql"]


def test_a_carriage_return_alone_ends_a_comment_as_it_does_in_postgresql(empty: Connection, folder: Path) -> None:
    (folder / "0003_index.sql").write_bytes(
        b"-- no transaction\rCREATE INDEX CONCURRENTLY one_id ON one (id);\r-- and\rCREATE TABLE three (id int);\r"
    )
    with empty:
        assert "0003_index.sql" in apply(empty, folder)
        [(exists,)] = empty.execute("SELECT to_regclass('one_id') IS NOT NULL")
        assert exists
        assert "three" in tables(empty)


@pytest.mark.parametrize("end", ["", "\n", " \t\n", "\r"])
def test_a_first_line_asks_for_no_transaction(end: str) -> None:
    assert not migrations.Migration("0001_one.sql", f"-- no transaction{end}").is_transaction


@pytest.mark.parametrize(
    "text",
    [
        "-- no transactions are needed for this\n",
        "-- no transaction: see below\n",
        "-- no transaction is open here\r",
        "\n-- no transaction\n",
    ],
)
def test_a_comment_that_only_begins_so_asks_for_nothing(text: str) -> None:
    assert migrations.Migration("0001_one.sql", text).is_transaction


def test_a_long_text_with_many_comments_is_read_at_once() -> None:
    text = "/* old\n" + "/* a */ SELECT 1;\n" * 22
    started = time.monotonic()
    assert transaction_control(text) is None
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("first_line", ["", "-- no transaction\n"])
def test_a_role_that_limits_its_transactions_does_not_limit_migrations(
    empty: Connection, folder: Path, first_line: str
) -> None:
    (folder / "0003_three.sql").write_text(f"{first_line}SELECT pg_sleep(0.7);\nCREATE TABLE three (id int);\n")
    with empty:
        empty.execute(
            sql.SQL("ALTER DATABASE {} SET transaction_timeout = '300ms'").format(sql.Identifier(empty.info.dbname))
        )
        assert "0003_three.sql" in apply(empty, folder)


def test_a_file_that_was_applied_and_is_gone_is_named(empty: Connection, folder: Path) -> None:
    with empty:
        apply(empty, folder)
        (folder / "0001_one.sql").unlink()
        refused(empty, folder, r"0001_one\.sql was applied, and its file is gone: restore it")


def test_a_release_that_is_older_than_the_schema_says_so_and_goes_on(
    empty: Connection, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with empty:
        apply(empty, folder)
        (folder / "0002_two.sql").unlink()
        assert apply(empty, folder) == []
        [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (record.getMessage(), vars(record)["migration"]) == (
        "the schema is newer than this release",
        "0002_two.sql",
    )


def test_a_file_that_comes_before_an_applied_one_is_refused(empty: Connection, folder: Path) -> None:
    (folder / "0002_two.sql").rename(folder / "0005_five.sql")
    with empty:
        apply(empty, folder)
        (folder / "0003_late.sql").write_text("CREATE TABLE late (id int);\n")
        refused(empty, folder, r"0003_late\.sql comes before 0005_five\.sql, which was applied already")
