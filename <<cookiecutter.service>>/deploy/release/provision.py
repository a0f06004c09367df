"""Create the service's role and database, or bring them up to date. Idempotent.

It runs in a task of its own, from the service's image: `python -m deploy.release database`. The service's tables
belong to a role that cannot log in; users log in, and are members of it. So a user can be replaced while the old one
still works.
"""

import json
import os
import sys

import psycopg
from psycopg import sql

RESERVED = 15
"""Connections that are not for services, as in `deploy/consistency.py`."""

SEARCH = "SELECT 1 FROM pg_roles WHERE rolname = %s"
OTHERS = """
    SELECT coalesce(sum(connections), 0) FROM (
        SELECT max(login.rolconnlimit) AS connections
        FROM pg_auth_members
        JOIN pg_roles login ON login.oid = member AND login.rolcanlogin AND login.rolconnlimit > 0
        JOIN pg_roles owner ON owner.oid = roleid AND NOT owner.rolcanlogin AND owner.rolname <> %s
        GROUP BY roleid
    ) AS neighbours
"""
"""Connections that other services of this server may have."""


def main() -> None:
    """Create what is missing."""
    owner, user, password = os.environ["DATABASE"], os.environ["ROLE_USER"], os.environ["ROLE_PASSWORD"]
    wanted = int(os.environ["CONNECTIONS"])
    with psycopg.connect(
        host=os.environ["HOST"],
        port=os.environ.get("DATABASE_PORT", "5432"),
        user=os.environ["MASTER_USER"],
        password=os.environ["MASTER_PASSWORD"],
        dbname="postgres",
        sslmode=os.environ.get("SSLMODE", "require"),
        autocommit=True,
    ) as conn:
        free = int(conn.execute("SHOW max_connections").fetchone()[0]) - RESERVED
        taken = int(conn.execute(OTHERS, [owner]).fetchone()[0])
        if taken + wanted > free:
            sys.exit(
                f"the server has {free} connections for services, others may use {taken}, and this one needs {wanted}"
            )
        names = {"owner": sql.Identifier(owner), "user": sql.Identifier(user), "password": sql.Literal(password)}
        statements = []
        if not conn.execute(SEARCH, [owner]).fetchone():
            statements.append("CREATE ROLE {owner} NOLOGIN")
        if not conn.execute(SEARCH, [user]).fetchone():
            statements.append("CREATE ROLE {user} LOGIN")
        statements += [
            # A user with CREATEROLE, such as RDS's master, has to be a member of the role that is to own a database.
            "GRANT {owner} TO CURRENT_USER",
            "ALTER ROLE {user} PASSWORD {password} CONNECTION LIMIT {limit}",
            "GRANT {owner} TO {user}",
            "ALTER ROLE {user} SET role = {owner}",  # what a migration creates belongs to the owner
        ]
        if not conn.execute("SELECT 1 FROM pg_database WHERE datname = %s", [owner]).fetchone():
            statements.append("CREATE DATABASE {owner} OWNER {owner}")
        statements.append("REVOKE CONNECT, TEMPORARY ON DATABASE {owner} FROM PUBLIC")
        statements.append("GRANT CONNECT ON DATABASE {owner} TO {owner}")
        for statement in statements:
            conn.execute(sql.SQL(statement).format(**names, limit=sql.Literal(wanted)))
    print(json.dumps({"database": owner, "user": user, "connections": wanted}))  # noqa: T201 - the log of the task


if __name__ == "__main__":
    main()
