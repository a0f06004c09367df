"""Refuse, in one plain line, answers that would not survive as DNS, AWS, Docker, TOML and YAML text."""

import json
import re
import sys

# As data: JSON in this form holds no apostrophe and no angle bracket, so no answer can break out of the text.
TEXT = r"""<< cookiecutter | tojson >>"""
if not TEXT.startswith("{"):  # still as it is written here
    sys.exit(
        "This template needs cookiecutter 2.6 or newer, which knows its delimiters. Upgrade it: pipx upgrade"
        " cookiecutter, or run the newest without installing: uvx cookiecutter@latest"
    )
ANSWERS = json.loads(TEXT)

TAKEN = ("platform", "postgres", "none", "public", "rdsadmin", "template0", "template1")
"""Names of something else on AWS or in PostgreSQL, as in `deploy/rules.py`."""

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DELIMITERS = r"<[%#<]|[>%#]>|\{[%#{]|[}%#]\}"  # in an order in which they are none here


def fault(service: str, description: str, domain: str) -> str:
    """Return what is wrong with the answers, in one line; nothing if they can be used."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,22}[a-z0-9]", service) or "--" in service:
        return (
            "service: use 2 to 24 lower-case letters, digits and single hyphens, beginning with a letter and not ending"
            f" with a hyphen, such as orders or user-profiles; not {service!r}"
        )
    if service in TAKEN:
        return (
            f"service: use another name, such as orders; {service!r} is the name of something on AWS or in PostgreSQL"
        )
    if not description.strip() or len(description) > 200:  # noqa: PLR2004
        return f"description: use 1 to 200 characters; not {len(description.strip())}"
    if not description.isprintable() or re.search(rf"[\"'`\\]|{DELIMITERS}", description):
        return (
            "description: use one line of text without quotes, backticks, backslashes, invisible characters and"
            f" template delimiters; not {description!a}"
        )
    if not re.fullmatch(rf"({LABEL}\.)+(?=[a-z0-9-]*[a-z]){LABEL}", domain) or len(f"postgres.{domain}") > 253:  # noqa: PLR2004
        return (
            "domain: use a DNS name of lower-case letters, digits, hyphens and dots, such as mycompany.com or"
            f" internal.example; not {domain!r}"
        )
    return ""


# This runs in the new folder, which cookiecutter removes after a refusal; the folders above it, which a slash in the
# name makes, it leaves. So does this: it could not tell them from empty ones that somebody needs.
if message := fault(*(str(ANSWERS[name]) for name in ("service", "description", "domain"))):
    sys.exit(message)
