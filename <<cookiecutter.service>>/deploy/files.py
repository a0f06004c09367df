"""The files `deploy/<environment>.toml`: which there are, and what is read from all of them; and `.env.example`."""

import hashlib
import json
import re
import tomllib
from typing import Any

from deploy import config
from deploy.config import ConfigError

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
    names = {"ARM64": "linux/arm64", "X86_64": "linux/amd64"}
    return ",".join(sorted({names[read(name)["service"]["architecture"]] for name in environments()}))


def variables() -> dict[str, str]:
    """Return the variables of the service with their defaults, as `.env.example` has them."""
    example = (config.ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall("^([A-Z_]+)=(.*)$", example, flags=re.MULTILINE))


def fingerprint(tables: dict[str, Any]) -> str:
    """Return the digest of the tables of an environment file. It does not depend on comments or order."""
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:16]


def read(name: str) -> dict[str, Any]:
    """Return the tables of an environment's file, unchecked.

    Raises:
        ConfigError: There is no such file, or it is not TOML.
    """
    path = config.ROOT / "deploy" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(environments())
        raise ConfigError(f"there is no environment {name!r}: deploy/ has {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"deploy/{name}.toml: {error}") from None
