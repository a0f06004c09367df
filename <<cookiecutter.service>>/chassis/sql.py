"""What migrations need of SQL: a text split into its statements, and a session without traces of a file.

A migration with `-- no transaction` is sent statement by statement.
"""

import re
from typing import Any

from psycopg import Connection
from psycopg.pq import TransactionStatus

_COMMENT = r"(?:--[^\n\r]*|/\*(?:[^/*]|\*(?!/)|/(?!\*)|/\*(?:[^*]|\*(?!/))*\*/)*\*/)"
"""A comment. `--` ends at a carriage return, too. `/* */` may be nested: to any depth in PostgreSQL, to one level here.

Each text can be read in one way only, or many comments would take exponential time."""

_TOKENS = re.compile(
    _COMMENT
    + r"""
    | [eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<mark>[()\[\];])
    """,
    re.VERBOSE | re.DOTALL,
)

_TRANSACTION_CONTROL = re.compile(
    r"(BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK|PREPARE\s+TRANSACTION)\b(?!\s+(WORK\s+|TRANSACTION\s+)?TO\b)",
    re.IGNORECASE,
)
"""A statement that begins or ends a transaction. `ROLLBACK TO` a savepoint does neither."""


def statements(sql: str) -> list[str]:
    """Return the statements of a text, each without its semicolon.

    A semicolon inside a string, a quoted name, a comment, parentheses or the body of a function does not end a
    statement. https://www.postgresql.org/docs/18/sql-syntax-lexical.html
    """
    found, begin, depth, blocks, words = [], 0, 0, 0, []
    for token in _TOKENS.finditer(sql):
        text = token[0].upper()
        if token.lastgroup == "word":
            words.append(text)
            # A function's body in SQL is BEGIN ATOMIC … END, and may contain CASE … END. psql counts them the same way.
            if words[0] == "CREATE" and (blocks or words[-2:] == ["BEGIN", "ATOMIC"]):
                blocks += {"ATOMIC": 1, "CASE": 1, "END": -1}.get(text, 0)
        elif text in "([":
            depth += 1
        elif text in ")]":
            depth -= 1
        elif text == ";" and depth <= 0 and blocks <= 0:
            found.append(sql[begin : token.start()])
            begin, depth, blocks, words = token.end(), 0, 0, []
    return [text for text in (*found, sql[begin:]) if _without_comments(text)]


def transaction_control(sql: str) -> str | None:
    """Return the first command in a text that begins or ends a transaction, such as `COMMIT`, or `None`."""
    for statement in statements(sql):
        if found := _TRANSACTION_CONTROL.match(_without_comments(statement)):
            return found[1].upper()
    return None


def invalid_indexes(conn: Connection[Any], text: str, *, of_tables: bool) -> list[str]:
    """Return the indexes that are not valid and that a text names, or with `of_tables` whose table it names.

    In a transaction no index is left half-way, but `IF NOT EXISTS` and the name of an index pass over one.
    """
    found = conn.execute(
        "SELECT i.relname, t.relname FROM pg_index JOIN pg_class i ON i.oid = indexrelid"
        " JOIN pg_class t ON t.oid = indrelid WHERE NOT indisvalid AND i.relkind = 'i'"
        " AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid) ORDER BY 1"
    ).fetchall()
    return [index for index, table in found if _has_word(text, index) or (of_tables and _has_word(text, table))]


def _has_word(text: str, word: str) -> bool:
    """Return whether a text contains a whole word. A name without quotes may be written in any case."""
    return bool(re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", text, re.IGNORECASE))


def lift_transaction_timeout(conn: Connection[Any]) -> None:
    """Lift the limit that a role or a database may set to its transactions: of this transaction, or of the session."""
    if conn.info.server_version < 170_000:  # noqa: PLR2004 - it is a setting since PostgreSQL 17
        return
    if conn.info.transaction_status == TransactionStatus.INTRANS:
        conn.execute("SET LOCAL transaction_timeout = 0", prepare=False)
    else:
        conn.execute("SET transaction_timeout = 0", prepare=False)


def reset(conn: Connection[Any]) -> None:
    """Reset the settings that a file has changed, such as `search_path`, so that the table `migrations` is found.

    Behind a pooler, also remove what else of a file would stay in the session of the server.
    """
    conn.execute("RESET SESSION AUTHORIZATION")
    conn.execute("RESET ROLE")
    conn.execute("RESET ALL")
    if getattr(conn, "is_pooled", False):
        conn.execute("DISCARD TEMP")
        conn.execute("SELECT pg_advisory_unlock_all()")
        # Not `DEALLOCATE ALL`: the pooler may have prepared statements of its own there.
        conn.execute(
            """
            DO $$ DECLARE prepared text; BEGIN
                FOR prepared IN SELECT name FROM pg_prepared_statements WHERE from_sql LOOP
                    EXECUTE format('DEALLOCATE %I', prepared);
                END LOOP;
            END $$
            """
        )


def _without_comments(statement: str) -> str:
    """Return a statement without the white space and the comments before it."""
    return re.sub(rf"\A(\s|{_COMMENT})*", "", statement, flags=re.DOTALL)
