"""The files `deploy/<environment>.toml`: which there are, and what is read from all of them; and `.env.example`."""

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from deploy import config
from deploy.config import ConfigError

PLATFORMS = {"ARM64": "linux/arm64", "X86_64": "linux/amd64"}
"""By architecture, the platform that `docker build --platform` builds for."""

UNFILLED = "000000000000"
"""The account number in an environment file that is not filled in yet."""


def environments() -> list[str]:
    """Return the names of all environments."""
    return sorted(path.stem for path in config.ROOT.glob("deploy/*.toml"))


def accounts() -> list[str]:
    """Return the accounts of all environments whose files are filled in."""
    return sorted({read(name)["account"] for name in environments()} - {UNFILLED})


def platforms() -> str:
    """Return the platforms of all environments, as `docker build --platform` takes them."""
    return ",".join(sorted({PLATFORMS[read(name)["service"]["architecture"]] for name in environments()}))


def variables() -> dict[str, str]:
    """Return the variables of the service with their defaults, as `.env.example` has them."""
    example = (config.ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall("^([A-Z][A-Z0-9_]*)=(.*)$", example, flags=re.MULTILINE))


def bounds() -> dict[str, tuple[int, int]]:
    """Return the least and the most of the whole numbers that the service declares with both, by variable."""
    found: dict[str, tuple[int, int]] = {}
    for name, kind, given in _declarations():
        least, most = (given.get(each) for each in ("least", "most"))
        if kind == "int" and isinstance(least, ast.Constant) and isinstance(most, ast.Constant):
            found[name] = int(str(least.value)), int(str(most.value))
    return found


def secrets() -> set[str]:
    """Return the variables that the service declares as secrets."""
    return {name for name, _, given in _declarations() if ast.unparse(given.get("is_secret", ast.Pass())) == "True"}


def _declarations() -> Iterator[tuple[str, str, dict[str | None, ast.expr]]]:
    """Yield the name, the type and the named arguments of each declaration of a variable.

    The declarations are read as text: to import them would need the packages of the service.
    """
    for folder in ("chassis", "service"):
        tree = ast.parse((config.ROOT / folder / "config.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call):
                given = {each.arg: each.value for each in node.value.keywords}
                yield ast.unparse(node.target).upper(), ast.unparse(node.annotation), given


def fingerprint(tables: dict[str, Any]) -> str:
    """Return the digest of the tables of an environment file. It does not depend on comments or order."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def read(name: str) -> dict[str, Any]:
    """Return the tables of an environment's file. Checked is only what is used of it before `rules.py` was asked.

    Raises:
        ConfigError: There is no such file, it is not TOML, or it lacks an account, a region or an architecture.
    """
    known = environments()
    if name not in known:  # also what is no name of a file
        raise ConfigError(f"there is no environment {name!r}: deploy/ has {', '.join(known)}")
    try:
        tables = tomllib.loads((config.ROOT / "deploy" / f"{name}.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None
    for key in ("account", "region"):
        if not tables.get(key) or not isinstance(tables[key], str):
            raise ConfigError(f"deploy/{name}.toml: {key} must be a text that is not empty")
    service = tables.get("service")
    if not isinstance(service, dict) or service.get("architecture") not in list(PLATFORMS):
        raise ConfigError(f"deploy/{name}.toml: [service] architecture must be {' or '.join(PLATFORMS)}")
    return tables
