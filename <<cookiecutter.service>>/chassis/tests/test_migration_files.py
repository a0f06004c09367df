"""The file of a migration is read as PostgreSQL reads it, or refused by its name."""

import time
from pathlib import Path

import pytest
from psycopg import Connection

from chassis import migrations
from chassis.sql import transaction_control
from chassis.tests.schema import apply, refused, tables


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


def test_what_cannot_be_read_is_named_and_refused(empty: Connection, folder: Path) -> None:
    (folder / "0003_a.sql").mkdir()
    with empty:
        refused(empty, folder, r"0003_a\.sql cannot be read, Is a directory")
        (folder / "0003_a.sql").rmdir()
        (folder / "0003_a.sql").symlink_to("nowhere")
        refused(empty, folder, r"0003_a\.sql cannot be read, No such file")
        refused(empty, folder / "gone", r"gone cannot be read, No such file .* the folder of the migrations")


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
