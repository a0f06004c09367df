"""Migrations: once each, in order, by one at a time, all or nothing."""

from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from chassis import migrations


@pytest.fixture
def empty(empty_database_url: str) -> Connection:
    """Return a connection to a database with nothing in it."""
    return psycopg.connect(empty_database_url, autocommit=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int);\nINSERT INTO one VALUES (1);\n")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (id int);\n")
    return tmp_path


def tables(conn: Connection) -> set[str]:
    rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def test_files_are_applied_once_and_in_order(empty: Connection, folder: Path) -> None:
    with empty:
        assert migrations.apply(empty, folder) == ["0001_one.sql", "0002_two.sql"]
        assert migrations.apply(empty, folder) == []
        assert tables(empty) == {"migrations", "one", "two"}


def test_what_is_pending_can_be_asked_without_changing_anything(empty: Connection, folder: Path) -> None:
    with empty:
        assert migrations.pending(empty, folder) == ["0001_one.sql", "0002_two.sql"]
        assert tables(empty) == set()


def test_a_failing_statement_leaves_nothing_of_its_file(empty: Connection, folder: Path) -> None:
    (folder / "0002_two.sql").write_text("CREATE TABLE two (id int);\nSELECT 1/0;\n")
    with empty:
        with pytest.raises(migrations.MigrationError, match=r"0002_two\.sql failed, nothing of it .* division by zero"):
            migrations.apply(empty, folder)
        assert tables(empty) == {"migrations", "one"}
        (folder / "0002_two.sql").write_text("CREATE TABLE two (id int);\n")
        assert migrations.apply(empty, folder) == ["0002_two.sql"]


def test_a_file_that_was_edited_after_it_was_applied_is_refused(empty: Connection, folder: Path) -> None:
    with empty:
        migrations.apply(empty, folder)
        (folder / "0001_one.sql").write_text("CREATE TABLE one (id bigint);\n")
        for attempt in (migrations.apply, migrations.pending):
            with pytest.raises(migrations.MigrationError, match=r"0001_one\.sql was edited after it was applied"):
                attempt(empty, folder)


def test_an_index_is_built_without_a_lock_where_the_file_asks_for_it(empty: Connection, folder: Path) -> None:
    (folder / "0003_index.sql").write_text(
        "-- no transaction\nDROP INDEX CONCURRENTLY IF EXISTS one_id;\nCREATE INDEX CONCURRENTLY one_id ON one (id);\n"
    )
    with empty:
        assert "0003_index.sql" in migrations.apply(empty, folder)
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
            migrations.apply(empty, folder)
        assert migrations.pending(empty, folder) == ["0003_index.sql"]
        (folder / "0003_index.sql").write_text(f"{before} INDEX CONCURRENTLY {after}")
        assert migrations.apply(empty, folder) == ["0003_index.sql"]
        [(valid,)] = empty.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'one_id'::regclass")
        assert valid


def test_a_second_migrator_waits_for_the_first_and_gives_up(
    empty: Connection, empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_PATIENCE_SECONDS", 0)
    with empty, psycopg.connect(empty_database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [migrations.LOCK])
        with pytest.raises(migrations.MigrationError, match="another migration"):
            migrations.apply(empty, folder)
        other.execute("SELECT pg_advisory_unlock(%s)", [migrations.LOCK])
        assert len(migrations.apply(empty, folder)) == 2
