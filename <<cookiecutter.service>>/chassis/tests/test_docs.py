"""What the documents claim is so."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chassis import config
from chassis.testing.process import Gunicorn, free_port, wait_until

README = Path("README.md").read_text(encoding="utf-8")
VARIABLES = [field.name.upper() for field in dataclasses.fields(config.Config) if field.name != "service"]


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Each variable's default, as text; nothing for the one that has none."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@host/database")
    loaded = dataclasses.asdict(config.load()).items()
    shown = {name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in loaded}
    return {name: shown[name] for name in VARIABLES if name != "DATABASE_URL"}


def test_the_readme_lists_every_variable_with_its_default(defaults: dict[str, str]) -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", README, re.MULTILINE)
    assert [name for name, *_ in rows] == VARIABLES
    listed = {name: "" if default == "empty" else default for name, _unit, default, _meaning in rows}
    assert listed == {"DATABASE_URL": "none, required", **defaults}


def test_the_example_lists_every_variable_with_its_default(defaults: dict[str, str]) -> None:
    lines = Path(".env.example").read_text(encoding="utf-8").splitlines()
    listed = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert list(listed) == VARIABLES
    assert {name: listed[name] for name in defaults} == defaults
    assert listed["DATABASE_URL"].startswith("postgresql://")


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(
        r"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:py|txt|toml|yaml|yml|example)|/))`|`(Dockerfile|Procfile)`", README
    )
    paths = {first or second for first, second in named}
    assert len(paths) > 10
    assert [path for path in sorted(paths) if not Path(path).exists()] == []


def test_every_target_that_the_readme_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^make .*$", README, re.MULTILINE))))
    assert named
    assert named <= targets


def test_each_factor_has_its_row_and_its_file_says_so() -> None:
    numerals = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
    assert re.findall(r"^\| ([IVX]+) [A-Z]", README, re.MULTILINE) == numerals
    for numeral, path in re.findall(r"^\| ([IVX]+) [^|]+\|[^|]+\| `(service/\w+\.py)`", README, re.MULTILINE):
        assert Path(path).read_text(encoding="utf-8").startswith(f'"""Factor {numeral}: '), path


def test_imports_go_down_only() -> None:
    floors = [
        {"admin"},
        {"app"},
        {"routes", "health", "tokens", "worker"},
        {"notes", "contract", "db", "edge", "errors", "logs", "migrations", "lifecycle", "traces"},
        {"config"},
    ]
    level = {name: number for number, names in enumerate(floors) for name in names}
    for path in [*Path("service").glob("*.py"), Path("service/migrations/__init__.py")]:
        name = path.parent.name if path.stem == "__init__" else path.stem
        for line in re.findall(r"^from service(?:\.\w+)? import .*$", path.read_text(encoding="utf-8"), re.MULTILINE):
            modules = (
                re.findall(r"\w+", line.partition(" import ")[2])
                if "service import" in line
                else [line.split(".")[1].split()[0]]
            )
            assert all(level[module] > level[name] for module in modules), f"{path}: {line}"


@pytest.mark.skipif(shutil.which("jq") is None and "CI" not in os.environ, reason="there is no jq here")
def test_the_commands_over_a_log_say_what_is_in_it(gunicorn: Gunicorn, processes: ExitStack, tmp_path: Path) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    without_database = processes.enter_context(Gunicorn(DATABASE_URL=nowhere, DATABASE_TIMEOUT_SECONDS=1))
    without_database.get("/notes")
    with gunicorn.client() as client:
        for path in ["/livez", "/made-up", "/notes?limit=0", *["/notes"] * 20]:
            client.get(path)
    without_database.wait_for("GET /notes 503")
    os.kill(without_database.workers()[0], signal.SIGKILL)
    wait_until(lambda: any(event["severity_text"] == "ERROR" for event in without_database.events))
    gunicorn.wait_for("GET /notes 200", 20)
    log = list(gunicorn.lines) + list(without_database.lines)
    (tmp_path / "service.log").write_bytes(b"".join(log))
    [block] = re.findall(
        r"^```sh\n(.*?)^```", Path("docs/operations.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    rates, failures, operations, waits = (
        subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout  # noqa: S607
        for command in block.split("\n\n")
    )

    events = [json.loads(line) for line in log]
    lines = [event for event in events if event["logger"] == "access"]
    assert counted(rates) == Counter(line["timestamp"][:16] for line in lines)
    failed = (e for e in events if e.get("http.response.status_code", 0) >= 500 or e["severity_text"] == "ERROR")
    assert counted(failures) == Counter(event["body"] for event in failed)
    assert "GET /notes 503" in failures
    by_operation: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        by_operation.setdefault((line["http.request.method"], line["http.route"]), []).append(line["duration_ms"])
    assert {(method, route): figures for method, route, *figures in rows(operations)} == {
        operation: [len(times), percentile(times, 0.5), percentile(times, 0.99)]
        for operation, times in by_operation.items()
    }
    waited = [line["db_pool_wait_ms"] for line in lines if "db_pool_wait_ms" in line]
    assert rows(waits) == [[len(waited), percentile(waited, 0.5), percentile(waited, 0.99), max(waited)]]
    assert max(waited) > 900


def counted(output: str) -> Counter[str]:
    """What `uniq -c` counted."""
    return Counter({text: int(count) for count, text in (line.split(maxsplit=1) for line in output.splitlines())})


def rows(output: str) -> list[list[Any]]:
    """A table whose columns are tabs apart."""
    return [
        [float(cell) if re.fullmatch(r"[0-9.e-]+", cell) else cell for cell in line.split("\t")]
        for line in output.splitlines()
    ]


def percentile(values: list[float], share: float) -> float:
    """The least value that so much of them does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]
