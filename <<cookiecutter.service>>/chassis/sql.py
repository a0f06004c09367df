"""SQL text, split into its statements: a migration with `-- no transaction` is sent statement by statement."""

import re

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


def _without_comments(statement: str) -> str:
    """Return a statement without the white space and the comments before it."""
    return re.sub(rf"\A(\s|{_COMMENT})*", "", statement, flags=re.DOTALL)
