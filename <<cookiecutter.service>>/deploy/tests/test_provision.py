"""The program that creates role and database, against a PostgreSQL whose master is no superuser, as on RDS."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest

from deploy import config
from deploy.service.oneoff import PROVISION
from deploy.tests.conftest import postgres_server

PYTHON = config.ROOT / ".venv" / "bin" / "python"
"""The image's Python, with psycopg."""

SQL = """
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    for statement in sys.argv[2:]:
        cursor = conn.execute(statement)
    print(cursor.fetchall() if cursor.description else "")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """Run PostgreSQL with a master user who may create roles and databases, and is no superuser."""
    with postgres_server() as url:
        sql(url, "CREATE ROLE master LOGIN PASSWORD 'm' CREATEROLE CREATEDB")
        folder = unquote(url.partition("host=")[2])
        yield {"url": url, "HOST": folder, "MASTER_USER": "master", "MASTER_PASSWORD": "m", "SSLMODE": "disable"}


def sql(url: str, *statements: str) -> str:
    done = subprocess.run([PYTHON, "-c", SQL, url, *statements], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def provision(server: dict[str, str], service: str, user: str, password: str, connections: int = 10) -> Any:
    variables = {
        "DATABASE": service,
        "ROLE_USER": user,
        "ROLE_PASSWORD": password,
        "CONNECTIONS": str(connections),
        "PATH": os.environ["PATH"],
    }
    code = PROVISION.read_text(encoding="utf-8")
    return subprocess.run(
        [PYTHON, "-c", code], env={**server, **variables}, capture_output=True, text=True, check=False
    )


def login(server: dict[str, str], database: str, user: str) -> str:
    return f"postgresql://{user}:p@/{database}?host={server['HOST']}"


def test_role_and_database_are_made_and_it_can_be_repeated(server: dict[str, str]) -> None:
    for _ in range(2):
        done = provision(server, "orders", "orders_1", "p")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {"database": "orders", "user": "orders_1", "connections": 10}
    owner = sql(
        login(server, "orders", "orders_1"),
        "CREATE TABLE made (id int)",
        "SELECT tableowner FROM pg_tables WHERE tablename = 'made'",
    )
    assert owner == "[('orders',)]"
    limit = sql(server["url"], "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'orders_1'")
    assert limit == "[(10,)]"


def test_a_new_user_works_beside_the_old_one_and_with_its_tables(server: dict[str, str]) -> None:
    provision(server, "ledger", "ledger_1", "p")
    sql(login(server, "ledger", "ledger_1"), "CREATE TABLE entries (id int)")
    assert provision(server, "ledger", "ledger_2", "p").returncode == 0
    for user in ("ledger_1", "ledger_2"):
        sql(
            login(server, "ledger", user),
            "INSERT INTO entries VALUES (1)",
            "ALTER TABLE entries ADD COLUMN IF NOT EXISTS text text",
        )


def test_the_connections_of_all_services_fit_into_the_server(server: dict[str, str]) -> None:
    provision(server, "first", "first_1", "p", connections=20)
    done = provision(server, "second", "second_1", "p", connections=90)
    assert done.returncode == 1
    assert "connections for services, others may use" in done.stderr
    assert sql(server["url"], "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'second%'") == "[(0,)]"


def test_the_service_connects_by_the_variables_of_libpq(server: dict[str, str]) -> None:
    assert provision(server, "billing", "billing_1", "p").returncode == 0
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": f"postgresql:///billing?host={server['HOST']}",
        "PGUSER": "billing_1",
        "PGPASSWORD": "p",
    }
    done = subprocess.run(
        [PYTHON, "-m", "service.admin", "migrate"],
        cwd=config.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_fits_into_a_task_definition() -> None:
    assert len(PROVISION.read_bytes()) < 8_192
