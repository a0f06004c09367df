"""The tables of the configuration's variables, made of their declarations: in `README.md` and in `.env.example`.

`python -m chassis.dev.variables` renews both.
"""

import dataclasses
import importlib
import re
import shlex
from pathlib import Path

from chassis.config import Config, variables

README, EXAMPLE = Path("README.md"), Path(".env.example")

HEAD = "| variable | unit | default | meaning |\n|---|---|---|---|\n"


def renewed(kind: type[Config]) -> dict[Path, str]:
    """Return the texts of both files as they should be, by their paths."""
    rows, lines = [], []
    example = EXAMPLE.read_text(encoding="utf-8")
    for name, (field, declared) in variables(kind).items():
        is_required = field.default is dataclasses.MISSING
        default = "" if is_required else str(field.default).lower() if field.type is bool else str(field.default)
        shown = "none, required" if is_required else default or "empty"
        meaning = f"secret; {declared.meaning}" if declared.is_secret else declared.meaning
        rows.append(f"| `{name}` | {declared.unit} | {shown} | {meaning} |\n")
        kept = re.search(rf"^{name}=.*$", example, re.MULTILINE) if is_required else None
        lines.append(f"{kept[0] if kept else f'{name}={shlex.quote(default) if default else default}'}\n")
    readme = README.read_text(encoding="utf-8")
    comments = [line for line in example.splitlines(keepends=True) if line.startswith("#")]
    return {
        README: re.sub(rf"{re.escape(HEAD)}(\|.*\n)*", lambda _: HEAD + "".join(rows), readme),
        EXAMPLE: "".join([*comments, *lines]),
    }


def examples() -> dict[str, str]:
    """Return what `.env.example` sets the service's own required variables to, for `make contract` and the tests."""
    own = variables(importlib.import_module("service.config").Config)
    required = {name for name, (field, _) in own.items() if field.default is dataclasses.MISSING}
    words = shlex.split(EXAMPLE.read_text(encoding="utf-8"), comments=True)
    pairs = {name: value for name, _, value in (word.partition("=") for word in words)}
    return {name: pairs[name] for name in required - variables(Config).keys() if name in pairs}


if __name__ == "__main__":
    for path, text in renewed(importlib.import_module("service.config").Config).items():
        path.write_text(text, encoding="utf-8")
