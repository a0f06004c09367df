"""Factor XII: one-off processes, as a platform runs them."""

import signal
import subprocess
import sys

import psycopg
import pytest

from service import migrations
from tests.process import environment, run_admin, wait_until

FILES = sorted(path.name for path in migrations.FOLDER.glob("*.sql"))


def test_migrate_makes_the_schema_and_may_be_repeated(empty_database_url: str) -> None:
    first = run_admin("migrate", DATABASE_URL=empty_database_url)
    second = run_admin("migrate", DATABASE_URL=empty_database_url)
    assert (first[0], first[2]) == (second[0], second[2]) == (0, "")
    assert first[1][-1]["applied"] == FILES
    assert second[1][-1]["applied"] == []


def test_three_migrators_at_once_apply_everything_once(empty_database_url: str) -> None:
    command = [sys.executable, "-m", "service.admin", "migrate"]
    env = environment(DATABASE_URL=empty_database_url)
    migrators = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [migrator.communicate(timeout=60)[0] for migrator in migrators]
    assert [migrator.returncode for migrator in migrators] == [0, 0, 0]
    assert sum(text.count('"body":"applied"') for text in said) == len(FILES)


def test_a_killed_migrator_leaves_nothing_behind(empty_database_url: str) -> None:
    columns = "name text PRIMARY KEY, checksum text, applied_at timestamptz DEFAULT now()"
    with (
        psycopg.connect(empty_database_url, autocommit=True) as conn,
        psycopg.connect(empty_database_url, autocommit=True) as observer,
    ):
        conn.execute(f"CREATE TABLE migrations ({columns})".encode())
        with conn.transaction():  # a reader in the way makes the migrator wait in the middle of its file
            conn.execute("LOCK TABLE migrations IN SHARE MODE")
            migrator = subprocess.Popen(
                [sys.executable, "-m", "service.admin", "migrate"],
                env=environment(DATABASE_URL=empty_database_url),
                stdout=subprocess.DEVNULL,
            )
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'migrations'::regclass"
            wait_until(lambda: observer.execute(waiting).fetchone())
            migrator.send_signal(signal.SIGKILL)
            migrator.wait()
        status, events, _ = run_admin("migrate", DATABASE_URL=empty_database_url)
        assert (status, events[-1]["applied"]) == (0, FILES)


def test_check_says_what_is_missing_and_then_that_nothing_is(empty_database_url: str) -> None:
    status, events, _ = run_admin("check", DATABASE_URL=empty_database_url)
    assert status == 1
    assert FILES[0] in events[-1]["body"]
    run_admin("migrate", DATABASE_URL=empty_database_url)
    status, events, _ = run_admin("check", DATABASE_URL=empty_database_url)
    assert (status, events[-1]["body"]) == (0, "everything can be reached")


def test_a_database_that_is_away_is_one_line_and_a_failure() -> None:
    status, [event], stderr = run_admin("check", DATABASE_URL="postgresql://me:hunter2-hunter2@127.0.0.1:1/notes")
    assert (status, event["severity_text"], stderr) == (1, "ERROR", "")
    assert "hunter2" not in str(event)


def test_config_shows_everything_but_the_password() -> None:
    status, [event], _ = run_admin("config", DATABASE_URL="postgresql://me:pw@host/notes", DRAIN_SECONDS=7)
    assert status == 0
    assert (event["DRAIN_SECONDS"], event["DATABASE_URL"]) == (7, "postgresql://me:***@host/notes")


@pytest.mark.parametrize("arguments", [[], ["destroy"], ["migrate", "twice"]])
def test_an_unknown_command_is_one_line_and_a_failure(arguments: list[str]) -> None:
    status, [event], stderr = run_admin(*arguments)
    assert (status, event["severity_text"], stderr) == (64, "ERROR", "")


def test_a_refused_configuration_names_every_fault_in_one_line() -> None:
    status, [event], stderr = run_admin("migrate", PORT="http")
    assert (status, set(event["faults"]), stderr) == (78, {"DATABASE_URL", "PORT"}, "")


def test_help_is_for_people() -> None:
    command = [sys.executable, "-m", "service.admin", "--help"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in ("migrate", "config", "check"))
