"""Migrations: once each, in order, by one at a time, all or nothing."""

from pathlib import Path

import psycopg
import pytest
from psycopg import Connection, sql

from chassis import migrations
from chassis.tests.schema import apply, refused, tables, url


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
        (folder / "0003_index.sql").write_text("CREATE UNIQUE INDEX IF NOT EXISTS one_id ON one (id);\n")
        if "IF NOT EXISTS" in create:
            with pytest.raises(migrations.MigrationError, match=r"0003_index\.sql left .* one_id.* `DROP INDEX IF"):
                apply(empty, folder)
        (folder / "0003_index.sql").write_text("DELETE FROM one;\n")
        (folder / "0004_none.sql").write_text("-- no transaction\nCREATE TABLE stones (one_id_of int);\n")
        assert apply(empty, folder) == ["0003_index.sql", "0004_none.sql"]


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
        refused(
            empty, folder, reason := r"0003_late\.sql does not come after 0005_five\.sql, which was applied already"
        )
        (folder / "0005_five.sql").unlink()
        refused(empty, folder, reason)


@pytest.mark.parametrize("name", ["0002_alpha.sql", "0002_zeta.sql"])
def test_a_file_that_was_renamed_after_it_was_applied_is_refused(
    empty: Connection, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with empty:
        apply(empty, folder)
        caplog.clear()
        (folder / "0002_two.sql").rename(folder / name)
        refused(empty, folder, rf"{name} does not come after 0002_two\.sql, .* the name under which it was applied")
    assert caplog.records == []


@pytest.mark.parametrize("path", ["app", "app, public"])
@pytest.mark.parametrize("first_line", ["", "-- no transaction\n"])
def test_a_file_that_moves_later_sessions_to_another_schema_has_none_applied_again(
    empty: Connection, folder: Path, first_line: str, path: str
) -> None:
    (folder / "0002_two.sql").write_text(
        f"{first_line}CREATE SCHEMA app;\nALTER DATABASE {empty.info.dbname} SET search_path = {path};\n"
    )
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int);\n")
    with empty:
        if path == "app":
            for attempt in (apply, apply, migrations.pending):
                with (
                    psycopg.connect(url(empty), autocommit=True) as later,
                    pytest.raises(
                        migrations.MigrationError,
                        match="migrations is in the schema public, to which the search_path app",
                    ),
                ):
                    attempt(later, folder)
            empty.execute("ALTER TABLE migrations SET SCHEMA app")
            assert apply(empty, folder) == ["0003_three.sql"]
        else:
            assert len(apply(empty, folder)) == 3
        assert apply(empty, folder) == []
        assert empty.execute("SELECT count(*) FROM pg_class WHERE relname = 'migrations'").fetchone() == (1,)
